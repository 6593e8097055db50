"""Activations of few bits: a grid for what flows into each layer of a float network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbench.compress.fixed_point import weight_layers
from trtbench.compress.reconstruct_inputs import run_seen
from trtbench.models.rounding import InputGrid, fit_grid

if TYPE_CHECKING:
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

    def see(name: str, _layer: nn.Module, inputs: Tensor) -> None:
        values = inputs.reshape(-1)
        step = max(1, values.numel() // _MOST_VALUES)
        wanted = max(bits, IMAGE_BITS) if inputs is images else bits
        grids[name] = fit_grid(values[:: step | 1], bits=wanted)

    run_seen(model, weight_layers(model), images, see)
    return grids
