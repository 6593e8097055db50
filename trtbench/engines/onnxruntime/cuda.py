"""ONNX Runtime's CUDA provider, and its sessions on a GPU: everything queued on one stream of ours.

The engine file is the graph as it came: ONNX Runtime's own optimised files may hold nodes of the machine they were made
on. The kernels are float ones of cuDNN and cuBLAS.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.disk import write_atomically
from trtbench.engines.base import NO_OPTIONS, BackendFacts, BuildResult, Measuring, SessionFacts, refuse_precision
from trtbench.engines.cuda import open_cuda
from trtbench.engines.cuda.loops import Staged, timed_by_clock
from trtbench.engines.onnxruntime.sessions import CUDA, require_provider, session_options, start, weight_bytes
from trtbench.environment import collect_environment
from trtbench.errors import UnsupportedError
from trtbench.graph.reference import onnxruntime
from trtbench.precision import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.engines.base import Backend, BuildRequest, Scope
    from trtbench.engines.cuda.device import Cuda, Operation
    from trtbench.engines.onnxruntime.sessions import Providers
    from trtbench.engines.sidecar import Sidecar

_LEVEL = "ORT_ENABLE_ALL"
# The provider's default is TF32 on: an FP32 row says FP32.
_OPTIONS: Mapping[str, str] = {"device_id": "0", "use_tf32": "0"}


class CudaBackend(Measuring):
    """ONNX Runtime's CUDA provider."""

    name = "onnxruntime-cuda"
    precisions = ("fp32", "fp16")
    suffix = ".onnx"

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
        options = session_options(_LEVEL)
        start(ort, request.source, options, providers={CUDA: _OPTIONS})
        write_atomically(request.engine, request.source.read_bytes())
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


def open_on_device(
    path: Path, sidecar: Sidecar, settings: Mapping[str, Any], *, providers: Providers, level: str
) -> DeviceEngine:
    """Load an engine file on the GPU, on a stream of ours.

    Args:
        path: the engine file.
        sidecar: its sidecar, already checked.
        settings: what is asked for beside the build's own settings.
        providers: with their options; the stream is added to each.
        level: the name of ONNX Runtime's optimisation level.

    Raises:
        DeviceError: CUDA cannot be used.
        ProviderError: it would not run on the provider asked for.
        EngineError: it does not load.
    """
    ort = onnxruntime()

    def load(cuda: Cuda) -> Any:
        options = session_options(level)
        on_stream = {name: {**one, "user_compute_stream": str(cuda.stream)} for name, one in providers.items()}
        return start(ort, path, options, providers=on_stream)

    wanted = {**settings, **sidecar.settings}
    return DeviceEngine(load, cuda=open_cuda(), device=sidecar.device, num_classes=sidecar.num_classes, settings=wanted)


class DeviceEngine:
    """A loaded engine file. ONNX Runtime ties a network to one stream, so each further session loads the file again.

    Args:
        load: told the device and a stream, returns a session of ONNX Runtime that computes on it.
        cuda: the device and the first session's stream.
        device: as rows name it.
        num_classes: of the logits.
        settings: in force.
    """

    def __init__(
        self,
        load: Callable[[Cuda], Any],
        *,
        cuda: Cuda,
        device: str,
        num_classes: int,
        settings: Mapping[str, Any],
    ) -> None:
        self.device = device
        self._settings = settings
        self._load = load
        self._cuda = cuda
        self._first = load(cuda)
        self._num_classes = num_classes

    def session(self, batch: int) -> DeviceSession:
        """Return a session at this batch size, on a stream of its own."""
        first, self._first = self._first, None
        cuda = self._cuda if first is not None else self._cuda.beside()
        return DeviceSession(
            first or self._load(cuda), cuda=cuda, batch=batch, num_classes=self._num_classes, settings=self._settings
        )

    def close(self) -> None:
        """Let go of the network, then of the stream that it computes on."""
        self._first = None
        self._cuda.close()


class DeviceSession(Staged):
    """Page-locked host arrays and device buffers of one batch size.

    Args:
        session: of ONNX Runtime.
        cuda: the device and the stream that the session computes on.
        batch: images at a time.
        num_classes: of the logits.
        settings: in force.
        memory: where ONNX Runtime is told that the buffers are.
    """

    def __init__(
        self,
        session: Any,
        *,
        cuda: Cuda,
        batch: int,
        num_classes: int,
        settings: Mapping[str, Any],
        memory: str = "cuda",
    ) -> None:
        self._settings = settings
        ort = onnxruntime()
        images, logits = session.get_inputs()[0], session.get_outputs()[0]
        self._cuda = cuda
        with cuda.current():
            self._host_in = cuda.pinned((batch, *images.shape[1:]), dtype=np.float32)
            self._host_out = cuda.pinned((batch, num_classes), dtype=np.float32)
            self._host_in.fill(0)
            self._input, self._output = cuda.allocate(self._host_in.nbytes), cuda.allocate(self._host_out.nbytes)
            self._upload = cuda.upload(self._input, self._host_in)
            self._download = cuda.download(self._host_out, self._output)
        self._binding = session.io_binding()
        for bind, tensor, host, buffer in (
            (self._binding.bind_input, images, self._host_in, self._input),
            (self._binding.bind_output, logits, self._host_out, self._output),
        ):
            bind(tensor.name, memory, cuda.index, np.float32, host.shape, buffer.ptr)
        # Else each run would wait for the device, and neither launches nor copies could queue behind one another.
        options = ort.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._launch: Operation = functools.partial(session.run_with_iobinding, self._binding, options)

    def enqueue(self) -> None:
        """Launch one inference."""
        with self._cuda.current():
            self._launch()

    def time(self, samples: int, *, launches_per_sample: int = 1, scope: Scope = "device") -> NDArray[np.int64]:
        """Return `samples` durations in nanoseconds, each of `launches_per_sample` inferences and one wait.

        host-to-host adds the copies, from and to page-locked memory.
        """
        one = (self._upload, self._launch, self._download) if scope == "host-to-host" else (self._launch,)
        with self._cuda.current():
            self._cuda.synchronize()
            return timed_by_clock(self._cuda, one * launches_per_sample, samples=samples)

    def time_parts(self, samples: int) -> None:
        """Return None: ONNX Runtime's launch is not taken apart."""

    def describe(self) -> SessionFacts:
        """Return the settings; ONNX Runtime does not tell what its arena takes of the device."""
        return SessionFacts(settings=self._settings)

    def close(self) -> None:
        """Free the buffers."""
        with self._cuda.current():
            self._cuda.synchronize()
            self._binding.clear_binding_inputs()
            self._binding.clear_binding_outputs()
            self._input.free()
            self._output.free()


def gpu_name() -> str:
    """Return the name of the GPU that rows are labelled with; `cuda:0` where none can be used."""
    gpus = collect_environment().usable_gpus
    return gpus[0].name if gpus else "cuda:0"


def gpu_machine() -> str:
    """Return what an engine file is bound to: the GPU, its compute capability and the driver."""
    environment = collect_environment()
    gpus = environment.usable_gpus
    return f"{gpus[0].name}, SM {gpus[0].sm}, driver {environment.driver.version}" if gpus else "no GPU"


ONNXRUNTIME_CUDA: Backend = CudaBackend()
