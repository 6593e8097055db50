"""PyTorch eager: the baseline every engine is compared with; its engine file is the checkpoint."""

from __future__ import annotations

import shutil
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trtbench.engines.base import BuildResult, partial_path, refuse_precision
from trtbench.models import load_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.engines.base import BuildRequest, Scope
    from trtbench.engines.sidecar import Sidecar

PRECISIONS = ("fp32",)
SUFFIX = ".safetensors"
TAKES_OPTIONS = False


def usual_precisions() -> tuple[str, ...]:
    """Return the precisions that a suite means where it names none."""
    return ("fp32",)


def is_simulated() -> bool:
    """Say that its rows are measurements."""
    return False


def machine(options: Mapping[str, Any] = MappingProxyType({})) -> str:  # noqa: ARG001  the same for all its engines
    """Return what a checkpoint is bound to: nothing."""
    return "any"


def device_name() -> str:
    """Return the device as a row names it: CUDA where PyTorch sees one."""
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def runtime_version() -> str:
    """Return PyTorch's version."""
    return str(torch.__version__)


def build(request: BuildRequest) -> BuildResult:
    """Copy the checkpoint: eager runs the PyTorch source itself.

    Raises:
        UnsupportedError: the precision is none of this runtime's.
    """
    refuse_precision(request.precision, "eager", known=PRECISIONS)
    partial = partial_path(request.engine)
    shutil.copyfile(request.source, partial)
    partial.replace(request.engine)
    network = load_model(request.model, num_classes=request.num_classes, checkpoint=request.engine).model
    weight_bytes = sum(tensor.nbytes for tensor in network.state_dict().values())
    return BuildResult(achieved=request.precision, weight_bytes=weight_bytes)


def open_engine(path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> EagerEngine:
    """Load a checkpoint into its PyTorch source, with `settings["threads"]` intra-op threads."""
    wanted = {"threads": 1, **settings, **sidecar.settings}
    torch.set_num_threads(wanted["threads"])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    network = load_model(sidecar.model, num_classes=sidecar.num_classes, checkpoint=path).model
    return EagerEngine(network, input_shape=sidecar.preprocessing.input_shape, settings={**wanted, "tf32": False})


class EagerEngine:
    """A network in eval mode on the device."""

    def __init__(
        self, network: torch.nn.Module, *, input_shape: tuple[int, int, int], settings: Mapping[str, Any]
    ) -> None:
        self.device = device_name()
        self.settings = settings
        self._network = network.to(self.device)
        self._input_shape = input_shape

    def session(self, batch: int) -> EagerSession:
        """Return a session at this batch size."""
        return EagerSession(self._network, shape=(batch, *self._input_shape), device=self.device)


class EagerSession:
    """An input tensor of one batch size, and the logits of the last inference."""

    def __init__(self, network: torch.nn.Module, *, shape: tuple[int, ...], device: str) -> None:
        self._network = network
        self._input = torch.zeros(shape, device=device)
        self._output = torch.zeros(0, device=device)
        self._wait = torch.cuda.synchronize if device.startswith("cuda") else _nothing_in_flight

    def copy_in(self, images: NDArray[np.float32]) -> None:
        """Copy float32 images (batch, C, H, W) into the input tensor."""
        self._input.copy_(torch.from_numpy(images))

    def enqueue(self) -> None:
        """Launch one inference."""
        with torch.inference_mode():
            self._output = self._network(self._input)

    def synchronize(self) -> None:
        """Wait for everything launched."""
        self._wait()

    def copy_out(self) -> NDArray[np.float32]:
        """Return the logits (batch, classes) as an array of the caller's own."""
        return self._output.detach().to("cpu", torch.float32).numpy().copy()

    def time(self, samples: int, *, launches_per_sample: int = 1, scope: Scope = "device") -> NDArray[np.int64]:
        """Return `samples` durations in nanoseconds; host-to-host adds the copies in and out."""
        clock, network, tensor, wait = time.perf_counter_ns, self._network, self._input, self._wait
        host = tensor.to("cpu", copy=True)
        durations = np.empty(samples, dtype=np.int64)
        with torch.inference_mode():
            for index in range(samples):
                wait()
                start = clock()
                for _ in range(launches_per_sample):
                    if scope == "host-to-host":
                        tensor.copy_(host)
                        network(tensor).cpu()
                    else:
                        network(tensor)
                wait()
                durations[index] = clock() - start
        return durations

    def close(self) -> None:
        """Free the tensors."""
        self._input = self._output = torch.zeros(0)


def _nothing_in_flight() -> None:
    """On the CPU an inference has ended when the call returns."""
