"""The device a network learns on, a split there as one uint8 tensor, and batches of it as input: index maths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from trtbench.data.preprocess import normalise
from trtbench.errors import CapabilityError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from trtbench.records import Preprocessing, Split


_LEVELS = 256  # of a uint8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceImages:
    """A split on its device.

    `pixels` is uint8 (N, H, W, C), channels last so that one gather makes a batch in either memory format; `labels` is
    int64 (N,). `table` is float32 (C * 256,): what the preprocessing makes of each value of each channel.
    """

    pixels: Tensor
    labels: Tensor
    table: Tensor
    is_channels_last: bool

    def __len__(self) -> int:
        return len(self.labels)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Turn uint8 (N, H, W, C) into the network's float32 (N, C, H, W), bit for bit as `normalise` does."""
        offsets = torch.arange(pixels.shape[-1], device=pixels.device) * _LEVELS
        values = self.table[pixels.long() + offsets].permute(0, 3, 1, 2)
        return values if self.is_channels_last else values.contiguous()


def place(split: Split, preprocessing: Preprocessing, *, device: torch.device, is_channels_last: bool) -> DeviceImages:
    """Put a split on a device; the network's input gets the memory format asked for.

    Raises:
        DataError: dtype or shape of the images do not fit the preprocessing.
    """
    normalise(split.images[:1], preprocessing)
    pixels = torch.from_numpy(np.ascontiguousarray(split.images.transpose(0, 2, 3, 1)))
    return DeviceImages(
        pixels=pixels.to(device),
        labels=torch.from_numpy(split.labels).to(device),
        table=torch.from_numpy(_table(preprocessing)).to(device),
        is_channels_last=is_channels_last,
    )


def _table(preprocessing: Preprocessing) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Normalise every value of every channel once, on images of the size the preprocessing demands."""
    channels, height, width = preprocessing.input_shape
    count = -(-_LEVELS // (height * width))
    ramp = (np.arange(count * height * width) % _LEVELS).astype(np.uint8).reshape(count, 1, height, width)
    values = normalise(np.ascontiguousarray(np.broadcast_to(ramp, (count, channels, height, width))), preprocessing)
    return np.ascontiguousarray(values.transpose(1, 0, 2, 3).reshape(channels, -1)[:, :_LEVELS]).reshape(-1)


def as_device(name: str | torch.device) -> torch.device:
    """Return the device called `name`: `cpu`, `cuda` or `cuda:N`.

    Raises:
        ConfigError: no such name.
        CapabilityError: a CUDA device that is not here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise _unknown(name) from error
    if device.type not in ("cpu", "cuda"):
        raise _unknown(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise CapabilityError(
            f"device {str(name)!r}",
            expected="a CUDA device that PyTorch sees",
            got=f"{count} of them",
            cure="name another device, or see `trtbench gpu-info`",
        )
    return device


def _unknown(name: str | torch.device) -> ConfigError:
    return ConfigError(f"device {str(name)!r}", expected="cpu, cuda or cuda:N", cure="name one of these")
