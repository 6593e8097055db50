"""Classes that clients derive from, and how the library calls them: an exception of theirs never comes out."""

from __future__ import annotations

import datetime as dt
import sys
import weakref
from typing import TYPE_CHECKING, Any

from .strict import Managed, Overridable, kinds, strict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@strict("ILogger")
class ILogger(Overridable, Managed):
    """Takes what the library has to say."""

    Severity = kinds.Severity
    INTERNAL_ERROR = kinds.Severity.INTERNAL_ERROR
    ERROR = kinds.Severity.ERROR
    WARNING = kinds.Severity.WARNING
    INFO = kinds.Severity.INFO
    VERBOSE = kinds.Severity.VERBOSE

    def log(self, severity: Any, msg: str) -> None:
        raise RuntimeError('Tried to call pure virtual function "ILogger::log"')


@strict("Logger")
class Logger(ILogger):
    """Prints what is at least as severe as asked."""

    min_severity = kinds.Severity.WARNING

    def __init__(self, min_severity: Any = kinds.Severity.WARNING) -> None:
        super().__init__()
        self.min_severity = min_severity

    def log(self, severity: Any, msg: str) -> None:
        if int(severity) <= int(self.min_severity):
            now = dt.datetime.now(tz=dt.UTC)
            print(f"[{now:%m/%d/%Y-%H:%M:%S}] [TRT] [{severity.name[0]}] {msg}", file=sys.stderr)


@strict("IErrorRecorder")
class IErrorRecorder(Overridable):
    """Takes errors as numbers and texts."""

    @property
    def MAX_DESC_LENGTH(self) -> int:
        return 127

    def clear(self) -> None:
        _pure("IErrorRecorder::clear")

    def get_error_code(self, index: int) -> Any:
        _pure("IErrorRecorder::getErrorCode")

    def get_error_desc(self, index: int) -> Any:
        _pure("IErrorRecorder::getErrorDesc")

    def has_overflowed(self) -> Any:
        _pure("IErrorRecorder::hasOverflowed")

    def num_errors(self) -> Any:
        _pure("IErrorRecorder::getNbErrors")

    def report_error(self, code: Any, desc: str) -> Any:
        _pure("IErrorRecorder::reportError")


@strict("IProgressMonitor")
class IProgressMonitor(Overridable):
    """Hears of the phases of a build, from several threads."""

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        _pure("IProgressMonitor::phaseStart")

    def step_complete(self, phase_name: str, step: int) -> Any:
        _pure("IProgressMonitor::stepComplete")

    def phase_finish(self, phase_name: str) -> None:
        _pure("IProgressMonitor::phaseFinish")


@strict("IProfiler")
class IProfiler(Overridable):
    """Hears how long each layer took."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        _pure("IProfiler::reportLayerTime")


@strict("Profiler")
class Profiler(IProfiler):
    """Prints how long each layer took."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        print(f"{layer_name}: {ms}ms", file=sys.stdout)


@strict("IInt8Calibrator")
class IInt8Calibrator(Overridable):
    """Feeds calibration batches: `get_batch` gives a device pointer for each input, or nothing at the end."""

    def get_algorithm(self) -> Any:
        _pure("IInt8Calibrator::getAlgorithm")

    def get_batch_size(self) -> Any:
        _pure("IInt8Calibrator::getBatchSize")

    def get_batch(self, names: Sequence[str]) -> Any:
        _pure("IInt8Calibrator::getBatch")

    def read_calibration_cache(self) -> Any:
        _pure("IInt8Calibrator::readCalibrationCache")

    def write_calibration_cache(self, cache: Any) -> None:
        _pure("IInt8Calibrator::writeCalibrationCache")


@strict("IInt8EntropyCalibrator2")
class IInt8EntropyCalibrator2(IInt8Calibrator):
    """Asks for the entropy method."""

    def get_algorithm(self) -> Any:
        return kinds.CalibrationAlgoType.ENTROPY_CALIBRATION_2


@strict("IInt8MinMaxCalibrator")
class IInt8MinMaxCalibrator(IInt8Calibrator):
    """Asks for the largest value."""

    def get_algorithm(self) -> Any:
        return kinds.CalibrationAlgoType.MINMAX_CALIBRATION


def _pure(name: str) -> None:
    raise RuntimeError(f'Tried to call pure virtual function "{name}"')


def ask(what: str, call: Callable[[], Any], *, otherwise: Any) -> Any:
    """Call a client's method; what it raises is printed to stderr and lost, as the bindings' trampolines do."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001  the trampoline catches all
        print(f"[ERROR] Exception caught in {what}(): {type(error).__name__}: {error}", file=sys.stderr)
        return otherwise


def error(logger: Any, text: str) -> None:
    """Log an error."""
    _log(logger, kinds.Severity.ERROR, text)


def warning(logger: Any, text: str) -> None:
    """Log a warning."""
    _log(logger, kinds.Severity.WARNING, text)


def verbose(logger: Any, text: str) -> None:
    """Log a detail."""
    _log(logger, kinds.Severity.VERBOSE, text)


def _log(logger: Any, severity: Any, text: str) -> None:
    ask("log", lambda: logger.log(severity, text), otherwise=None)


_users: weakref.WeakSet[Any] = weakref.WeakSet()


def register(user: Any, logger: Any, *, factory: str) -> None:
    """Note who logs where: a second logger is warned of while a user of the first lives."""
    if any(other._logger is not logger for other in _users):
        warning(
            logger,
            f"The logger passed into {factory} differs from one already registered for an existing builder, "
            "runtime, or refitter. Provided logger is ignored.",
        )
    _users.add(user)
