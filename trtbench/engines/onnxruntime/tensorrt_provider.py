"""ONNX Runtime's TensorRT provider: TensorRT 10 only, to whose library it is linked.

The engine file is an ONNX file with the plan inside (an EPContext node), so that opening it builds nothing.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench.engines.base import NO_OPTIONS, BackendFacts, BuildResult, Measuring, partial_path, refuse_precision
from trtbench.engines.onnxruntime.cuda import gpu_machine, gpu_name, open_on_device
from trtbench.engines.onnxruntime.sessions import (
    CUDA,
    TENSORRT,
    require_provider,
    session_options,
    start,
    weight_bytes,
)
from trtbench.environment import collect_environment
from trtbench.errors import EngineError, UnsupportedError
from trtbench.graph.reference import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trtbench.engines.base import Backend, BuildOptions, BuildRequest
    from trtbench.engines.onnxruntime.cuda import DeviceEngine
    from trtbench.engines.sidecar import Sidecar
    from trtbench.environment import Environment

# ONNX Runtime's own fusions would take Q/DQ pairs apart before TensorRT sees them.
_LEVEL = "ORT_DISABLE_ALL"
_LIBRARY = "libnvinfer.so.10"
_OTHER_LIBRARIES = ("libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
_TF32_NOTE = (
    "TensorRT may compute fp32 in TF32 here: ONNX Runtime's provider has no switch for it; "
    "start the run with NVIDIA_TF32_OVERRIDE=0, or compare it with tf32 rows"
)
_WAITS = "ONNX Runtime waits for the device after each TensorRT part: its launches do not queue behind one another"
_CUDA_OPTIONS: Mapping[str, str] = {"device_id": "0", "use_tf32": "0"}


class TensorRtProviderBackend(Measuring):
    """ONNX Runtime's TensorRT provider."""

    name = "onnxruntime-tensorrt"
    precisions = ("fp32", "fp16", "int8")
    suffix = ".onnx"
    takes_options = True

    def facts(self, options: Mapping[str, Any] = NO_OPTIONS) -> BackendFacts:  # noqa: ARG002  the same for all engines
        """Return what it is here: the versions of ONNX Runtime and of TensorRT both decide an engine."""
        package = collect_environment().package("tensorrt")
        without = ", without TF32" if _is_tf32_forbidden() else ""
        return BackendFacts(
            version=f"{onnxruntime().__version__}, {package or 'no TensorRT package'}{without}",
            device=gpu_name(),
            machine=gpu_machine(),
            usual_precisions=self.precisions,
        )

    def build(self, request: BuildRequest) -> BuildResult:
        """Let TensorRT build the graph, and keep its plan.

        Raises:
            UnsupportedError: a precision it does not have, TensorRT 11, or no TensorRT.
            ProviderError: the GPU cannot be used, or some nodes would run on the CPU.
            EngineError: the graph is refused, or no plan came of it.
        """
        import onnx

        refuse_precision(request.precision, self.name, known=self.precisions)
        ort = _ready()
        (name, *_) = (item.name for item in onnx.load(request.source, load_external_data=False).graph.input)
        partial = partial_path(request.engine)
        options = session_options(_LEVEL)
        for key, value in (("enable", "1"), ("file_path", str(partial)), ("embed_mode", "1")):
            options.add_session_config_entry(f"ep.context_{key}", value)
        given = build_options(request.options, precision=request.precision, image=(name, *request.input_shape))
        try:
            start(ort, request.source, options, providers={TENSORRT: given, CUDA: _CUDA_OPTIONS})
            if not partial.is_file():
                raise EngineError(f"TensorRT and {request.source.name}", got="no plan", cure="use the backend tensorrt")
            plans, others = context_nodes(onnx.load(partial))
            partial.replace(request.engine)
        finally:
            partial.unlink(missing_ok=True)
        low, high = _batches(request.options)
        tf32 = allows_tf32(collect_environment())
        notes = [_TF32_NOTE] if tf32 and request.precision == "fp32" else []
        notes += [f"one TensorRT profile for batches {low} to {high}"] if low != high else []
        notes += [f"{others} nodes run outside TensorRT, on CUDA"] if others else []
        # tensorrt_execution_provider.cc: sync_stream_after_enqueue_ is set where the graph is partitioned
        notes += [_WAITS] if plans + others > 1 else []
        achieved = f"{request.precision}, TF32 allowed" if tf32 and request.precision == "fp32" else request.precision
        return BuildResult(
            achieved=achieved if plans == 1 and not others else f"{achieved} in {plans} TensorRT parts",
            weight_bytes=weight_bytes(request.source),  # the plan tells of none
            settings={"tf32": tf32},
            facts={"provider": TENSORRT, "provider_options": dict(given)},
            notes=tuple(notes),
        )

    def open(self, path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> DeviceEngine:
        """Load an engine file.

        Raises:
            UnsupportedError: TensorRT 11, or no TensorRT.
            ProviderError: the GPU cannot be used, or some nodes would run on the CPU.
            DeviceError: there is no package to drive CUDA with.
            EngineError: it does not load.
        """
        _ready()
        providers = {TENSORRT: {"device_id": "0"}, CUDA: _CUDA_OPTIONS}
        return open_on_device(path, sidecar, settings, providers=providers, level=_LEVEL)


def build_options(options: BuildOptions, *, precision: str, image: tuple[str, int, int, int]) -> dict[str, str]:
    """Return the provider's options of a build; names and values as its documentation has them.

    The provider builds weakly typed networks: the graph's types are hints, and the flags decide which kernels compete.

    Args:
        options: what the suite asks for.
        precision: the requested one.
        image: the input's name, and channels, height and width of one image.
    """
    name, *shape = image
    low, high = _batches(options)
    usual = options.profile[1] if options.profile else high
    found = {
        "device_id": "0",
        "trt_fp16_enable": str(int(precision == "fp16")),
        "trt_int8_enable": str(int(precision == "int8")),
        "trt_builder_optimization_level": str(options.optimization_level),
        "trt_sparsity_enable": str(int(options.sparse)),
        "trt_engine_hw_compatible": str(int(options.hardware_compatible)),
    }
    for kind, batch in (("min", low), ("opt", usual), ("max", high)):
        found[f"trt_profile_{kind}_shapes"] = f"{name}:{'x'.join(map(str, (batch, *shape)))}"
    if options.workspace_mib is not None:
        found["trt_max_workspace_size"] = str(options.workspace_mib * 2**20)
    if options.timing_cache is not None:
        found |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(options.timing_cache)}
    return found


