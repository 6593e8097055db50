"""N:M sparsity along the input channels: of every M consecutive ones, at each output and kernel position, N stay.

Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks", section 3: the sparse tensor cores of Ampere and later
take 2:4 along the dimension that is summed over; TensorRT looks for it along the input channels of each output channel
and kernel position. A layer whose input channels are no multiple of M keeps all its weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from trtbench.compress.curvature import matrix_layers
from trtbench.compress.sparsity import verify_masks
from trtbench.compress.weights import Plan, finished, prune_second_order, training_images
from trtbench.errors import ConfigError
from trtbench.jsonable import to_jsonable
from trtbench.models.masks import Masks, prunable_weights, set_to_zero

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from trtbench.compress.method import Compressed, Context
    from trtbench.suite import NmVariant

# Sizes below which NVIDIA's own pruning library (apex ASP) leaves a layer alone: outputs and inputs.
_OUTPUTS, _INPUTS = 8, 16


def prune_nm(network: nn.Module, config: NmVariant, context: Context) -> Compressed:
    """Prune a network to a pattern by a settled config.

    Raises:
        ConfigError: no layer has input channels in multiples of M.
        RowError: a mask was not held.
    """
    kept, of = config.kept_of
    layers = tuple(
        name
        for name, layer in matrix_layers(network, exclude=config.exclude).items()
        if layer.weight.shape[1] % of == 0
    )
    if not layers:
        raise ConfigError(
            f"variant {config.name!r}: pattern {config.pattern}",
            expected=f"a layer whose input channels are a multiple of {of}",
            got="none",
            cure="choose another pattern, or exclude fewer layers",
        )
    if config.method == "magnitude":
        weights = {name: weight for name, weight in prunable_weights(network).items() if name in layers}
        masks = {name: largest_of_groups(weight.detach().abs(), kept=kept, of=of) for name, weight in weights.items()}
        set_to_zero(weights, masks)
    else:
        images = training_images(context.dataset, count=config.images, seed=config.seed)
        masks = _by_curvature(network, layers, config, images)
    verify_masks(network, masks, after="pruning")
    made = finished(network, masks, config, context.dataset)
    arrays = {name: weight.detach().numpy() for name, weight in prunable_weights(made.model).items()}
    check = sparse_layers(arrays, kept=kept, of=of)
    return replace(made, facts={**made.facts, "nm": to_jsonable(check)}, notes=(*made.notes, check.sentence))


def largest_of_groups(scores: Tensor, *, kept: int, of: int) -> Tensor:
    """Return the mask that keeps, in each group of `of` input channels, the `kept` largest scores, the first of equals.

    Args:
        scores: (R, C, ...), as the weight; C a multiple of `of`.
        kept: N.
        of: M.
    """
    groups = scores.reshape(len(scores), -1, of, *scores.shape[2:])
    ranks = torch.argsort(torch.argsort(groups, dim=2, descending=True, stable=True), dim=2, stable=True)
    return (ranks < kept).reshape(scores.shape)


def _by_curvature(network: nn.Module, layers: tuple[str, ...], config: NmVariant, images: Tensor) -> Masks:
    """Let one weight of each group go in each step, until the pattern holds."""
    kept, of = config.kept_of
    shapes = {name: layer.weight.shape for name, layer in matrix_layers(network).items()}

    def choose(costs: Mapping[str, Tensor], masks: Mapping[str, Tensor], _sparsity: float) -> dict[str, Tensor]:
        found = {}
        for name, cost in costs.items():
            alive = masks[name].reshape(shapes[name])
            left = int(alive[:, :of].sum(1).max()) - 1
            scores = torch.where(alive, cost.reshape(shapes[name]), -torch.inf)
            found[name] = largest_of_groups(scores, kept=left, of=of).reshape(cost.shape)
        return found

    plan = Plan(
        layers=layers, sparsity=1 - kept / of, steps=of - kept, choose=choose, passes=config.passes, seed=config.seed
    )
    return prune_second_order(network, plan, images)


@dataclass(frozen=True, slots=True, kw_only=True)
class NmCheck:
    """Which layers have a pattern, and which of these are of a size that sparse kernels exist for."""

    pattern: str
    qualified: tuple[str, ...]
    too_small: tuple[str, ...]
    without: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The check in words."""
        total = len(self.qualified) + len(self.too_small) + len(self.without)
        return (
            f"{len(self.qualified)} of {total} layers qualify for {self.pattern} sparse kernels; {len(self.too_small)} "
            f"have the pattern but fewer than multiples of {_OUTPUTS} outputs and {_INPUTS} inputs; "
            f"{len(self.without)} lack it"
        )


def sparse_layers(weights: Mapping[str, NDArray[np.float32]], *, kept: int, of: int) -> NmCheck:
    """Say which weights (outputs, inputs, ...) have the pattern, be they of a network or of the graph made from it."""
    having = [name for name, weight in weights.items() if has_pattern(weight, kept=kept, of=of)]
    small = [name for name in having if weights[name].shape[0] % _OUTPUTS or weights[name].shape[1] % _INPUTS]
    return NmCheck(
        pattern=f"{kept}:{of}",
        qualified=tuple(name for name in having if name not in small),
        too_small=tuple(small),
        without=tuple(name for name in weights if name not in having),
    )


def has_pattern(weight: NDArray[np.float32], *, kept: int, of: int) -> bool:
    """Say whether, of each `of` consecutive inputs at each output and kernel position, at most `kept` are not zero."""
    if weight.ndim < 2 or weight.shape[1] % of:  # noqa: PLR2004  (outputs, inputs, ...)
        return False
    groups = weight.reshape(weight.shape[0], -1, of, *weight.shape[2:])
    return bool(((groups != 0).sum(axis=2) <= kept).all())
