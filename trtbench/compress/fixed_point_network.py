"""A whole network to fixed point without training: by the source study's rule, or rebuilt layer by layer.

What flows into its layers may get a grid too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trtbench.compress.codes import code_range, quantize_by_source, weight_layers
from trtbench.compress.curvature import Moments, round_in_passing, run_seen
from trtbench.compress.reconstruct import ROUNDING_DAMPING, Rounded, descend, reconstruct
from trtbench.compress.second_order import damped
from trtbench.models.container import Grid, PackedState, weight_bytes, without_negative_zeros
from trtbench.models.rounding import InputGrid, fit_grid, grids_to_facts, input_grids

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbench.compress.codes import Bits, CodeRange
    from trtbench.suite import FixedPointVariant


CLASSIFIER_BITS = 8
_RIDGE = 0.01  # of the mean moment: how much is made good of what earlier layers lost, against trust in few images
_SMALLEST_HALF = 2.0**-14  # the smallest normal number of half precision


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
        known = {**facts, "inputs": inputs} if inputs else facts
        return PackedState(tensors={**without_negative_zeros(state), **self.grids}, facts=known)

    def record(self, config: FixedPointVariant, *, notes: tuple[str, ...] = ()) -> FixedPointRecord:
        """Count what the quantized weights take."""
        state = self.packed(facts={})
        names = [name for name in weight_layers(self.model) if name not in self.float_layers]
        sizes = weight_bytes(PackedState(tensors={f"{name}.weight": state.tensors[f"{name}.weight"] for name in names}))
        count = sum(_weight(self.model, name).numel() for name in names)
        return FixedPointRecord(
            scheme=config.scheme,
            bits=config.bits,
            activations=config.activations,
            layers=len(names),
            float_layers=self.float_layers,
            bits_per_weight=8 * sum(sizes.values()) / max(count, 1),
            notes=notes,
        )


def by_source(model: nn.Module, *, scheme: str, bits: int) -> FixedPoint:
    """Quantize a network in place exactly as the source study does, and nothing more.

    Head, classifier, biases and BatchNorm stay in float; nothing is clipped, rebuilt or recalibrated.
    """
    done = quantize_by_source(model, scheme=scheme, bits=bits)
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
        kept[f"{name}.weight"] = _weight(model, name) != 0
        grids[f"{name}.weight"] = grid = round_layer(layer, moments, codes)
        _weight(model, name).copy_(grid.values())

    round_in_passing(model, names, images, treat, seed=seed)
    left = tuple(name for name in weight_layers(model) if f"{name}.weight" not in grids)
    return FixedPoint(model=model, grids=grids, kept=kept, float_layers=left)


def round_layer(layer: nn.Module, moments: Moments, codes: CodeRange) -> Grid:
    """Return the weights of a layer on a grid, scales in half precision."""
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]  # a convolution's or a linear layer's
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


def _weight(model: nn.Module, name: str) -> Tensor:
    weight: Tensor = model.get_submodule(name).weight.data  # type: ignore[assignment]  # as above
    return weight


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
