"""One batch learnt: forward, loss and penalties, backward, the optimizer's step and the schedule's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trtbench.train.evaluate import logits_of
from trtbench.train.objective import Labels, loss_on, penalties
from trtbench.train.sharpness import climbed

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from trtbench.suite import TrainConfig
    from trtbench.train.progress import Progress

_AMP_DTYPES = {"off": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}  # "off" disables autocast


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """What every batch is learnt by: the budget, the device, and what a teacher and a method add to the loss."""

    config: TrainConfig
    device: torch.device
    teacher: nn.Module | None
    penalty: Callable[[nn.Module], Tensor] | None


def learn_batch(progress: Progress, inputs: Tensor, labels: Labels, *, lesson: Lesson) -> tuple[Tensor, Tensor]:
    """Learn one batch; return its loss and logits, detached."""
    scaler, radius = progress.scaler, lesson.config.sam
    progress.optimizer.zero_grad()
    loss, logits = _pass(progress, inputs, labels, lesson)
    if radius:
        with climbed(progress.model, radius=radius):
            progress.optimizer.zero_grad()
            _pass(progress, inputs, labels, lesson)
    scale = scaler.get_scale()
    scaler.step(progress.optimizer)
    scaler.update()
    if scaler.get_scale() >= scale:  # else the gradients overflowed and nothing was learnt
        progress.scheduler.step()
    return loss, logits


def _pass(progress: Progress, inputs: Tensor, labels: Labels, lesson: Lesson) -> tuple[Tensor, Tensor]:
    """Run a batch forward and backward; return its loss and logits, detached."""
    config, model = lesson.config, progress.model
    with torch.autocast(lesson.device.type, dtype=_AMP_DTYPES[config.amp], enabled=config.amp != "off"):
        logits = logits_of(model, inputs)
        opinion = _opinion(lesson.teacher, inputs)
    loss = loss_on(logits, labels, config, teacher_logits=opinion)
    for penalty in (penalties(model, config), None if lesson.penalty is None else lesson.penalty(model)):
        loss = loss if penalty is None else loss + penalty
    torch.autograd.backward(progress.scaler.scale(loss))
    return loss.detach(), logits.detach()


def _opinion(teacher: nn.Module | None, inputs: Tensor) -> Tensor | None:
    if teacher is None:
        return None
    with torch.no_grad():
        return logits_of(teacher, inputs)
