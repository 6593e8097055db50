"""ONNX Runtime's CUDA provider: float kernels of cuDNN and cuBLAS; the engine file is the graph itself.

The graph is kept as it came: ONNX Runtime's own optimised files may hold nodes of the machine they were made on.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from trtbench.engines.base import NO_OPTIONS, BackendFacts, BuildResult, partial_path, refuse_precision
from trtbench.engines.onnxruntime.gpu import gpu_machine, gpu_name
from trtbench.engines.onnxruntime.sessions import CUDA, require_provider, session_options, start, weight_bytes
from trtbench.errors import UnsupportedError
from trtbench.graph.reference import onnxruntime
from trtbench.precision import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbench.engines.base import Backend, BuildRequest
    from trtbench.engines.onnxruntime.device_session import DeviceEngine
    from trtbench.engines.sidecar import Sidecar

_LEVEL = "ORT_ENABLE_ALL"
# The provider's default is TF32 on: an FP32 row says FP32.
_OPTIONS: Mapping[str, str] = {"device_id": "0", "use_tf32": "0"}


class CudaBackend:
    """ONNX Runtime's CUDA provider."""

    name = "onnxruntime-cuda"
    precisions = ("fp32", "fp16")
    suffix = ".onnx"
    takes_options = False

    def is_simulated(self) -> bool:
        """Say that its rows are measurements."""
        return False

    def facts(self, options: Mapping[str, Any] = NO_OPTIONS) -> BackendFacts:  # noqa: ARG002  the same for all engines
        """Return what it is here; an engine is bound to the GPU, whose kernels loading chooses, and the driver."""
        return BackendFacts(
            version=str(onnxruntime().__version__),
            device=gpu_name(),
            machine=gpu_machine(),
            usual_precisions=self.precisions,
        )

    def build(self, request: BuildRequest) -> BuildResult:
        """Keep the graph, after proving that every node of it runs on CUDA.

        Raises:
            UnsupportedError: INT8, which this provider would compute in float; or a precision that is none of its own.
            ProviderError: CUDA cannot be used, or some nodes would run on the CPU.
            EngineError: ONNX Runtime refuses the graph.
        """
        _refuse_int8(request.precision)
        refuse_precision(request.precision, self.name, known=self.precisions)
        ort = onnxruntime()
        require_provider(ort, CUDA)
        options = session_options(ort, level=getattr(ort.GraphOptimizationLevel, _LEVEL), settings={})
        start(ort, request.source, options, providers={CUDA: _OPTIONS})
        partial = partial_path(request.engine)
        shutil.copyfile(request.source, partial)
        partial.replace(request.engine)
        return BuildResult(
            achieved=request.precision,
            weight_bytes=weight_bytes(request.engine),
            settings={"tf32": False},
            facts={"provider": CUDA, "provider_options": dict(_OPTIONS)},
        )

    def open(self, path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> DeviceEngine:
        """Load an engine file.

        Raises:
            ProviderError: CUDA cannot be used, or some nodes would run on the CPU.
            DeviceError: there is no package to drive CUDA with.
            EngineError: it does not load.
        """
        from trtbench.engines.onnxruntime.device_session import open_on_device

        require_provider(onnxruntime(), CUDA)
        return open_on_device(path, sidecar, settings, providers={CUDA: _OPTIONS}, level=_LEVEL)


def _refuse_int8(precision: str) -> None:
    if precision in PRECISIONS and PRECISIONS[precision].is_int8:
        raise UnsupportedError(
            f"precision {precision!r} on onnxruntime-cuda",
            expected="fp32 or fp16",
            got="a provider that computes Q/DQ nodes in float: slower than FP32, and no INT8 at all",
            cure="use the backend tensorrt, or onnxruntime-tensorrt with TensorRT 10",
        )


ONNXRUNTIME_CUDA: Backend = CudaBackend()
