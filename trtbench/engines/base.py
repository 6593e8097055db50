"""What every runtime answers: build an engine file, open it, run and time one batch size at a time.

A runtime is one module under engines/ that ends in an object which has what `Backend` names; `suite.BACKENDS` says
where it stands.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from trtbench.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from trtbench.engines.sidecar import Sidecar
    from trtbench.records import Preprocessing

Scope = Literal["host-to-host", "device"]
Clock = Literal["wall", "cuda-events"]
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationImages:
    """What a runtime that calibrates by itself is fed with: TensorRT 10's implicit INT8.

    Args:
        images: a .npy of uint8 (N, C, H, W), the manifest's images in its order: every prefix is class-balanced.
        preprocessing: how they become the network's input.
        batch_size: images a batch; a last batch that is not full is left out.
        algorithm: the calibrator's: entropy (`IInt8EntropyCalibrator2`) or minmax.
        cache: where the runtime's own cache stands, keyed by all that decides it; it is read if there and written.
    """

    images: Path
    preprocessing: Preprocessing
    batch_size: int
    algorithm: Literal["entropy", "minmax"]
    cache: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What a suite may ask of a build; a runtime that has no such thing passes over it.

    Args:
        batch_sizes: each has an optimisation profile of its own (min = opt = max), unless `profile` is given.
        profile: one dynamic profile instead: smallest, usual and largest batch.
        workspace_mib: limit of the scratch memory of tactics; None is the whole device.
        sparse: let 2:4 sparse weights run on sparse tensor cores.
        hardware_compatible: an engine that runs on all GPUs from Ampere on.
        version_compatible: an engine that later TensorRT versions load.
        timing_cache: the folder of timing caches; None keeps none.
        targets: GPUs that the engine is built for, by name, where they need not be here; () is what is usual.
    """

    batch_sizes: tuple[int, ...] = (1,)
    profile: tuple[int, int, int] | None = None
    workspace_mib: int | None = None
    optimization_level: int = 3
    sparse: bool = False
    hardware_compatible: bool = False
    version_compatible: bool = False
    timing_cache: Path | None = None
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What an engine is built from, and where it goes.

    Args:
        source: the ONNX graph, already with Q/DQ nodes or in half precision where asked; the checkpoint for eager.
        engine: the path of the engine file to write.
        calibration: for precisions that the runtime calibrates itself.
        options: what the suite asks of the build.
        on_progress: told the phase and the share done, in [0, 1]; may be called from another thread.
    """

    source: Path
    engine: Path
    precision: str
    model: str = ""
    num_classes: int = 0
    input_shape: tuple[int, int, int] = (3, 32, 32)
    calibration: CalibrationImages | None = None
    options: BuildOptions = BuildOptions()
    on_progress: Callable[[str, float], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """What a build says of the engine file it wrote.

    Args:
        achieved: what became of the requested precision, in words.
        weight_bytes: bytes of weights inside the file.
        settings: what the session that runs it needs to know.
        facts: what else the sidecar keeps: versions, flags, profiles, layer precisions, the line that rebuilds it.
        notes: what a reader of the row must know.
    """

    achieved: str
    weight_bytes: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """What a session says of itself; a runtime may learn only as it runs what it can do.

    Args:
        settings: in force.
        clock: what `time` reads.
        memory_bytes: what it takes of a device; None where it computes in the process's memory, or nobody tells.
        notes: what a reader of the row must know.
    """

    settings: Mapping[str, Any]
    clock: Clock = "wall"
    memory_bytes: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parts:
    """The nanoseconds of each part of some inferences, int64 (samples,).

    `h2d`, `compute` and `d2h` pass on the device; `enqueue` is how long the host takes to launch, while the device may
    already compute.
    """

    h2d: NDArray[np.int64]
    enqueue: NDArray[np.int64]
    compute: NDArray[np.int64]
    d2h: NDArray[np.int64]


class Session(Protocol):
    """One engine at one batch size, with its buffers."""

    def copy_in(self, images: NDArray[np.float32]) -> None:
        """Copy float32 images (batch, C, H, W) into the input buffer."""
        ...

    def enqueue(self) -> None:
        """Launch one inference; it may still run when this returns."""
        ...

    def synchronize(self) -> None:
        """Wait for everything launched."""
        ...

    def copy_out(self) -> NDArray[np.float32]:
        """Return the float32 logits (batch, classes) of the last inference, in memory of the caller's own."""
        ...

    def time(self, samples: int, *, launches_per_sample: int, scope: Scope) -> NDArray[np.int64]:
        """Return `samples` durations in nanoseconds, each of `launches_per_sample` inferences of the batch.

        The timed loop lives here, in the runtime's own module, so that no call of ours sits inside a short launch.
        """
        ...

    def time_parts(self, samples: int) -> Parts | None:
        """Return how long each part of `samples` inferences took; None where they cannot be told apart."""
        ...

    def describe(self) -> SessionFacts:
        """Return what is in force now."""
        ...

    def close(self) -> None:
        """Free the buffers."""
        ...


