"""What TensorRT would refuse, misread or run slowly in a graph, each breach with the node it stands at. Pure.

A parser's error names a line of the parser, and some breaches raise none at all: a weight scale without `axis` means
axis 0 to the parser of TensorRT 10.1 and axis 1 to that of TensorRT-RTX 1.7. Each rule is one small function from a
graph to its breaches (node, message), with what becomes of them and of which runtimes that is known. A parser's verdict
carries over to its neighbours, which share its source; a builder's may not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from onnx import TensorProto, defs, shape_inference

from trtbench.graph.simplify import foldable
from trtbench.graph.view import (
    CONSTANT_TYPES,
    FIRST_HALF_QDQ_OPSET,
    FIRST_QDQ_OPSET,
    FUSED_BEHIND_LAYER,
    LAYERS,
    QUANTIZERS,
    WITHOUT_BF16,
    WITHOUT_IMPORTER,
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

    Breaches = Iterator[tuple[str, str]]

Outcome = Literal["refused", "fails", "misread", "slow", "own"]
_TEN = "TensorRT 10.1"  # its parser's public source (onnx-tensorrt), read
_RTX = "TensorRT-RTX 1.7"  # parser and builder, run: tests/rtx
_GUIDE = "TensorRT 10 and 11"  # NVIDIA's guide to explicit quantization, read
_ONNX = "ONNX"  # the operators' definitions, read
_OTHER_CODES = frozenset({TensorProto.FLOAT4E2M1, TensorProto.INT4})  # beside INT8 and FP8, which a precision names
_CODES = _OTHER_CODES | {TensorProto.FLOAT8E4M3FN}
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
_FIRST_MIXED_OPSET = 23  # an FP32 scale of FP16 values since
_SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a breach is found, and what becomes of it.

    Args:
        find: from a graph to the breaches in it: the node (or tensor) each stands at, and what is wrong there.
        outcome: the parser has it `refused`; the builder `fails`, or ends the process; it is `misread`, built into
            something else than the graph says; it is built right but `slow`; or it is taken: the rule is our `own`.
        known_of: the runtimes, or the texts, of which that is known.
    """

    find: Callable[[GraphView], Breaches]
    outcome: Outcome
    known_of: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One breach: the rule's name, the node (or tensor) it stands at, and what is wrong there."""

    rule: str
    node: str
    message: str


def lint(proto: onnx.ModelProto) -> tuple[Finding, ...]:
    """Check a graph against the rules.

    Args:
        proto: any graph, float or quantized; it need not pass ONNX's own checker.

    Returns:
        The breaches, by rule in the order of `RULES`, then in the order of the graph; () for a clean graph.
    """
    seen = view(_typed(proto))
    return tuple(
        Finding(rule=name, node=node, message=message)
        for name, rule in RULES.items()
        for node, message in rule.find(seen)
    )


