"""The kind `fixed_point`: weights rounded after training, or trained with them rounded; what flows in may be too.

Without training: by the source study's rule, or rebuilt layer by layer. With it: the straight-through estimator under
the source's quantizers, or learned steps. While it learns, a layer's weight is a parametrization of torch's: the
optimizer moves the float weight, the network computes with the rounded one. Zero weights stay zero, in both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from trtbench.compress.curvature import Moments, damped, round_in_passing, run_seen
from trtbench.compress.method import Compressed, Context
from trtbench.compress.reconstruct import (
    ROUNDING_DAMPING,
    SOURCE_SCHEMES,
    CodeRange,
    Rounded,
    code_range,
    descend,
    reconstruct,
    source_layers,
    weight_layers,
)
from trtbench.data import training_sample
from trtbench.jsonable import to_jsonable
from trtbench.models.container import Grid, PackedState, to_bytes, weight_bytes, without_negative_zeros
from trtbench.models.masks import MASKS, masks_to_facts
from trtbench.models.rounding import InputGrid, fit_grid, grids_to_facts, input_grids, round_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbench.compress.method import Tune
    from trtbench.compress.reconstruct import Bits
    from trtbench.records import Dataset
    from trtbench.suite import FixedPointVariant

CLASSIFIER_BITS = 8
_RIDGE = 0.01  # of the mean moment: how much is made good of what earlier layers lost, against trust in few images
_SMALLEST_HALF = 2.0**-14  # the smallest normal number of half precision
IMAGE_BITS = 8  # pixels are 8 bits: the first layer loses nothing by it
_MOST_VALUES = 100_000  # of a layer that the grid is fitted to


def quantize(network: nn.Module, config: FixedPointVariant, context: Context) -> Compressed:
    """Round a network's weights in place, and train it so where the variant asks for it."""
    made = quantized(network, config, context)
    record = made.record(config)
    size = len(to_bytes(made.packed(facts={})))
    facts: dict[str, Any] = {"fixed_point": to_jsonable(record), "packed_bytes": size}
    notes = [f"{record.bits_per_weight:.2f} bits a weight; {size:,} bytes as a packed file"]
    notes += [f"left in float: {', '.join(record.float_layers)}"] if record.float_layers else []
    return Compressed(
        model=made.model,
        facts=facts,
        notes=tuple(notes),
        is_tuned=config.fine_tune,
        packed=lambda known: made.packed(facts=known),
    )


def quantized(network: nn.Module, config: FixedPointVariant, context: Context) -> FixedPoint:
    """Round a network's weights in place, and what flows into its layers if asked; learnt with `config.fine_tune`."""
    if config.activations is not None:
        grids = calibrated_inputs(network, _images(context.dataset, config), bits=config.activations)
        round_inputs(network, grids)
    if config.scheme != "best":
        assert isinstance(config.bits, int), "the suite gives these schemes a number of bits"
        if config.fine_tune:
            learn_by_source(network, scheme=config.scheme, bits=config.bits, tune=context.tune)
        return by_source(network, scheme=config.scheme, bits=config.bits)
    made = by_reconstruction(network, _images(context.dataset, config), bits=config.bits, seed=config.seed)
    return learn_steps(made, bits=config.bits, tune=context.tune) if config.fine_tune else made


