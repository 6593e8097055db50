"""The curvature of a network's loss by layer: second moments of the layers' inputs, squared gradients of their outputs.

Only training images are looked at. A layer's inputs are the columns that its weight, as a matrix (outputs, inputs x
kernel), is multiplied with; of each image a random few positions are taken, since neighbours tell the same.

Weights are pruned by it without training. Matrices are (R, D): outputs by inputs x kernel. The moments of a layer's
inputs are `h` = E[x x^T], (D, D). For a row w with the support S, the w that is closest to a target row's outputs
solves h[S, S] w[S] = c[S], c = E[y x] (Hassibi and Stork 1993, "OBS"; Frantar and Alistarh 2022, "OBC", section 4: the
rows are independent problems). To let weight j go costs w_j^2 / (h[S, S]^-1)_jj then; times the Fisher information of
its output this is a cost in the loss, by the Kronecker-factored curvature (Wang et al. 2019, "EigenDamage", section 3),
by which layers can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field reads
from torch import Tensor, nn

from trtbench.models.counts import evaluating, hooked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch.utils.hooks import RemovableHandle

BATCH = 125  # images of a forward pass; changes no result but the positions drawn
POSITIONS = 32  # of each image's outputs: 1,000 images give 32,000 equations for the 576 unknowns of a ResNet-20
_MOST_ROWS = 40_960  # neighbouring places of a map say much the same: more of them change no result, only the time
_STEP = 64  # images whose columns are made at once: a column repeats each number of a map kernel-size times
DAMPING = 1e-3  # of the mean diagonal, added to it; 1e-2 and 1e-1 got fewer images right
_BLOCK = 30_000_000  # numbers of a batch of systems: 120 MB


def matrix_layers(model: nn.Module, *, exclude: tuple[str, ...] = ()) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return the layers whose weight is one matrix: linear ones and 2-D convolutions without groups, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1))
        and not any(part in name for part in exclude)
    }


def columns(layer: nn.Module, inputs: Tensor, *, positions: Tensor | None = None) -> Tensor:
    """Return a layer's inputs as (G, rows, D), so that its outputs are their products with its weights (G, R, D).

    A row is a position of an image's output: all of them, or those named.
    """
    if isinstance(layer, nn.Linear):
        return inputs.reshape(1, -1, inputs.shape[-1])
    assert isinstance(layer, nn.Conv2d), "only convolutions and linear layers come here"
    padding = layer._reversed_padding_repeated_twice  # noqa: SLF001  the one form that holds for all modes and "same"
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    unfolded = F.unfold(F.pad(inputs, padding, mode=mode), layer.kernel_size, layer.dilation, stride=layer.stride)
    if positions is not None:
        unfolded = unfolded[:, :, positions]
    grouped = unfolded.reshape(len(inputs), layer.groups, -1, unfolded.shape[-1])
    return grouped.permute(1, 0, 3, 2).reshape(layer.groups, -1, grouped.shape[2])


def drawn_positions(count: int, *, generator: torch.Generator) -> Tensor | None:
    """Draw which of the output's positions are looked at; None where all are."""
    return None if count <= POSITIONS else torch.randperm(count, generator=generator)[:POSITIONS]


def positions_of(layer: nn.Module, output: Tensor) -> int:
    """Return how many positions an output has, each one column."""
    return 1 if isinstance(layer, nn.Linear) else output.shape[2:].numel()


