"""Rebuild what a layer computes from the weights it may have: one layer rounded, or layer after layer pruned.

`reconstruct` rounds one layer's weights so that its outputs change least. The error of a row w of weights rounded to
codes q times a scale s is (w - s q) H (w - s q)^T, H = X^T X being the moments of the layer's inputs. Three steps lower
it in turn, for all rows and groups of a layer at once:

1. columns are rounded one by one, and what a rounding loses is made good by the columns that follow (Frantar et al.,
   "GPTQ", 2022, algorithm 1, with the order of section 3.3's activation ordering: largest moments first). Rows are
   independent given H, so each row tries a grid of scales and keeps the one of the least true error;
2. each code in turn becomes the best one given all others (coordinate descent: Behdin et al., "QuantEase", 2023,
   algorithm 2);
3. the scale becomes the least-squares one for its codes.

Shapes: G groups, R rows (outputs of a group), D columns (inputs x kernel of a group); everything float64.

`reconstruct_in_order` solves the weights that are left, layer after layer. The inputs are those of the network as
pruned and solved so far, the targets the dense layer's outputs in the dense network: each layer makes up for the errors
before it (Frantar and Alistarh 2022, "OBC", appendix on sequential application; Hubara et al. 2021, "AdaQuant", section
3.3). A ResNet-20 at 80 % had 833 of 1,017 images right before this pass and 900 after it; a second pass got 897, and
adding the residual stream's error to the targets 902.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from trtbench.compress.curvature import BATCH, columns, damped, drawn_positions, positions_of, solve_rows
from trtbench.models.counts import CONVOLUTIONS, WEIGHTED, evaluating, hooked

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
    return tuple(name for name, module in model.named_modules() if isinstance(module, WEIGHTED))


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


ROUNDING_DAMPING = 0.01  # of the mean moment, on the diagonal (GPTQ, section 3.3, step 3)
_CANDIDATES = 20  # scales each row tries, and as many negative ones where the range is lopsided
_SWEEPS = 3  # rounds of steps 2 and 3
_BLOCK = 32  # columns


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounded:
    """Codes (G, R, D) and scales (G, R), float64; the weights are codes x scales."""

    codes: Tensor
    scales: Tensor

    @property
    def values(self) -> Tensor:
        """The rounded weights (G, R, D)."""
        return self.codes * self.scales[..., None]


def reconstruct(weight: Tensor, moments: Tensor, codes: CodeRange, *, kept: Tensor) -> Rounded:
    """Round the weights of a layer.

    Args:
        weight: (G, R, D).
        moments: (G, D, D), positive semi-definite.
        codes: what a weight may become.
        kept: bool (G, R, D); the others get code 0.
    """
    lifted = damped(moments, share=ROUNDING_DAMPING)
    scales = _candidate_scales(weight, codes)
    count, rows = len(scales), weight.shape[1]
    tried = _by_columns(
        weight.repeat(1, count, 1),
        lifted,
        scales.transpose(0, 1).reshape(len(weight), -1),
        codes,
        kept=kept.repeat(1, count, 1),
    )
    errors = error(weight.repeat(1, count, 1), tried, lifted).reshape(len(weight), count, rows)
    found = _pick(tried, errors.argmin(1), rows=rows)
    for _ in range(_SWEEPS):
        found = refit(weight, descend(weight, found, lifted, codes, kept=kept), lifted)
    return found


def error(weight: Tensor, rounded: Rounded, moments: Tensor) -> Tensor:
    """Return the squared error of each row's outputs, summed over the inputs: (G, R)."""
    lost = weight - rounded.values
    return ((lost @ moments) * lost).sum(-1)


def _candidate_scales(weight: Tensor, codes: CodeRange) -> Tensor:
    """Return scales (C, G, R) between a sixth of a row's largest magnitude and all of it for the last code."""
    largest = weight.abs().amax(-1).clamp_min(torch.finfo(torch.float32).tiny)
    shares = torch.linspace(1 / 6, 1.1, _CANDIDATES, dtype=weight.dtype)
    scales = shares[:, None, None] * largest / codes.highest
    return scales if codes.lowest == -codes.highest else torch.cat([scales, -scales])


