"""Layer after layer, solve the weights that are left so that the pruned network's outputs are the dense network's.

The inputs are those of the network as pruned and solved so far, the targets the dense layer's outputs in the dense
network: each layer makes up for the errors before it (Frantar and Alistarh 2022, "OBC", appendix on sequential
application; Hubara et al. 2021, "AdaQuant", section 3.3). A ResNet-20 at 80 % had 833 of 1,017 images right before this
pass and 900 after it; a second pass got 897, and adding the residual stream's error to the targets 902.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from trtbench.compress.hessian import BATCH, columns_of, drawn_positions, positions_of
from trtbench.compress.second_order import damped, solve_rows
from trtbench.models.counts import evaluating

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What a dense layer answers, without its bias: by batch, the positions drawn and the outputs there."""

    positions: list[Tensor | None] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)


def reconstruct_in_order(
    model: nn.Module, dense: nn.Module, masks: Mapping[str, Tensor], images: Tensor, *, generator: torch.Generator
) -> None:
    """Solve every layer of `masks` anew, in place, as the network comes to it; biases stay.

    All images go through the network at once, so that each layer is solved before the next one sees its outputs. A
    layer that runs more than once is solved for its first run, one that never runs stays as it is.

    Args:
        model: the pruned network, on the CPU.
        dense: the network whose outputs are the targets.
        masks: bool (R, D), the weights of each layer that may be other than zero.
        images: the network's input, float32 (N, C, H, W).
        generator: draws the positions looked at.
    """
    targets = _targets(dense, tuple(masks), images, generator)
    with contextlib.ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.no_grad())
        for name, target in targets.items():
            solve = partial(_solve, target, masks[name])
            stack.callback(model.get_submodule(name).register_forward_pre_hook(solve).remove)
        model(images)


def _targets(
    dense: nn.Module, layers: tuple[str, ...], images: Tensor, generator: torch.Generator
) -> dict[str, _Target]:
    """Run the dense network, and keep what each layer answers at a few positions of each image."""
    targets: dict[str, _Target] = {}

    def keep(name: str, layer: Any, inputs: Any, output: Tensor) -> None:
        if name in seen:
            return
        seen.add(name)
        drawn = drawn_positions(positions_of(layer, output), generator=generator)
        columns = columns_of(layer, inputs[0], positions=drawn)
        target = targets.setdefault(name, _Target())
        target.positions.append(drawn)
        target.outputs.append(columns @ layer.weight.reshape(len(layer.weight), -1).T)

    with contextlib.ExitStack() as stack:
        stack.enter_context(evaluating(dense))
        stack.enter_context(torch.no_grad())
        for name in layers:
            stack.callback(dense.get_submodule(name).register_forward_hook(partial(keep, name)).remove)
        for batch in torch.split(images, BATCH):
            seen: set[str] = set()
            dense(batch)
    return targets


def _solve(target: _Target, mask: Tensor, layer: Any, inputs: Any) -> None:
    """Give a layer, just before it runs, the weights whose outputs are nearest to its target's."""
    if not target.outputs:  # it ran before
        return
    moments, products = torch.zeros(()), torch.zeros(())
    for batch, drawn, outputs in zip(torch.split(inputs[0], BATCH), target.positions, target.outputs, strict=True):
        columns = columns_of(layer, batch, positions=drawn)
        moments, products = moments + columns.T @ columns, products + outputs.T @ columns
    count = sum(len(outputs) for outputs in target.outputs)
    target.outputs.clear()
    solution = solve_rows(damped(moments / count), products / count, mask)
    layer.weight.copy_(solution.weights.reshape(layer.weight.shape))
