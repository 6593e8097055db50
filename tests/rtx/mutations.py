"""Q/DQ graphs of a small network, changed at random in ways that a hand-written exporter or quantizer might."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trtbench.graph.half import to_half
from trtbench.graph.placement import activation_tensors, plan_qdq
from trtbench.graph.qdq import insert_qdq
from trtbench.graph.view import QUANTIZERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Mutation = Callable[[onnx.GraphProto, np.random.Generator], None]

_SHARED = 0.5  # how often both nodes of a pair are changed
_WITH_BIAS = 3
_NETWORK = """
<ir_version: 10, opset_import: ["" : 21]>
net (float[batch, 4, 8, 8] input) => (float[batch, 3] logits) {
    s = Conv<pads = [1, 1, 1, 1]>(input, stem, b)
    a = Relu(s)
    m = Conv<pads = [1, 1, 1, 1]>(a, main, b)
    n = Add(m, a)
    r = Relu(n)
    d = Conv<pads = [1, 1, 1, 1], group = 8>(r, depth, b)
    p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(d)
    w = Conv(p, wide)
    h = Sigmoid(w)
    g = GlobalAveragePool(h)
    f = Flatten(g)
    logits = Gemm<transB = 1>(f, fc, c)
}
"""
_WEIGHTS = {
    "stem": (8, 4, 3, 3),
    "main": (8, 8, 3, 3),
    "depth": (8, 1, 3, 3),
    "wide": (16, 8, 1, 1),
    "b": (8,),
    "fc": (3, 16),
    "c": (3,),
}


def subjects() -> tuple[onnx.ModelProto, ...]:
    """Return the network in INT8, with FP32 and with FP16 scales."""
    proto = onnx.parser.parse_model(_NETWORK)
    random = np.random.default_rng(0)
    for name, shape in _WEIGHTS.items():
        proto.graph.initializer.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
    for node in proto.graph.node:
        node.name = f"{node.output[0]}.{node.op_type}"
    plan = plan_qdq(proto)
    quantized = insert_qdq(proto, plan, dict.fromkeys(activation_tensors(plan), 2.0))
    return quantized, to_half(quantized, dtype="fp16").proto


def mutated(subject: onnx.ModelProto, *, seed: int) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return a copy of a graph with one or two mutations, and their names."""
    random = np.random.default_rng(seed)
    copy = onnx.ModelProto()
    copy.CopyFrom(subject)
    names = tuple(str(name) for name in random.choice(sorted(MUTATIONS), size=random.integers(1, 3), replace=False))
    for name in names:
        MUTATIONS[name](copy.graph, random)
    del copy.graph.value_info[:]
    return copy, names


def _pick(graph: onnx.GraphProto, random: np.random.Generator, *operators: str) -> onnx.NodeProto:
    """Choose a node of these operators; there is one of each in the network, and mutations take none of them away."""
    nodes: list[onnx.NodeProto] = [node for node in graph.node if node.op_type in operators]
    return nodes[int(random.integers(len(nodes)))]


def _constant(change: Callable[[NDArray[Any]], NDArray[Any]], *, index: int) -> Mutation:
    """Change a scale or a zero point, for one node or for both nodes of the pair."""

    def mutate(graph: onnx.GraphProto, random: np.random.Generator) -> None:
        node = _pick(graph, random, *QUANTIZERS)
        old = node.input[index] if index < len(node.input) else ""
        value = next((numpy_helper.to_array(item) for item in graph.initializer if item.name == old), None)
        if value is None:
            return
        new = f"{old}.mutated"
        graph.initializer.append(numpy_helper.from_array(change(value), new))
        is_shared = random.random() < _SHARED
        for reader in graph.node:
            if reader.op_type in QUANTIZERS and old in reader.input and (is_shared or reader == node):
                reader.input[index] = new

    return mutate


