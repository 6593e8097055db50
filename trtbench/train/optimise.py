"""Optimizers, schedules, sharpness-aware minimisation and averaged weights; schedules are torch's and count batches."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from trtbench.models.counts import BATCH_NORMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from trtbench.suite import TrainConfig
    from trtbench.train.evaluate import DeviceImages

_ADAMS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
}
_PLAIN: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
}
_BATCH = 256


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Build the optimizer over the trainable parameters.

    `momentum` is the first beta of Adam, AdamW and NAdam; Adagrad and Adadelta know none.
    """
    groups = parameter_groups(model, weight_decay=config.weight_decay)
    if config.optimizer in _ADAMS:
        return _ADAMS[config.optimizer](groups, lr=config.lr, betas=(config.momentum, 0.999))
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=config.lr, momentum=config.momentum)
    if config.optimizer in _PLAIN:
        return _PLAIN[config.optimizer](groups, lr=config.lr)
    # Without momentum Nesterov's step is the plain one, and torch refuses the flag.
    nesterov = config.nesterov and config.momentum > 0
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov)


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters: weights of convolutions and linear layers decay, biases and norms do not.

    He et al., "Bag of Tricks for Image Classification" (2018), section 3.1, "no bias decay"; timm's default too.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trainable if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def make_schedule(
    optimizer: torch.optim.Optimizer, config: TrainConfig, *, steps_per_epoch: int
) -> lr_scheduler.LRScheduler:
    """Build the schedule; it advances once per batch.

    cosine: lr to 0 (Loshchilov and Hutter 2016). one-cycle: lr / 25 to lr in 30 % of the batches, then to lr / 250,000
    (Smith and Topin 2017, torch's defaults); the momentum stays. multistep: times gamma at each share of the budget.
    """
    total = config.epochs * steps_per_epoch
    if config.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=total)
    if config.schedule == "one-cycle":
        return lr_scheduler.OneCycleLR(optimizer, max_lr=config.lr, total_steps=total, cycle_momentum=False)
    if config.schedule == "multistep":
        # A milestone of 0 would shrink the rate before the first step.
        milestones = sorted(max(1, round(share * total)) for share in config.milestones)
        return lr_scheduler.MultiStepLR(optimizer, milestones=milestones, gamma=config.gamma)
    return lr_scheduler.ConstantLR(optimizer, factor=1.0)


@contextlib.contextmanager
def climbed(model: nn.Module, *, radius: float) -> Iterator[None]:
    """Move a network to w + radius * g / |g|, g its gradients, and back afterwards.

    Foret et al. 2021, "SAM", equation 2 and algorithm 1. Up there the batch norms' running statistics stay untouched.
    """
    moved = [(one, one.grad.clone()) for one in model.parameters() if one.grad is not None]
    norm = torch.stack([gradient.norm() for _, gradient in moved]).norm() if moved else torch.zeros(())
    before = [one.detach().clone() for one, _ in moved]
    tracking = [one for one in model.modules() if isinstance(one, BATCH_NORMS) and one.track_running_stats]
    with torch.no_grad():
        for one, gradient in moved:
            one.add_(gradient * (radius / (norm + torch.finfo(norm.dtype).tiny)))
    for norm_layer in tracking:
        norm_layer.track_running_stats = False
    try:
        yield
    finally:
        for norm_layer in tracking:
            norm_layer.track_running_stats = True
        with torch.no_grad():
            for (one, _), start in zip(moved, before, strict=True):
                one.copy_(start)


class Average:
    """The running average of one network by a budget.

    EMA: average * decay + weights * (1 - decay) after every step, the batch norms' statistics too (Polyak and Juditsky
    1992; timm's ModelEmaV2). SWA: the mean of the weights at the ends of the epochs after a share of them, the batch
    norms measured anew on the training images (Izmailov et al. 2018, section 3.2).
    """

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self._first_epoch = None if config.swa is None else int(config.swa * config.epochs) + 1
        decay = get_ema_multi_avg_fn(config.ema) if config.ema else None  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._average = AveragedModel(model, multi_avg_fn=decay, use_buffers=bool(config.ema))

    @classmethod
    def of(cls, model: nn.Module, config: TrainConfig) -> Average | None:
        """Return the average a budget asks for, or None."""
        return cls(model, config) if config.ema or config.swa is not None else None

    @property
    def network(self) -> nn.Module | None:
        """The averaged network; None before there is anything to average."""
        return self._average.module if int(self._average.n_averaged) else None

    def after_step(self, model: nn.Module, *, keeps_zeros: bool) -> None:
        """Take in a step."""
        if self._first_epoch is None:
            self._take(model, keeps_zeros=keeps_zeros)

    def after_epoch(self, model: nn.Module, epoch: int, images: DeviceImages, *, keeps_zeros: bool) -> None:
        """Take in an epoch, counted from 1."""
        if self._first_epoch is not None and epoch >= self._first_epoch:
            self._take(model, keeps_zeros=keeps_zeros)
            update_bn(_batches(images), self._average.module)

    def _take(self, model: nn.Module, *, keeps_zeros: bool) -> None:
        self._average.update_parameters(model)
        if keeps_zeros:  # a weight that was pruned on the way would live on in the average
            for averaged, weight in zip(self._average.module.parameters(), model.parameters(), strict=True):
                averaged.data.masked_fill_(weight == 0, 0.0)

    def state(self) -> dict[str, Tensor]:
        """Return what resuming needs."""
        return self._average.state_dict()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a state."""
        self._average.load_state_dict(state)


def _batches(images: DeviceImages) -> Iterator[Tensor]:
    for start in range(0, len(images), _BATCH):
        yield images.normalised(images.pixels[start : start + _BATCH])