class Engine(Protocol):
    """An engine file that was loaded."""

    @property
    def device(self) -> str:
        """The device as a row names it."""
        ...

    def session(self, batch: int) -> Session:
        """Return a session at this batch size."""
        ...

    def close(self) -> None:
        """Let go of it, when its sessions are closed."""
        ...


class OpenEngine:
    """A loaded engine file of which nothing is left to free but what its sessions share.

    Args:
        device: as a row names it.
        opened: returns a session at a batch size, and holds what they share.
    """

    def __init__(self, device: str, opened: Callable[[int], Session]) -> None:
        self.device = device
        self._opened: Callable[[int], Session] | None = opened

    def session(self, batch: int) -> Session:
        """Return a session at this batch size."""
        assert self._opened is not None, "an engine is asked before it is closed only"
        return self._opened(batch)

    def close(self) -> None:
        """Let go of what the sessions share."""
        self._opened = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFacts:
    """What a runtime is on this machine.

    Args:
        version: decides whether an engine must be built again.
        machine: what an engine file is bound to; it is loaded nowhere else.
        usual_precisions: those it is asked for where a suite names none.
        why_not_run: why an engine that is built here cannot be run here; "" where it can.
    """

    version: str
    device: str
    machine: str
    usual_precisions: tuple[str, ...]
    why_not_run: str = ""


@runtime_checkable
class Backend(Protocol):
    """A runtime: the object that its module ends in and `suite.BACKENDS` names.

    `precisions` it can build, the `suffix` of its engine files, and whether a build heeds `BuildOptions`.
    """

    @property
    def name(self) -> str: ...  # noqa: D102  the class says it
    @property
    def precisions(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def suffix(self) -> str: ...  # noqa: D102
    @property
    def takes_options(self) -> bool: ...  # noqa: D102

    def is_simulated(self) -> bool:
        """Say whether its rows are no measurements: they are labelled so and never ranked."""
        ...

    def facts(self, options: Mapping[str, Any] = NO_OPTIONS) -> BackendFacts:
        """Return what it is on this machine.

        Args:
            options: those of a build, as its sidecar keeps them: an engine built to be portable is bound to less.

        Raises:
            CapabilityError: it is absent.
            DeviceError: the device that it needs cannot be used.
        """
        ...

    def build(self, request: BuildRequest) -> BuildResult:
        """Write `request.engine` from `request.source`."""
        ...

    def open(self, path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> Engine:
        """Load an engine file whose sidecar was checked."""
        ...


class Measuring:
    """What runtimes have in common whose rows are measurements, and most of whose builds heed no options."""

    takes_options: ClassVar[bool] = False

    def is_simulated(self) -> bool:
        """Say that its rows are measurements."""
        return False


def backend(name: str) -> Backend:
    """Return the runtime called `name`.

    Raises:
        UnsupportedError: there is none of that name.
    """
    return load_backend(place_of(name))


def place_of(name: str) -> str:
    """Return where the runtime called `name` stands, as `module:NAME`.

    Raises:
        UnsupportedError: there is none of that name.
    """
    from trtbench.suite import BACKENDS  # not with this module: workers load no pydantic

    if name not in BACKENDS:
        raise UnsupportedError(f"backend {name!r}", expected=" or ".join(sorted(BACKENDS)), cure="choose one of these")
    return BACKENDS[name].place


def load_backend(place: str) -> Backend:
    """Import the runtime that stands at `place`.

    Raises:
        UnsupportedError: what stands there is none.
    """
    module, _, name = place.partition(":")
    found: object = getattr(importlib.import_module(module), name, None)
    if not isinstance(found, Backend):
        got = "nothing" if found is None else type(found).__name__
        raise UnsupportedError(
            f"backend at {place}", expected="what engines.base.Backend names", got=got, cure="mend its line in BACKENDS"
        )
    return found


def resolve_backend(name: str) -> str:
    """Return the runtime that `auto` means here: TensorRT where it can build, else ONNX Runtime's CPU engine.

    Where it is the latter, `why_not_tensorrt` says why.
    """
    if name != "auto":
        return name
    return "onnxruntime-cpu" if why_not_tensorrt() else "tensorrt"


def why_not_tensorrt() -> str:
    """Return why `auto` is not TensorRT on this machine, with the cure; "" where it is.

    TensorRT is imported only where it is installed; where it is not, nothing is.
    """
    from trtbench.engines.tensorrt.library import why_absent

    return why_absent()


def partial_path(engine: Path) -> Path:
    """Return where a build of this process writes an engine before it is whole."""
    return engine.with_name(f".{engine.name}.{os.getpid()}.partial")


def refuse_precision(precision: str, backend_name: str, *, known: tuple[str, ...]) -> None:
    """Raise for a precision that the runtime cannot build.

    Raises:
        UnsupportedError: it is none of `known`.
    """
    if precision not in known:
        what = f"precision {precision!r} on {backend_name}"
        raise UnsupportedError(what, expected=" or ".join(known), cure="choose one of these")
