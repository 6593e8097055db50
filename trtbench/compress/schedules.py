"""Pruning by magnitude while a network is fine-tuned: iteratively with regrowth, or along the cubic schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbench.compress.magnitude import (
    apply_masks,
    cubic_sparsity,
    global_masks,
    global_percentile_masks,
    layer_masks,
    linear_sparsity,
)
from trtbench.compress.masks import HeldZeros, prunable_weights
from trtbench.errors import ConfigError
from trtbench.jsonable import sha256_of
from trtbench.train.hooks import Hooks

if TYPE_CHECKING:
    from torch import nn

    from trtbench.suite import TrainConfig, WeightsVariant


def schedule_hooks(config: WeightsVariant, *, budget: TrainConfig, steps_per_epoch: int) -> Hooks:
    """Return the hooks of a variant whose schedule is iterative or cubic.

    Raises:
        ConfigError: the budget is over before the sparsity is reached.
    """
    if budget.epochs < config.ramp:
        raise ConfigError(
            f"variant {config.name!r}: ramp {config.ramp}",
            expected=f"at most the {budget.epochs} epochs of fine_tune",
            cure="lower ramp, or raise fine_tune.epochs",
        )
    schedule = Iterative(config) if config.schedule == "iterative" else Cubic(config, steps_per_epoch=steps_per_epoch)
    return Hooks(
        key=sha256_of(config.model_dump(mode="json")),
        before_epoch=schedule.before_epoch,
        after_step=schedule.after_step,
        first_best_epoch=config.ramp,
    )


class Iterative:
    """Before epoch e of the ramp, sparsity * e / ramp of the current weights go; until the last they may grow back.

    From the ramp's last epoch on the mask is held (source study 002, steps 12 and 13: 8 % an epoch for 10 epochs).
    """

    def __init__(self, config: WeightsVariant) -> None:
        self._config = config
        self._held = HeldZeros(exclude=config.exclude)
        self._is_held = False

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        """Prune by the ramp, and hold from its end on."""
        config = self._config
        if epoch <= config.ramp:
            weights = prunable_weights(model, exclude=config.exclude)
            choose = layer_masks if config.scope == "layer" else global_percentile_masks
            share = linear_sparsity(config.target, epoch=epoch, ramp=config.ramp)
            apply_masks(weights, choose(weights, sparsity=share))
        self._is_held = epoch >= config.ramp
        if self._is_held:
            self._held.take(model, epoch)

    def after_step(self, model: nn.Module, step: int) -> None:
        """Hold the mask once it is final."""
        if self._is_held:
            self._held.hold(model, step)


class Cubic:
    """Every few steps weights go, along Zhu and Gupta's curve; what is gone stays gone (2017, "To prune")."""

    def __init__(self, config: WeightsVariant, *, steps_per_epoch: int) -> None:
        self._config = config
        self._ramp = config.ramp * steps_per_epoch
        self._held = HeldZeros(exclude=config.exclude)

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        """Read the mask off the weights."""
        self._held.take(model, epoch)

    def after_step(self, model: nn.Module, step: int) -> None:
        """Hold the mask, and let more go where it is time."""
        self._held.hold(model, step)
        config = self._config
        if step > self._ramp or (step % config.every and step != self._ramp):
            return
        share = cubic_sparsity(config.target, step=step, ramp=self._ramp)
        weights = prunable_weights(model, exclude=config.exclude)
        groups = [{name: weight} for name, weight in weights.items()] if config.scope == "layer" else [weights]
        for group in groups:
            apply_masks(group, global_masks(group, sparsity=share))
        self._held.take(model)
