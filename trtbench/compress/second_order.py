"""Pruning without training by the curvature of the loss: which weights go, and what those that stay become. Pure.

Matrices are (R, D): outputs by inputs x kernel. The moments of a layer's inputs are `h` = E[x x^T], (D, D). For a row w
with the support S, the w that is closest to a target row's outputs solves h[S, S] w[S] = c[S], c = E[y x] (Hassibi and
Stork 1993, "OBS"; Frantar and Alistarh 2022, "OBC", section 4: the rows are independent problems). To let weight j go
costs w_j^2 / (h[S, S]^-1)_jj then; times the Fisher information of its output this is a cost in the loss, by the
Kronecker-factored curvature (Wang et al. 2019, "EigenDamage", section 3), by which layers can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

DAMPING = 1e-3  # of the mean diagonal, added to it; 1e-2 and 1e-1 got fewer images right
_BLOCK = 30_000_000  # numbers of a batch of systems: 120 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Rows that solve their systems, (R, D), and the diagonal of each row's inverse, infinite off the support."""

    weights: Tensor
    inverse_diagonal: Tensor


def damped(moments: Tensor, *, share: float = DAMPING) -> Tensor:
    """Return moments (..., D, D) with their diagonal raised, so that dead inputs do not make them singular."""
    diagonal = moments.diagonal(dim1=-2, dim2=-1)
    lift = share * diagonal.mean(-1).clamp_min(torch.finfo(moments.dtype).tiny)
    return moments + torch.diag_embed(lift[..., None].expand_as(diagonal))


def solve_rows(moments: Tensor, targets: Tensor, mask: Tensor) -> Solution:
    """Solve each row's system on its support.

    Args:
        moments: (D, D), positive definite.
        targets: (R, D), the right sides c.
        mask: bool (R, D), the support of each row.
    """
    width = max(1, int(mask.sum(1).max()))
    kept = torch.argsort(mask.to(torch.int8), dim=1, descending=True, stable=True)[:, :width]
    weights, diagonal = torch.zeros_like(targets), torch.full_like(targets, torch.inf)
    for rows in torch.split(torch.arange(len(mask)), max(1, _BLOCK // width**2)):
        index = kept[rows]
        is_real = torch.gather(mask[rows], 1, index)
        factor = torch.linalg.cholesky(_systems(moments, index, is_real))
        right = torch.gather(targets[rows], 1, index) * is_real
        found = torch.cholesky_solve(right[:, :, None], factor)[:, :, 0] * is_real
        inverse = torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2)
        weights[rows] = torch.zeros_like(targets[rows]).scatter_(1, index, found)
        spread = torch.where(is_real, inverse, torch.inf)
        diagonal[rows] = torch.full_like(targets[rows], torch.inf).scatter_(1, index, spread)
    return Solution(weights=weights, inverse_diagonal=diagonal)


def _systems(moments: Tensor, index: Tensor, is_real: Tensor) -> Tensor:
    """Gather each row's system, (rows, width, width); where a row has fewer weights, the identity fills it up."""
    systems = moments[index[:, :, None], index[:, None, :]]
    return torch.where(is_real[:, :, None] & is_real[:, None, :], systems, torch.eye(index.shape[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer's matrix (R, D), the damped moments of its inputs (D, D), and its outputs' curvature (R,)."""

    weights: Tensor
    moments: Tensor
    curvature: Tensor


class Choose(Protocol):
    """A rule that says which weights stay."""

    def __call__(
        self, costs: Mapping[str, Tensor], masks: Mapping[str, Tensor], sparsity: float, /
    ) -> dict[str, Tensor]:
        """Return the masks from the costs (R, D), the masks before and the sparsity of the step."""


def prune_by_curvature(
    layers: Mapping[str, Layer], *, sparsity: float, steps: int, choose: Choose
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Let the cheapest weights go in several steps; after each the rest is solved anew and every cost is new.

    What is zero to begin with stays zero.

    Each step takes the same share of what is left, for one step alone ranks weights that stand in for each other as if
    each were alone (of 1,017 images a ResNet-20 at 80 % got 104 right after 1 step, 822 after 6, 833 after 12).

    Args:
        layers: matrices and curvature of each layer.
        sparsity: share of the weights of all layers that go.
        steps: how many.
        choose: gives the masks from the costs (R, D), the masks before and the sparsity of the step.

    Returns:
        The matrices and their masks by layer.
    """
    weights = {name: layer.weights for name, layer in layers.items()}
    kept = {name: layer.weights != 0 for name, layer in layers.items()}
    masks = {name: torch.ones_like(layer.weights, dtype=torch.bool) for name, layer in layers.items()}
    solved = {name: _first_solution(layer) for name, layer in layers.items()}
    for step in range(1, steps + 1):
        costs = {
            name: weights[name].square() / solved[name].inverse_diagonal * layer.curvature[:, None]
            for name, layer in layers.items()
        }
        masks = choose(costs, masks, float(1 - (1 - sparsity) ** (step / steps)))
        for name, layer in layers.items():
            solved[name] = solve_rows(layer.moments, layer.weights @ layer.moments, masks[name] & kept[name])
            weights[name] = solved[name].weights
    return weights, {name: mask & kept[name] for name, mask in masks.items()}


def _first_solution(layer: Layer) -> Solution:
    if not (kept := layer.weights != 0).all():
        return solve_rows(layer.moments, layer.weights @ layer.moments, kept)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(layer.moments)).diagonal()
    return Solution(weights=layer.weights, inverse_diagonal=inverse.expand_as(layer.weights))


def cheapest_of_all(costs: Mapping[str, Tensor], masks: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Keep the most salient weights of all layers together, so that `sparsity` of all are gone; none comes back."""
    every = torch.cat([torch.where(masks[name], cost, -torch.inf).reshape(-1) for name, cost in costs.items()])
    keep = len(every) - round(sparsity * len(every))
    keeps = torch.zeros_like(every, dtype=torch.bool)
    keeps[torch.topk(every, keep).indices] = True
    parts = torch.split(keeps, [cost.numel() for cost in costs.values()])
    return {name: part.reshape(cost.shape) for (name, cost), part in zip(costs.items(), parts, strict=True)}


def cheapest_of_each(costs: Mapping[str, Tensor], masks: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Keep the most salient weights of each layer, so that `sparsity` of each are gone; none comes back."""
    return {name: cheapest_of_all({name: cost}, {name: masks[name]}, sparsity)[name] for name, cost in costs.items()}
