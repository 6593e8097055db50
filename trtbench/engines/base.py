"""What every runtime answers: build an engine file, open it, run and time one batch size at a time.

A runtime is one module under engines/ that has what `Backend` names; `BACKENDS` says which modules there are.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from trtbench.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from trtbench.engines.sidecar import Sidecar

Scope = Literal["host-to-host", "device"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What an engine is built from, and where it goes.

    Args:
        source: the ONNX graph, already with Q/DQ nodes for int8; the checkpoint for eager.
        engine: the path of the engine file to write.
        precision: the requested precision.
        model: the architecture, for runtimes that need its PyTorch source.
        num_classes: how many logits an image has.
    """

    source: Path
    engine: Path
    precision: str
    model: str = ""
    num_classes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """What a build says of the engine file it wrote."""

    achieved: str
    weight_bytes: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Session(Protocol):
    """One engine at one batch size, with its buffers.

    A session of a device may have two things more. `clocks` maps a scope to "cuda-events" where `time` does not read
    the wall clock. `time_parts(samples)` returns int64 nanoseconds (samples,) of "h2d", "enqueue", "compute" and "d2h".
    """

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

    def close(self) -> None:
        """Free the buffers."""
        ...


class Engine(Protocol):
    """An engine file that was loaded."""

    device: str
    settings: Mapping[str, Any]

    def session(self, batch: int) -> Session:
        """Return a session at this batch size."""
        ...


class Backend(Protocol):
    """What a runtime's module holds.

    `PRECISIONS` it can build, `SUFFIX` of its engine files, and whether its rows are simulated.
    """

    PRECISIONS: tuple[str, ...]
    SUFFIX: str
    IS_SIMULATED: bool

    def machine(self) -> str:
        """Return what an engine file is bound to; it is loaded nowhere else."""
        ...

    def device_name(self) -> str:
        """Return the device as a row names it."""
        ...

    def runtime_version(self) -> str:
        """Return the version of the runtime, which decides whether an engine must be built again."""
        ...

    def build(self, request: BuildRequest) -> BuildResult:
        """Write `request.engine` from `request.source`."""
        ...

    def open_engine(self, path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> Engine:
        """Load an engine file whose sidecar was checked."""
        ...


BACKENDS: dict[str, str] = {
    "onnxruntime-cpu": "trtbench.engines.onnxruntime",
    "eager": "trtbench.engines.eager",
    "fake": "trtbench.engines.fake",
}


def backend(name: str) -> Backend:
    """Return the runtime called `name`.

    Raises:
        UnsupportedError: there is none of that name.
    """
    if name not in BACKENDS:
        raise UnsupportedError(f"backend {name!r}", expected=" or ".join(sorted(BACKENDS)), cure="choose one of these")
    module: Any = importlib.import_module(BACKENDS[name])
    return module  # type: ignore[no-any-return]  # a module that has what the Protocol names


def resolve_backend(name: str) -> str:
    """Return the runtime that `auto` means on this machine: ONNX Runtime's CPU engine."""
    return "onnxruntime-cpu" if name == "auto" else name


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
