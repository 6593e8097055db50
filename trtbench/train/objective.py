"""What a network minimises: cross-entropy, softened labels, a teacher's opinion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F  # noqa: N812  the name the whole field reads

if TYPE_CHECKING:
    from torch import Tensor

    from trtbench.suite import DistillConfig


def objective(
    logits: Tensor,
    labels: Tensor,
    *,
    label_smoothing: float = 0.0,
    distill: DistillConfig | None = None,
    teacher_logits: Tensor | None = None,
) -> Tensor:
    """Return the mean loss of a batch as a float32 scalar.

    With a teacher it is alpha * T^2 * KL(teacher / T || student / T) + (1 - alpha) * CE: T^2 keeps the size of the
    soft term's gradient independent of the temperature (Hinton, Vinyals, Dean 2015, section 2).

    Args:
        logits: (N, K), in any float type; the loss is computed in float32.
        labels: int64 (N,).
        label_smoothing: share of the target spread over all classes (Szegedy et al. 2015, section 7).
        distill: temperature and weight of the teacher's term.
        teacher_logits: (N, K).
    """
    logits = logits.float()
    hard = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    if distill is None or teacher_logits is None:
        return hard
    temperature = distill.temperature
    student = F.log_softmax(logits / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    soft = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return distill.alpha * temperature**2 * soft + (1 - distill.alpha) * hard
