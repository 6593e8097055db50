"""The hardware tests of a checkout, run by pytest, and what came of them by marker."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from trtbench.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

# marker -> what pytest selects by; a test of TensorRT needs CUDA too and counts once.
MARKERS = {"gpu": "gpu and not tensorrt", "tensorrt": "tensorrt"}
_NOTHING_COLLECTED = 5  # pytest's exit code


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkerTests:
    """The tests of one marker.

    Args:
        marker: gpu or tensorrt.
        status: `run`, or `not run: ` and why.
        passed: how many.
        failures: the names of those that failed, and those that broke before they began.
        skipped: the reasons of those that skipped themselves, each once for every test.
    """

    marker: str
    status: str
    passed: int = 0
    failures: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


def run_tests(folder: Path, *, marker: str) -> MarkerTests:
    """Run the tests of one marker.

    Args:
        folder: the tests of a checkout; pytest runs in the folder above, where their settings are.
        marker: one of `MARKERS`.

    Raises:
        ConfigError: pytest itself does not run.
    """
    with tempfile.TemporaryDirectory(prefix="trtbench-") as scratch:
        report = Path(scratch) / "junit.xml"
        command = [sys.executable, "-m", "pytest", str(folder.resolve()), "-q", "-m", MARKERS[marker]]
        command += [f"--junitxml={report}", "-p", "no:cacheprovider"]
        done = subprocess.run(command, cwd=folder.resolve().parent, capture_output=True, text=True, check=False)
        if done.returncode == _NOTHING_COLLECTED:
            return MarkerTests(marker=marker, status=f"not run: no test under {folder} is marked {marker}")
        if not report.is_file():
            raise ConfigError(
                f"tests under {folder}",
                expected="a run of pytest",
                got=(done.stdout + done.stderr).strip()[-500:],
                cure="pip install 'trtbench[dev]', or leave the tests out: --no-tests",
            )
        return read_junit(report.read_text(encoding="utf-8"), marker=marker)


def read_junit(text: str, *, marker: str) -> MarkerTests:
    """Count what pytest's JUnit XML says."""
    cases = list(ET.fromstring(text).iter("testcase"))  # noqa: S314  written by the pytest that was started here
    failures = tuple(
        f"{case.get('classname', '')}::{case.get('name', '')}" for case in cases if _has(case, "failure", "error")
    )
    skipped = tuple(reason for case in cases for reason in _reasons(case))
    passed = sum(not _has(case, "failure", "error", "skipped") for case in cases)
    return MarkerTests(marker=marker, status="run", passed=passed, failures=failures, skipped=skipped)


def _has(case: ET.Element, *kinds: str) -> bool:
    return any(case.find(kind) is not None for kind in kinds)


def _reasons(case: ET.Element) -> Iterator[str]:
    for found in case.iter("skipped"):
        yield found.get("message", "")
