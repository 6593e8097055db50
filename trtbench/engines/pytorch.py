"""PyTorch's runtimes: three ways to launch one network, which is the checkpoint in its PyTorch source.

`eager` calls one kernel after another; `eager-cudagraph` launches the kernels of one recording together, without Python
between them; `compile` is torch.compile with Inductor, on the CPU too. The compiler runs at the first inference of each
batch size: at the engine's first one its time stands in `first_inference_ms`, and no timed part holds any of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from trtbench.disk import write_atomically
from trtbench.engines.base import (
    NO_OPTIONS,
    BackendFacts,
    BuildResult,
    Measuring,
    OpenEngine,
    SessionFacts,
    refuse_precision,
)
from trtbench.errors import EngineError, SidecarError, UnsupportedError
from trtbench.models import load_model
from trtbench.precision import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.engines.base import Backend, BuildRequest, Scope
    from trtbench.engines.sidecar import Sidecar

    Launch = Callable[[], torch.Tensor]
    Prepare = Callable[[torch.nn.Module, torch.Tensor], Launch]


_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def memory_format(precision: str) -> torch.memory_format:
    """Return how activations lie in memory at a precision.

    Tensor cores read convolutions in NHWC, in half precision and in TF32: in NCHW each layer would pay for two
    transpositions.
    """
    uses_tensor_cores = PRECISIONS[precision].half or precision == "tf32"
    return torch.channels_last if uses_tensor_cores else torch.contiguous_format


class AtPrecision(torch.nn.Module):
    """A network that takes and returns FP32, as engines do: the casts are part of what is timed."""

    def __init__(self, network: torch.nn.Module, *, precision: str) -> None:
        super().__init__()
        half = PRECISIONS[precision].half
        self._dtype = _DTYPES[half] if half else torch.float32
        self._layout = memory_format(precision)
        self._network = network.to(self._dtype).to(memory_format=self._layout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 images (batch, C, H, W) to float32 logits (batch, classes)."""
        logits: torch.Tensor = self._network(images.to(self._dtype, memory_format=self._layout))
        return logits.float()


class TorchSession:
    """An input tensor of one batch size, the logits of the last inference and, on a GPU, a stream of its own.

    Args:
        network: what is launched.
        shape: batch, channels, height, width.
        device: where.
        prepare: returns what launches an inference of the input tensor.
        settings: in force.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        *,
        shape: tuple[int, ...],
        device: torch.device,
        prepare: Prepare,
        settings: Mapping[str, Any],
    ) -> None:
        self._settings = settings
        self._device, self._is_cuda = device, device.type == "cuda"
        self._stream: torch.cuda.Stream | None = (
            torch.cuda.Stream(device) if self._is_cuda else None  # type: ignore[no-untyped-call]  # PyTorch's
        )
        self._host_in = torch.zeros(shape, pin_memory=self._is_cuda)
        with self._here():
            self._input = torch.zeros(shape, device=device)
            self._output = torch.zeros(0, device=device)
            self._launch: Launch = prepare(network, self._input)

    def copy_in(self, images: NDArray[np.float32]) -> None:
        """Copy float32 images (batch, C, H, W) into the input tensor, when no copy of the last ones is under way."""
        self.synchronize()
        self._host_in.copy_(torch.from_numpy(images))
        with self._here():
            self._input.copy_(self._host_in, non_blocking=True)

    def enqueue(self) -> None:
        """Launch one inference."""
        with self._here():
            self._output = self._launch()

    def synchronize(self) -> None:
        """Wait for everything launched; on the CPU an inference has ended when the call returns."""
        if self._stream is not None:
            self._stream.synchronize()

    def copy_out(self) -> NDArray[np.float32]:
        """Return the float32 logits (batch, classes) as an array of the caller's own."""
        with self._here():
            return self._output.detach().to("cpu", torch.float32).numpy().copy()

    def time(self, samples: int, *, launches_per_sample: int = 1, scope: Scope = "device") -> NDArray[np.int64]:
        """Return `samples` durations in nanoseconds, each of `launches_per_sample` inferences and one wait.

        host-to-host adds the copies, on CUDA from and to page-locked memory, queued behind one another.
        """
        clock, wait = time.perf_counter_ns, self.synchronize
        durations = np.empty(samples, dtype=np.int64)
        with self._here():
            operations = self._operations(scope) * launches_per_sample
            wait()
            if self._is_cuda:
                torch.cuda.reset_peak_memory_stats(self._device)
            for index in range(samples):
                start = clock()
                for operation in operations:
                    operation()
                wait()
                durations[index] = clock() - start
        return durations

    def time_parts(self, samples: int) -> None:
        """Return None: PyTorch's launches are not taken apart."""

    def describe(self) -> SessionFacts:
        """Return the settings and, on a GPU, the most that was allocated while it was last timed.

        That is weights, activations, inputs and outputs, as TensorRT's figure is; what the pool keeps beside them, and
        the CUDA context, are left out.
        """
        taken = torch.cuda.max_memory_allocated(self._device) if self._is_cuda else None
        return SessionFacts(settings=self._settings, memory_bytes=taken)

    def _operations(self, scope: Scope) -> tuple[Callable[[], object], ...]:
        if scope == "device":
            return (self._launch,)
        host_out = torch.zeros(self._launch().shape, pin_memory=self._is_cuda)
        launch, tensor, host_in = self._launch, self._input, self._host_in
        return (
            lambda: tensor.copy_(host_in, non_blocking=True),
            lambda: host_out.copy_(launch(), non_blocking=True),
        )

    @contextlib.contextmanager
    def _here(self) -> Iterator[None]:
        """Compute without gradients, on this session's stream."""
        with torch.inference_mode(), torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext():
            yield

    def close(self) -> None:
        """Free the tensors."""
        self.synchronize()
        self._launch = lambda: torch.zeros(0)
        self._input = self._output = self._host_in = torch.zeros(0)


