"""Write a plan's Q/DQ pairs into a graph. Pure.

Codes are symmetric int8 as TensorRT wants them: zero points 0, scale = amax / 127, one scale per activation, one per
output channel of a weight; uint8 and amax / 255 only where a plan for another runtime says so. Weights stay float32
before their own pair, so that the file shows what is rounded to what.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from trtbench.errors import GraphError
from trtbench.graph.placement import activation_tensors
from trtbench.graph.view import LEVELS, WeightClip, constants, weight_scales

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from trtbench.graph.placement import QdqPlan, Reader

UNSIGNED_LEVELS = 255
# ONNX Runtime's kernels add the bias as int32 codes of (input scale x weight scale). A dead channel's bias would
# overflow them, in silence; so a weight scale is at least what keeps the bias within half of int32. What that rounds
# away of the weights is less than the bias's own float32 resolution.
LARGEST_BIAS_CODE = 2.0**30


def insert_qdq(
    proto: onnx.ModelProto,
    plan: QdqPlan,
    activation_amax: Mapping[str, float],
    *,
    weights: WeightClip = "absmax",
    scales_of: onnx.ModelProto | None = None,
) -> onnx.ModelProto:
    """Return the graph with its Q/DQ pairs.

    Args:
        proto: the float graph the plan was made for; it is not changed.
        plan: where the pairs go.
        activation_amax: for each of `activation_tensors(plan)` the largest magnitude to represent; more are ignored.
        weights: how the clip of each output channel of a weight is found.
        scales_of: the same graph with the weights that the scales are found for; by default `proto` itself. It differs
            where the weights of `proto` are rounded already.

    Raises:
        GraphError: a range is missing, or no positive number; or a weight is not finite.
    """
    require_ranges(plan, activation_amax)
    quantized = onnx.ModelProto()
    quantized.CopyFrom(proto)
    del quantized.graph.node[:]
    quantized.graph.node.extend(_rewired(proto.graph, _pairs(plan)))
    unsigned = {point.range_of for point in plan.activations if point.is_unsigned}
    scales = _activation_scales(plan, activation_amax)
    for name, scale in (*scales.items(), *_weight_scales(scales_of or proto, plan, scales, clip=weights)):
        zero_point = np.zeros(scale.shape, np.uint8 if name in unsigned else np.int8)
        quantized.graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        quantized.graph.initializer.append(numpy_helper.from_array(zero_point, f"{name}.zero_point"))
    return shape_inference.infer_shapes(quantized, strict_mode=True, data_prop=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """One Q/DQ pair: `name` prefixes its nodes and tensors, `scale` those of its scale and zero point."""

    name: str
    tensor: str
    scale: str
    axis: int | None = None

    @property
    def output(self) -> str:
        return f"{self.name}.dequantized"

    def nodes(self) -> Iterator[onnx.NodeProto]:
        axis: dict[str, Any] = {} if self.axis is None else {"axis": self.axis}
        constants = [f"{self.scale}.scale", f"{self.scale}.zero_point"]
        steps = (
            ("QuantizeLinear", self.tensor, "quantized"),
            ("DequantizeLinear", f"{self.name}.quantized", "dequantized"),
        )
        for operator, source, suffix in steps:
            output = f"{self.name}.{suffix}"
            yield helper.make_node(operator, [source, *constants], [output], name=f"{self.name}.{operator}", **axis)


def _pairs(plan: QdqPlan) -> dict[tuple[str, int], _Pair]:
    """Return the pair that each quantized input (node's first output, input index) reads through."""
    pairs: dict[tuple[str, int], _Pair] = {}

    def add(pair: _Pair, readers: tuple[Reader, ...]) -> None:
        pairs.update({(reader.node, reader.index): pair for reader in readers})

    for activation in plan.activations:
        add(_Pair(name=activation.tensor, tensor=activation.tensor, scale=activation.range_of), activation.readers)
    for weight in plan.weights:
        name = weight_name(weight.tensor, weight.axis)
        add(_Pair(name=name, tensor=weight.tensor, scale=name, axis=weight.axis), weight.readers)
    return pairs


def weight_name(tensor: str, axis: int) -> str:
    """Name a weight's pair; a weight that two layers read along different axes has two."""
    return tensor if axis == 0 else f"{tensor}.axis{axis}"


def _rewired(graph: onnx.GraphProto, pairs: Mapping[tuple[str, int], _Pair]) -> Iterator[onnx.NodeProto]:
    """Yield the nodes in order, each pair before its first reader."""
    placed: set[str] = set()
    for original in graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for index in range(len(node.input)):
            pair = pairs.get((original.output[0], index))
            if pair is None:
                continue
            node.input[index] = pair.output
            if pair.name not in placed:
                placed.add(pair.name)
                yield from pair.nodes()
        yield node


def _activation_scales(plan: QdqPlan, activation_amax: Mapping[str, float]) -> dict[str, NDArray[np.float32]]:
    levels = {point.range_of: UNSIGNED_LEVELS if point.is_unsigned else LEVELS for point in plan.activations}
    return {
        tensor: np.array(plan.amax(tensor, activation_amax) / count, np.float32) for tensor, count in levels.items()
    }


def _weight_scales(
    proto: onnx.ModelProto, plan: QdqPlan, activation_scales: Mapping[str, NDArray[np.float32]], *, clip: WeightClip
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    arrays = constants(proto.graph)
    layers = {node.output[0]: node for node in proto.graph.node}
    inputs = {
        reader.node: activation_scales[point.range_of]
        for point in plan.activations
        for reader in point.readers
        if reader.index == 0
    }
    for point in plan.weights:
        weight = arrays[point.tensor]
        if not np.isfinite(weight).all():
            what = f"weight {point.tensor!r}"
            raise GraphError(what, expected="finite values", got="NaN or infinity", cure="train it anew")
        scales = weight_scales(weight, axis=point.axis, clip=clip)
        for reader in point.readers:
            bias = arrays.get(next(iter(layers[reader.node].input[2:3]), ""))
            if bias is not None and bias.size in {1, scales.size}:
                scales = np.maximum(scales, np.abs(bias).reshape(-1) / (inputs[reader.node] * LARGEST_BIAS_CODE))
        yield weight_name(point.tensor, point.axis), scales


def require_ranges(plan: QdqPlan, activation_amax: Mapping[str, float]) -> None:
    """Refuse ranges that make no scale.

    Raises:
        GraphError: one is missing, or no positive number.
    """
    wanted = activation_tensors(plan)
    if missing := [tensor for tensor in wanted if tensor not in activation_amax]:
        raise GraphError(
            f"ranges of {len(missing)} tensors: {', '.join(missing[:5])}",
            expected="one for each tensor of activation_tensors(plan)",
            got="none",
            cure="calibrate this very graph",
        )
    for tensor in wanted:
        amax = activation_amax[tensor]
        if not (math.isfinite(amax) and np.float32(amax / UNSIGNED_LEVELS) > 0):
            raise GraphError(
                f"range of tensor {tensor!r}",
                expected="a positive float32",
                got=f"{amax:g}",
                cure="calibrate on images that reach it, or exclude the layers that read it",
            )
