"""A network at a precision: FP32 in and out, and in between what the row says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from trtbench.errors import UnsupportedError
from trtbench.models import load_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbench.engines.sidecar import Sidecar

# Tensor cores read half-precision convolutions in NHWC: in NCHW every layer would pay for two transpositions.
_HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


class AtPrecision(torch.nn.Module):
    """A network that takes and returns FP32, as engines do: the casts are part of what is timed."""

    def __init__(self, network: torch.nn.Module, *, precision: str) -> None:
        super().__init__()
        self._dtype = _HALF.get(precision, torch.float32)
        self._layout = torch.channels_last if precision in _HALF else torch.contiguous_format
        self._network = network.to(self._dtype).to(memory_format=self._layout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 images (batch, C, H, W) to float32 logits (batch, classes)."""
        logits: torch.Tensor = self._network(images.to(self._dtype, memory_format=self._layout))
        return logits.float()


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A network on its device, in eval mode, and the settings in force."""

    network: torch.nn.Module
    device: torch.device
    settings: Mapping[str, Any]


def load_network(path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> Loaded:
    """Load a checkpoint into its PyTorch source at the sidecar's precision.

    Args:
        path: the checkpoint.
        sidecar: its sidecar.
        settings: `threads` (intra-op).

    Returns:
        The network; `settings` tells the TF32 state, which PyTorch keeps for the whole process.
    """
    wanted = {"threads": 1, **settings, **sidecar.settings}
    torch.set_num_threads(wanted["threads"])
    is_tf32 = sidecar.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = is_tf32
    network = load_model(sidecar.model, num_classes=sidecar.num_classes, checkpoint=path).model.eval()
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    layout = "channels_last" if sidecar.precision in _HALF else "contiguous"
    return Loaded(
        network=AtPrecision(network, precision=sidecar.precision).to(device),
        device=device,
        settings={**wanted, "tf32": is_tf32, "memory_format": layout},
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
    if precision in {"tf32", "bf16"} and has_cuda and (major := torch.cuda.get_device_capability(0)[0]) < 8:  # noqa: PLR2004  Ampere
        raise UnsupportedError(what, expected="a GPU of SM 8.0 or later", got=f"SM {major}.x", cure="ask for fp16")


def weight_bytes(network: torch.nn.Module, *, precision: str) -> int:
    """Return the bytes of all parameters and buffers as they are kept at a precision."""
    half = precision in _HALF
    return sum(
        tensor.numel() * 2 if half and tensor.is_floating_point() else tensor.nbytes
        for tensor in network.state_dict().values()
    )
