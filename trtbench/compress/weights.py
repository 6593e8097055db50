"""The method `weights`: single weights go, by magnitude or by curvature, at once or while the network learns."""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING

from trtbench.compress.batchnorm import better_on_validation, recalibrated
from trtbench.compress.curvature_pruning import Plan, prune_second_order, training_images
from trtbench.compress.hessian import matrix_layers
from trtbench.compress.magnitude import Masks, apply_masks, global_masks, layer_masks
from trtbench.compress.masks import HeldZeros, prunable_weights, zeros_of
from trtbench.compress.methods import Compressed, Context
from trtbench.compress.schedules import schedule_hooks
from trtbench.compress.second_order import cheapest_of_all, cheapest_of_each
from trtbench.compress.sparsity import sparsity_of, verify_masks
from trtbench.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from trtbench.records import Dataset
    from trtbench.suite import NmVariant, WeightsVariant


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
        apply_masks(prunable_weights(pruned), masks)
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
    masks = zeros_of(network, exclude=config.exclude)
    return Compressed(
        model=network,
        facts={"sparsity": sparsity_of(network)},
        check=partial(verify_masks, masks=masks),
        is_tuned=True,
    )


def finished(network: nn.Module, masks: Masks, config: WeightsVariant | NmVariant, dataset: Dataset) -> Compressed:
    """Choose the batch-norm statistics of a pruned network, and hand it over with its masks."""
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
        hooks=HeldZeros(exclude=config.exclude).hooks,
        check=partial(verify_masks, masks=masks),
    )