def _typed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with the types and shapes that can be told; where ONNX gives up on it, as it is."""
    try:
        return shape_inference.infer_shapes(proto)
    except shape_inference.InferenceError:
        return proto


def _no_output(seen: GraphView) -> Breaches:
    if not seen.graph.output:
        yield seen.graph.name, "the graph has no output"


def _old_opset(seen: GraphView) -> Breaches:
    if seen.opset < FIRST_QDQ_OPSET and any(node.op_type in QUANTIZERS for node in seen.nodes):
        yield seen.graph.name, f"opset {seen.opset}; scales per channel need {FIRST_QDQ_OPSET} or more"


def _external_data(seen: GraphView) -> Breaches:
    for item in seen.graph.initializer:
        if item.data_location == TensorProto.EXTERNAL:
            yield item.name, "its values stand in another file"


def _constant_type(seen: GraphView) -> Breaches:
    for item in seen.graph.initializer:
        if item.data_type not in CONSTANT_TYPES:
            yield item.name, f"{_spelled(item.data_type)}; TensorRT's parser reads no constant of that type"


def _duplicate_name(seen: GraphView) -> Breaches:
    for name, count in Counter(item.name for item in seen.graph.initializer).items():
        if count > 1:
            yield name, f"{count} constants have this name"


def _free_dimension(seen: GraphView) -> Breaches:
    for item in (*seen.graph.input, *seen.graph.output):
        for axis, dim in enumerate(item.type.tensor_type.shape.dim):
            if axis > 0 and not dim.HasField("dim_value"):
                yield item.name, f"axis {axis} is free; only the batch, axis 0, may be"


def _batchnorm(seen: GraphView) -> Breaches:
    for node in seen.nodes:
        if node.op_type == "BatchNormalization" and foldable(seen, node):
            yield node_name(node), "not folded into the layer before it: weight scales are those of folded weights"


def _operator(seen: GraphView) -> Breaches:
    for node in seen.nodes:
        if node.op_type in WITHOUT_IMPORTER:
            yield node_name(node), f"TensorRT's parser does not know {node.op_type}"
        elif node.domain and not defs.has(node.op_type):  # of ONNX's own it asks the name only
            yield node_name(node), f"{node.domain}.{node.op_type} is no operator of ONNX, and no plugin is loaded"


def _bf16_operator(seen: GraphView) -> Breaches:
    types = element_types(seen.graph)
    for node in seen.nodes:
        if node.op_type in WITHOUT_BF16 and types.get(node.input[0]) == TensorProto.BFLOAT16:
            yield node_name(node), f"{node.op_type} in BF16; TensorRT's parser takes it in FP32 and FP16"


def _computed_scale(seen: GraphView) -> Breaches:
    stored = _stored(seen)
    for node in _quantizers(seen):
        if computed := [tensor for tensor in node.input[1:] if tensor and tensor not in stored]:
            yield node_name(node), f"{computed[0]} is known at run time only; scales and zero points are constants"


def _bad_scale(seen: GraphView) -> Breaches:
    for node, scale in _scales(seen):
        if not (scale > 0).all():
            worst = scale.ravel()[np.argmin((scale > 0).ravel())]
            yield node_name(node), f"scale {worst:g}; scales are positive and finite"


def _infinite_scale(seen: GraphView) -> Breaches:
    for node, scale in _scales(seen):
        if np.isinf(scale).any() and (scale > 0).all():
            yield node_name(node), "an infinite scale: what it scales becomes NaN"


def _scale_shape(seen: GraphView) -> Breaches:
    for node, scale in _scales(seen):
        if scale.ndim > 1 or not scale.size:
            yield node_name(node), f"scale of shape {scale.shape}; one, or one for each slice along an axis"


def _asymmetric(seen: GraphView) -> Breaches:
    for node in _quantizers(seen):
        zero_point = _zero_point(seen, node)
        if zero_point is not None and zero_point.any():
            yield node_name(node), f"zero point {zero_point[zero_point != 0][0]}; TensorRT takes 0 only"


def _misread_type(seen: GraphView) -> Breaches:
    types = element_types(seen.graph)
    for node in _quantizers(seen):
        if len(node.input) > 2:  # noqa: PLR2004  x, scale, zero point
            kind = types.get(node.input[2], TensorProto.INT8)
            if kind != TensorProto.INT8 and kind in CONSTANT_TYPES - _CODES:
                yield node_name(node), f"zero point of {_spelled(kind)}; TensorRT reads int8"
        elif node.op_type == "QuantizeLinear" and attribute(node, "output_dtype") is None:
            yield node_name(node), "no zero point, which means uint8; TensorRT reads int8"


def _stored_uint8(seen: GraphView) -> Breaches:
    types, stored = element_types(seen.graph), _stored(seen)
    for node in _quantizers(seen):
        if node.input[0] in stored and types.get(node.input[0]) == TensorProto.UINT8:
            yield node_name(node), "stored codes of uint8; TensorRT reads int8"


def _output_type(seen: GraphView) -> Breaches:
    types = element_types(seen.graph)
    for node in seen.nodes:
        wanted = attribute(node, "output_dtype") if node.op_type == "QuantizeLinear" else None
        zero_point = types.get(node.input[2]) if len(node.input) > 2 else None  # noqa: PLR2004  x, scale, zero point
        if wanted is not None and zero_point is not None and zero_point != wanted:
            yield node_name(node), f"output_dtype {_spelled(wanted)}, zero point of {_spelled(zero_point)}"
        elif wanted is not None and wanted not in {zero_point, TensorProto.INT8, *_CODES}:
            yield node_name(node), f"output_dtype {_spelled(wanted)}; TensorRT writes int8"


def _other_code(seen: GraphView) -> Breaches:
    types = element_types(seen.graph)
    for node in _quantizers(seen):
        kinds = {*(types.get(tensor) for tensor in (node.input[0], *node.input[2:])), attribute(node, "output_dtype")}
        for kind in sorted(kinds & _OTHER_CODES):
            yield node_name(node), f"{_spelled(kind)}; a row is of int8 or FP8"


def _operand_type(seen: GraphView) -> Breaches:
    types = element_types(seen.graph)
    for node in _quantizers(seen):
        kind = types.get(node.input[0])
        if kind and (kind in _FLOATS) != (node.op_type == "QuantizeLinear"):
            yield node_name(node), f"reads {_spelled(kind)}: floats are quantized, codes dequantized"


def _quantized_bias(seen: GraphView) -> Breaches:
    for node in seen.nodes:
        if node.op_type == "DequantizeLinear" and _is_int32(seen, node):
            yield node_name(node), "an int32 bias; biases stay float"


def _zero_point_count(seen: GraphView) -> Breaches:
    for node, scale in _scales(seen):
        zero_point = _zero_point(seen, node)
        if zero_point is not None and scale.size != zero_point.size:  # a scalar may be written (1,)
            yield node_name(node), f"scale of shape {scale.shape}, zero point of shape {zero_point.shape}"


def _missing_axis(seen: GraphView) -> Breaches:
    for node in _per_channel(seen):
        if attribute(node, "axis") is None:
            yield node_name(node), "scales per channel without `axis`: parser versions differ on its default"


def _scale_count(seen: GraphView) -> Breaches:
    shapes = _shapes(seen)
    for node in _per_channel(seen):
        shape = shapes.get(node.input[0]) or shapes.get(_root(seen, node))
        if shape is None:
            continue
        axis, count = attribute(node, "axis", 1), seen.constants[node.input[1]].size
        if not -len(shape) <= axis < len(shape) or shape[axis] not in {0, count}:
            yield node_name(node), f"{count} scales along axis {axis} of a tensor of shape {shape}"


def _per_channel_activation(seen: GraphView) -> Breaches:
    for node in _per_channel(seen):
        if _root(seen, node) not in _stored(seen):
            yield node_name(node), "scales per channel on an activation; only weights may have them"


def _half_scale(seen: GraphView) -> Breaches:
    for node, scale in _scales(seen):
        if scale.dtype == np.float16 and seen.opset < FIRST_HALF_QDQ_OPSET:
            yield node_name(node), f"FP16 scale in opset {seen.opset}; it needs {FIRST_HALF_QDQ_OPSET} or more"


def _mixed_types(seen: GraphView) -> Breaches:
    if seen.opset >= _FIRST_MIXED_OPSET:
        return
    types = element_types(seen.graph)
    for node in _quantizers(seen):
        if node.op_type != "QuantizeLinear":
            continue
        value, scale = (types.get(name) for name in node.input[:2])
        if value in _FLOATS and scale and value != scale:
            names = f"{_spelled(value)} and a scale of {_spelled(scale)}"
            yield node_name(node), f"reads {names}; below opset {_FIRST_MIXED_OPSET} they are of one type"


def _mixed_operands(seen: GraphView) -> Breaches:
    types = _types(seen)
    for node in seen.nodes:
        for operands in _of_one_type(node, seen.opset):
            kinds = dict.fromkeys(kind for tensor in operands if (kind := types.get(tensor)))
            if len(kinds) > 1:
                yield node_name(node), f"reads {' and '.join(map(_spelled, kinds))}, which are to be of one type"


def _subnormal_scale(seen: GraphView) -> Breaches:
    for node, scale in _scales(seen):
        if scale.dtype == np.float16 and (scale > 0).all() and scale.min(initial=1) < _SMALLEST_NORMAL:
            yield node_name(node), f"FP16 scale {scale.min():.2g}; below {_SMALLEST_NORMAL:.2g} it loses its bits"


def _split_kernel(seen: GraphView) -> Breaches:
    for node in seen.nodes:
        if node.op_type in FUSED_BEHIND_LAYER and _is_quantized_layer_output(seen, node.input[0]):
            yield node_name(node), f"Q/DQ between a layer and its {node.op_type}: they cannot become one kernel"


def _quantized_main_branch(seen: GraphView) -> Breaches:
    for add in _adds(seen):
        split = [_is_quantized_layer_output(seen, tensor) for tensor in add.input]
        raw = [seen.made_by(tensor) in LAYERS for tensor in add.input]
        if any(split) and not any(raw) and not _reads_two_pairs(seen, add):
            yield node_name(add), "Q/DQ between a layer and its Add: quantize the residual input instead"


def _quantized_twice(seen: GraphView) -> Breaches:
    for add in _adds(seen):
        if _reads_two_pairs(seen, add):
            yield (
                node_name(add),
                "both inputs are quantized: only the residual one is, so that the layer before it fuses",
            )


RULES: Mapping[str, Rule] = {
    "no-output": Rule(find=_no_output, outcome="fails", known_of=(_RTX,)),
    "opset": Rule(find=_old_opset, outcome="own", known_of=(_ONNX,)),
    "external-data": Rule(find=_external_data, outcome="own", known_of=()),
    "constant-type": Rule(find=_constant_type, outcome="refused", known_of=(_RTX,)),
    "duplicate-name": Rule(find=_duplicate_name, outcome="refused", known_of=(_ONNX, _RTX)),
    "free-dimension": Rule(find=_free_dimension, outcome="own", known_of=()),
    "batchnorm": Rule(find=_batchnorm, outcome="slow", known_of=(_GUIDE,)),
    "operator": Rule(find=_operator, outcome="refused", known_of=(_TEN, _RTX)),
    "bf16-operator": Rule(find=_bf16_operator, outcome="refused", known_of=(_TEN, _RTX)),
    "mixed-operands": Rule(find=_mixed_operands, outcome="refused", known_of=(_ONNX, _RTX)),
    "computed-scale": Rule(find=_computed_scale, outcome="fails", known_of=(_RTX,)),
    "bad-scale": Rule(find=_bad_scale, outcome="refused", known_of=(_TEN, _RTX)),
    "infinite-scale": Rule(find=_infinite_scale, outcome="own", known_of=()),
    "scale-shape": Rule(find=_scale_shape, outcome="refused", known_of=(_ONNX, _RTX)),
    "asymmetric": Rule(find=_asymmetric, outcome="refused", known_of=(_TEN, _RTX)),
    "misread-type": Rule(find=_misread_type, outcome="misread", known_of=(_TEN, _RTX)),
    "stored-uint8": Rule(find=_stored_uint8, outcome="refused", known_of=(_TEN, _RTX)),
    "output-type": Rule(find=_output_type, outcome="refused", known_of=(_TEN, _RTX)),
    "other-code": Rule(find=_other_code, outcome="own", known_of=()),
    "operand-type": Rule(find=_operand_type, outcome="refused", known_of=(_ONNX, _RTX)),
    "quantized-bias": Rule(find=_quantized_bias, outcome="refused", known_of=(_RTX,)),
    "zero-point-count": Rule(find=_zero_point_count, outcome="refused", known_of=(_TEN, _RTX)),
    "missing-axis": Rule(find=_missing_axis, outcome="misread", known_of=(_TEN, _RTX)),
    "scale-count": Rule(find=_scale_count, outcome="refused", known_of=(_TEN, _RTX)),
    "per-channel-activation": Rule(find=_per_channel_activation, outcome="misread", known_of=(_RTX,)),
    "half-scale": Rule(find=_half_scale, outcome="own", known_of=(_ONNX,)),
    "mixed-types": Rule(find=_mixed_types, outcome="own", known_of=(_ONNX,)),
    "subnormal-scale": Rule(find=_subnormal_scale, outcome="own", known_of=()),
    "split-kernel": Rule(find=_split_kernel, outcome="slow", known_of=(_GUIDE,)),
    "quantized-main-branch": Rule(find=_quantized_main_branch, outcome="slow", known_of=(_GUIDE,)),
    "quantized-twice": Rule(find=_quantized_twice, outcome="slow", known_of=(_GUIDE,)),
}


def _quantizers(seen: GraphView) -> Iterator[onnx.NodeProto]:
    """Yield the Q and DQ nodes; an int32 DQ is a matter of its own rule."""
    for node in seen.nodes:
        if node.op_type in QUANTIZERS and not _is_int32(seen, node):
            yield node


def _scales(seen: GraphView) -> Iterator[tuple[onnx.NodeProto, NDArray[Any]]]:
    for node in _quantizers(seen):
        scale = seen.constants.get(node.input[1])
        if scale is not None:
            yield node, scale


def _per_channel(seen: GraphView) -> Iterator[onnx.NodeProto]:
    return (node for node, scale in _scales(seen) if scale.ndim == 1 and scale.size > 1)


def _adds(seen: GraphView) -> Iterator[onnx.NodeProto]:
    return (node for node in seen.nodes if node.op_type == "Add")


def _zero_point(seen: GraphView, node: onnx.NodeProto) -> NDArray[Any] | None:
    return seen.constants.get(node.input[2]) if len(node.input) > 2 else None  # noqa: PLR2004  x, scale, zero point


def _is_int32(seen: GraphView, node: onnx.NodeProto) -> bool:
    stored = seen.constants.get(node.input[0])
    return stored is not None and stored.dtype == np.int32


def _stored(seen: GraphView) -> set[str]:
    """Return the tensors known before the first image, also those whose values stand in another file."""
    return {*seen.constants, *(item.name for item in seen.graph.initializer)}


def _shapes(seen: GraphView) -> dict[str, tuple[int, ...]]:
    """Return the shapes that are known; 0 stands for a free axis."""
    typed = (*seen.graph.input, *seen.graph.value_info, *seen.graph.output)
    known = {item.name: item.type.tensor_type for item in typed if item.type.tensor_type.HasField("shape")}
    inferred = {name: tuple(dim.dim_value for dim in kind.shape.dim) for name, kind in known.items()}
    return inferred | {name: value.shape for name, value in seen.constants.items()}


def _types(seen: GraphView) -> dict[str, int]:
    """Return the types as TensorRT sees them: what is dequantized is of its scale's, also below opset 19."""
    types = element_types(seen.graph)
    pairs = [node for node in seen.nodes if node.op_type == "DequantizeLinear"]
    return types | {node.output[0]: types[node.input[1]] for node in pairs if node.input[1] in types}


def _of_one_type(node: onnx.NodeProto, opset: int) -> Iterator[list[str]]:
    """Yield the inputs that an operator's definition binds to one type."""
    if node.domain or node.op_type in QUANTIZERS or not defs.has(node.op_type, opset):
        return
    bound: dict[str, list[str]] = {}
    formals = list(defs.get_schema(node.op_type, opset).inputs)
    for tensor, formal in zip(node.input, formals + formals[-1:] * len(node.input), strict=False):
        if formal.is_homogeneous:
            bound.setdefault(formal.type_str, []).append(tensor)
    yield from bound.values()


def _spelled(kind: int) -> str:
    return str(TensorProto.DataType.Name(kind)).lower()


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
