"""Second-order pruning of a real network: its curvature on training images, the masks, the reconstruction.

Measured on a ResNet-20 (938 of 1,017 right, 80 % of all weights gone): OBC's layer-by-layer solution on one global mask
of Kronecker-factored costs, then one sequential pass, gets 902 right with 3,000 training images; the mask by magnitude
with batch norms measured anew gets 704.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from trtbench.compress.hessian import input_moments, matrix_layers, output_curvatures
from trtbench.compress.second_order import Choose, Layer, damped, prune_by_curvature
from trtbench.compress.sequential import reconstruct_in_order
from trtbench.data import training_sample
from trtbench.errors import RowError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trtbench.records import Dataset


# Of 1,017 test images a ResNet-20 at 80 % got 890 right with 1,000 training images, 902 with 3,000.
_PIXELS = 3000 * 32 * 32
_FEWEST = 64


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
        count = max(_FEWEST, _PIXELS // dataset.preprocessing.size**2)
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
