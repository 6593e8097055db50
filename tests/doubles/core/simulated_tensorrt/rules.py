"""What TensorRT's ONNX parser refuses in the graphs of a CNN: pure checks of a model, node by node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

OPSETS = range(9, 25)
_SUPPORTED = frozenset(
    [
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Conv",
        "ConvTranspose",
        "DequantizeLinear",
        "Div",
        "Dropout",
        "Elu",
        "Erf",
        "Exp",
        "Flatten",
        "Floor",
        "Gather",
        "Gelu",
        "Gemm",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "InstanceNormalization",
        "LayerNormalization",
        "LeakyRelu",
        "MatMul",
        "Max",
        "MaxPool",
        "Min",
        "Mul",
        "Neg",
        "PRelu",
        "Pad",
        "Pow",
        "QuantizeLinear",
        "Reciprocal",
        "ReduceMax",
        "ReduceMean",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Resize",
        "Shape",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
    ]
)
_UNSUPPORTED_QUANTIZATION = frozenset(
    {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a model is not taken, with the place in the list of nodes (-1: the model itself)."""

    code: str
    text: str
    node: int = -1
    name: str = ""
    operator: str = ""


@dataclass(frozen=True, slots=True)
class _Graph:
    """A model's constants by name, whether stored or from Constant nodes."""

    constants: dict[str, onnx.TensorProto]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> _Graph:
        found = {each.name: each for each in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                found[node.output[0]] = node.attribute[0].t
        return cls(found)


def refusals(model: onnx.ModelProto) -> Iterator[Refusal]:
    """Check a whole model."""
    opset = next((each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}), 0)
    if opset not in OPSETS:
        yield Refusal(code="UNSUPPORTED_GRAPH", text=f"Unsupported ONNX opset version {opset}: 9 to 24 are known")
    graph = _Graph.of(model)
    for place, node in enumerate(model.graph.node):
        found = _refusal(node, graph, opset)
        if found is not None:
            code, text = found
            yield Refusal(code=code, text=text, node=place, name=node.name, operator=node.op_type)


def warnings(model: onnx.ModelProto) -> Iterator[str]:
    """Say what is taken, but not as written."""
    graph = _Graph.of(model)
    for node in model.graph.node:
        zero = _constant(node, 2, graph)
        if (
            node.op_type in {"QuantizeLinear", "DequantizeLinear"}
            and zero is not None
            and zero.data_type == onnx.TensorProto.UINT8
        ):
            yield f"{node.name}: {node.op_type} has a UINT8 zero_point: TensorRT will use INT8 instead."


def _refusal(node: onnx.NodeProto, graph: _Graph, opset: int) -> tuple[str, str] | None:
    if (
        node.op_type in _UNSUPPORTED_QUANTIZATION
        or node.op_type not in _SUPPORTED
        or node.domain not in {"", "ai.onnx"}
    ):
        return "UNSUPPORTED_NODE", "false"
    if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
        return _of_scale(node, graph) or _of_zero_point(node, graph)
    return None


def _of_scale(node: onnx.NodeProto, graph: _Graph) -> tuple[str, str] | None:
    scale = _constant(node, 1, graph)
    if scale is None:
        return "INVALID_NODE", "The scale input must be a constant known at build time"
    values = numpy_helper.to_array(scale).astype(np.float32)
    if values.size == 0:
        return "INVALID_NODE", "The scale input has no values"
    if not np.all(values > 0):
        return "INVALID_NODE", "Scale coefficients must all be positive"
    return None


def _of_zero_point(node: onnx.NodeProto, graph: _Graph) -> tuple[str, str] | None:
    stored = _constant(node, 0, graph)
    if node.op_type == "DequantizeLinear" and stored is not None and stored.data_type == onnx.TensorProto.INT32:
        return "UNSUPPORTED_NODE_DATATYPE", "DequantizeLinear of INT32 is not supported: only INT8, FP8 and INT4 are"
    zero = _constant(node, 2, graph)
    if zero is None:
        return None
    values = numpy_helper.to_array(zero)
    if zero.data_type == onnx.TensorProto.UINT8 and np.any(values):
        return "INVALID_NODE", "TensorRT only supports symmetric quantization: zero points of UINT8 are not zero"
    if np.any(values):
        return "INVALID_NODE", "Non-zero zero point is not supported: TensorRT only supports symmetric quantization"
    scale = _constant(node, 1, graph)
    if scale is not None and numpy_helper.to_array(scale).size != values.size:
        return "INVALID_NODE", "The zero point has another size than the scale"
    return None


def _constant(node: onnx.NodeProto, place: int, graph: _Graph) -> onnx.TensorProto | None:
    return graph.constants.get(node.input[place]) if place < len(node.input) else None
