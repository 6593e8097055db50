"""What PyTorch's runtimes share as runtimes: precisions, names, and a build that copies the checkpoint."""

from __future__ import annotations

import shutil
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from trtbench.engines.base import BuildResult, partial_path, refuse_precision
from trtbench.engines.eager.network import require_device, weight_bytes
from trtbench.models import load_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbench.engines.base import BuildRequest

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
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
    """Return the device as a row names it: the GPU's name where PyTorch sees one."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"


def runtime_version() -> str:
    """Return PyTorch's version."""
    return str(torch.__version__)


def copy_checkpoint(request: BuildRequest, *, backend: str) -> BuildResult:
    """Write the engine file: PyTorch runs the checkpoint itself.

    Raises:
        UnsupportedError: the precision is none of the runtime's, or not this device's.
    """
    refuse_precision(request.precision, backend, known=PRECISIONS)
    require_device(request.precision, backend=backend)
    partial = partial_path(request.engine)
    shutil.copyfile(request.source, partial)
    partial.replace(request.engine)
    network = load_model(request.model, num_classes=request.num_classes, checkpoint=request.engine).model
    return BuildResult(achieved=request.precision, weight_bytes=weight_bytes(network, precision=request.precision))
