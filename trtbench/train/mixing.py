"""Batches whose images are mixed in pairs: mixup and cutmix; the generator passed in decides everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from trtbench.train.objective import Labels

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from trtbench.suite import AugmentConfig


def mixed(inputs: Tensor, labels: Tensor, *, config: AugmentConfig, generator: Generator) -> tuple[Tensor, Labels]:
    """Mix each image with another one of the batch, or leave all as they are where both methods are off.

    Args:
        inputs: float32 (N, C, H, W).
        labels: int64 (N,).
        config: the Beta parameters; with both on, each batch gets one or the other, evenly.
        generator: on the CPU.
    """
    methods = [(alpha, mix) for alpha, mix in ((config.mixup, _mixup), (config.cutmix, _cutmix)) if alpha]
    if not methods:
        return inputs, Labels(first=labels)
    random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    alpha, mix = methods[int(random.integers(len(methods)))]
    others = torch.randperm(len(labels), generator=generator).to(labels.device)
    images, share = mix(inputs, inputs[others], share=float(random.beta(alpha, alpha)), random=random)
    return images, Labels(first=labels, second=labels[others], share=share)


def _mixup(first: Tensor, second: Tensor, *, share: float, random: np.random.Generator) -> tuple[Tensor, float]:  # noqa: ARG001  as cutmix
    """Blend the images (Zhang et al. 2018, section 2)."""
    return share * first + (1 - share) * second, share


def _cutmix(first: Tensor, second: Tensor, *, share: float, random: np.random.Generator) -> tuple[Tensor, float]:
    """Paste a box of 1 - share of the area, its centre uniform, clipped at the border (Yun et al. 2019, 3.1)."""
    height, width = first.shape[2:]
    box_height, box_width = (int(size * np.sqrt(1 - share)) for size in (height, width))
    row, column = int(random.integers(height)), int(random.integers(width))
    rows = slice(max(0, row - box_height // 2), max(0, row - box_height // 2 + box_height))
    columns = slice(max(0, column - box_width // 2), max(0, column - box_width // 2 + box_width))
    images = first.clone()
    images[:, :, rows, columns] = second[:, :, rows, columns]
    pasted = len(range(height)[rows]) * len(range(width)[columns])
    return images, 1 - pasted / (height * width)
