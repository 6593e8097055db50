"""Training images as tensors, for methods that look at what a network makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from trtbench.data import normalise

if TYPE_CHECKING:
    from torch import Tensor

    from trtbench.records import Dataset

_BATCHES, _BATCH = 10, 64


def labelled_batches(dataset: Dataset) -> list[tuple[Tensor, Tensor]]:
    """Return the first training images, normalised, with their labels, for importances that need gradients."""
    train = dataset.train
    return [
        (
            torch.from_numpy(normalise(train.images[start : start + _BATCH], dataset.preprocessing)),
            torch.from_numpy(train.labels[start : start + _BATCH]),
        )
        for start in range(0, min(len(train), _BATCHES * _BATCH), _BATCH)
    ]
