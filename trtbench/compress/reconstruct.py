"""Round one layer's weights so that its outputs change least, given the second moments of its inputs. Pure.

The error of a row w of weights rounded to codes q times a scale s is (w - s q) H (w - s q)^T, H = X^T X being the
moments of the layer's inputs. Three steps lower it in turn, for all rows and groups of a layer at once:

1. columns are rounded one by one, and what a rounding loses is made good by the columns that follow (Frantar et al.,
   "GPTQ", 2022, algorithm 1, with the order of section 3.3's activation ordering: largest moments first). Rows are
   independent given H, so each row tries a grid of scales and keeps the one of the least true error;
2. each code in turn becomes the best one given all others (coordinate descent: Behdin et al., "QuantEase", 2023,
   algorithm 2);
3. the scale becomes the least-squares one for its codes.

Shapes: G groups, R rows (outputs of a group), D columns (inputs x kernel of a group); everything float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from trtbench.compress.fixed_point import CodeRange

_DAMPING = 0.01  # of the mean moment, on the diagonal (GPTQ, section 3.3, step 3)
_CANDIDATES = 20  # scales each row tries, and as many negative ones where the range is lopsided
_SWEEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounded:
    """Codes (G, R, D) and scales (G, R), float64; the weights are codes x scales."""

    codes: Tensor
    scales: Tensor

    @property
    def values(self) -> Tensor:
        """The rounded weights (G, R, D)."""
        return self.codes * self.scales[..., None]


def reconstruct(weight: Tensor, moments: Tensor, codes: CodeRange, *, kept: Tensor, sweeps: int = _SWEEPS) -> Rounded:
    """Round the weights of a layer.

    Args:
        weight: (G, R, D).
        moments: (G, D, D), positive semi-definite.
        codes: what a weight may become.
        kept: bool (G, R, D); the others get code 0.
        sweeps: rounds of steps 2 and 3.
    """
    damped = damp(moments)
    scales = _candidate_scales(weight, codes)
    count, rows = len(scales), weight.shape[1]
    tried = _by_columns(
        weight.repeat(1, count, 1),
        damped,
        scales.transpose(0, 1).reshape(len(weight), -1),
        codes,
        kept=kept.repeat(1, count, 1),
    )
    errors = error(weight.repeat(1, count, 1), tried, damped).reshape(len(weight), count, rows)
    found = _pick(tried, errors.argmin(1), rows=rows)
    for _ in range(sweeps):
        found = refit(weight, descend(weight, found, damped, codes, kept=kept), damped)
    return found


def error(weight: Tensor, rounded: Rounded, moments: Tensor) -> Tensor:
    """Return the squared error of each row's outputs, summed over the inputs: (G, R)."""
    lost = weight - rounded.values
    return ((lost @ moments) * lost).sum(-1)


def damp(moments: Tensor) -> Tensor:
    """Add a share of the mean moment to the diagonal, so that inputs never seen cannot upset the inverse."""
    diagonal = moments.diagonal(dim1=-2, dim2=-1)
    mean = diagonal.mean(-1).clamp_min(torch.finfo(moments.dtype).tiny)
    return moments + torch.diag_embed((_DAMPING * mean)[:, None].expand_as(diagonal))


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
    for column in range(weight.shape[2]):
        code = codes.nearest(left[..., column] / scales) * kept[..., column]
        found[..., column] = code
        lost = (left[..., column] - code * scales) / factor[:, column, column, None]
        left[..., column:] -= lost[..., None] * factor[:, None, column, column:]
    return Rounded(codes=found.gather(2, order.argsort(-1)[:, None].expand_as(found)), scales=scales)


def _pick(tried: Rounded, best: Tensor, *, rows: int) -> Rounded:
    """Take of each row's candidates the best: `best` (G, R) counts candidates."""
    index = best * rows + torch.arange(rows)
    codes = tried.codes.gather(1, index[..., None].expand(*index.shape, tried.codes.shape[2]))
    return Rounded(codes=codes, scales=tried.scales.gather(1, index))


def descend(weight: Tensor, rounded: Rounded, moments: Tensor, codes: CodeRange, *, kept: Tensor) -> Rounded:
    """Give each code in turn the value that is best given all others; no row's error grows."""
    found, scales = rounded.codes.clone(), rounded.scales
    pull = (weight - rounded.values) @ moments
    for column in range(weight.shape[2]):
        wanted = found[..., column] + pull[..., column] / (moments[:, column, column, None] * scales)
        code = codes.nearest(wanted) * kept[..., column]
        change = (code - found[..., column]) * scales
        found[..., column] = code
        pull -= change[..., None] * moments[:, None, column]
    return Rounded(codes=found, scales=scales)


def refit(weight: Tensor, rounded: Rounded, moments: Tensor) -> Rounded:
    """Give each row the least-squares scale of its codes; a row of zeros keeps its own."""
    pulled = rounded.codes @ moments
    energy = (pulled * rounded.codes).sum(-1)
    fitted = (pulled * weight).sum(-1) / torch.where(energy > 0, energy, 1.0)
    is_sound = (energy > 0) & (fitted != 0)
    return Rounded(codes=rounded.codes, scales=torch.where(is_sound, fitted, rounded.scales))
