"""A split on the device, the logits of a network on images, and how many are right; nothing here learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field reads

from trtbench.data.batches import batches
from trtbench.data.preprocess import level_table, normalise
from trtbench.errors import CapabilityError, ConfigError, DataError
from trtbench.models.counts import evaluating

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from trtbench.records import Preprocessing, Split

_BATCH_SIZE = 256  # of evaluation; changes no result, only memory and speed
_LEVELS = 256  # of a uint8


def predict(
    model: nn.Module,
    images: NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = _BATCH_SIZE,
) -> NDArray[np.float32]:
    """Return the logits of a network in evaluation mode.

    Args:
        model: moved to `device`, where it stays; its training mode is kept.
        images: uint8 (N, C, H, W), at least one.
        preprocessing: how pixels become the input.
        device: `cpu`, `cuda` or `cuda:N`.
        batch_size: images per forward pass; the last pass may hold fewer.

    Returns:
        float32 (N, K).

    Raises:
        DataError: no images.
        ConfigError: no such device, or the network answers with something else than one tensor of logits.
    """
    if not len(images):
        raise DataError("images to predict", expected="at least one", got="none", cure="give a split that holds images")
    target = as_device(device)
    model.to(target)
    with evaluating(model), torch.no_grad():
        parts = [
            logits_of(model, torch.from_numpy(inputs).to(target)).float().cpu().numpy()
            for inputs in batches(images, preprocessing, size=batch_size)
        ]
    return np.concatenate(parts)


def score(model: nn.Module, images: DeviceImages) -> tuple[float, int]:
    """Return the mean cross-entropy and the count of right answers of a network in evaluation mode, in float32."""
    loss = torch.zeros((), dtype=torch.float64, device=images.labels.device)
    correct = torch.zeros((), dtype=torch.int64, device=images.labels.device)
    with evaluating(model), torch.no_grad():
        for start in range(0, len(images), _BATCH_SIZE):
            labels = images.labels[start : start + _BATCH_SIZE]
            logits = logits_of(model, images.normalised(images.pixels[start : start + _BATCH_SIZE]))
            loss += F.cross_entropy(logits, labels, reduction="sum")
            correct += (logits.argmax(1) == labels).sum()
    return loss.item() / len(images), int(correct.item())


def logits_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """Run a network that answers with one tensor (N, K).

    Raises:
        ConfigError: it answers with anything else.
    """
    logits = model(inputs)
    if isinstance(logits, torch.Tensor) and logits.ndim == 2 and len(logits) == len(inputs):  # noqa: PLR2004  (N, K)
        return logits
    got = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
    raise ConfigError(
        f"the output of {type(model).__name__}",
        expected=f"one tensor of logits ({len(inputs)}, classes)",
        got=got,
        cure="build it without auxiliary classifiers, or wrap it so that it returns logits",
    )


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
        table=torch.from_numpy(level_table(preprocessing).reshape(-1)).to(device),
        is_channels_last=is_channels_last,
    )


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
