"""FP32 ONNX to FP16 or BF16 ONNX with FP32 inputs and outputs: the types a strongly typed TensorRT network has.

A Q/DQ graph becomes INT8+FP16: the scales are FP16, and what is not INT8 computes in FP16. Why not ONNX Runtime's
converter: it knows no BF16, moves tiny weights to 1e-7 and large ones to 1e4 without a word, and rounds no codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import onnx
from onnx import TensorProto, shape_inference, version_converter

from trtbench.errors import GraphError, UnsupportedError
from trtbench.graph.half_rules import FORMATS, has_subgraph, plan_half
from trtbench.graph.half_scales import half_constants
from trtbench.graph.half_types import rewrite_types
from trtbench.graph.view import FIRST_HALF_QDQ_OPSET, QUANTIZERS, element_types, node_name, view

if TYPE_CHECKING:
    from collections.abc import Collection

    from trtbench.precision import HalfType

Method = Literal["trtbench", "modelopt"]
FIRST_BF16_OPSET = 22  # convolutions and pools take BF16 since


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfGraph:
    """A converted graph, and what of it is in half precision.

    Args:
        proto: the graph; its inputs and outputs are FP32.
        share_of_nodes: in half precision, of the nodes that compute on floats; Q/DQ nodes and casts do not count.
        kept: the nodes that stay in FP32 and why, in the order of the graph.
    """

    proto: onnx.ModelProto
    share_of_nodes: float
    kept: tuple[tuple[str, str], ...]


def to_half(
    proto: onnx.ModelProto, *, dtype: HalfType, keep: Collection[str] = (), method: Method = "trtbench"
) -> HalfGraph:
    """Convert a graph to half precision.

    Args:
        proto: a valid float or Q/DQ graph, weights inside; it is not changed. Where its opset lacks the half type
            (BF16 convolutions before 22, FP16 Q/DQ before 19) the result has a later one.
        dtype: fp16 or bf16.
        keep: names of nodes that stay in FP32.
        method: our rules (`half_rules`), or ModelOpt's AutoCast, an optional package.

    Raises:
        GraphError: the graph is not valid or cannot be converted, or `keep` names no node of it.
        UnsupportedError: a Q/DQ graph in BF16 or by ModelOpt, or ModelOpt is absent.
    """
    _require_convertible(proto, dtype=dtype, method=method)
    if method == "modelopt":
        from trtbench.graph.autocast import autocast

        return _judged(_checked(autocast(proto, dtype=dtype, keep=keep)), dtype=dtype)
    ready = _typed(_raised(_lifted(proto), dtype=dtype))
    seen, types = view(ready), element_types(ready.graph)
    plan = plan_half(seen, types, dtype=dtype, keep=keep)
    constants = half_constants(seen, quantizers=plan.halves) if dtype == "fp16" else {}
    halved = rewrite_types(ready, plan, types, half=FORMATS[dtype], constants=constants)
    kept = [(node_name(seen.maker[key]), plan.kept[key]) for key in plan.computing if key in plan.kept]
    share = 1 - len(kept) / max(len(plan.computing), 1)
    return HalfGraph(proto=_checked(halved), share_of_nodes=share, kept=tuple(kept))


def _require_convertible(proto: onnx.ModelProto, *, dtype: HalfType, method: Method) -> None:
    is_quantized = _is_quantized(proto)
    if is_quantized and (dtype == "bf16" or method == "modelopt"):
        how = "BF16" if dtype == "bf16" else "by AutoCast"
        cure = "choose fp16 by our own method: INT8+FP16"
        raise UnsupportedError(f"Q/DQ graph {proto.graph.name!r} {how}", expected="a float graph", cure=cure)
    for node in proto.graph.node:
        if has_subgraph(node):
            raise GraphError(
                f"node {node_name(node)!r}",
                expected="no control flow in a graph to convert",
                got=node.op_type,
                cure="export the model without it",
            )


def _is_quantized(proto: onnx.ModelProto) -> bool:
    return any(node.op_type in QUANTIZERS for node in proto.graph.node)


def _lifted(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with its Constant nodes as initializers, so that each reader can have its own type of them."""
    lifted = onnx.ModelProto()
    lifted.CopyFrom(proto)
    del lifted.graph.node[:]
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            lifted.graph.initializer.append(node.attribute[0].t)
            lifted.graph.initializer[-1].name = node.output[0]
        else:
            lifted.graph.node.append(node)
    return lifted


def _raised(proto: onnx.ModelProto, *, dtype: HalfType) -> onnx.ModelProto:
    """Return the graph at an opset that has the half type for what stands in it."""
    opset = view(proto).opset
    wanted = FIRST_BF16_OPSET if dtype == "bf16" else FIRST_HALF_QDQ_OPSET if _is_quantized(proto) else opset
    if opset >= wanted:
        return proto
    try:
        return version_converter.convert_version(proto, wanted)
    except (RuntimeError, ValueError) as error:
        raise GraphError(
            f"graph {proto.graph.name!r} in {dtype}",
            expected=f"opset {wanted} or more",
            got=f"opset {opset}, and {error}",
            cure=f"export it again with export.opset: {wanted}",
        ) from error


def _typed(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with every tensor's type written down."""
    try:
        return shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError) as error:
        raise _invalid(proto, error) from error


def _checked(proto: onnx.ModelProto) -> onnx.ModelProto:
    typed = _typed(proto)
    try:
        onnx.checker.check_model(typed, full_check=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as error:
        raise _invalid(proto, error) from error
    return typed


def _invalid(proto: onnx.ModelProto, error: Exception) -> GraphError:
    return GraphError(
        f"graph {proto.graph.name!r} in half precision",
        expected="a graph that ONNX's checker takes",
        got=" ".join(str(error).split()),
        cure="keep the node it names in FP32",
    )


def _judged(proto: onnx.ModelProto, *, dtype: HalfType) -> HalfGraph:
    """Read off a converted graph's types what of it is half."""
    types, half = element_types(proto.graph), FORMATS[dtype].element
    floats = {TensorProto.FLOAT, half}
    computing = [
        node
        for node in proto.graph.node
        if node.op_type != "Cast" and {types.get(name) for name in (*node.input, *node.output)} & floats
    ]
    kept = [node for node in computing if half not in {types.get(name) for name in node.output}]
    return HalfGraph(
        proto=proto,
        share_of_nodes=1 - len(kept) / max(len(computing), 1),
        kept=tuple((node_name(node), "AutoCast keeps it") for node in kept),
    )
