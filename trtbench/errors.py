"""The exception tree and its exit codes, inherited where a class has none of its own; nothing here prints or exits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


def listed(names: Sequence[str], most: int) -> str:
    """Return the first names of many, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class TrtbenchError(Exception):
    """Any error trtbench raises on purpose, told in four facts.

    Args:
        what: the thing that is wrong, named as the user knows it.
        expected: what would have been right.
        got: what was found instead.
        cure: what the user can do about it.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, what: str, *, expected: str = "", got: str = "", cure: str = "") -> None:
        self.what = what
        self.expected = expected
        self.got = got
        self.cure = cure
        facts = [f"expected {expected}" if expected else "", f"got {got}" if got else ""]
        found = ", ".join(fact for fact in facts if fact)
        super().__init__("; ".join(part for part in (": ".join(p for p in (what, found) if p), cure) if part))


class ConfigError(TrtbenchError):
    """A suite, an option or an argument is wrong."""

    exit_code = 2


class DataError(ConfigError):
    """Images or labels are missing, truncated or too few."""


class CheckpointError(ConfigError):
    """A checkpoint cannot be read or does not fit the model."""


class RowError(TrtbenchError):
    """One row cannot be made; the others go on."""


class LeakError(RowError):
    """Calibration images overlap with the test or validation images."""


class GraphError(RowError):
    """Export, Q/DQ insertion or the lint of an ONNX graph failed."""


class CalibrationError(RowError):
    """Activation ranges could not be collected."""


class EngineError(RowError):
    """An engine could not be built or run."""


class ProviderError(EngineError):
    """The runtime fell back to another device in silence."""


class SidecarError(EngineError):
    """An engine does not match its sidecar or this machine."""


class WorkerError(EngineError):
    """A worker process died or answered out of turn."""


class DeviceError(EngineError):
    """CUDA cannot be used, or one of its calls failed."""


class OutOfMemoryError(EngineError):
    """The device or the host ran out of memory."""


class UnsupportedError(RowError):
    """This backend cannot do what the row asks for."""


class StoreError(TrtbenchError):
    """An artefact cannot be written or read."""


class GateError(TrtbenchError):
    """A limit on drop, latency or regression broke."""

    exit_code = 4


class CapabilityError(TrtbenchError):
    """A GPU, a package or a precision was demanded and is absent."""

    exit_code = 5


class InconclusiveError(TrtbenchError):
    """The measurement cannot decide."""

    exit_code = 6
