from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtbench.environment import find_driver_cuda, fitting_extra, gpus
from trtbench.environment.gpus import ask_nvidia_smi, cuda_of_driver, find_driver_version

_PROJECT = Path(__file__).parents[2]
_PROPRIETARY = """\
NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024
GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)
"""
_OPEN = """\
NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)
GCC version:  gcc version 13.3.0
"""


class _Libcuda:
    """libcuda.so.1 with its one function that needs no context."""

    def __init__(self, *, version: int, status: int = 0) -> None:
        self.version, self.status = version, status

    def cuDriverGetVersion(self, pointer: Any) -> int:  # noqa: N802  the library's own spelling
        pointer._obj.value = self.version
        return self.status


def _absent(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


@pytest.mark.parametrize(
    ("cuda", "lowest_sm", "extra"),
    [
        (None, None, ""),
        ((11, 8), (8, 0), ""),
        ((12, 0), None, "cu12"),
        ((12, 9), (9, 0), "cu12"),
        ((13, 0), None, "cu13"),
        ((13, 2), (7, 5), "cu13"),
        ((13, 0), (7, 0), "cu12-base"),  # Volta has no CUDA 13 and no TensorRT, even under driver 580
        ((12, 4), (6, 1), "cu12-base"),
    ],
)
def test_the_extra_fits_driver_and_gpu(
    cuda: tuple[int, int] | None, lowest_sm: tuple[int, int] | None, extra: str
) -> None:
    assert fitting_extra(cuda, lowest_sm=lowest_sm) == extra


@given(st.integers(400, 700), st.integers(0, 200))
def test_a_driver_branch_runs_cuda_12_from_525_and_cuda_13_from_580(branch: int, minor: int) -> None:
    expected = "cu13" if branch >= 580 else "cu12" if branch >= 525 else ""

    assert fitting_extra(cuda_of_driver(f"{branch}.{minor:02}")) == expected


def test_libcuda_is_asked_first(tmp_path: Path) -> None:
    _write_proc(tmp_path, _PROPRIETARY)

    assert find_driver_cuda(root=tmp_path, load=lambda _: _Libcuda(version=12080)) == (12, 8)


@pytest.mark.parametrize("library", [_Libcuda(version=12080, status=34), _Libcuda(version=0), object()])
def test_a_stub_of_libcuda_is_not_believed(library: object, tmp_path: Path) -> None:
    _write_proc(tmp_path, _OPEN)

    assert find_driver_cuda(root=tmp_path, load=lambda _: library) == (13, 0)


@pytest.mark.parametrize(("text", "version"), [(_PROPRIETARY, "550.54.14"), (_OPEN, "580.65.06"), ("nonsense", None)])
def test_the_kernel_module_tells_its_version(text: str, version: str | None, tmp_path: Path) -> None:
    _write_proc(tmp_path, text)

    assert find_driver_version(root=tmp_path) == version
    assert find_driver_cuda(root=tmp_path, load=_absent) == cuda_of_driver(version)


def test_nvidia_smi_is_asked_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _nvidia_smi(tmp_path, "echo '535.104.05, 8.0'; echo '535.104.05, 7.0'")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    assert find_driver_version(root=tmp_path) == "535.104.05"
    assert find_driver_cuda(root=tmp_path, load=_absent) == (12, 0)


def test_nvidia_smi_tells_version_and_compute_capability_of_each_gpu(tmp_path: Path) -> None:
    command = _nvidia_smi(tmp_path, "echo '535.104.05, 8.0'; echo '535.104.05, 7.0'")

    assert ask_nvidia_smi(command) == (("535.104.05", (8, 0)), ("535.104.05", (7, 0)))


@pytest.mark.parametrize("script", ["echo 'NVIDIA-SMI has failed'; exit 9", "echo '470.57, [N/A]'"])
def test_what_nvidia_smi_does_not_say_is_nothing(script: str, tmp_path: Path) -> None:
    assert ask_nvidia_smi(_nvidia_smi(tmp_path, script)) == ()
    assert ask_nvidia_smi(str(tmp_path / "absent")) == ()


def test_without_a_driver_there_is_nothing_to_find_or_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delattr("subprocess.run")

    assert find_driver_version(root=tmp_path) is None
    assert find_driver_cuda(root=tmp_path, load=_absent) is None
    assert cuda_of_driver("390.157") is None


def test_the_extra_is_named_before_any_package_is_installed(tmp_path: Path) -> None:
    """-S keeps site-packages away, -E and -s the user's own; only the source tree and the standard library are left."""
    command = [sys.executable, "-S", "-E", "-s"]
    asked = re.search(r"^EXTRAS .*\(PYTHON\) -c \"(.*)\"\)$", (_PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert asked is not None
    bare = subprocess.run([*command, "-c", "import torch"], cwd=_PROJECT, capture_output=True, check=False)
    named = subprocess.run(
        [*command, "-W", "error", "-c", asked.group(1)],
        cwd=_PROJECT,
        env={"PATH": str(tmp_path), "PYTHONPYCACHEPREFIX": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert b"ModuleNotFoundError" in bare.stderr
    assert named.stdout.strip() in {"", "cu12", "cu13"}
    assert named.stdout.endswith("\n")
    assert named.stderr == ""


def test_the_extra_of_this_machine_fits_its_driver_and_its_oldest_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _nvidia_smi(tmp_path, "echo '580.65.06, 9.0'; echo '580.65.06, 7.0'")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(gpus, "find_driver_cuda", lambda: (13, 0))

    assert gpus.extra_here() == "cu12-base"


def _write_proc(root: Path, text: str) -> None:
    path = root / "proc/driver/nvidia/version"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def _nvidia_smi(folder: Path, script: str) -> str:
    command = folder / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    return str(command)
