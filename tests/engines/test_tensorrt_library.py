"""Which TensorRT is installed, what its logger said, and why there may be none."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from trtbench.engines.base import resolve_backend, why_not_tensorrt
from trtbench.engines.tensorrt.library import LogLines, _made, abilities
from trtbench.errors import CapabilityError, DeviceError, EngineError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Fake = Callable[[str], None]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put a module of that version where TensorRT would be; it has nothing else."""

    def install(version: str) -> None:
        module = ModuleType("tensorrt")
        module.__dict__["__version__"] = version
        monkeypatch.setitem(sys.modules, "tensorrt", module)

    return install


@pytest.mark.parametrize("version", ["8.6.1", "12.0.0.1", "built by hand"])
def test_another_major_is_refused_with_the_command_that_installs_one_that_fits(version: str, installed: Fake) -> None:
    installed(version)

    with pytest.raises(CapabilityError, match=rf"expected 10\.x or 11\.x, got {version}; pip install"):
        abilities()


def test_without_tensorrt_its_absence_is_told_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)

    with pytest.raises(CapabilityError, match=r"package 'tensorrt'.*install the extra"):
        abilities()
    assert resolve_backend("auto") == "onnxruntime-cpu"
    assert "TensorRT is not installed; pip install" in why_not_tensorrt()


def test_a_library_that_is_missing_is_told_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)

    with pytest.raises(CapabilityError, match=r"libnvinfer\.so\.10.*force-reinstall"):
        abilities()


def test_the_package_and_the_choice_of_a_runtime_import_no_gpu_package() -> None:
    code = (
        "import sys, trtbench.engines.tensorrt, trtbench.engines.base as base\n"
        "base.resolve_backend('eager')\n"
        "heavy = ('tensorrt', 'cupy', 'pycuda', 'torch', 'onnx', 'onnxruntime')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert run.stdout.strip() == "[]"


def test_errors_of_the_logger_are_told_once_each_and_the_last_ones() -> None:
    lines = LogLines()
    for number in range(8):
        lines.add("ERROR", f"fault {number}\n")
        lines.add("ERROR", f"fault {number}\n")
    lines.add("WARNING", "careful")
    lines.add("INTERNAL_ERROR", "deep fault")

    error = lines.error("the build", cure="try again")

    assert type(error) is EngineError
    assert error.got == "fault 4; fault 5; fault 6; fault 7; deep fault"
    assert lines.warnings == ("careful",)
    assert "try again" in str(error)


@pytest.mark.parametrize(
    "said",
    [
        "[defaultAllocator.cpp::allocate::33] Error Code 1: Cuda Runtime (out of memory)",
        "Error Code 2: OutOfMemory (Requested size was 8589934592 bytes.)",
        "Tactic requires 123 MiB: insufficient memory",
    ],
)
def test_out_of_memory_is_an_error_of_its_own(said: str) -> None:
    lines = LogLines()
    lines.add("ERROR", said)

    error = lines.error("the build", cure="try again")

    assert isinstance(error, OutOfMemoryError)
    assert "workspace_mib" in error.cure


@pytest.mark.parametrize(
    "said",
    [
        "Error Code 1: Myelin (Tactic Selection: no tactics to implement the operation within workspace limit.",
        "Error Code 2: Internal Error (Please increase the workspace memory provided to the builder.",
        "Error Code 10: Could not find any implementation for node conv1 due to insufficient workspace.",
    ],
)
def test_a_workspace_that_is_too_small_has_a_cure_of_its_own(said: str) -> None:
    lines = LogLines()
    lines.add("ERROR", said)

    assert "raise workspace_mib" in lines.error("the build", cure="try another precision").cure


def test_a_library_that_gives_a_nullptr_has_no_device() -> None:
    def fail() -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    with pytest.raises(
        DeviceError, match=r"TensorRT's builder.*factory function returned nullptr; `trtbench gpu-info`"
    ):
        _made(fail, "builder", LogLines())


def test_a_silent_failure_says_that_it_was_silent() -> None:
    assert "no word of" in str(LogLines().error("the build", cure="try again"))


def test_only_the_newest_lines_are_kept() -> None:
    lines = LogLines()
    for number in range(1000):
        lines.add("WARNING", str(number))

    assert len(lines.warnings) == 400
    assert lines.warnings[-1] == "999"
