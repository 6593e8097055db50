"""The runtime `eager-cudagraph`: PyTorch's kernels recorded once and launched together, without Python between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trtbench.engines.eager.checkpoint import (
    PRECISIONS,
    SUFFIX,
    TAKES_OPTIONS,
    copy_checkpoint,
    device_name,
    is_simulated,
    machine,
    runtime_version,
    usual_precisions,
)
from trtbench.engines.eager.network import load_network
from trtbench.engines.eager.session import TorchEngine
from trtbench.errors import EngineError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbench.engines.base import BuildRequest, BuildResult
    from trtbench.engines.eager.session import Launch
    from trtbench.engines.sidecar import Sidecar

__all__ = [
    "PRECISIONS",
    "SUFFIX",
    "TAKES_OPTIONS",
    "build",
    "device_name",
    "is_simulated",
    "machine",
    "open_engine",
    "runtime_version",
    "usual_precisions",
]
# PyTorch, "CUDA semantics", "Whole-network capture": libraries choose and set up their kernels in the first runs.
_WARM_UP_RUNS = 3


def build(request: BuildRequest) -> BuildResult:
    """Copy the checkpoint.

    Raises:
        UnsupportedError: there is no CUDA device, or the precision is none of this runtime's or of this device's.
    """
    _require_cuda()
    return copy_checkpoint(request, backend="eager-cudagraph")


def open_engine(path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> TorchEngine:
    """Load a checkpoint; each session records a graph of its own at its batch size.

    Raises:
        UnsupportedError: there is no CUDA device.
    """
    _require_cuda()
    loaded = load_network(path, sidecar, settings)

    def prepare(images: torch.Tensor) -> Launch:
        return _recorded(loaded.network, images)

    return TorchEngine(
        device=loaded.device,
        name=device_name(),
        settings={**loaded.settings, "cuda_graph": True},
        input_shape=sidecar.preprocessing.input_shape,
        prepare=prepare,
    )


def _require_cuda() -> None:
    if not torch.cuda.is_available():
        raise UnsupportedError(
            "backend eager-cudagraph", expected="a CUDA device", got="the CPU", cure="use the backend eager or compile"
        )


def _recorded(network: torch.nn.Module, images: torch.Tensor) -> Launch:
    """Return what launches the recorded kernels; the logits stand in one tensor that each launch overwrites.

    Raises:
        EngineError: the network cannot be captured, say because it waits for the device.
    """
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