def _by_columns(weight: Tensor, moments: Tensor, scales: Tensor, codes: CodeRange, *, kept: Tensor) -> Rounded:
    order = moments.diagonal(dim1=-2, dim2=-1).argsort(-1, descending=True)
    left = weight.gather(2, order[:, None].expand_as(weight)).clone()
    kept = kept.gather(2, order[:, None].expand_as(kept))
    sorted_moments = moments.gather(1, order[..., None].expand_as(moments)).gather(2, order[:, None].expand_as(moments))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(sorted_moments))
    factor = torch.linalg.cholesky(inverse, upper=True)
    found = torch.zeros_like(left)

    def round_column(column: int) -> Tensor:
        code = found[..., column] = codes.nearest(left[..., column] / scales) * kept[..., column]
        lost: Tensor = (left[..., column] - code * scales) / factor[:, column, column, None]
        return lost

    _pass_on(left, factor, round_column)
    return Rounded(codes=found.gather(2, order.argsort(-1)[:, None].expand_as(found)), scales=scales)


def _pass_on(left: Tensor, shares: Tensor, change: Callable[[int], Tensor]) -> None:
    """Change (G, R, D) column by column: what `change` returns of one is taken, by its shares, from those behind it.

    A block's own columns take it at once, all others together, by one product of matrices (GPTQ, section 3.3, step 2).
    """
    for start in range(0, left.shape[2], _BLOCK):
        stop = min(start + _BLOCK, left.shape[2])
        changes = []
        for column in range(start, stop):
            changes.append(change(column))
            behind = slice(column + 1, stop)
            left[..., behind] -= changes[-1][..., None] * shares[:, None, column, behind]
        left[..., stop:] -= torch.stack(changes, -1) @ shares[:, start:stop, stop:]


def _pick(tried: Rounded, best: Tensor, *, rows: int) -> Rounded:
    """Take of each row's candidates the best: `best` (G, R) counts candidates."""
    index = best * rows + torch.arange(rows)
    codes = tried.codes.gather(1, index[..., None].expand(*index.shape, tried.codes.shape[2]))
    return Rounded(codes=codes, scales=tried.scales.gather(1, index))


def descend(weight: Tensor, rounded: Rounded, moments: Tensor, codes: CodeRange, *, kept: Tensor) -> Rounded:
    """Give each code in turn the value that is best given all others; no row's error grows."""
    found, scales = rounded.codes.clone(), rounded.scales
    pull = (weight - rounded.values) @ moments

    def move(column: int) -> Tensor:
        was = found[..., column].clone()
        wanted = was + pull[..., column] / (moments[:, column, column, None] * scales)
        found[..., column] = codes.nearest(wanted) * kept[..., column]
        change: Tensor = (found[..., column] - was) * scales
        return change

    _pass_on(pull, moments, move)
    return Rounded(codes=found, scales=scales)


def refit(weight: Tensor, rounded: Rounded, moments: Tensor) -> Rounded:
    """Give each row the least-squares scale of its codes; a row of zeros keeps its own."""
    pulled = rounded.codes @ moments
    energy = (pulled * rounded.codes).sum(-1)
    fitted = (pulled * weight).sum(-1) / torch.where(energy > 0, energy, 1.0)
    is_sound = (energy > 0) & (fitted != 0)
    return Rounded(codes=rounded.codes, scales=torch.where(is_sound, fitted, rounded.scales))


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
    handles = [
        model.get_submodule(name).register_forward_pre_hook(partial(_solve, target, masks[name]))
        for name, target in targets.items()
    ]
    with hooked(*handles), evaluating(model), torch.no_grad():
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
        rows = columns(layer, inputs[0], positions=drawn)[0]
        target = targets.setdefault(name, _Target())
        target.positions.append(drawn)
        target.outputs.append(rows @ layer.weight.reshape(len(layer.weight), -1).T)

    handles = [dense.get_submodule(name).register_forward_hook(partial(keep, name)) for name in layers]
    with hooked(*handles), evaluating(dense), torch.no_grad():
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
        rows = columns(layer, batch, positions=drawn)[0]
        moments, products = moments + rows.T @ rows, products + outputs.T @ rows
    count = sum(len(outputs) for outputs in target.outputs)
    target.outputs.clear()
    solution = solve_rows(damped(moments / count), products / count, mask)
    layer.weight.copy_(solution.weights.reshape(layer.weight.shape))