def allows_tf32(environment: Environment) -> bool:
    """Say whether TensorRT may compute float32 in TF32: its default from Ampere on, which the provider cannot undo."""
    return not _is_tf32_forbidden() and any(gpu.compute_capability >= (8, 0) for gpu in environment.usable_gpus)


def _is_tf32_forbidden() -> bool:
    return os.environ.get("NVIDIA_TF32_OVERRIDE") == "0"  # NVIDIA's own switch: none of its libraries computes in TF32


def context_nodes(proto: Any) -> tuple[int, int]:
    """Count the nodes of an engine file that are plans of TensorRT, and the others."""
    plans = sum(node.op_type == "EPContext" for node in proto.graph.node)
    return plans, len(proto.graph.node) - plans


def refuse_tensorrt(environment: Environment, *, load: Callable[..., Any] = ctypes.CDLL) -> None:
    """Raise unless the TensorRT that the provider is linked to can be loaded; it is, for the provider to find.

    Raises:
        UnsupportedError: another one is installed, or none.
    """
    package = environment.package("tensorrt")
    what, cure = "backend onnxruntime-tensorrt", "use the backend tensorrt, or install trtbench[cu12]: TensorRT 10"
    if package is not None and package.release[0] > 10:  # noqa: PLR2004  the major that the library is named by
        raise UnsupportedError(what, expected=f"TensorRT 10: it links {_LIBRARY}", got=str(package), cure=cure)
    folder = _folder_of_libraries()
    try:
        load(str(folder / _LIBRARY), mode=ctypes.RTLD_GLOBAL)
        for name in _OTHER_LIBRARIES:
            load(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise UnsupportedError(what, expected=_LIBRARY, got=str(error), cure=cure) from error


def _ready() -> Any:
    ort = onnxruntime()
    refuse_tensorrt(collect_environment())
    require_provider(ort, TENSORRT)
    return ort


def _folder_of_libraries() -> Path:
    """Return where TensorRT's wheels put their libraries; without them the loader's own search decides."""
    spec = importlib.util.find_spec("tensorrt_libs")
    found = spec.submodule_search_locations if spec is not None else None
    return Path(found[0]) if found else Path()


def _batches(options: BuildOptions) -> tuple[int, int]:
    """Return the smallest and the largest batch of the one profile that the provider keeps."""
    if options.profile is not None:
        return options.profile[0], options.profile[2]
    return min(options.batch_sizes), max(options.batch_sizes)


ONNXRUNTIME_TENSORRT: Backend = TensorRtProviderBackend()
