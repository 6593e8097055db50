"""Training with rounded weights: the straight-through estimator under the source's quantizers, and learned steps.

While it learns, a layer's weight is a parametrization of torch's: the optimizer moves the float weight, the network
computes with the rounded one. Zero weights stay zero, in both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from trtbench.compress.codes import SOURCE_SCHEMES, CodeRange, code_range, source_layers
from trtbench.compress.fixed_point_network import CLASSIFIER_BITS, FixedPoint, storable
from trtbench.models.container import Grid

if TYPE_CHECKING:
    from trtbench.compress.codes import Bits
    from trtbench.compress.method import Tune


class SourceRounding(nn.Module):
    """The source study's FP_Conv: rounded forward, the identity backward (Bengio et al., 2013; SEEDS' STE).

    The range follows the weights as they move. The float weight is masked, so that what is zero at first stays so; the
    source's own training lets it drift away.
    """

    def __init__(self, weight: Tensor, *, scheme: str, bits: int) -> None:
        super().__init__()
        self.register_buffer("kept", weight != 0)
        self.kept: Tensor
        self._quantizer, self._bits = SOURCE_SCHEMES[scheme], bits

    def forward(self, weight: Tensor) -> Tensor:
        """Return the rounded weight."""
        held = weight * self.kept
        return held + (self._quantizer(held.detach(), bits=self._bits) - held).detach()


class LearnedStep(nn.Module):
    """Esser et al., "Learned Step Size Quantization" (2020), equations 1 to 3, one step for each output channel.

    w_q = s round(clip(w / s, lowest, highest)); the gradient of s is scaled by 1 / sqrt(N highest), N weights a step
    (section 2.2). Rounding passes gradients through, clipping does not.
    """

    def __init__(self, grid: Grid, codes: CodeRange, *, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept)
        self.kept: Tensor
        self.step = nn.Parameter(grid.scales.clone())
        self._codes = codes
        self._shape = (-1, *[1] * (grid.codes.ndim - 1))
        self._gradient = 1 / math.sqrt(max(grid.codes[0].numel(), 1) * codes.highest)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the rounded weight."""
        scaled = self.step * self._gradient
        step = (scaled + (self.step - scaled).detach()).reshape(self._shape)
        inside = (weight / step).clamp(self._codes.lowest, self._codes.highest)
        codes = inside + (self._codes.nearest(inside) - inside).detach()
        return codes * step * self.kept

    def grid(self, weight: Tensor) -> Grid:
        """Return the codes and the steps, as they are stored, of a learnt weight."""
        with torch.no_grad():
            scales = storable(self.step.detach().double()).float()
            codes = self._codes.nearest(weight / scales.reshape(self._shape)) * self.kept
        return Grid(codes=codes.to(torch.int32), scales=scales)


def learn_by_source(model: nn.Module, *, scheme: str, bits: int, tune: Tune) -> None:
    """Train a network in place under a quantizer of the source study; its weights are left in float."""
    names = source_layers(model)
    for name in names:
        layer = model.get_submodule(name)
        rounding = SourceRounding(_weight(layer), scheme=scheme, bits=bits)
        parametrize.register_parametrization(layer, "weight", rounding)
    tune(model)
    for name in names:
        layer = model.get_submodule(name)
        held = layer.parametrizations.weight.original * layer.parametrizations.weight[0].kept  # type: ignore[union-attr,index]  # as registered above
        _settle(layer, held)


def learn_steps(start: FixedPoint, *, bits: Bits, tune: Tune) -> FixedPoint:
    """Train a network in place with its weights rounded and their steps learnt, from where rounding left it."""
    model, grids = start.model, dict(start.grids)
    names = [key.removesuffix(".weight") for key in grids]
    for name in names:
        layer = model.get_submodule(name)
        codes = code_range(CLASSIFIER_BITS if isinstance(layer, nn.Linear) else bits)
        rounding = LearnedStep(grids[f"{name}.weight"], codes, kept=start.kept[f"{name}.weight"])
        parametrize.register_parametrization(layer, "weight", rounding)
    tune(model)
    for name in names:
        layer = model.get_submodule(name)
        learnt: Any = layer.parametrizations.weight  # type: ignore[union-attr]  # as registered above
        grids[f"{name}.weight"] = learnt[0].grid(learnt.original.detach())
        _settle(layer, grids[f"{name}.weight"].values())
    return FixedPoint(model=model, grids=grids, kept=start.kept, float_layers=start.float_layers)


def _settle(layer: nn.Module, weight: Tensor) -> None:
    """Put a plain weight back where the parametrization was."""
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    with torch.no_grad():
        _weight(layer).copy_(weight)


def _weight(layer: nn.Module) -> Tensor:
    weight: Tensor = layer.weight  # type: ignore[assignment]  # a convolution's or a linear layer's
    return weight
