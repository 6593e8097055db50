"""Augmentation and mixing of whole batches by index maths; the generator passed in decides everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from trtbench.train.objective import Labels

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from trtbench.suite import AugmentConfig
    from trtbench.train.evaluate import DeviceImages


def augmented_batch(
    images: DeviceImages, indices: Tensor, *, config: AugmentConfig, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Gather a batch, cropped and mirrored, normalise it and blank squares.

    Args:
        images: the split on its device.
        indices: int64 (N,) on the CPU.
        config: what to do.
        generator: on the CPU, so that every device sees the same batches.

    Returns:
        The network's input float32 (N, C, H, W) and the labels int64 (N,), on the device of the images.
    """
    height, width = images.pixels.shape[1:3]
    device = images.pixels.device
    rows = crop_positions(len(indices), height, padding=config.crop_padding, generator=generator)
    cols = crop_positions(len(indices), width, padding=config.crop_padding, generator=generator)
    if config.flip:
        mirrored = torch.rand(len(indices), 1, generator=generator) < 0.5  # noqa: PLR2004  half of the images
        cols = torch.where(mirrored, cols.flip(1), cols)
    where = indices.to(device)
    pixels = images.pixels[where[:, None, None], rows.to(device)[:, :, None], cols.to(device)[:, None, :]]
    inputs = images.normalised(pixels)
    if config.cutout:
        # Blanked after the normalisation: zero is the mean image (DeVries and Taylor 2017, section 3.2).
        inputs = inputs * cutout_mask(len(indices), height, width, side=config.cutout, generator=generator).to(device)
    return inputs, images.labels[where]


def crop_positions(count: int, size: int, *, padding: int, generator: Generator) -> Tensor:
    """Draw, per image, which source pixels a crop of a reflection-padded image shows along one axis.

    Returns:
        int64 (count, size) in [0, size), as `padding` pixels reflected without the border repeated, cropped at a
        uniform offset in [0, 2 * padding].
    """
    shifts = torch.randint(-padding, padding + 1, (count, 1), generator=generator)
    positions = torch.arange(size) + shifts
    return (size - 1) - ((size - 1) - positions.abs()).abs()


def cutout_mask(count: int, height: int, width: int, *, side: int, generator: Generator) -> Tensor:
    """Draw float32 (count, 1, height, width): 0 inside a square of `side` pixels, clipped at the border, else 1.

    The square's centre is uniform over the image (DeVries and Taylor 2017, section 3.2).
    """
    rows = _outside(count, height, side=side, generator=generator)
    cols = _outside(count, width, side=side, generator=generator)
    return (rows[:, None, :, None] | cols[:, None, None, :]).float()


def _outside(count: int, size: int, *, side: int, generator: Generator) -> Tensor:
    first = torch.randint(0, size, (count, 1), generator=generator) - side // 2
    positions = torch.arange(size)
    return (positions < first) | (positions >= first + side)


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