def _scale(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Mutation:
    return _constant(change, index=1)


def _zero_point(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Mutation:
    return _constant(change, index=2)


def _first_becomes(value: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def change(array: NDArray[Any]) -> NDArray[Any]:
        copy = array.copy()
        copy.reshape(-1)[:1] = value
        return copy

    return change


def _attributes(operator: str = "", **given: int | None) -> Mutation:
    """Set attributes of a Q or DQ node, or of both kinds; None takes one away."""

    def mutate(graph: onnx.GraphProto, random: np.random.Generator) -> None:
        node = _pick(graph, random, *([operator] if operator else QUANTIZERS))
        for name, value in given.items():
            kept = [item for item in node.attribute if item.name != name]
            del node.attribute[:]
            node.attribute.extend(kept)
            if value is not None:
                node.attribute.append(helper.make_attribute(name, value))

    return mutate


def _without_zero_point(**given: int | None) -> Mutation:
    set_attributes = _attributes("QuantizeLinear", **given)

    def mutate(graph: onnx.GraphProto, random: np.random.Generator) -> None:
        state = random.bit_generator.state
        node = _pick(graph, random, "QuantizeLinear")
        del node.input[2:]
        random.bit_generator.state = state  # the same node
        set_attributes(graph, random)

    return mutate


def _bypassed(operator: str) -> Mutation:
    """Let what reads a Q or a DQ node read its input instead."""

    def mutate(graph: onnx.GraphProto, random: np.random.Generator) -> None:
        gone = _pick(graph, random, operator)
        for node in graph.node:
            for index, tensor in enumerate(node.input):
                if tensor == gone.output[0]:
                    node.input[index] = gone.input[0]

    return mutate


def _between(operator: str, **attributes: Any) -> Mutation:
    """Put an operator that keeps the shape between a node and its data."""

    def mutate(graph: onnx.GraphProto, random: np.random.Generator) -> None:
        place = int(random.integers(len(graph.node)))
        reader, name = graph.node[place], f"between.{random.integers(1 << 30)}"
        nodes = list(graph.node)
        nodes.insert(place, helper.make_node(operator, [reader.input[0]], [name], name=name, **attributes))
        reader.input[0] = name
        nodes[place + 1].CopyFrom(reader)
        del graph.node[:]
        graph.node.extend(nodes)

    return mutate


def _renamed(old: str, new: str, *, domain: str = "") -> Mutation:
    def mutate(graph: onnx.GraphProto, random: np.random.Generator) -> None:
        node = _pick(graph, random, old, new)
        node.op_type, node.domain = new, domain

    return mutate


def _computed_scale(graph: onnx.GraphProto, random: np.random.Generator) -> None:
    node, name = _pick(graph, random, *QUANTIZERS), f"computed.{random.integers(1 << 30)}"
    graph.node.insert(0, helper.make_node("Identity", [node.input[1]], [name], name=name))
    node.input[1] = name


def _quantized_bias(graph: onnx.GraphProto, random: np.random.Generator) -> None:
    node = _pick(graph, random, "Conv", "Gemm")
    if len(node.input) < _WITH_BIAS:
        return
    name = f"{node.name}.bias"
    codes = np.zeros(next(item.dims[0] for item in graph.initializer if item.name == node.input[2]), np.int32)
    graph.initializer.append(numpy_helper.from_array(codes, f"{name}.codes"))
    graph.initializer.append(numpy_helper.from_array(np.array(0.1, np.float32), f"{name}.scale"))
    place = list(graph.node).index(node)
    node.input[2] = name
    graph.node.insert(
        place, helper.make_node("DequantizeLinear", [f"{name}.codes", f"{name}.scale"], [name], name=name)
    )


MUTATIONS: Mapping[str, Mutation] = {
    "zero scale": _scale(_first_becomes(0)),
    "negative scale": _scale(_first_becomes(-0.1)),
    "NaN scale": _scale(_first_becomes(np.nan)),
    "infinite scale": _scale(_first_becomes(np.inf)),
    "tiny scale": _scale(_first_becomes(1e-7)),
    "FP16 scale": _scale(lambda scale: scale.astype(np.float16)),
    "FP32 scale": _scale(lambda scale: scale.astype(np.float32)),
    "BF16 scale": _scale(lambda scale: scale.astype(ml_dtypes.bfloat16)),
    "one scale more": _scale(lambda scale: np.append(scale, scale.reshape(-1)[:1])),
    "one scale": _scale(lambda scale: scale.reshape(-1)[0].reshape(())),
    "scale of rank 2": _scale(lambda scale: scale.reshape(-1, 1)),
    "scale of rank 4": _scale(lambda scale: scale.reshape(-1, 1, 1, 1)),
    "scale of rank 1": _scale(lambda scale: scale.reshape(-1)),
    "zero point 3": _zero_point(_first_becomes(3)),
    "uint8 zero point": _zero_point(lambda zero: zero.astype(np.uint8)),
    "int32 zero point": _zero_point(lambda zero: zero.astype(np.int32)),
    "int16 zero point": _zero_point(lambda zero: zero.astype(np.int16)),
    "one zero point more": _zero_point(lambda zero: np.append(zero, np.int8(0)).astype(np.int8)),
    "one zero point": _zero_point(lambda zero: zero.reshape(-1)[:1]),
    "no zero point": _without_zero_point(),
    "no zero point but int8": _without_zero_point(output_dtype=TensorProto.INT8),
    "no zero point but FP8": _without_zero_point(output_dtype=TensorProto.FLOAT8E4M3FN),
    "no zero point but uint8": _without_zero_point(output_dtype=TensorProto.UINT8),
    "INT4 asked for": _attributes("QuantizeLinear", output_dtype=TensorProto.INT4),
    "no axis": _attributes(axis=None),
    "axis 1": _attributes(axis=1),
    "axis -4": _attributes(axis=-4),
    "axis -9": _attributes(axis=-9),
    "axis 9": _attributes(axis=9),
    "no QuantizeLinear": _bypassed("QuantizeLinear"),
    "no DequantizeLinear": _bypassed("DequantizeLinear"),
    "cast to FP16": _between("Cast", to=TensorProto.FLOAT16),
    "cast to BF16": _between("Cast", to=TensorProto.BFLOAT16),
    "cast to FP32": _between("Cast", to=TensorProto.FLOAT),
    "Identity": _between("Identity"),
    "HardSwish": _renamed("Relu", "HardSwish"),
    "Mish": _renamed("Sigmoid", "Mish"),
    "an operator of another domain": _renamed("GlobalAveragePool", "QuickGelu", domain="com.microsoft"),
    "an operator of no importer": _renamed("Flatten", "Det"),
    "computed scale": _computed_scale,
    "int32 bias": _quantized_bias,
}
