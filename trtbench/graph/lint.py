"""What TensorRT would refuse, misread or run slowly in a Q/DQ graph, each breach with the node it stands at. Pure.

A parser's error names a line of the parser, and some breaches raise none at all: a weight scale without `axis` means
another axis to another parser version. Each rule is one small function from a graph to its breaches (node, message).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, shape_inference

from trtbench.graph.view import (
    FIRST_HALF_QDQ_OPSET,
    FIRST_QDQ_OPSET,
    FUSED_BEHIND_LAYER,
    LAYERS,
    QUANTIZERS,
    GraphView,
    attribute,
    element_types,
    node_name,
    view,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import onnx
    from numpy.typing import NDArray

    Rule = Callable[[GraphView], Iterator[tuple[str, str]]]

_Q_OPERATORS = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConv",
        "QLinearGlobalAveragePool",
        "QLinearMatMul",
    }
)


_FIRST_MIXED_OPSET = 23  # an FP32 scale of FP16 values since
_SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One breach: the rule's name, the node (or tensor) it stands at, and what is wrong there."""

    rule: str
    node: str
    message: str


def lint(proto: onnx.ModelProto) -> tuple[Finding, ...]:
    """Check a graph against TensorRT's rules for explicit quantization.

    Args:
        proto: any graph, float or quantized; it need not pass ONNX's own checker.

    Returns:
        The breaches, by rule in the order of `RULES`, then in the order of the graph; () for a clean graph.
    """
    seen = view(shape_inference.infer_shapes(proto))
    return tuple(
        Finding(rule=name, node=node, message=message) for name, rule in RULES.items() for node, message in rule(seen)
    )


def _old_opset(seen: GraphView) -> Iterator[tuple[str, str]]:
    if seen.opset < FIRST_QDQ_OPSET:
        yield seen.graph.name, f"opset {seen.opset}; scales per channel need {FIRST_QDQ_OPSET} or more"


def _external_data(seen: GraphView) -> Iterator[tuple[str, str]]:
    for item in seen.graph.initializer:
        if item.data_location == TensorProto.EXTERNAL:
            yield item.name, "its values stand in another file"


def _free_dimension(seen: GraphView) -> Iterator[tuple[str, str]]:
    for item in (*seen.graph.input, *seen.graph.output):
        for axis, dim in enumerate(item.type.tensor_type.shape.dim):
            if axis > 0 and not dim.HasField("dim_value"):
                yield item.name, f"axis {axis} is free; only the batch, axis 0, may be"


def _batchnorm(seen: GraphView) -> Iterator[tuple[str, str]]:
    for node in seen.nodes:
        if node.op_type == "BatchNormalization":
            yield node_name(node), "not folded into a convolution: weight scales are those of folded weights"


def _q_operator(seen: GraphView) -> Iterator[tuple[str, str]]:
    for node in seen.nodes:
        if node.op_type in _Q_OPERATORS:
            yield node_name(node), f"{node.op_type} is of the QOperator format; TensorRT reads Q/DQ pairs only"


def _computed_scale(seen: GraphView) -> Iterator[tuple[str, str]]:
    for node in _quantizers(seen):
        if computed := [tensor for tensor in node.input[1:] if tensor in seen.maker and tensor not in seen.constants]:
            yield node_name(node), f"{computed[0]} is computed at run time; scales and zero points are constants"


def _bad_scale(seen: GraphView) -> Iterator[tuple[str, str]]:
    for node in _quantizers(seen):
        scale = seen.constants.get(node.input[1])
        if scale is not None and not (np.isfinite(scale) & (scale > 0)).all():
            worst = scale.ravel()[np.argmin((np.isfinite(scale) & (scale > 0)).ravel())]
            yield node_name(node), f"scale {worst:g}; scales are positive and finite"


