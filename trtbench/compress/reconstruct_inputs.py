"""What flows into each layer: its columns, their moments, and one pass that rounds a network layer by layer."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field reads
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_MOST_ROWS = 40_960  # neighbouring places of a map say much the same: more of them change no result, only the time
_STEP = 64  # images whose columns are made at once: a column repeats each number of a map kernel-size times


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Sums over a layer's inputs X, float64 (G, D, D): `own` = X'X, `cross` = X'Y with Y the float network's inputs."""

    own: Tensor
    cross: Tensor


def columns(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return a layer's inputs as (G, rows, D), so that its outputs are their products with its weights (G, R, D)."""
    if isinstance(layer, nn.Linear):
        return inputs.reshape(1, -1, inputs.shape[-1])
    assert isinstance(layer, nn.Conv2d), "only convolutions and linear layers come here"
    padding = layer._reversed_padding_repeated_twice  # noqa: SLF001  the one form that holds for all modes and "same"
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    unfolded = F.unfold(F.pad(inputs, padding, mode=mode), layer.kernel_size, layer.dilation, stride=layer.stride)
    grouped = unfolded.reshape(len(inputs), layer.groups, -1, unfolded.shape[-1])
    return grouped.permute(1, 0, 3, 2).reshape(layer.groups, -1, grouped.shape[2])


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
