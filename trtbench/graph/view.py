"""A graph seen from its tensors, for the rules of placement and lint: who makes and reads one, a weight's scales. Pure.

Which operators and types of constants TensorRT's ONNX parser takes is what docs/operators.md and onnxOpImporters.cpp of
TensorRT 10.1's parser (onnx-tensorrt, public) and the parser of TensorRT-RTX 1.7 say alike; `tests/rtx` asks the latter
again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
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
# Of ONNX's own operators. DeformConv is not among them: TensorRT 10 has a plugin for it, TensorRT-RTX has none.
WITHOUT_IMPORTER = frozenset(
    (  # noqa: SIM905  forty-five names, one a line, would read no better
        "AffineGrid Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im "
        "Compress ConcatFromSequence ConvInteger CumProd DFT Det DynamicQuantizeLinear ImageDecoder MatMulInteger "
        "MaxRoiPool MaxUnpool MelWeightMatrix Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement "
        "OptionalHasElement QLinearConv QLinearMatMul RegexFullMatch SequenceAt SequenceConstruct SequenceEmpty "
        "SequenceErase SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss SplitToSequence StringConcat "
        "StringNormalizer StringSplit SwiGLU TfIdfVectorizer Unique"
    ).split()
)
WITHOUT_BF16 = frozenset({"GlobalLpPool", "HardSwish", "LpNormalization", "Mish"})
CONSTANT_TYPES = frozenset(
    {
        TensorProto.BFLOAT16,
        TensorProto.BOOL,
        TensorProto.DOUBLE,
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.FLOAT4E2M1,
        TensorProto.FLOAT8E4M3FN,
        TensorProto.INT32,
        TensorProto.INT4,
        TensorProto.INT64,
        TensorProto.INT8,
        TensorProto.UINT8,
    }
)
WeightClip = Literal["absmax", "mse"]
LEVELS = 127  # the largest int8 code whose negative is one too
# A dead channel's weights are all 0, and so would be its scale, which TensorRT refuses. The smallest positive FP16
# number stays positive in every type that scales may be converted to, and rounds nothing that matters.
SMALLEST_SCALE = 2.0**-24
_SHARES = np.linspace(1.0, 0.5, 101)  # of the largest magnitude; below half of it 8 bits lose more than they win


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


def weight_scales(weight: NDArray[np.float32], *, axis: int, clip: WeightClip = "absmax") -> NDArray[np.float32]:
    """Return the scale of each slice of a weight along `axis`, float32 (channels,), never below 2^-24.

    `absmax` represents the largest magnitude, which is code 127; `mse` is the share of it, from a half on, whose codes
    have the least squared error, so that a few outliers do not coarsen all steps.
    """
    rows = as_rows(weight, axis=axis)
    scales = np.abs(rows).max(axis=1) / LEVELS
    if clip == "mse":
        errors = np.stack([_squared_error(rows, scales * share) for share in _SHARES])
        scales = scales * _SHARES[errors.argmin(axis=0)]
    safe: NDArray[np.float32] = np.maximum(scales, SMALLEST_SCALE).astype(np.float32)
    return safe


def as_rows(weight: NDArray[np.float32], *, axis: int) -> NDArray[np.float32]:
    """Return the weight as (channels along `axis`, the rest)."""
    return np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)


def rounded(rows: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what QuantizeLinear and DequantizeLinear make of each row: nearest code, ties to even, in [-128, 127]."""
    steps = np.maximum(scales, SMALLEST_SCALE)[:, None].astype(np.float32)
    codes: NDArray[np.float32] = np.clip(np.rint(rows / steps), -LEVELS - 1, LEVELS) * steps
    return codes


def _squared_error(rows: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    error: NDArray[np.float32] = np.square(rows - rounded(rows, scales)).sum(axis=1)
    return error
