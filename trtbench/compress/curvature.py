"""The curvature of a network's loss by layer: second moments of the layers' inputs, squared gradients of their outputs.

Only training images are looked at. A layer's inputs are the columns that its weight, as a matrix (outputs, inputs x
kernel), is multiplied with; of each image a random few positions are taken, since neighbours tell the same.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field reads
from torch import Tensor, nn

from trtbench.models.counts import evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


BATCH = 125  # images of a forward pass; changes no result but the positions drawn
POSITIONS = 32  # of each image's outputs: 1,000 images give 32,000 equations for the 576 unknowns of a ResNet-20


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

    with _hooked(model, layers, add), evaluating(model), torch.no_grad():
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

    with _hooked(model, layers, watch), evaluating(model), torch.enable_grad():
        for start in range(0, len(images), BATCH):
            logits = model(images[start : start + BATCH])
            drawn = torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]
            torch.autograd.backward(F.cross_entropy(logits, drawn, reduction="sum"))
    model.zero_grad(set_to_none=True)
    return {name: total.detach() / len(images) for name, total in sums.items()}


@contextlib.contextmanager
def _hooked(model: nn.Module, layers: Sequence[str], function: Any) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name in layers:
            hook = model.get_submodule(name).register_forward_hook(partial(function, name))
            stack.callback(hook.remove)
        yield


_MOST_ROWS = 40_960  # neighbouring places of a map say much the same: more of them change no result, only the time
_STEP = 64  # images whose columns are made at once: a column repeats each number of a map kernel-size times


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

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda layer, arguments: see(name, layer, arguments[0])

    with contextlib.ExitStack() as stack:
        for name in layers:
            stack.callback(model.get_submodule(name).register_forward_pre_hook(hook(name)).remove)
        with torch.no_grad():
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
    own: Tensor | float = 0.0
    cross: Tensor | float = 0.0
    generator = torch.Generator().manual_seed(seed)
    for some, theirs in zip(torch.split(inputs, _STEP), torch.split(reference, _STEP), strict=True):
        ours, float_ones = columns(layer, some), columns(layer, theirs.float())
        wanted = -(-_MOST_ROWS * len(some) // len(inputs))
        if ours.shape[1] > wanted:
            places = torch.randint(ours.shape[1], (wanted,), generator=generator)
            ours, float_ones = ours[:, places], float_ones[:, places]
        own = own + (ours.mT @ ours).double()
        cross = cross + (ours.mT @ float_ones).double()
    assert isinstance(own, Tensor)
    assert isinstance(cross, Tensor)
    return Moments(own=own, cross=cross)
