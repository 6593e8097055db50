"""The curvature of a network's loss by layer: second moments of the layers' inputs, squared gradients of their outputs.

Only training images are looked at. A layer's inputs are the columns that its weight, as a matrix (outputs, inputs x
kernel), is multiplied with; of each image a random few positions are taken, since neighbours tell the same.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field reads
from torch import Tensor, nn

from trtbench.models.counts import evaluating

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


def columns_of(layer: nn.Conv2d | nn.Linear, inputs: Tensor, *, positions: Tensor | None) -> Tensor:
    """Return what the weight matrix is multiplied with: (images * positions, inputs x kernel)."""
    if isinstance(layer, nn.Linear):
        return inputs.reshape(-1, inputs.shape[-1])
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)  # noqa: SLF001  where torch resolves "same"
    geometry: dict[str, Any] = {"dilation": layer.dilation, "stride": layer.stride}
    found = F.unfold(padded, layer.kernel_size, **geometry)
    if positions is not None:
        found = found[:, :, positions]
    return found.transpose(1, 2).reshape(-1, found.shape[1])


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
        columns = columns_of(layer, inputs[0], positions=drawn)
        sums[name] = sums.get(name, torch.zeros(())) + columns.T @ columns
        counts[name] += len(columns)

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
