"""The runtime `tensorrt-rtx`: built on any machine for GPUs that are named, run where one of them is.

The sessions are TensorRT's own. What differs stands here: the library says beforehand whether it can run an engine,
kernels of free batch sizes are compiled before an inference and not beside it (LAZY runs a slower kernel meanwhile, so
that early samples would be of another program), and what was compiled is kept beside the engine.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trtbench import _optional
from trtbench.disk import write_atomically
from trtbench.engines.base import NO_OPTIONS, BackendFacts
from trtbench.engines.cuda import open_cuda
from trtbench.engines.tensorrt.library import stand_in
from trtbench.engines.tensorrt.plan import load_plan, refuse_version, sm_of
from trtbench.engines.tensorrt.session import TensorrtEngine
from trtbench.engines.tensorrt_rtx.build import (
    NAMES,
    PACKAGE,
    build_apart,
    compute_capability,
    targets_of,
    told,
    version_here,
)
from trtbench.errors import DeviceError, EngineError, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import tensorrt as trt

    from trtbench.engines.base import Backend, BuildRequest, BuildResult, Engine
    from trtbench.engines.cuda.device import DeviceFacts
    from trtbench.engines.sidecar import Sidecar
    from trtbench.engines.tensorrt.library import LogLines


_COMPILED = "kernels were compiled on this GPU as it was opened: the time to the first logits has that in it"
_CURES = {
    "UNSUPPORTED_CC": "build it for this GPU: name its compute capability among the targets",
    "OLD_CUDA_DRIVER": "update the NVIDIA driver",
    "OLD_CUDA_RUNTIME": "pip install 'trtbench[rtx]' again: it brings the CUDA runtime that it needs",
    "INSUFFICIENT_GPU_MEMORY": "free the GPU (`nvidia-smi` lists who uses it)",
    "CUDA_ERROR": "`trtbench gpu-info` names what is missing",
}
_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8+fp16", "fp8", "fp8+fp16")


def gpu_for(targets: Sequence[str]) -> tuple[str, str]:
    """Return the name of the GPU here that an engine of these targets runs on, or "" and why there is none."""
    try:
        with contextlib.closing(open_cuda()) as cuda:
            device = cuda.device()
    except DeviceError:
        return "", f"built for {told(targets)}, not run: neither CuPy nor PyCUDA opens a GPU here"
    if device.compute_capability not in map(compute_capability, targets):
        sm = "sm{}{}".format(*device.compute_capability)
        cure = f"add {sm} to the targets" if sm in NAMES else "TensorRT for RTX has no such target"
        return "", f"built for {told(targets)}, not run: {device.name} is SM {sm_of(device)}; {cure}"
    return device.name, ""


def open_engine(path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> TensorrtEngine:
    """Load an engine whose sidecar was checked; this process runs TensorRT for RTX alone from now on.

    Raises:
        SidecarError: it was built with another version of the library.
        DeviceError: CUDA cannot be used.
        EngineError: the library says that it cannot run here, or it does not load.
        OutOfMemoryError: the device is full.
    """
    refuse_version(sidecar, version=version_here())
    stand_in(PACKAGE)
    cuda, data, doubts = open_cuda(), path.read_bytes(), list[str]()
    what = f"TensorRT for RTX cannot run {path.name}"
    rebuild = f"build it again: `{sidecar.rebuild or 'trtbench build'}`"
    with cuda.current():
        loaded = load_plan(
            data,
            what=what,
            cure=rebuild,
            is_version_compatible=False,
            check=lambda runtime, lines: doubts.extend(_judged(runtime, lines, data, what=what, cure=rebuild)),
        )
        device = cuda.device()
        kernels = CompiledKernels.of(loaded.engine, kernels_path(path, device), doubts=tuple(doubts))
    return TensorrtEngine(
        loaded.engine,
        loaded.runtime,
        cuda,
        replace(sidecar, device=device.name),
        settings,
        lines=loaded.lines,
        contexts=kernels,
    )


def kernels_path(engine: Path, device: DeviceFacts) -> Path:
    """Return where the kernels that a GPU compiled for an engine are kept, beside it."""
    gpu = re.sub(r"\W+", "-", device.name).strip("-").lower()
    return engine.with_name(f"{engine.name}.{gpu}.kernels")


def _judged(runtime: trt.Runtime, lines: LogLines, data: bytes, *, what: str, cure: str) -> tuple[str, ...]:
    """Ask the library whether it can run an engine here, else EngineError; return what it doubts."""
    import tensorrt_rtx_bindings as rtx

    asked: Any = runtime  # TensorRT's own runtime cannot be asked
    validity, bits = asked.get_engine_validity(data)
    found = [name for name, one in rtx.EngineInvalidityDiagnostics.__members__.items() if bits & int(one)]
    if validity == rtx.EngineValidity.INVALID:
        got = ", ".join(found) or "; ".join(lines.errors) or "no reason told"
        raise EngineError(what, got=got, cure=next((_CURES[name] for name in found if name in _CURES), cure))
    if validity == rtx.EngineValidity.SUBOPTIMAL:
        return (f"TensorRT for RTX says that this engine may be slower here than one built for it: {', '.join(found)}",)
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledKernels:
    """The contexts of an engine, whose kernels are compiled for this GPU; and those kernels, kept from run to run.

    Args:
        doubts: what the library doubts of the engine here.
        is_read: the file was there, and the library took it: it is of this GPU, driver and version.
    """

    config: Any
    cache: Any
    file: Path
    doubts: tuple[str, ...]
    is_read: bool

    @classmethod
    def of(cls, engine: trt.ICudaEngine, file: Path, *, doubts: tuple[str, ...]) -> CompiledKernels:
        """Read what is kept of an engine's kernels; the device's context is current."""
        import tensorrt_rtx_bindings as rtx

        asked: Any = engine
        config = asked.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = rtx.DynamicShapesKernelSpecializationStrategy.EAGER
        cache = config.create_runtime_cache()
        is_read = file.is_file() and bool(cache.deserialize(file.read_bytes()))
        config.set_runtime_cache(cache)
        return cls(config=config, cache=cache, file=file, doubts=doubts, is_read=is_read)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the row must know."""
        return self.doubts if self.is_read else (*self.doubts, _COMPILED)

    def make(self, engine: trt.ICudaEngine, *, is_ours: bool) -> trt.IExecutionContext | None:
        """Return a context; None where it does not fit."""
        import tensorrt_rtx_bindings as rtx

        strategies = rtx.ExecutionContextAllocationStrategy
        self.config.set_execution_context_allocation_strategy(strategies.USER_MANAGED if is_ours else strategies.STATIC)
        asked: Any = engine
        made: trt.IExecutionContext | None = asked.create_execution_context(self.config)
        return made

    def keep(self) -> None:
        """Keep what was compiled; where the folder cannot be written, it is compiled again next time."""
        with contextlib.suppress(StoreError):
            write_atomically(self.file, bytes(self.cache.serialize()))


