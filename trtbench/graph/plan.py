"""What a placement decides, as records: where each Q/DQ pair goes, and what becomes of each layer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_KINDS = {"Conv": "convolutions", "ConvTranspose": "transposed convolutions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One input of one node; `node` is the node's first output tensor, which names it without doubt."""

    node: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationPoint:
    """One Q/DQ pair on an activation; its scale is that of the tensor `range_of`, which may be itself.

    `is_unsigned` means uint8 with scale amax / 255, for a runtime that wants it where no value is negative.
    """

    tensor: str
    range_of: str
    readers: tuple[Reader, ...]
    is_unsigned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPoint:
    """One Q/DQ pair on a constant weight, with a scale for each output channel along `axis`."""

    tensor: str
    axis: int
    readers: tuple[Reader, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlacement:
    """Whether a layer runs in INT8, and if not, why."""

    node: str
    op_type: str
    is_quantized: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QdqPlan:
    """Every Q/DQ pair of a graph, in the order of the graph, and what becomes of each layer.

    `joined` holds the tensors that meet in Concats, by the `range_of` of their pairs: their range is the largest of
    theirs, so that no input of a Concat is clipped harder than it would be alone.
    """

    activations: tuple[ActivationPoint, ...]
    weights: tuple[WeightPoint, ...]
    layers: tuple[LayerPlacement, ...]
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def sources(self, range_of: str) -> tuple[str, ...]:
        """Return the tensors whose values make a range: the tensor itself, or those that meet it in Concats."""
        return self.joined.get(range_of, (range_of,))

    def amax(self, range_of: str, found: Mapping[str, float]) -> float:
        """Return the magnitude that a pair's scale represents, from those of the tensors in `found`."""
        return max(found[tensor] for tensor in self.sources(range_of))

    @property
    def summary(self) -> str:
        """What is INT8, as `19 of 21 convolutions, 1 of 1 linear layers`."""
        kinds = [_KINDS.get(layer.op_type, "linear layers") for layer in self.layers]
        total, quantized = Counter(kinds), Counter[str]()
        for kind, layer in zip(kinds, self.layers, strict=True):
            quantized[kind] += layer.is_quantized
        return ", ".join(f"{quantized[kind]} of {total[kind]} {kind}" for kind in total)