def _asymmetric(seen: GraphView) -> Iterator[tuple[str, str]]:
    for node in _quantizers(seen):
        zero_point = _zero_point(seen, node)
        if zero_point is not None and zero_point.any():
            yield (
                node_name(node),
                f"zero point {zero_point.ravel()[zero_point.ravel().nonzero()][0]}; TensorRT takes 0 only",
            )


def _not_int8(seen: GraphView) -> Iterator[tuple[str, str]]:
    for node in _quantizers(seen):
        zero_point = _zero_point(seen, node)
        stored = seen.constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if zero_point is None and stored is None and node.op_type == "QuantizeLinear" and len(node.input) < 3:  # noqa: PLR2004  x, scale, zero point
            yield node_name(node), "no zero point, which means uint8"
        for array in (zero_point, stored):
            if array is not None and array.dtype not in (np.int8, np.int32):
                yield node_name(node), f"{array.dtype}; TensorRT reads int8"
                break


def _quantized_bias(seen: GraphView) -> Iterator[tuple[str, str]]:
    for node in seen.nodes:
        if node.op_type == "DequantizeLinear" and _is_int32(seen, node):
            yield node_name(node), "an int32 bias; biases stay float"


def _zero_point_count(seen: GraphView) -> Iterator[tuple[str, str]]:
    for node in _quantizers(seen):
        scale, zero_point = seen.constants.get(node.input[1]), _zero_point(seen, node)
        if scale is not None and zero_point is not None and scale.shape != zero_point.shape:
            yield node_name(node), f"scale of shape {scale.shape}, zero point of shape {zero_point.shape}"


def _missing_axis(seen: GraphView) -> Iterator[tuple[str, str]]:
    for node in _per_channel(seen):
        if attribute(node, "axis") is None:
            yield node_name(node), "scales per channel without `axis`: parser versions differ on its default"


def _scale_count(seen: GraphView) -> Iterator[tuple[str, str]]:
    for node in _per_channel(seen):
        tensor = seen.constants.get(_root(seen, node))
        if tensor is None:
            continue
        axis, count = attribute(node, "axis", 1), seen.constants[node.input[1]].size
        if not -tensor.ndim <= axis < tensor.ndim or tensor.shape[axis] != count:
            yield node_name(node), f"{count} scales along axis {axis} of a tensor of shape {tensor.shape}"


def _per_channel_activation(seen: GraphView) -> Iterator[tuple[str, str]]:
    for node in _per_channel(seen):
        if _root(seen, node) not in seen.constants:
            yield node_name(node), "scales per channel on an activation; only weights may have them"


def _half_scale(seen: GraphView) -> Iterator[tuple[str, str]]:
    for node in _quantizers(seen):
        scale = seen.constants.get(node.input[1])
        if scale is not None and scale.dtype == np.float16 and seen.opset < FIRST_HALF_QDQ_OPSET:
            yield node_name(node), f"FP16 scale in opset {seen.opset}; it needs {FIRST_HALF_QDQ_OPSET} or more"


def _mixed_types(seen: GraphView) -> Iterator[tuple[str, str]]:
    if seen.opset >= _FIRST_MIXED_OPSET:
        return
    types = element_types(seen.graph)
    for node in _quantizers(seen):
        if node.op_type != "QuantizeLinear":
            continue
        value, scale = (types.get(name) for name in node.input[:2])
        if value and scale and value != scale:
            names = " and a scale of ".join(TensorProto.DataType.Name(kind) for kind in (value, scale))
            yield node_name(node), f"reads {names}; below opset {_FIRST_MIXED_OPSET} they are of one type"


def _subnormal_scale(seen: GraphView) -> Iterator[tuple[str, str]]:
    for node in _quantizers(seen):
        scale = seen.constants.get(node.input[1])
        if scale is not None and scale.dtype == np.float16 and (scale > 0).all() and scale.min() < _SMALLEST_NORMAL:
            yield node_name(node), f"FP16 scale {scale.min():.2g}; below {_SMALLEST_NORMAL:.2g} it loses its bits"