class TensorRtRtxBackend:
    """TensorRT for RTX: compiled ahead of time here, and once more by the GPU that runs it."""

    name = "tensorrt-rtx"
    precisions = _PRECISIONS
    suffix = ".rtxplan"
    takes_options = True

    def is_simulated(self) -> bool:
        """Say whether the library is a test double, which says so itself."""
        return bool(getattr(_optional.load(PACKAGE), "IS_SIMULATED", False))

    def facts(self, options: Mapping[str, Any] = NO_OPTIONS) -> BackendFacts:
        """Return its version, what an engine is for, and the GPU that runs it where one is here.

        What builds it does not count: one engine serves every machine that has a GPU among its targets.

        Raises:
            CapabilityError: it is absent.
        """
        version, targets = version_here(), targets_of(options.get("targets", ()))
        gpu, why_not_run = gpu_for(targets)
        return BackendFacts(
            version=version,
            device=gpu or told(targets),
            machine=f"any machine with a GPU of {', '.join(targets)}",
            usual_precisions=("fp32", "fp16", "int8", "int8+fp16"),
            why_not_run=why_not_run,
        )

    def build(self, request: BuildRequest) -> BuildResult:
        """Build an engine; see `build.build_apart`."""
        return build_apart(request)

    def open(self, path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> Engine:
        """Load an engine whose sidecar was checked; see `open_engine`."""
        return open_engine(path, sidecar, settings)


TENSORRT_RTX: Backend = TensorRtRtxBackend()
