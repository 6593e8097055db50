"""The kind `weights`: single weights go, by magnitude or by curvature, at once or while the network learns.

By curvature, measured on a ResNet-20 (938 of 1,017 right, 80 % of all weights gone): OBC's layer-by-layer solution on
one global mask of Kronecker-factored costs, then one sequential pass, gets 902 right with 3,000 training images; the
mask by magnitude with batch norms measured anew gets 704.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from trtbench.compress.curvature import (
    BATCH,
    Choose,
    Layer,
    cheapest_of_all,
    cheapest_of_each,
    damped,
    input_moments,
    matrix_layers,
    output_curvatures,
    prune_by_curvature,
)
from trtbench.compress.method import Compressed, Context
from trtbench.compress.reconstruct import reconstruct_in_order
from trtbench.compress.sparsity import sparsity_of, verify_masks
from trtbench.data import training_sample
from trtbench.errors import ConfigError, RowError
from trtbench.jsonable import sha256_of
from trtbench.models.counts import BATCH_NORMS
from trtbench.models.masks import Masks, keep_zeros, masks_of, prunable_weights, set_to_zero, zeros_of
from trtbench.train.evaluate import predict
from trtbench.train.hooks import Hooks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from trtbench.records import Dataset
    from trtbench.suite import DenseVariant, NmVariant, TrainConfig, WeightsVariant


def recalibrated(model: nn.Module, images: Tensor) -> nn.Module:
    """Return a copy whose batch norms have the plain mean of the batches' statistics (Sun et al. 2019, section 3.2)."""
    twin = copy.deepcopy(model).eval()
    norms = [module for module in twin.modules() if isinstance(module, BATCH_NORMS) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for batch in torch.split(images, BATCH):
            twin(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return twin.eval()


def count_right(model: nn.Module, dataset: Dataset) -> int:
    """Count the validation images that a network gets right."""
    split = dataset.validation
    return int((predict(model, split.images, dataset.preprocessing).argmax(axis=1) == split.labels).sum())


def better_on_validation(model: nn.Module, images: Tensor, dataset: Dataset) -> tuple[nn.Module, str]:
    """Return the network with its own or with new statistics, whichever gets more validation images right, and why."""
    other = recalibrated(model, images)
    own, new = count_right(model, dataset), count_right(other, dataset)
    total = len(dataset.validation)
    verdict = f"{own} of {total} validation images right with its own batch-norm statistics, {new} with new ones"
    return (other, f"batch norm recalibrated: {verdict}") if new > own else (model, f"batch norm kept: {verdict}")


# Of 1,017 test images a ResNet-20 at 80 % got 890 right with 1,000 training images, 902 with 3,000.
_PIXELS = 3000 * 32 * 32
_FEWEST = 64


def prune_weights(network: nn.Module, config: WeightsVariant, context: Context) -> Compressed:
    """Prune a network by a settled config.

    Raises:
        ConfigError: no layer is left to prune, or the budget is shorter than the schedule.
        RowError: a mask was not held.
    """
    if not prunable_weights(network, exclude=config.exclude):
        raise ConfigError(
            f"variant {config.name!r}: exclude", expected="a layer left to prune", got="none", cure="exclude fewer"
        )
    if config.schedule != "one-shot":
        return _while_learning(network, config, context)
    pruned = copy.deepcopy(network).eval()
    if config.method == "magnitude":
        masks = magnitude_masks(pruned, config)
        set_to_zero(prunable_weights(pruned), masks)
    else:
        masks = _by_curvature(pruned, config, context.dataset)
    verify_masks(pruned, masks, after="pruning")
    return finished(pruned, masks, config, context.dataset)


def magnitude_masks(network: nn.Module, config: WeightsVariant) -> Masks:
    """Return the masks of one-shot magnitude pruning."""
    weights = prunable_weights(network, exclude=config.exclude)
    if config.scope == "layer":
        return layer_masks(weights, sparsity=config.target)
    return global_masks(weights, sparsity=config.target, rounds=config.rounds)


def _by_curvature(network: nn.Module, config: WeightsVariant, dataset: Dataset) -> Masks:
    plan = Plan(
        layers=tuple(matrix_layers(network, exclude=config.exclude)),
        sparsity=config.target,
        steps=config.steps,
        choose=cheapest_of_each if config.scope == "layer" else cheapest_of_all,
        passes=config.passes,
        seed=config.seed,
    )
    return prune_second_order(network, plan, training_images(dataset, count=config.images, seed=config.seed))


def _while_learning(network: nn.Module, config: WeightsVariant, context: Context) -> Compressed:
    budget = context.budget
    steps = -(-len(context.dataset.train) // budget.batch_size)
    context.tune(network, hooks=schedule_hooks(config, budget=budget, steps_per_epoch=steps))
    keep_zeros(network, zeros_of(network, exclude=config.exclude))
    return Compressed(
        model=network,
        facts={"sparsity": sparsity_of(network)},
        check=partial(verify_masks, masks=masks_of(network)),
        is_tuned=True,
    )


def finished(network: nn.Module, masks: Masks, config: WeightsVariant | NmVariant, dataset: Dataset) -> Compressed:
    """Choose the batch-norm statistics of a pruned network, and hand it over with its masks."""
    keep_zeros(network, masks)
    notes: tuple[str, ...] = ()
    if config.batch_norm in {"recalibrate", "validation"}:
        images = training_images(dataset, count=config.images, seed=config.seed)
        if config.batch_norm == "recalibrate":
            network = recalibrated(network, images)
        else:
            network, note = better_on_validation(network, images, dataset)
            notes = (note,)
    return Compressed(
        model=network,
        facts={"sparsity": sparsity_of(network)},
        notes=notes,
        check=partial(verify_masks, masks=masks_of(network)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How far and by which rule weights go.

    Args:
        layers: names of the layers that are pruned.
        sparsity: share of their weights that goes.
        steps: steps of the pruning.
        choose: the rule; see `prune_by_curvature`.
        passes: sequential reconstructions afterwards.
        seed: of the positions and labels drawn.
    """

    layers: tuple[str, ...]
    sparsity: float
    steps: int
    choose: Choose
    passes: int
    seed: int


def training_images(dataset: Dataset, *, count: int | None, seed: int) -> Tensor:
    """Return this many training images, or all there are, class-balanced, as the network's input.

    None is 3,000 of 32x32 pixels and fewer of larger ones: they go through the network all at once.
    """
    if count is None:
        count = max(_FEWEST, _PIXELS // math.prod(dataset.preprocessing.height_width))
    return torch.from_numpy(training_sample(dataset, count=count, seed=seed)[0])


def prune_second_order(model: nn.Module, plan: Plan, images: Tensor) -> dict[str, Tensor]:
    """Prune a network in place, on the CPU, and return the masks in the shape of its weights.

    Raises:
        RowError: no layer of the plan runs, or the curvature is not finite.
    """
    dense = copy.deepcopy(model).eval().requires_grad_(True)
    generator = torch.Generator().manual_seed(plan.seed)
    layers = _layers(dense, plan, images, generator)
    weights, masks = prune_by_curvature(layers, sparsity=plan.sparsity, steps=plan.steps, choose=plan.choose)
    with torch.no_grad():
        for name, matrix in weights.items():
            layer: Any = model.get_submodule(name)
            layer.weight.copy_(matrix.reshape(layer.weight.shape))
    for _ in range(plan.passes):
        reconstruct_in_order(model, dense, masks, images, generator=generator)
    modules = matrix_layers(model)
    return {name: mask.reshape(modules[name].weight.shape) for name, mask in masks.items()}


def _layers(model: nn.Module, plan: Plan, images: Tensor, generator: torch.Generator) -> dict[str, Layer]:
    moments = input_moments(model, plan.layers, images, generator=generator)
    curvatures = output_curvatures(model, plan.layers, images, generator=generator)
    modules = matrix_layers(model)
    layers = {
        name: Layer(
            weights=modules[name].weight.detach().reshape(len(modules[name].weight), -1),
            moments=damped(moments[name]),
            curvature=curvatures[name],
        )
        for name in moments
    }
    if not layers or not all(bool(torch.isfinite(one.moments).all()) for one in layers.values()):
        raise RowError(
            f"second-order pruning of {type(model).__name__}",
            expected="layers that run, with finite inputs",
            got=f"{len(layers)} of the {len(plan.layers)} layers named run",
            cure="use method magnitude",
        )
    return layers


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
            set_to_zero(weights, choose(weights, sparsity=share))
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
            set_to_zero(group, global_masks(group, sparsity=share))
        self._held.take(model)


def global_masks(weights: Mapping[str, Tensor], *, sparsity: float, rounds: int = 1) -> Masks:
    """Keep all but the smallest magnitudes of all layers together.

    A round lets `round(share * left)` of the weights go that are left, ties by position, as
    torch.nn.utils.prune.global_unstructured with L1Unstructured does (Han et al. 2015, section 3); the share g of each
    of n rounds is such that 1 - (1 - g)^n is the sparsity.
    """
    magnitudes = torch.cat([weight.detach().abs().reshape(-1) for weight in weights.values()])
    keeps = torch.ones_like(magnitudes, dtype=torch.bool)
    for _ in range(rounds):
        left = int(keeps.sum())
        gone = round(share_of_a_round(sparsity, rounds) * left)
        ranked = torch.where(keeps, magnitudes, torch.inf)
        keeps[torch.topk(ranked, gone, largest=False).indices] = False
    parts = torch.split(keeps, [weight.numel() for weight in weights.values()])
    return {name: part.reshape(weight.shape) for (name, weight), part in zip(weights.items(), parts, strict=True)}


def layer_masks(weights: Mapping[str, Tensor], *, sparsity: float) -> Masks:
    """Keep, in each layer, the magnitudes not below the percentile of the sparsity (source study 002, step 7).

    The percentile is NumPy's, which interpolates linearly.
    """
    return {name: global_percentile_masks({name: weight}, sparsity=sparsity)[name] for name, weight in weights.items()}


def global_percentile_masks(weights: Mapping[str, Tensor], *, sparsity: float) -> Masks:
    """Keep the magnitudes not below the percentile over all layers (source study 002, step 13)."""
    arrays = {name: np.abs(weight.detach().cpu().numpy()) for name, weight in weights.items()}
    threshold = np.percentile(np.concatenate([array.reshape(-1) for array in arrays.values()]), 100 * sparsity)
    return {name: torch.from_numpy(array >= threshold).to(weights[name].device) for name, array in arrays.items()}


def share_of_a_round(sparsity: float, rounds: int) -> float:
    """Return the g of 1 - (1 - g)^rounds = sparsity."""
    return float(1 - (1 - sparsity) ** (1 / rounds))


def linear_sparsity(sparsity: float, *, epoch: int, ramp: int) -> float:
    """Return the sparsity before an epoch, counted from 1, growing evenly over `ramp` epochs (study 002, step 12)."""
    return sparsity * min(epoch, ramp) / ramp


def cubic_sparsity(sparsity: float, *, step: int, ramp: int) -> float:
    """Return s * (1 - (1 - t / ramp)^3): fast at first, slow at the end (Zhu and Gupta 2017, equation 1, s_i = 0)."""
    return float(sparsity * (1 - (1 - min(step, ramp) / ramp) ** 3))


class HeldZeros:
    """Keeps what is zero before an epoch at zero after every step: the zeros of a schedule, which come as it learns."""

    def __init__(self, *, exclude: tuple[str, ...] = ()) -> None:
        self._exclude = exclude
        self._masks: Masks = {}

    def take(self, model: nn.Module, _epoch: int = 0) -> None:
        """Read the masks off the weights."""
        self._masks = zeros_of(model, exclude=self._exclude)

    def hold(self, model: nn.Module, _step: int = 0) -> None:
        """Set to zero again what was zero."""
        set_to_zero(prunable_weights(model, exclude=self._exclude), self._masks)


def keep(network: nn.Module, _config: DenseVariant, _context: Context) -> Compressed:
    """Return the network."""
    return Compressed(model=network)
