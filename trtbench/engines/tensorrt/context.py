"""An execution context at one profile: which profile, and whose memory it works in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from trtbench.errors import OutOfMemoryError, UnsupportedError

if TYPE_CHECKING:
    import tensorrt as trt

    from trtbench.engines.cuda.device import Cuda, DeviceBuffer
    from trtbench.engines.tensorrt.library import LogLines

_DYNAMIC = -1
_CURE = "build the engine again; if it stays, `trtbench gpu-info` shows the device"


class Contexts(Protocol):
    """How contexts of an engine are made, and what there is to note of all of them."""

    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102  the class says it

    def make(self, engine: trt.ICudaEngine, *, is_ours: bool) -> trt.IExecutionContext | None:
        """Return a context in memory of the library's, or of ours to come; None where it refuses."""
        ...

    def keep(self) -> None:
        """Keep what is worth it of what they made, before the engine is closed."""
        ...


class PlainContexts:
    """Contexts as TensorRT makes them by itself."""

    notes: tuple[str, ...] = ()

    def make(self, engine: trt.ICudaEngine, *, is_ours: bool) -> trt.IExecutionContext | None:
        """Return a context; None where it does not fit."""
        import tensorrt as trt

        if is_ours:
            return engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        return engine.create_execution_context()

    def keep(self) -> None:
        """Keep nothing."""


@dataclass(slots=True, kw_only=True)
class Context:
    """A context, and the memory it works in where that is ours.

    Args:
        handle: TensorRT's; None once closed.
        scratch: what we allocated for it, where TensorRT could not.
        memory_bytes: what its activations take on the device.
        notes: what a reader of the row must know.
    """

    handle: trt.IExecutionContext | None
    scratch: DeviceBuffer | None
    memory_bytes: int
    notes: tuple[str, ...]

    def close(self) -> None:
        """Let go of the context, then of its memory; nothing may be queued that uses it."""
        self.handle = None
        if self.scratch is not None:
            self.scratch.free()


def choose_profile(engine: trt.ICudaEngine, name: str, *, shape: tuple[int, ...]) -> int:
    """Return the profile that takes a shape and was tuned for the nearest batch.

    Args:
        engine: whose profiles.
        name: the input.
        shape: of the input, the batch first.

    Raises:
        UnsupportedError: no profile takes it.
    """
    fixed = tuple(engine.get_tensor_shape(name))
    if _DYNAMIC not in fixed:
        profiles = [(fixed, fixed, fixed)]
    else:
        profiles = [_profile(engine, name, index) for index in range(engine.num_optimization_profiles)]
    fitting = [
        (abs(usual[0] - shape[0]), index)
        for index, (least, usual, most) in enumerate(profiles)
        if len(least) == len(shape) and all(a <= size <= b for a, size, b in zip(least, shape, most, strict=True))
    ]
    if not fitting:
        known = [str(least) if least == most else f"{least} to {most}" for least, _, most in profiles]
        cure = f"build with {shape[0]} among the batch sizes, or with a profile that spans it"
        raise UnsupportedError(f"engine input {name!r}", expected=" or ".join(known), got=str(shape), cure=cure)
    return min(fitting)[1]


def _profile(
    engine: trt.ICudaEngine, name: str, index: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return the least, the usual and the largest shape of an input in one profile."""
    least, usual, most = (tuple(dims) for dims in engine.get_tensor_profile_shape(name, index))
    return least, usual, most


def open_context(engine: trt.ICudaEngine, *, cuda: Cuda, profile: int, lines: LogLines, contexts: Contexts) -> Context:
    """Return a context at a profile, in TensorRT's memory or, where that does not fit, in ours.

    TensorRT's own is as large as the largest profile wants; ours is as large as this one wants, and CuPy's pool is
    emptied for it.

    Raises:
        OutOfMemoryError: ours does not fit either.
        EngineError: TensorRT gives no context, or refuses the profile.
    """
    handle = contexts.make(engine, is_ours=False)
    if handle is not None:
        _prepare(handle, cuda=cuda, profile=profile, lines=lines)
        taken = int(engine.device_memory_size_v2)
        return Context(handle=handle, scratch=None, memory_bytes=taken, notes=contexts.notes)
    return _in_our_memory(engine, cuda=cuda, profile=profile, lines=lines, contexts=contexts)


def _in_our_memory(
    engine: trt.ICudaEngine, *, cuda: Cuda, profile: int, lines: LogLines, contexts: Contexts
) -> Context:
    why = "; ".join(lines.errors[-1:]) or "no reason told"
    cuda.trim()
    handle = contexts.make(engine, is_ours=True)
    if handle is None:
        raise lines.error("TensorRT's execution context", cure=_CURE)
    _prepare(handle, cuda=cuda, profile=profile, lines=lines)
    wanted = int(engine.get_device_memory_size_for_profile_v2(profile))
    scratch = _allocate(cuda, wanted)
    handle.set_device_memory(scratch.ptr, wanted)
    note = f"the context works in {wanted} bytes of ours: TensorRT's own did not fit ({why})"
    return Context(handle=handle, scratch=scratch, memory_bytes=wanted, notes=(*contexts.notes, note))


def _allocate(cuda: Cuda, wanted: int) -> DeviceBuffer:
    try:
        return cuda.allocate(max(wanted, 1))
    except OutOfMemoryError as error:
        free, total = cuda.memory()
        raise OutOfMemoryError(
            "TensorRT's execution context",
            expected=f"{wanted} bytes of device memory",
            got=f"{free} of {total} bytes free",
            cure="take a smaller batch, or free the device (`nvidia-smi` lists who uses it)",
        ) from error


def _prepare(handle: trt.IExecutionContext, *, cuda: Cuda, profile: int, lines: LogLines) -> None:
    """Silence the markers of a detailed engine, which make each launch slower, and choose the profile."""
    import tensorrt as trt

    handle.nvtx_verbosity = trt.ProfilingVerbosity.NONE
    if not handle.set_optimization_profile_async(profile, cuda.stream):
        raise lines.error(f"TensorRT refuses optimisation profile {profile}", cure=_CURE)
    cuda.synchronize()


def require_true(answer: bool, what: str, *, lines: LogLines) -> None:  # noqa: FBT001  TensorRT's own answer
    """Raise where TensorRT answered False.

    Raises:
        EngineError: it did; its log says why.
    """
    if not answer:
        raise lines.error(what, cure=_CURE)
