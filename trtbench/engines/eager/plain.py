"""The runtime `eager`: PyTorch calls one kernel after another."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from trtbench.engines.eager.checkpoint import copy_checkpoint, device_name
from trtbench.engines.eager.network import load_network
from trtbench.engines.eager.session import TorchEngine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from trtbench.engines.base import BuildRequest, BuildResult
    from trtbench.engines.eager.session import Launch
    from trtbench.engines.sidecar import Sidecar


def build(request: BuildRequest) -> BuildResult:
    """Copy the checkpoint: eager runs the PyTorch source itself.

    Raises:
        UnsupportedError: the precision is none of this runtime's, or not this device's.
    """
    return copy_checkpoint(request, backend="eager")


def open_engine(path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> TorchEngine:
    """Load a checkpoint into its PyTorch source, with `settings["threads"]` intra-op threads."""
    loaded = load_network(path, sidecar, settings)

    def prepare(images: torch.Tensor) -> Launch:
        return functools.partial(loaded.network, images)

    return TorchEngine(
        device=loaded.device,
        name=device_name(),
        settings={**loaded.settings},
        input_shape=sidecar.preprocessing.input_shape,
        prepare=prepare,
    )
