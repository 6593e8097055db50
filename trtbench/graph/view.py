"""Who makes a tensor and who reads it: a graph seen from its tensors, for the rules of placement and lint. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

# Operators that multiply activations by weights: what INT8 makes faster.
LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
# What one kernel computes together with the layer before it.
FUSED_BEHIND_LAYER = frozenset({"BatchNormalization", "Clip", "LeakyRelu", "Relu"})
FIRST_QDQ_OPSET = 13  # QuantizeLinear has an axis since
FIRST_HALF_QDQ_OPSET = 19  # QuantizeLinear takes FP16 since


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphView:
    """A graph's nodes in order, and each tensor's maker, readers (node and input index) and value if it is constant."""

    graph: onnx.GraphProto
    nodes: tuple[onnx.NodeProto, ...]
    maker: Mapping[str, onnx.NodeProto]
    readers: Mapping[str, tuple[tuple[onnx.NodeProto, int], ...]]
    constants: Mapping[str, NDArray[Any]]
    opset: int

    def made_by(self, tensor: str) -> str:
        """Return the operator that makes a tensor; "" for inputs and constants."""
        maker = self.maker.get(tensor)
        return "" if maker is None else str(maker.op_type)


def view(proto: onnx.ModelProto) -> GraphView:
    """Look at a graph from its tensors."""
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
    for node in proto.graph.node:
        for index, tensor in enumerate(node.input):
            readers.setdefault(tensor, []).append((node, index))
    return GraphView(
        graph=proto.graph,
        nodes=tuple(proto.graph.node),
        maker={tensor: node for node in proto.graph.node for tensor in node.output if tensor},
        readers={tensor: tuple(found) for tensor, found in readers.items()},
        constants=constants(proto.graph),
        opset=next((item.version for item in proto.opset_import if item.domain in {"", "ai.onnx"}), 0),
    )


def constants(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    """Return every tensor known before the first image, by name: initializers and Constant nodes.

    Tensors stored outside the file are left out: their values are not here.
    """
    stored = {item.name: item for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            stored[node.output[0]] = node.attribute[0].t
    inside = TensorProto.DEFAULT
    return {name: numpy_helper.to_array(item) for name, item in stored.items() if item.data_location == inside}


def element_types(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the element type of every tensor that is written down: all of them once shapes were inferred."""
    typed = {item.name: item.type.tensor_type.elem_type for item in (*graph.input, *graph.value_info, *graph.output)}
    return typed | {item.name: item.data_type for item in graph.initializer}


def node_name(node: onnx.NodeProto) -> str:
    """Return a node's name, or its first tensor's where it has none."""
    return str(node.name or node.output[0])


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return the value of a node's attribute, or the default."""
    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)