def _images(dataset: Dataset, config: FixedPointVariant) -> Tensor:
    return torch.from_numpy(training_sample(dataset, count=config.images, seed=config.seed)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPointRecord:
    """What became of a network's weights.

    `float_layers` are the convolutions and linear layers left in float32; `bits_per_weight` is what the weights of the
    others, with their scales or tables, take in the packed file.
    """

    scheme: str
    bits: int | str
    activations: int | None
    layers: int
    float_layers: tuple[str, ...]
    bits_per_weight: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FixedPoint:
    """A quantized network: its weights are the rounded ones.

    `grids` holds those on a grid as they are stored, `kept` where these were not pruned (bool), both by the tensor's
    key; `float_layers` are the convolutions and linear layers left in float32.
    """

    model: nn.Module
    grids: Mapping[str, Grid] = field(default_factory=dict)
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    float_layers: tuple[str, ...] = ()

    def packed(self, *, facts: Mapping[str, Any]) -> PackedState:
        """Return the state for a container, weights on a grid as codes and scales."""
        state = {key: value.detach().cpu() for key, value in self.model.state_dict().items()}
        inputs = grids_to_facts(input_grids(self.model))
        known = {**facts, MASKS: masks_to_facts(self.model), **({"inputs": inputs} if inputs else {})}
        return PackedState(tensors={**without_negative_zeros(state), **self.grids}, facts=known)

    def record(self, config: FixedPointVariant) -> FixedPointRecord:
        """Count what the quantized weights take."""
        state = self.packed(facts={})
        names = [name for name in weight_layers(self.model) if name not in self.float_layers]
        sizes = weight_bytes(PackedState(tensors={f"{name}.weight": state.tensors[f"{name}.weight"] for name in names}))
        count = sum(_weight(self.model.get_submodule(name)).numel() for name in names)
        return FixedPointRecord(
            scheme=config.scheme,
            bits=config.bits,
            activations=config.activations,
            layers=len(names),
            float_layers=self.float_layers,
            bits_per_weight=8 * sum(sizes.values()) / max(count, 1),
        )


def by_source(model: nn.Module, *, scheme: str, bits: int) -> FixedPoint:
    """Quantize a network in place exactly as the source study does, and nothing more.

    Head, classifier, biases and BatchNorm stay in float; nothing is clipped, rebuilt or recalibrated.
    """
    done = source_layers(model)
    with torch.no_grad():
        for name in done:
            weight = _weight(model.get_submodule(name))
            weight.copy_(SOURCE_SCHEMES[scheme](weight, bits=bits) + 0.0)  # no zero is negative
    return FixedPoint(model=model, float_layers=tuple(name for name in weight_layers(model) if name not in done))


def by_reconstruction(model: nn.Module, images: Tensor, *, bits: Bits, seed: int) -> FixedPoint:
    """Quantize every convolution of a network in place, and its linear layers to 8 bits, layer after layer.

    Each layer is rounded where its inputs are those that the rounded layers before it really make, and towards the
    outputs of the float network (Li et al., "GPTAQ", 2025, section 4: asymmetric calibration; here by a ridge
    regression to the float outputs before `reconstruct`). Weights that are zero stay zero.

    Args:
        model: on the CPU, in eval mode.
        images: float32 (N, C, H, W), training images as the network sees them.
        bits: 1 to 8, or `ternary`; what wants more than 8 bits stays in float.
        seed: of the places of the maps that are looked at.
    """
    grids: dict[str, Grid] = {}
    kept: dict[str, Tensor] = {}
    names = [name for name in weight_layers(model) if isinstance(model.get_submodule(name), nn.Conv2d | nn.Linear)]

    def treat(name: str, layer: nn.Module, moments: Moments) -> None:
        codes = code_range(CLASSIFIER_BITS if isinstance(layer, nn.Linear) else bits)
        kept[f"{name}.weight"] = _weight(layer) != 0
        grids[f"{name}.weight"] = grid = round_layer(layer, moments, codes)
        _weight(layer).copy_(grid.values())

    round_in_passing(model, names, images, treat, seed=seed)
    left = tuple(name for name in weight_layers(model) if f"{name}.weight" not in grids)
    return FixedPoint(model=model, grids=grids, kept=kept, float_layers=left)


def round_layer(layer: nn.Module, moments: Moments, codes: CodeRange) -> Grid:
    """Return the weights of a layer on a grid, scales in half precision."""
    weight = _weight(layer)
    rows = weight.double().reshape(moments.own.shape[0], -1, moments.own.shape[1])
    kept = rows != 0
    wanted = towards_float(rows, moments)
    found = reconstruct(wanted, moments.own, codes, kept=kept)
    stored = Rounded(codes=found.codes, scales=storable(found.scales))
    settled = descend(wanted, stored, damped(moments.own, share=ROUNDING_DAMPING), codes, kept=kept)
    return Grid(codes=settled.codes.to(torch.int32).reshape(weight.shape), scales=settled.scales.float().reshape(-1))


def towards_float(weight: Tensor, moments: Moments) -> Tensor:
    """Return the weights whose outputs on the inputs there are come closest to the float network's outputs."""
    diagonal = moments.own.diagonal(dim1=-2, dim2=-1)
    ridge = torch.diag_embed((_RIDGE * diagonal.mean(-1))[:, None].expand_as(diagonal))
    solved: Tensor = torch.linalg.solve(moments.own + ridge, (moments.cross + ridge) @ weight.mT)
    return solved.mT


def storable(scales: Tensor) -> Tensor:
    """Round scales to half precision, those below its normal numbers to single."""
    return torch.where(scales.abs() >= _SMALLEST_HALF, scales.half().to(scales.dtype), scales.float().to(scales.dtype))


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
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    _weight(layer).copy_(weight.detach())


def _weight(layer: nn.Module) -> Tensor:
    weight: Tensor = layer.weight.data  # type: ignore[assignment]  # a convolution's or a linear layer's
    return weight