def _split_kernel(seen: GraphView) -> Iterator[tuple[str, str]]:
    for node in seen.nodes:
        if node.op_type in FUSED_BEHIND_LAYER and _is_quantized_layer_output(seen, node.input[0]):
            yield node_name(node), f"Q/DQ between a layer and its {node.op_type}: they cannot become one kernel"


def _quantized_main_branch(seen: GraphView) -> Iterator[tuple[str, str]]:
    for add in _adds(seen):
        split = [_is_quantized_layer_output(seen, tensor) for tensor in add.input]
        raw = [seen.made_by(tensor) in LAYERS for tensor in add.input]
        if any(split) and not any(raw) and not _reads_two_pairs(seen, add):
            yield node_name(add), "Q/DQ between a layer and its Add: quantize the residual input instead"


def _quantized_twice(seen: GraphView) -> Iterator[tuple[str, str]]:
    for add in _adds(seen):
        if _reads_two_pairs(seen, add):
            yield (
                node_name(add),
                "both inputs are quantized: only the residual one is, so that the layer before it fuses",
            )


RULES: Mapping[str, Rule] = {
    "opset": _old_opset,
    "external-data": _external_data,
    "free-dimension": _free_dimension,
    "batchnorm": _batchnorm,
    "q-operator": _q_operator,
    "computed-scale": _computed_scale,
    "bad-scale": _bad_scale,
    "asymmetric": _asymmetric,
    "not-int8": _not_int8,
    "quantized-bias": _quantized_bias,
    "zero-point-count": _zero_point_count,
    "missing-axis": _missing_axis,
    "scale-count": _scale_count,
    "per-channel-activation": _per_channel_activation,
    "half-scale": _half_scale,
    "mixed-types": _mixed_types,
    "subnormal-scale": _subnormal_scale,
    "split-kernel": _split_kernel,
    "quantized-main-branch": _quantized_main_branch,
    "quantized-twice": _quantized_twice,
}


def _quantizers(seen: GraphView) -> Iterator[onnx.NodeProto]:
    """Yield the Q and DQ nodes; an int32 DQ is a matter of its own rule."""
    for node in seen.nodes:
        if node.op_type in QUANTIZERS and not _is_int32(seen, node):
            yield node


def _per_channel(seen: GraphView) -> Iterator[onnx.NodeProto]:
    for node in _quantizers(seen):
        scale = seen.constants.get(node.input[1])
        if scale is not None and scale.size > 1:
            yield node


def _adds(seen: GraphView) -> Iterator[onnx.NodeProto]:
    return (node for node in seen.nodes if node.op_type == "Add")


def _zero_point(seen: GraphView, node: onnx.NodeProto) -> NDArray[Any] | None:
    return seen.constants.get(node.input[2]) if len(node.input) > 2 else None  # noqa: PLR2004  x, scale, zero point


def _is_int32(seen: GraphView, node: onnx.NodeProto) -> bool:
    stored = seen.constants.get(node.input[0])
    return stored is not None and stored.dtype == np.int32


def _root(seen: GraphView, node: onnx.NodeProto) -> str:
    """Return the tensor that a Q or DQ node's numbers come from."""
    source = node.input[0]
    return str(seen.maker[source].input[0]) if seen.made_by(source) == "QuantizeLinear" else str(source)


def _is_quantized_layer_output(seen: GraphView, tensor: str) -> bool:
    """Whether a tensor is a layer's output behind a Q/DQ pair."""
    maker = seen.maker.get(tensor)
    if maker is None or maker.op_type != "DequantizeLinear":
        return False
    return seen.made_by(_root(seen, maker)) in LAYERS


def _reads_two_pairs(seen: GraphView, add: onnx.NodeProto) -> bool:
    return all(seen.made_by(tensor) == "DequantizeLinear" for tensor in add.input)
