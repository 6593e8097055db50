"""What is measured and what was learnt: records that the steps of a measurement fill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from trtbench.bench.interleave import Timing, joined

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from trtbench.engines.base import Clock
    from trtbench.errors import RowError
    from trtbench.records import Output
    from trtbench.rows import AccuracyRecord, FidelityRecord, LoadRecord
    from trtbench.suite import BenchConfig
    from trtbench.suite.suite import Scope

Mode = Literal["latency", "throughput"]
Joules = Callable[[str], float | None]  # told a device, answers what it took since some moment
Score = Callable[["NDArray[np.float32]"], "NDArray[np.float64]"]  # of all outputs side by side, a number an image
Progress = Callable[[str, str, float], None]  # told stage, item and share done in [0, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFile:
    """An engine to measure; `name` is unique, `settings` go to its runtime before those of the suite.

    `sha256` is of the file that is meant; "" means whichever stands there. `code` is the `module:callable` that the
    suite names, if its network is one: no other is imported for it.
    """

    name: str
    backend: str
    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How an engine started: milliseconds to load it and to the first logits, where it runs, and how."""

    load_ms: float
    first_inference_ms: float
    device: str
    settings: Mapping[str, Any]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, order=True)
class Way:
    """One way to time an inference: what a sample holds, and whether several launches share one."""

    scope: Scope = "device"
    mode: Mode = "latency"


PLAIN = Way()


@dataclass(slots=True, kw_only=True)
class Run:
    """What one worker process told of one engine at one batch size, by the way it was timed."""

    timed: dict[Way, Timing] = field(default_factory=dict)
    launches: dict[Way, int] = field(default_factory=dict)
    clock: Clock = "wall"
    parts_ns: Mapping[str, Sequence[int]] = field(default_factory=dict)
    device_memory_bytes: int | None = None
    host_memory_bytes: int | None = None
    cores: tuple[int, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warm_up_ms: float = 0.0
    warm_up_inferences: int = 0
    error: RowError | None = None


@dataclass(slots=True, kw_only=True)
class Measured:
    """What was learnt of one engine at one batch size before something failed, if anything did.

    `runs` are what its processes told, by their number. `is_alone` says that it was timed by itself, after its worker
    had crashed: its blocks pair with no other's.
    """

    engine: EngineFile
    batch_size: int
    opening: Opening | None = None
    accuracy: AccuracyRecord | None = None
    fidelity: FidelityRecord | None = None
    runs: dict[int, Run] = field(default_factory=dict)
    loads: tuple[LoadRecord, ...] = ()
    energy_j: float | None = None
    predictions: list[int] = field(default_factory=list)
    error: RowError | None = None
    is_alone: bool = False

    @property
    def is_scored(self) -> bool:
        """Whether what it computes was compared, with labels or with the float network."""
        return self.accuracy is not None or self.fidelity is not None

    @property
    def timed(self) -> Timing | None:
        """The plain samples of all processes, or None before any."""
        return self.timed_as(PLAIN)

    def timed_as(self, way: Way) -> Timing | None:
        """Return the samples taken in one way by all processes, or None before any."""
        parts = [run.timed[way] for run in self.runs.values() if way in run.timed]
        return joined(parts) if parts else None

    @property
    def ways(self) -> tuple[Way, ...]:
        """In which ways it was timed, the plain one first."""
        found = dict.fromkeys(way for run in self.runs.values() for way in run.timed)
        return tuple(sorted(found, key=lambda way: (way != PLAIN, way)))

    @property
    def last_run(self) -> Run | None:
        """What the last process told."""
        return next(reversed(self.runs.values()), None)

    @property
    def device_memory_bytes(self) -> int | None:
        """The most that a process took of its device; None where nobody tells."""
        return _most(run.device_memory_bytes for run in self.runs.values())

    @property
    def host_memory_bytes(self) -> int | None:
        """The most memory that a process held."""
        return _most(run.host_memory_bytes for run in self.runs.values())


def _most(sizes: Iterable[int | None]) -> int | None:
    return max((size for size in sizes if size is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The images to score on: a .npy of uint8 (N, C, H, W), int64 labels (N,), the reference's logits.

    `classes` are the names of the labels. With `outputs` the images have no labels: what is computed is held to the
    reference.
    """

    path: Path
    labels: NDArray[np.int64]
    reference: NDArray[np.float32] | None = None
    classes: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()
    score: Score | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all steps of one measurement share.

    Args:
        images: what engines are scored on; the first images are those they are timed on.
        energy_j: tells the joules a device took so far, where something counts them.
        seconds: how long the processes of each number took, without scoring; filled as the measurement goes on.
    """

    images: Images
    config: BenchConfig
    folder: Path
    progress: Progress = lambda *_: None
    energy_j: Joules = lambda _: None
    seconds: dict[int, float] = field(default_factory=dict)
