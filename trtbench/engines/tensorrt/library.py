"""The door to TensorRT: its import, which major it is and what that major can do, and the lines of its logger.

Nothing here imports TensorRT before a function is called. What a major can do is asked of its names, never read off a
number: enum values were given other integers in 11, and classes are gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from trtbench import _optional
from trtbench.environment import collect_environment, missing_for_tensorrt
from trtbench.environment.verdicts import TENSORRT_MAJORS, install_tensorrt
from trtbench.errors import CapabilityError, DeviceError, EngineError, OutOfMemoryError, TrtbenchError

if TYPE_CHECKING:
    from collections.abc import Callable

    import tensorrt as trt

_Made = TypeVar("_Made")
_KEPT_LINES = 400  # a long build warns thousands of times; its last words count
_TOLD_LINES = 5
_FAULTS = ("INTERNAL_ERROR", "ERROR")
# As in "Error Code 2: OutOfMemory (Requested size was 8589934592 bytes.)" and "Cuda Runtime (out of memory)".
_OUT_OF_MEMORY = re.compile(r"out\s?of\s?memory|insufficient memory", re.IGNORECASE)
# As in "no tactics to implement the operation within workspace limit" and "Please increase the workspace memory".
_SMALL_WORKSPACE = re.compile(r"within workspace limit|increase the workspace|insufficient workspace", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What the installed TensorRT can do, by its names.

    Args:
        version: all four parts, as 10.16.1.11: engines are bound to it.
        has_calibrator: it calibrates INT8 by itself; gone in 11.
        has_weak_typing: it chooses precisions within a network; gone in 11.
    """

    version: str
    has_calibrator: bool
    has_weak_typing: bool


def abilities() -> Abilities:
    """Import TensorRT and ask it what it can do.

    Raises:
        CapabilityError: it is absent or broken, or neither 10.x nor 11.x.
    """
    try:
        _optional.load("tensorrt")
    except OSError as error:  # its package loads the libraries by path, and raises this where one is missing
        cure = "install it again: pip install --force-reinstall tensorrt-cu12 (or -cu13)"
        raise CapabilityError("TensorRT", expected="its libraries", got=str(error), cure=cure) from error
    import tensorrt as trt

    version = str(trt.__version__)
    found = re.match(r"\d+", version)
    if found is None or int(found.group()) not in TENSORRT_MAJORS:
        expected = " or ".join(f"{major}.x" for major in TENSORRT_MAJORS)
        raise CapabilityError("TensorRT", expected=expected, got=version, cure=install_tensorrt(collect_environment()))
    return Abilities(
        version=version,
        has_calibrator=hasattr(trt, "IInt8EntropyCalibrator2"),
        has_weak_typing=hasattr(trt.BuilderFlag, "FP16"),
    )


def is_double() -> bool:
    """Say whether what is imported as TensorRT is a test double, which says so itself."""
    return bool(getattr(_optional.load("tensorrt"), "IS_SIMULATED", False))


def why_absent() -> str:
    """Return why TensorRT cannot build on this machine, with the cure; "" where it can.

    Where it is not installed nothing is imported; where it is, the library and a CUDA device are asked.
    """
    if not _optional.is_installed("tensorrt"):
        lacks = missing_for_tensorrt(collect_environment())
        return "; ".join(dict.fromkeys(f"{lack.reason}; {lack.cure}" for lack in lacks)) or "TensorRT cannot be found"
    from trtbench.engines.cuda import open_cuda

    try:
        abilities()
        with contextlib.closing(open_cuda()) as cuda:
            cuda.device()
    except TrtbenchError as error:
        return str(error)
    return ""


class LogLines:
    """What TensorRT's logger said, the newest lines last; it is called from several threads.

    Args:
        noise: what is said of every failure alike and is passed over.
    """

    def __init__(self, *, noise: re.Pattern[str] | None = None) -> None:
        self._noise = noise
        self._lines: deque[tuple[str, str]] = deque(maxlen=_KEPT_LINES)
        self._lock = threading.Lock()

    def add(self, severity: str, text: str) -> None:
        """Keep one line."""
        if self._noise is not None and self._noise.search(text):
            return
        with self._lock:
            self._lines.append((severity, text.strip()))

    def of(self, *severities: str) -> tuple[str, ...]:
        """Return the distinct lines of these severities, in their order."""
        with self._lock:
            return tuple(dict.fromkeys(text for severity, text in self._lines if severity in severities))

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong."""
        return self.of(*_FAULTS)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What it complained about."""
        return self.of("WARNING")

    def error(self, what: str, *, cure: str) -> EngineError:
        """Return the error that these lines tell: out of memory is one of its own."""
        said = "; ".join(self.errors[-_TOLD_LINES:]) or "nothing, and no word of TensorRT's why"
        if _OUT_OF_MEMORY.search(said):
            cure = "free the GPU (`nvidia-smi` lists who uses it), lower workspace_mib or the batch sizes"
            return OutOfMemoryError(what, got=said, cure=cure)
        if _SMALL_WORKSPACE.search(said):
            cure = "raise workspace_mib, or leave it out: then it is all of the device's memory"
        return EngineError(what, got=said, cure=cure)


def make_logger(lines: LogLines, *, listen: Callable[[str], None] | None = None) -> trt.ILogger:
    """Return a logger that keeps warnings and errors in `lines`, and gives all else to `listen`.

    The object must outlive the builder or the runtime that it is given to.
    """
    import tensorrt as trt

    kept = (*_FAULTS, "WARNING")

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)  # pybind11 wants its own constructor called

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity.name in kept:
                lines.add(severity.name, msg)
            elif listen is not None:
                listen(msg)

    return Logger()


def stand_in(package: str) -> None:
    """Let `import tensorrt` give another package of the same API from now on, in a process that is for it alone.

    Raises:
        CapabilityError: it is absent or broken.
    """
    sys.modules["tensorrt"] = _optional.load(package)


def create_builder(logger: trt.ILogger, lines: LogLines) -> trt.Builder:
    """Return a builder that logs to `logger`, which keeps `lines`.

    Raises:
        DeviceError: the library found no device it can use.
    """
    import tensorrt as trt

    return _made(lambda: trt.Builder(logger), "builder", lines)


def create_runtime(logger: trt.ILogger, lines: LogLines) -> trt.Runtime:
    """Return a runtime that logs to `logger`, which keeps `lines`.

    Raises:
        DeviceError: the library found no device it can use.
    """
    import tensorrt as trt

    return _made(lambda: trt.Runtime(logger), "runtime", lines)


def _made(factory: Callable[[], _Made], what: str, lines: LogLines) -> _Made:
    """Make an object of the library, or raise where the library cannot start CUDA.

    Then it logs an error and gives an object all the same, whose first use ends the process, as its own end does (seen
    with the lean runtimes of 10.16 and 11.4): so it is never let go of. Older ones raise pybind11's TypeError.
    """
    try:
        made = factory()
    except TypeError as error:
        raise _no_device(what, got=str(error)) from error
    if lines.errors:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))
        raise _no_device(what, got="; ".join(lines.errors[-_TOLD_LINES:]))
    return made


def _no_device(what: str, *, got: str) -> DeviceError:
    return DeviceError(
        f"TensorRT's {what}",
        expected="a GPU, its driver and TensorRT's libraries",
        got=got,
        cure="`trtbench gpu-info` names what is missing; in a container start it with --gpus all",
    )
