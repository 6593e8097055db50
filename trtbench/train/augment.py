"""Augmentation and mixing of whole batches by index maths, and the loss on what comes out.

The generator passed in decides everything that is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field reads
from torch import nn

from trtbench.models.counts import BATCH_NORMS

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from trtbench.suite import AugmentConfig, DistillConfig, TrainConfig
    from trtbench.train.evaluate import DeviceImages


_DISTANCES = {"mse": nn.MSELoss(), "l1": nn.L1Loss(), "smooth-l1": nn.SmoothL1Loss()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The labels of a batch, int64 (N,); of mixed images the second ones too, and the first ones' share."""

    first: Tensor
    second: Tensor | None = None
    share: float = 1.0


def loss_on(logits: Tensor, labels: Labels, config: TrainConfig, *, teacher_logits: Tensor | None = None) -> Tensor:
    """Return the loss of a batch by the budget; of mixed images the share-weighted loss of both labels.

    Zhang et al. 2018, "mixup", section 2, for losses that are linear in the target.
    """
    hard = hard_loss(logits, labels.first, kind=config.loss, label_smoothing=config.label_smoothing)
    if labels.second is not None:
        other = hard_loss(logits, labels.second, kind=config.loss, label_smoothing=config.label_smoothing)
        hard = labels.share * hard + (1 - labels.share) * other
    if config.distill is None or teacher_logits is None:
        return hard
    return _distilled(hard, logits.float(), teacher_logits.float(), config.distill)


def hard_loss(logits: Tensor, labels: Tensor, *, kind: str = "cross-entropy", label_smoothing: float = 0.0) -> Tensor:
    """Return the mean loss of a batch on its labels, computed in float32 by torch's own classes.

    mse, l1 and smooth-l1 are distances of the probabilities to the one-hot target, kl-div its divergence from them; all
    three, as cross-entropy, take a target of which `label_smoothing` is spread over all classes (Szegedy et al. 2015,
    section 7). nll is that of the log probabilities, which knows no smoothing.

    Args:
        logits: (N, K), in any float type.
        labels: int64 (N,).
        kind: cross-entropy, mse, l1, smooth-l1, nll or kl-div.
        label_smoothing: share of the target that is spread.
    """
    logits = logits.float()
    if kind == "cross-entropy":
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    if kind == "nll":
        loss: Tensor = nn.NLLLoss()(F.log_softmax(logits, dim=1), labels)
        return loss
    classes = logits.shape[1]
    target = F.one_hot(labels, classes).float() * (1 - label_smoothing) + label_smoothing / classes
    if kind == "kl-div":
        loss = nn.KLDivLoss(reduction="batchmean")(F.log_softmax(logits, dim=1), target)
    else:
        loss = _DISTANCES[kind](logits.softmax(dim=1), target)
    return loss


def _distilled(hard: Tensor, logits: Tensor, teacher_logits: Tensor, distill: DistillConfig) -> Tensor:
    """Return alpha * T^2 * KL(teacher / T || student / T) + (1 - alpha) * hard.

    T^2 keeps the size of the soft term's gradient independent of the temperature (Hinton et al. 2015, section 2).
    """
    temperature = distill.temperature
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    soft = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return distill.alpha * temperature**2 * soft + (1 - distill.alpha) * hard


def penalties(model: nn.Module, config: TrainConfig) -> Tensor | None:
    """Return l1 * sum |parameter| + norm_l1 * sum |scale of a batch norm|; None where both are off.

    The second is sparse learning: channels whose scale it drives to zero can go (Liu et al. 2017, "Network Slimming",
    section 3).
    """
    total: Tensor | None = None
    if config.l1:
        total = config.l1 * _magnitude([one for one in model.parameters() if one.requires_grad])
    if config.norm_l1:
        scales = [norm.weight for norm in model.modules() if isinstance(norm, BATCH_NORMS) and norm.affine]
        total = config.norm_l1 * _magnitude(scales) + (0.0 if total is None else total)
    return total


def _magnitude(tensors: list[nn.Parameter]) -> Tensor:
    return torch.stack([tensor.abs().sum() for tensor in tensors]).sum() if tensors else torch.zeros(())


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