# PyTorch, "CUDA semantics", "Whole-network capture": libraries choose and set up their kernels in the first runs.
_WARM_UP_RUNS = 3
_COMPILERS = ("gcc", "g++", "clang", "clang++", "cl")


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchBackend(Measuring):
    """A way to launch a network.

    Args:
        name: of the runtime.
        launch: told a network and an input tensor, returns what launches an inference of it.
        settings: what a row says of it.
        needs_cuda: it cannot run on the CPU.
        needs_compiler: it compiles code of C or C++ when it runs.
    """

    precisions: ClassVar[tuple[str, ...]] = ("fp32", "tf32", "fp16", "bf16")
    suffix: ClassVar[str] = ".safetensors"

    name: str = field(kw_only=False)
    launch: Prepare
    settings: Mapping[str, Any] = field(default_factory=dict)
    needs_cuda: bool = False
    needs_compiler: bool = False

    def facts(self, options: Mapping[str, Any] = NO_OPTIONS) -> BackendFacts:  # noqa: ARG002  the same for all engines
        """Return what it is here: the GPU where PyTorch sees one; a checkpoint is bound to nothing."""
        return BackendFacts(
            version=str(torch.__version__),
            device=torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
            machine="any",
            usual_precisions=("fp32",),
        )

    def build(self, request: BuildRequest) -> BuildResult:
        """Copy the checkpoint: PyTorch runs it itself.

        Raises:
            UnsupportedError: the precision is none of this runtime's or of this device's, or it lacks CUDA or a
                compiler.
        """
        self._require_cuda()
        self._require_compiler()
        refuse_precision(request.precision, self.name, known=self.precisions)
        require_device(request.precision, backend=self.name)
        write_atomically(request.engine, request.source.read_bytes())
        network = load_model(request.model, num_classes=request.num_classes, checkpoint=request.engine).model
        return BuildResult(achieved=request.precision, weight_bytes=weight_bytes(network, precision=request.precision))

    def open(self, path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> OpenEngine:
        """Load a checkpoint into its PyTorch source, with `settings["threads"]` intra-op threads.

        The settings in force tell the TF32 state, which PyTorch keeps for the whole process.

        Raises:
            UnsupportedError: it needs CUDA.
            SidecarError: its network is code that neither a suite nor the command line names.
        """
        self._require_cuda()
        _refuse_code(path, sidecar, settings.get("code"))
        wanted = {"threads": 1, **{key: value for key, value in settings.items() if key != "code"}, **sidecar.settings}
        torch.set_num_threads(wanted["threads"])
        is_tf32 = sidecar.precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = is_tf32
        network = load_model(sidecar.model, num_classes=sidecar.num_classes, checkpoint=path).model.eval()
        device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        layout = "channels_last" if memory_format(sidecar.precision) is torch.channels_last else "contiguous"
        on_device: dict[str, Any] = {}
        if device.type == "cuda":
            # cuDNN tries its kernels for each shape in the first inference, as TensorRT does when it builds.
            torch.backends.cudnn.benchmark = on_device["cudnn_benchmark"] = True
        at_precision = AtPrecision(network, precision=sidecar.precision).to(device)
        in_force = {**wanted, "tf32": is_tf32, "memory_format": layout, **on_device, **self.settings}
        image, prepare = sidecar.preprocessing.input_shape, self.launch

        def opened(batch: int) -> TorchSession:
            shape = (batch, *image)
            return TorchSession(at_precision, shape=shape, device=device, prepare=prepare, settings=in_force)

        return OpenEngine(self.facts().device, opened)

    def _require_cuda(self) -> None:
        if self.needs_cuda and not torch.cuda.is_available():
            cure = "use the backend eager or compile"
            raise UnsupportedError(f"backend {self.name}", expected="a CUDA device", got="the CPU", cure=cure)

    def _require_compiler(self) -> None:
        """Refuse where no compiler is: Inductor compiles C++ for a CPU, and Triton its launchers in C for a GPU."""
        named = (os.environ.get(name, "") for name in ("CC", "CXX"))
        if self.needs_compiler and not any(shutil.which(one) for one in (*named, *_COMPILERS) if one):
            cure = "install g++ (the container has none), or use the backend eager or eager-cudagraph"
            raise UnsupportedError(f"backend {self.name}", expected="a C++ compiler", got="none on the PATH", cure=cure)


def _refuse_code(path: Path, sidecar: Sidecar, trusted: str | None) -> None:
    source = sidecar.model.partition(":")[0]
    if ":" in sidecar.model and source not in {"torchvision", "timm"} and sidecar.model != trusted:
        raise SidecarError(
            f"sidecar of {path}: model",
            expected="a network that needs no code of yours",
            got=repr(sidecar.model),
            cure="run the suite that names it: a sidecar imports nothing",
        )


def require_device(precision: str, *, backend: str) -> None:
    """Raise for a precision that this device only imitates, or does not have.

    Raises:
        UnsupportedError: TF32 without a GPU, or TF32 or BF16 on one before Ampere.
    """
    what = f"precision {precision!r} on {backend}"
    has_cuda = torch.cuda.is_available()
    if precision == "tf32" and not has_cuda:
        raise UnsupportedError(what, expected="a CUDA device", got="the CPU, which has no TF32", cure="ask for fp32")
    if PRECISIONS[precision].needs_ampere and has_cuda and (major := torch.cuda.get_device_capability(0)[0]) < 8:  # noqa: PLR2004  Ampere
        raise UnsupportedError(what, expected="a GPU of SM 8.0 or later", got=f"SM {major}.x", cure="ask for fp16")


def weight_bytes(network: torch.nn.Module, *, precision: str) -> int:
    """Return the bytes of all parameters and buffers as they are kept at a precision."""
    half = PRECISIONS[precision].half
    return sum(
        tensor.numel() * 2 if half and tensor.is_floating_point() else tensor.nbytes
        for tensor in network.state_dict().values()
    )


def _recorded(network: torch.nn.Module, images: torch.Tensor) -> Launch:
    """Return what launches the recorded kernels; the logits stand in one tensor that each launch overwrites."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # PyTorch types it not
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP_RUNS):
            network(images)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        # Thread-local: another thread's CUDA calls, a telemetry sampler's say, must not break the capture.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            logits: torch.Tensor = network(images)
    except RuntimeError as error:
        raise EngineError("capture of a CUDA graph", got=str(error), cure="use the backend eager") from error

    def launch() -> torch.Tensor:
        graph.replay()
        return logits

    return launch


def _compiled(network: torch.nn.Module, images: torch.Tensor) -> Launch:
    """Return what runs the network compiled for these images.

    It is one piece of one shape: a part that fell back to eager would be timed under a wrong name. Inductor's caches
    are off, so that the first inference of every run costs what the first of all did.
    """
    from torch._inductor import config

    # Not by torch.compile(options=...): from 2.10 to 2.13 it refuses a name that stands for another module's.
    config.force_disable_caches = True
    compiled = torch.compile(network, fullgraph=True, dynamic=False, backend="inductor")
    return _guarded(compiled, images)


def _guarded(compiled: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> Launch:
    """Return what runs the compiled network; what the compiler raises is told as a fault of this runtime."""

    def launch() -> torch.Tensor:
        try:
            return compiled(images)
        except torch._dynamo.exc.TorchDynamoException as error:  # noqa: SLF001  its exceptions have no other name
            reason = " ".join(str(error).split())[:500]
            cure = "install a C++ compiler where it asks for one, or use the backend eager"
            raise EngineError("torch.compile", expected="one compiled graph", got=reason, cure=cure) from error

    return launch


EAGER: Backend = TorchBackend("eager", launch=functools.partial)
CUDAGRAPH: Backend = TorchBackend("eager-cudagraph", launch=_recorded, settings={"cuda_graph": True}, needs_cuda=True)
COMPILE: Backend = TorchBackend("compile", launch=_compiled, settings={"compiler": "inductor"}, needs_compiler=True)
