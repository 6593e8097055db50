"""Weights of 8 bits to 1, as tensors: the source study's two quantizers, and what a zero-aligned grid is. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from trtbench.models.counts import CONVOLUTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor


Bits = int | Literal["ternary"]
_TINY = 1e-8  # of the source study: keeps the range of a constant tensor from being zero


def asymmetric(weight: Tensor, *, bits: int) -> Tensor:
    """Round a tensor to 2^bits levels from its least to its largest value; zeros stay zero.

    Luopeiwen Yi, "Pruning, Quantization and Fine-tuning on ResNet-20" (FP_layers_asymmetric.py): with beta = min w and
    alpha = max w - min w, R = round((w - beta) / (alpha + 1e-8) (2^b - 1)) / (2^b - 1) and w_q = (R alpha + beta) (w !=
    0). The levels start at min w, so none of them need be zero: a pruned weight stays zero by the last factor alone.

    Args:
        weight: float32, any shape.
        bits: 1 to 8.
    """
    lowest = weight.min()
    return _levels(weight, lowest=lowest, width=weight.max() - lowest, bits=bits)


def symmetric(weight: Tensor, *, bits: int) -> Tensor:
    """Round a tensor to 2^bits levels from -a to a, a its largest magnitude; zeros stay zero.

    As `asymmetric`, with beta = -a and alpha = 2 a. An even number of levels has none at zero.
    """
    largest = weight.abs().max()
    return _levels(weight, lowest=-largest, width=2 * largest, bits=bits)


def _levels(weight: Tensor, *, lowest: Tensor, width: Tensor, bits: int) -> Tensor:
    top = 2**bits - 1
    level = torch.round((weight - lowest) / (width + _TINY) * top) / top
    rounded: Tensor = (level * width + lowest) * (weight != 0)
    return rounded


SOURCE_SCHEMES: Mapping[str, Callable[..., Tensor]] = {"asymmetric": asymmetric, "symmetric": symmetric}


def source_layers(model: nn.Module) -> tuple[str, ...]:
    """Name what the source study quantizes: every convolution but the first, shortcuts too, and no linear layer."""
    return tuple(name for name, module in model.named_modules() if isinstance(module, CONVOLUTIONS))[1:]


def weight_layers(model: nn.Module) -> tuple[str, ...]:
    """Name every convolution and linear layer, in the order of the modules."""
    kinds = (*CONVOLUTIONS, nn.Linear)
    return tuple(name for name, module in model.named_modules() if isinstance(module, kinds))


def quantize_by_source(model: nn.Module, *, scheme: str, bits: int) -> tuple[str, ...]:
    """Round the weights that the source study rounds, in place and with nothing else; return the layers' names."""
    names = source_layers(model)
    with torch.no_grad():
        for name in names:
            weight: Tensor = model.get_submodule(name).weight  # type: ignore[assignment]  # a convolution's
            weight.copy_(SOURCE_SCHEMES[scheme](weight, bits=bits) + 0.0)  # no zero is negative
    return names


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRange:
    """The whole numbers that a weight may become, times the scale of its output channel.

    Two's complement has one more code below zero than above; a channel with a longer tail above it takes a negative
    scale. A weight that was pruned has code 0, whatever the range.
    """

    lowest: int
    highest: int
    has_zero: bool = True

    def nearest(self, value: Tensor) -> Tensor:
        """Return the nearest code of each number; halves go to even, as IEEE 754 rounds."""
        if not self.has_zero:
            return torch.where(value < 0, -1.0, 1.0).to(value.dtype)
        return value.round().clamp(self.lowest, self.highest)


TERNARY = CodeRange(lowest=-1, highest=1)  # Li et al., "Ternary Weight Networks" (2016)
BINARY = CodeRange(lowest=-1, highest=1, has_zero=False)  # Rastegari et al., "XNOR-Net" (2016), section 3.1


def code_range(bits: Bits) -> CodeRange:
    """Return the codes of a width: -2^(b-1) to 2^(b-1) - 1, of 1 bit -1 and 1, of `ternary` -1, 0 and 1."""
    if bits == "ternary":
        return TERNARY
    return BINARY if bits == 1 else CodeRange(lowest=-(2 ** (bits - 1)), highest=2 ** (bits - 1) - 1)
