"""Logits of a network on images, and how many of them are right; nothing here learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field reads

from trtbench.data.batches import batches
from trtbench.errors import ConfigError, DataError
from trtbench.models.counts import evaluating
from trtbench.train.images import as_device

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from trtbench.records import Preprocessing
    from trtbench.train.images import DeviceImages

_BATCH_SIZE = 256  # of evaluation; changes no result, only memory and speed


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
