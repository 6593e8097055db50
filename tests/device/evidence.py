"""What ran on this machine, for docs/evidence: hardware, versions, the hardware tests by marker and a suite's rows.

python -m tests.device.evidence --suite quickstart
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.device.hardware_tests import MARKERS, MarkerTests, run_tests
from trtbench import __version__
from trtbench.cli.screen import Screen
from trtbench.disk import write_atomically
from trtbench.environment import collect_environment, gpu_info, missing, missing_for_tensorrt
from trtbench.jsonable import to_jsonable
from trtbench.make.makings import Places
from trtbench.progress import Event, Listener, nobody
from trtbench.running.run import run_suite
from trtbench.suite import load_suite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trtbench.environment import Environment, GpuInfo
    from trtbench.rows import Row
    from trtbench.suite import Suite

SCHEMA_VERSION = 1
_FAILED = 3
_NO_CHECKOUT = "not run: no checkout with tests at hand"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one command found out on one machine.

    Args:
        name: of the file.
        created: ISO 8601.
        trtbench: its version.
        git: commit and whether it was changed.
        cuda: `run`, or `not run: ` and why.
        tensorrt: likewise.
        machine: what `trtbench gpu-info` says.
        tests: by marker.
        suite: as written, with what was measured under it.
        rows: of the report.
        answer: the report's recommendation, in a sentence.
    """

    name: str
    created: str
    trtbench: str
    git: Mapping[str, Any]
    cuda: str
    tensorrt: str
    machine: GpuInfo
    tests: tuple[MarkerTests, ...]
    suite: Mapping[str, Any]
    rows: tuple[Row, ...]
    answer: str
    schema_version: int = SCHEMA_VERSION


def collect_evidence(
    suite: Suite,
    places: Places,
    *,
    argv: Sequence[str],
    now: datetime,
    name: str | None = None,
    tests: Path | None = None,
    tell: Listener = nobody,
) -> Evidence:
    """Run the hardware tests and a suite on this machine.

    Args:
        suite: what is measured, on the runtimes it names that are here.
        places: folders of the run.
        argv: the command, for the run's report.
        now: when it began.
        name: of the evidence; by default the day, the suite and the GPU.
        tests: the tests of a checkout; None runs none.
        tell: told of progress.

    Raises:
        ConfigError: the suite's data cannot be used, or pytest does not run.
    """
    environment = collect_environment()
    absent = why_not(environment)
    found = tuple(_tests(tests, marker, absent[marker], tell) for marker in MARKERS)
    report, _ = run_suite(suite, places, argv=argv, now=now, tell=tell)
    return Evidence(
        name=name or usual_name(environment, suite=suite.name, now=now),
        created=now.isoformat(timespec="seconds"),
        trtbench=__version__,
        git=to_jsonable(environment.git) or {},
        cuda=absent["gpu"] or "run",
        tensorrt=absent["tensorrt"] or "run",
        machine=gpu_info(environment),
        tests=found,
        suite=report.suite,
        rows=report.rows,
        answer=report.decision.sentence,
    )


def why_not(environment: Environment) -> dict[str, str]:
    """Return for each marker why its tests cannot run here, as `not run: ...`; "" where they can."""
    lacks = {"gpu": missing(environment, require=("gpu",)), "tensorrt": missing_for_tensorrt(environment)}
    return {
        marker: f"not run: {'; '.join(dict.fromkeys(one.reason for one in found))}" if found else ""
        for marker, found in lacks.items()
    }


def usual_name(environment: Environment, *, suite: str, now: datetime) -> str:
    """Name evidence by the day, the suite and the GPU, or `cpu` without one."""
    gpus = environment.usable_gpus
    device = re.sub(r"[^a-z0-9]+", "-", gpus[0].name.lower()).strip("-") if gpus else "cpu"
    return f"{now:%Y%m%d}-{suite}-{device}"


def write_evidence(evidence: Evidence, folder: Path) -> Path:
    """Write evidence as JSON and return where it stands.

    Raises:
        StoreError: it cannot be written.
    """
    path = folder / f"{evidence.name}.json"
    write_atomically(path, json.dumps(to_jsonable(evidence), indent=1) + "\n")
    return path


def _tests(folder: Path | None, marker: str, absent: str, tell: Listener) -> MarkerTests:
    if absent or folder is None or not folder.is_dir():
        return MarkerTests(marker=marker, status=absent or _NO_CHECKOUT)
    tell(Event(stage="tests", item=marker, state="started"))
    found = run_tests(folder, marker=marker)
    detail = f"{found.passed} passed, {len(found.failures)} failed, {len(found.skipped)} skipped"
    tell(Event(stage="tests", item=marker, state="failed" if found.failures else "done", detail=detail))
    return found


def main() -> None:
    """Run the hardware tests and a suite here, and write one file; exit 3 where a test or a row failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="quickstart", help="a suite file or a shipped suite")
    parser.add_argument("--name", help="of the file; by default the day, the suite and the GPU")
    parser.add_argument("--to", type=Path, default=Path("docs/evidence"), help="the folder the file is written to")
    parser.add_argument("--tests", type=Path, default=Path("tests"), help="the tests of a checkout")
    parser.add_argument("--no-tests", action="store_true", help="measure only")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of runs and of the store")
    parser.add_argument("--engines", type=Path, default=Path("engines"), help="folder of engine files")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    asked = parser.parse_args()
    with Screen(is_quiet=asked.quiet) as screen:
        found = collect_evidence(
            load_suite(asked.suite),
            Places(runs=asked.out, engines=asked.engines),
            argv=[Path(sys.argv[0]).name, *sys.argv[1:]],
            now=datetime.now(UTC).astimezone(),
            name=asked.name,
            tests=None if asked.no_tests else asked.tests,
            tell=screen,
        )
    path = write_evidence(found, asked.to)
    sys.stdout.write("\n".join([*_lines(found), f"Evidence: {path}"]) + "\n")
    if any(one.failures for one in found.tests) or any(row.status in {"failed", "oom"} for row in found.rows):
        sys.exit(_FAILED)


def _lines(found: Evidence) -> list[str]:
    lines = [f"cuda: {found.cuda}", f"tensorrt: {found.tensorrt}"]
    for one in found.tests:
        counts = f"{one.passed} passed, {len(one.failures)} failed, {len(one.skipped)} skipped"
        lines.append(f"tests marked {one.marker}: {counts if one.status == 'run' else one.status}")
        lines += [f"  failed: {failure}" for failure in one.failures]
    ok = sum(row.status == "ok" for row in found.rows)
    return [*lines, f"suite {found.suite['name']}: {ok} of {len(found.rows)} rows measured. {found.answer}"]


if __name__ == "__main__":
    main()
