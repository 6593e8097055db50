"""Write a plan's Q/DQ pairs into a graph, or take those of others out of one. Pure.

Codes are symmetric int8 as TensorRT wants them: zero points 0, scale = amax / 127, one scale per activation, one per
output channel of a weight; uint8, about 128 or amax / 255 about 0, only where a plan for another runtime says so.
Weights stay float32 before their own pair, so that the file shows what is rounded to what.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from trtbench.errors import GraphError
from trtbench.graph.placement import activation_tensors
from trtbench.graph.simplify import simplify
from trtbench.graph.view import LEVELS, QUANTIZERS, WeightClip, attribute, constants, node_name, view, weight_scales

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from trtbench.graph.placement import QdqPlan
    from trtbench.graph.view import GraphView

UNSIGNED_LEVELS = 255
_MIDDLE = 128  # the uint8 code that stands for 0 where codes are signed
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
    quantized = deepcopy(proto)
    del quantized.graph.node[:]
    quantized.graph.node.extend(rewired(proto.graph, _pairs(plan)))
    unsigned = {point.range_of for point in plan.activations if point.is_unsigned}
    scales = _activation_scales(plan, activation_amax)
    for name, scale in (*scales.items(), *_weight_scales(scales_of or proto, plan, scales, clip=weights)):
        kind = np.uint8 if plan.in_uint8 and name in scales else np.int8
        zero_point = np.full(scale.shape, _MIDDLE if kind is np.uint8 and name not in unsigned else 0, kind)
        quantized.graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        quantized.graph.initializer.append(numpy_helper.from_array(zero_point, f"{name}.zero_point"))
    return shape_inference.infer_shapes(quantized, strict_mode=True, data_prop=True)


Pairs = dict[tuple[str, int], tuple[str, list[onnx.NodeProto]]]


def pair(name: str, tensor: str, scale: str, **axis: Any) -> tuple[str, list[onnx.NodeProto]]:
    """Return what a Q/DQ pair on a tensor gives, and its nodes: `name` prefixes them, `scale` their constants."""
    given, codes, values = [f"{scale}.scale", f"{scale}.zero_point"], f"{name}.quantized", f"{name}.dequantized"
    return values, [
        helper.make_node("QuantizeLinear", [tensor, *given], [codes], name=f"{name}.QuantizeLinear", **axis),
        helper.make_node("DequantizeLinear", [codes, *given], [values], name=f"{name}.DequantizeLinear", **axis),
    ]


def _pairs(plan: QdqPlan) -> Pairs:
    """Return the pair that each quantized input (node's first output, input index) reads through."""
    pairs: Pairs = {}
    for activation in plan.activations:
        made = pair(activation.tensor, activation.tensor, activation.range_of)
        pairs |= {(reader.node, reader.index): made for reader in activation.readers}
    for weight in plan.weights:
        name = weight_name(weight.tensor, weight.axis)
        made = pair(name, weight.tensor, name, axis=weight.axis)
        pairs |= {(reader.node, reader.index): made for reader in weight.readers}
    return pairs


def weight_name(tensor: str, axis: int) -> str:
    """Name a weight's pair; a weight that two layers read along different axes has two."""
    return tensor if axis == 0 else f"{tensor}.axis{axis}"


def rewired(graph: onnx.GraphProto, pairs: Pairs) -> Iterator[onnx.NodeProto]:
    """Yield the nodes in order, each pair before its first reader."""
    placed: set[str] = set()
    for original in graph.node:
        node = deepcopy(original)
        for index in range(len(node.input)):
            output, nodes = pairs.get((original.output[0], index), ("", []))
            if output:
                node.input[index] = output
            if output not in placed:
                placed.add(output)
                yield from nodes
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


_LEAST_CODE = {"uint4": 0, "int4": -8, "uint8": 0, "int8": -128, "uint16": 0, "int16": -32_768}
_LARGEST_CODE = {"uint4": 15, "int4": 7, "uint8": 255, "int8": 127, "uint16": 65_535, "int16": 32_767}
# What gives nothing below 0, or nothing that was not among its inputs.
_ADDS_NOTHING_BELOW = frozenset(
    {"Relu", "Sigmoid", "HardSigmoid", "Softmax", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}
    | {"Clip", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Resize", "Slice", "Split", "Pad"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stripped:
    """The float graph under Q/DQ pairs: how many pairs went, how many weights were codes, how many clips took a place.

    A weight that was stored as codes is what the codes stand for: it was rounded once, for good.
    """

    proto: onnx.ModelProto
    pairs: int
    codes: int
    clips: int

    @property
    def note(self) -> str:
        """What people should know of it."""
        rounded = f"{self.codes:,} weights and biases were codes, and stay rounded" if self.codes else ""
        kept = f"{self.clips} clips stand where a quantizer had left out a Relu or a Clip" if self.clips else ""
        return "; ".join(filter(None, (f"{self.pairs} Q/DQ pairs of others taken out", rounded, kept)))


def strip_qdq(proto: onnx.ModelProto) -> Stripped:
    """Return the float graph that a graph with Q/DQ pairs of its own was, as far as it can be known.

    Quantizers leave out a Relu, or a Clip that begins at 0, where the lowest code stands for 0: a Clip to what the
    codes reach takes its place there.

    Raises:
        GraphError: there are no pairs, or what they round is not known, or anything but a DequantizeLinear reads codes.
    """
    seen = view(proto)
    if not any(node.op_type in QUANTIZERS for node in seen.nodes):
        raise _not_stripped("the graph", "it has no Q/DQ pairs")
    found = deepcopy(proto)
    del found.graph.node[:], found.graph.value_info[:]
    quantizers: dict[str, onnx.NodeProto] = {}  # by the codes they give
    floats: dict[str, str] = {}  # what stands for a tensor now
    pairs, codes, clips = 0, 0, 0
    for original in seen.nodes:
        node = deepcopy(original)
        if node.op_type != "DequantizeLinear":
            _require_floats(node, quantizers)
            node.input[:] = [floats.get(name, name) for name in node.input]
        if node.op_type == "QuantizeLinear":
            least, largest = _reach(seen, node)
            if least == 0 and _may_be_below(seen, node.input[0]):
                clips, clipped = clips + 1, f"{node.output[0]}.clipped"
                limits = np.array([least, largest], seen.constants[node.input[1]].dtype)
                found.graph.node.append(_clip(found.graph, node.input[0], limits, clipped))
                node.input[0] = clipped
            quantizers[node.output[0]] = node
        elif node.op_type != "DequantizeLinear":
            found.graph.node.append(node)
        elif node.input[0] in seen.constants:
            values = _values(seen, node)
            codes += values.size
            found.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        else:
            pairs += 1
            floats[node.output[0]] = _source(seen, node, quantizers)
    for item in found.graph.output:
        if item.name in floats:
            _name_output(found.graph, floats[item.name], item.name)
    return Stripped(proto=simplify(found), pairs=pairs, codes=codes, clips=clips)


def _name_output(graph: onnx.GraphProto, tensor: str, output: str) -> None:
    """Let a tensor bear the name of the output that it is now, or be copied to it where it must keep its own."""
    fixed = {item.name for item in (*graph.input, *graph.output, *graph.initializer)}
    if tensor in fixed:
        graph.node.append(helper.make_node("Identity", [tensor], [output]))
        return
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [output if name == tensor else name for name in names]


def _not_stripped(what: str, got: str) -> GraphError:
    return GraphError(
        what, expected="Q/DQ pairs that can be taken out", got=got, cure="build it as it is, or give the float graph"
    )


def _require_floats(node: onnx.NodeProto, quantizers: Mapping[str, onnx.NodeProto]) -> None:
    if any(item.type in {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS} for item in node.attribute):
        raise _not_stripped(node_name(node), "a graph within the graph, which may read codes")
    if any(name in quantizers for name in node.input):
        raise _not_stripped(node_name(node), f"{node.op_type} reads codes")


def _parameters(seen: GraphView, node: onnx.NodeProto) -> tuple[NDArray[Any], NDArray[Any]]:
    scale = seen.constants.get(node.input[1])
    zero = seen.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else np.uint8(0)  # noqa: PLR2004
    if scale is None or zero is None:
        raise _not_stripped(node_name(node), "a scale that is computed at run time")
    if attribute(node, "block_size", 0):
        raise _not_stripped(node_name(node), "scales of blocks")
    return scale, np.asarray(zero)


def _reach(seen: GraphView, node: onnx.NodeProto) -> tuple[float, float]:
    """Return the least and the largest number that the codes of a QuantizeLinear stand for; of FP8 there is no end."""
    scale, zero = _parameters(seen, node)
    kind = zero.dtype.name
    if scale.size > 1 or kind not in _LEAST_CODE:
        return -math.inf, math.inf
    offset = float(zero.astype(np.float64).reshape(-1)[0])
    steps = float(scale.reshape(-1)[0])
    return (_LEAST_CODE[kind] - offset) * steps, (_LARGEST_CODE[kind] - offset) * steps


def _may_be_below(seen: GraphView, tensor: str) -> bool:
    """Whether a tensor may hold what the lowest code cuts off: it is computed, and not by what ends at 0 itself."""
    return tensor in seen.maker and seen.made_by(tensor) not in _ADDS_NOTHING_BELOW | QUANTIZERS


def _clip(graph: onnx.GraphProto, tensor: str, limits: NDArray[Any], output: str) -> onnx.NodeProto:
    names = [f"{output}.least", f"{output}.largest"]
    graph.initializer.extend(
        numpy_helper.from_array(np.array(one), name) for one, name in zip(limits, names, strict=True)
    )
    return helper.make_node("Clip", [tensor, *names], [output], name=output)


def _values(seen: GraphView, node: onnx.NodeProto) -> NDArray[Any]:
    (scale, zero), codes = _parameters(seen, node), seen.constants[node.input[0]]
    along = [1] * codes.ndim
    if scale.size > 1:
        along[attribute(node, "axis", 1)] = -1
    offset = np.broadcast_to(zero.astype(np.float64).reshape(-1), scale.size).reshape(along)
    values: NDArray[Any] = ((codes.astype(np.float64) - offset) * scale.reshape(along)).astype(scale.dtype)
    return values


def _source(seen: GraphView, node: onnx.NodeProto, quantizers: Mapping[str, onnx.NodeProto]) -> str:
    """Return the float tensor that a DequantizeLinear gives back: that of the QuantizeLinear before it."""
    before = quantizers.get(node.input[0])
    if before is None:
        raise _not_stripped(node_name(node), f"codes of {seen.made_by(node.input[0]) or 'the input'}")
    pairs = zip(_parameters(seen, before), _parameters(seen, node), strict=True)
    if not all(np.array_equal(one, other) for one, other in pairs):
        raise _not_stripped(node_name(node), "another scale than its QuantizeLinear's")
    return str(before.input[0])
