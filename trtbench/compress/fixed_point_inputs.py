"""Activations of few bits: a grid for what flows into each layer of a float network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from trtbench.compress.fixed_point import weight_layers
from trtbench.models.rounding import InputGrid, fit_grid

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

IMAGE_BITS = 8  # pixels are 8 bits: the first layer loses nothing by it
_MOST_VALUES = 100_000  # of a layer that the grid is fitted to


def calibrated_inputs(model: nn.Module, images: Tensor, *, bits: int) -> dict[str, InputGrid]:
    """Fit a grid to the inputs of every convolution and linear layer; the image itself keeps 8 bits.

    Args:
        model: the float network, in eval mode on the CPU.
        images: float32 (N, C, H, W), training images as the network sees them.
        bits: 2 to 8.
    """
    grids: dict[str, InputGrid] = {}
    names = weight_layers(model)

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def before(_layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            values = arguments[0].reshape(-1)
            step = max(1, values.numel() // _MOST_VALUES)
            wanted = max(bits, IMAGE_BITS) if arguments[0] is images else bits
            grids[name] = fit_grid(values[:: step | 1], bits=wanted)

        return before

    handles = [model.get_submodule(name).register_forward_pre_hook(hook(name)) for name in names]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return grids
