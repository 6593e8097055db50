"""What a network minimises: a loss on the labels, mixed labels, a teacher's opinion, penalties on its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field reads
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from trtbench.suite import DistillConfig, TrainConfig

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
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
        scales = [norm.weight for norm in model.modules() if isinstance(norm, _NORMS) and norm.affine]
        total = config.norm_l1 * _magnitude(scales) + (0.0 if total is None else total)
    return total


def _magnitude(tensors: list[nn.Parameter]) -> Tensor:
    return torch.stack([tensor.abs().sum() for tensor in tensors]).sum() if tensors else torch.zeros(())