def input_moments(
    model: nn.Module, layers: Sequence[str], images: Tensor, *, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return E[x x^T] of the inputs of each layer that runs, (D, D).

    Twice that is the Hessian of a layer's squared output error (Frantar and Alistarh 2022, "OBC", section 3).
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = dict.fromkeys(layers, 0)

    def add(name: str, layer: Any, inputs: Any, output: Tensor) -> None:
        drawn = drawn_positions(positions_of(layer, output), generator=generator)
        rows = columns(layer, inputs[0], positions=drawn)[0]
        sums[name] = sums.get(name, torch.zeros(())) + rows.T @ rows
        counts[name] += len(rows)

    with hooked(*_behind(model, layers, add)), evaluating(model), torch.no_grad():
        for start in range(0, len(images), BATCH):
            model(images[start : start + BATCH])
    return {name: total / counts[name] for name, total in sums.items()}


def output_curvatures(
    model: nn.Module, layers: Sequence[str], images: Tensor, *, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return the Fisher information of each output of each layer, (R,): E[sum over positions of (dL / dz)^2].

    The labels are drawn from the network's own predictions, so that it is the Fisher, not the empirical one (Kunstner
    et al. 2019); with the inputs' moments it makes the Kronecker factors of the loss's curvature (Martens and Grosse
    2015, section 3; Grosse and Martens 2016 for convolutions).
    """
    sums: dict[str, Tensor] = {}

    def watch(name: str, _layer: Any, _inputs: Any, output: Tensor) -> None:
        output.register_hook(partial(add, name))  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def add(name: str, gradient: Tensor) -> None:
        squares = gradient.square()
        found = squares.flatten(2).sum((0, 2)) if squares.ndim > 2 else squares.sum(0)  # noqa: PLR2004  (N, R, H, W)
        sums[name] = sums.get(name, torch.zeros(())) + found

    with hooked(*_behind(model, layers, watch)), evaluating(model), torch.enable_grad():
        for start in range(0, len(images), BATCH):
            logits = model(images[start : start + BATCH])
            drawn = torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]
            torch.autograd.backward(F.cross_entropy(logits, drawn, reduction="sum"))
    model.zero_grad(set_to_none=True)
    return {name: total.detach() / len(images) for name, total in sums.items()}


def _behind(model: nn.Module, layers: Sequence[str], function: Any) -> Iterator[RemovableHandle]:
    return (model.get_submodule(name).register_forward_hook(partial(function, name)) for name in layers)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Sums over a layer's inputs X, float64 (G, D, D): `own` = X'X, `cross` = X'Y with Y the float network's inputs."""

    own: Tensor
    cross: Tensor


def round_in_passing(
    model: nn.Module,
    layers: Iterable[str],
    images: Tensor,
    treat: Callable[[str, nn.Module, Moments], None],
    *,
    seed: int,
) -> None:
    """Run all images through a network once and let `treat` change each layer's weights just before it computes.

    So each layer sees its inputs as the layers before it, already changed, make them; the network is run once, whatever
    its depth. A layer that runs twice is treated at its first run.

    Args:
        model: on the CPU, in eval mode; `treat` changes it.
        layers: names of convolutions and linear layers.
        images: float32 (N, C, H, W), in one batch.
        treat: called with name, module and moments.
        seed: of the places at which inputs are looked at.
    """
    reference = _inputs_of(model, layers, images)
    waiting = dict.fromkeys(layers)

    def see(name: str, layer: nn.Module, inputs: Tensor) -> None:
        if name in waiting:
            del waiting[name]
            treat(name, layer, _moments(layer, inputs, reference.pop(name), seed=seed))

    run_seen(model, layers, images, see)


def run_seen(
    model: nn.Module, layers: Iterable[str], images: Tensor, see: Callable[[str, nn.Module, Tensor], None]
) -> None:
    """Run images through a network once; `see` is told name, module and inputs of each layer before it computes."""

    def seen(name: str, layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        see(name, layer, arguments[0])

    handles = (model.get_submodule(name).register_forward_pre_hook(partial(seen, name)) for name in layers)
    with hooked(*handles), torch.no_grad():
        model(images)


def _inputs_of(model: nn.Module, layers: Iterable[str], images: Tensor) -> dict[str, Tensor]:
    """Return what flows into each layer of the float network; in half precision, for it is much."""
    found: dict[str, Tensor] = {}

    def see(name: str, _layer: nn.Module, inputs: Tensor) -> None:
        found.setdefault(name, inputs.half())

    run_seen(model, layers, images, see)
    return found


def _moments(layer: nn.Module, inputs: Tensor, reference: Tensor, *, seed: int) -> Moments:
    """Sum over places drawn at random, the same ones of both inputs, in steps that bound the memory."""
    own = cross = torch.zeros((), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    for some, theirs in zip(torch.split(inputs, _STEP), torch.split(reference, _STEP), strict=True):
        ours, float_ones = columns(layer, some), columns(layer, theirs.float())
        wanted = -(-_MOST_ROWS * len(some) // len(inputs))
        if ours.shape[1] > wanted:
            places = torch.randint(ours.shape[1], (wanted,), generator=generator)
            ours, float_ones = ours[:, places], float_ones[:, places]
        own = own + (ours.mT @ ours).double()
        cross = cross + (ours.mT @ float_ones).double()
    return Moments(own=own, cross=cross)


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
