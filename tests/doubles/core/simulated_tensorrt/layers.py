"""The layers an engine would have, read off the ONNX graph: which convolutions are INT8, where formats change."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx

from .network import inputs_of, shape_of

if TYPE_CHECKING:
    from collections.abc import Collection

_PRECISIONS: dict[int, str] = {
    onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.FLOAT16: "FP16",
    onnx.TensorProto.BFLOAT16: "BF16",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.FLOAT8E4M3FN: "FP8",
}
_MATRIX = {
    "Conv": "Convolution",
    "ConvTranspose": "Deconvolution",
    "Gemm": "MatrixMultiply",
    "MatMul": "MatrixMultiply",
}
_POOLS = {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}
_FUSED_AFTER_CONV = {"BatchNormalization", "Relu", "Clip", "Add", "Sigmoid", "Mul", "HardSwish"}
_NOTHING = {"Constant", "Identity", "Dropout", "Shape"}
_QDQ = {"QuantizeLinear", "DequantizeLinear"}
_QUANTIZABLE = {*_MATRIX, *_POOLS, "Add", "Concat"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Precisions:
    """What the builder may do beside what the graph says: implicit INT8 by scales, and FP16 of a weak network."""

    int8_tensors: Collection[str] = ()
    allows_fp16: bool = False
    is_strongly_typed: bool = True


@dataclass(slots=True)
class _View:
    """A graph by producer and by consumer."""

    model: onnx.ModelProto
    producers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    consumers: dict[str, list[onnx.NodeProto]] = field(default_factory=lambda: defaultdict(list))
    values: dict[str, onnx.ValueInfoProto] = field(default_factory=dict)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.model.graph.node:
            self.producers |= dict.fromkeys(node.output, node)
            for name in node.input:
                self.consumers[name].append(node)
        graph = onnx.shape_inference.infer_shapes(self.model).graph
        self.values = {each.name: each for each in (*graph.value_info, *graph.input, *graph.output)}
        self.constants = {each.name: each for each in graph.initializer}

    def elem_type(self, name: str) -> int:
        if name in self.constants:
            return self.constants[name].data_type
        found = self.values.get(name)
        return found.type.tensor_type.elem_type if found is not None else onnx.TensorProto.FLOAT

    def shape(self, name: str) -> list[int]:
        found = self.values.get(name)
        return list(shape_of(found)) if found is not None else []

    def is_dequantized(self, name: str) -> bool:
        node = self.producers.get(name)
        return node is not None and node.op_type == "DequantizeLinear"


def layers_of(model: onnx.ModelProto, precisions: Precisions) -> list[dict[str, Any]]:
    """List the layers in the order of the graph, each with its kind, precision and tensors."""
    view = _View(model)
    made: list[dict[str, Any]] = []
    done: set[int] = set()
    for node in model.graph.node:
        if id(node) in done or node.op_type in _NOTHING or _is_fused_qdq(node, view) or _is_of_constant(node, view):
            continue
        chain = _chain(node, view) if node.op_type in _MATRIX else [node]
        done |= {id(each) for each in chain}
        made.append(_layer(chain, view, precisions))
    return _with_reformats(made, view)


def _chain(node: onnx.NodeProto, view: _View) -> list[onnx.NodeProto]:
    """Follow a convolution into what runs in its epilogue."""
    chain = [node]
    while True:
        after = view.consumers[chain[-1].output[0]]
        if len(after) != 1 or after[0].op_type not in _FUSED_AFTER_CONV or chain[-1].op_type == "Relu":
            return chain
        if after[0].op_type == "Add" and any(each.op_type == "Add" for each in chain):
            return chain
        chain.append(after[0])


def _is_of_constant(node: onnx.NodeProto, view: _View) -> bool:
    """Say whether a node only prepares weights: it is folded when the engine is built."""
    if node.op_type not in {*_QDQ, "Cast"}:
        return False
    source = node.input[0]
    producer = view.producers.get(source)
    return source in view.constants or (producer is not None and _is_of_constant(producer, view))


def _is_fused_qdq(node: onnx.NodeProto, view: _View) -> bool:
    """Say whether a Q or DQ disappears into the layer before or after it."""
    if node.op_type == "DequantizeLinear":
        return any(each.op_type in _QUANTIZABLE for each in view.consumers[node.output[0]])
    if node.op_type == "QuantizeLinear":
        before = view.producers.get(node.input[0])
        return before is not None and before.op_type in {*_QUANTIZABLE, "Relu", "Clip", "BatchNormalization"}
    return False


def _precision(node: onnx.NodeProto, view: _View, precisions: Precisions) -> str:
    data = [each for each in node.input[:2] if each]
    if node.op_type in _MATRIX and len(data) > 1 and all(view.is_dequantized(each) for each in data):
        return _PRECISIONS.get(view.elem_type(view.producers[data[0]].input[0]), "INT8")
    if not precisions.is_strongly_typed and node.op_type in _MATRIX and data[0] in precisions.int8_tensors:
        return "INT8"
    if node.op_type in _POOLS and view.is_dequantized(data[0]):
        return "INT8"
    own = _PRECISIONS.get(view.elem_type(node.output[0] if node.op_type == "Cast" else data[0]), "FP32")
    return "FP16" if own == "FP32" and precisions.allows_fp16 else own


def _layer(chain: list[onnx.NodeProto], view: _View, precisions: Precisions) -> dict[str, Any]:
    first, last = chain[0], chain[-1]
    precision = _precision(first, view, precisions)
    after = view.consumers[last.output[0]]
    quantized = precision in {"INT8", "FP8"} and any(each.op_type == "QuantizeLinear" for each in after)
    out = precision if quantized else "INT8" if first.op_type == "QuantizeLinear" else _output(last, view, precisions)
    layer = {
        "name": " + ".join(each.name or each.output[0] for each in chain),
        "kind": _kind(first),
        "parameter": _MATRIX.get(first.op_type, first.op_type),
        "precision": precision,
        "inputs": [_tensor(first.input[0], precision, view)],
        "outputs": [_tensor(last.output[0], out, view)],
    }
    if first.op_type in _QDQ:
        layer["origin"] = "QDQ"
        layer["inputs"] = [_tensor(first.input[0], _PRECISIONS.get(view.elem_type(first.input[0]), "FP32"), view)]
    if first.op_type == "Cast":
        layer["origin"] = "CAST"
        layer["inputs"] = [_tensor(first.input[0], _PRECISIONS.get(view.elem_type(first.input[0]), "FP32"), view)]
    return layer


def _output(node: onnx.NodeProto, view: _View, precisions: Precisions) -> str:
    own = _PRECISIONS.get(view.elem_type(node.output[0]), "FP32")
    is_result = node.output[0] in {each.name for each in view.model.graph.output}
    return "FP16" if own == "FP32" and precisions.allows_fp16 and not is_result else own


def _kind(node: onnx.NodeProto) -> str:
    if node.op_type in {"Conv", "ConvTranspose"}:
        return "CaskConvolution"
    if node.op_type in {"Gemm", "MatMul"}:
        return "gemm"
    if node.op_type in _POOLS:
        return "CaskPooling"
    if node.op_type in {*_QDQ, "Cast"}:
        return "Reformat"
    return "NoOp" if node.op_type in {"Flatten", "Reshape", "Squeeze"} else "PointWiseV2"


def _tensor(name: str, precision: str, view: _View) -> dict[str, Any]:
    return {"name": name, "precision": precision, "shape": view.shape(name)}


def _with_reformats(layers: list[dict[str, Any]], view: _View) -> list[dict[str, Any]]:
    """Put a change of format between a network input and a layer that reads it in another precision."""
    given = {each.name for each in inputs_of(view.model)}
    made: list[dict[str, Any]] = []
    for layer in layers:
        tensor = layer["inputs"][0]
        wanted = tensor["precision"]
        own = _PRECISIONS.get(view.elem_type(tensor["name"]), "FP32")
        if tensor["name"] in given and wanted != own and layer["kind"] != "Reformat":
            made.append(
                {
                    "name": f"Reformatting CopyNode for Input Tensor 0 to {layer['name']}",
                    "kind": "Reformat",
                    "parameter": "Reformat",
                    "precision": own,
                    "origin": "REFORMAT",
                    "inputs": [{**tensor, "precision": own}],
                    "outputs": [{**tensor, "name": f"Reformatted Input Tensor 0 to {layer['name']}"}],
                }
            )
        made.append(layer)
    return made
