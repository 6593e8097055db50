"""What PyTorch's runtimes share: a network at a precision, and sessions that differ in how they launch it."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trtbench.engines.base import SessionFacts
from trtbench.precision import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from trtbench.engines.base import Scope

    # Computes the logits of the input it was made for.
    Launch = Callable[[], torch.Tensor]
    # Told a network and the input tensor of a session, returns what launches an inference of it.
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
        self._launch = _closed
        self._input = self._output = self._host_in = torch.zeros(0)


def _closed() -> torch.Tensor:
    return torch.zeros(0)


class TorchEngine:
    """A network on its device; sessions differ by runtime in how they launch it.

    Args:
        network: at its precision, on the device, in eval mode.
        device: where.
        name: as rows name the device.
        settings: in force.
        input_shape: channels, height and width of one image.
        prepare: returns what launches an inference of a session's input.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        *,
        device: torch.device,
        name: str,
        settings: Mapping[str, Any],
        input_shape: tuple[int, int, int],
        prepare: Prepare,
    ) -> None:
        self.device = name
        self._network = network
        self._settings = settings
        self._torch_device = device
        self._input_shape = input_shape
        self._prepare = prepare

    def session(self, batch: int) -> TorchSession:
        """Return a session at this batch size."""
        shape = (batch, *self._input_shape)
        return TorchSession(
            self._network, shape=shape, device=self._torch_device, prepare=self._prepare, settings=self._settings
        )

    def close(self) -> None:
        """Let go of the network."""
        self._network = torch.nn.Identity()
