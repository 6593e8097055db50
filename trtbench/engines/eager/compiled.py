"""The runtime `compile`: torch.compile with Inductor, on the CPU too.

The compiler runs at the first inference of each batch size: at the engine's first one its time stands in
`first_inference_ms`, and no timed part holds any of it.
"""

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
from trtbench.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
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


def build(request: BuildRequest) -> BuildResult:
    """Copy the checkpoint: what the compiler makes of it is kept nowhere.

    Raises:
        UnsupportedError: the precision is none of this runtime's, or not this device's.
    """
    return copy_checkpoint(request, backend="compile")


def open_engine(path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> TorchEngine:
    """Load a checkpoint; it is compiled for each batch size when that first runs.

    Inductor's caches are off, so that the first inference of every run costs what the first of all did.
    """
    loaded = load_network(path, sidecar, settings)

    def prepare(images: torch.Tensor) -> Launch:
        # A graph of one piece and one shape: a part that fell back to eager would be timed under a wrong name.
        compiled = torch.compile(
            loaded.network, fullgraph=True, dynamic=False, backend="inductor", options={"force_disable_caches": True}
        )
        return _guarded(compiled, images)

    return TorchEngine(
        device=loaded.device,
        name=device_name(),
        settings={**loaded.settings, "compiler": "inductor"},
        input_shape=sidecar.preprocessing.input_shape,
        prepare=prepare,
    )


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
