"""Make graphs the same small graph: constants and BatchNorm folded, shapes fixed, dead nodes gone. Pure.

The TorchScript exporter writes shape arithmetic, Constant and Identity nodes; the dynamo exporter writes a global
average pool as a mean. TensorRT's Q/DQ rules know neither form.
"""

from __future__ import annotations

import math
from collections import Counter
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from trtbench.graph.view import GraphView, attribute, constants, view

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def fold_batch_norms(proto: onnx.ModelProto) -> None:
    """Fold, in place, each BatchNorm that `foldable` finds; a layer whose weight others read gets one of its own."""
    seen = view(proto)
    graph = proto.graph
    used = Counter(name for node in graph.node for name in node.input)
    stored = {item.name: item for item in graph.initializer}
    folded: list[int] = []
    for index, norm in enumerate(seen.nodes):
        layer = foldable(seen, norm) if norm.op_type == "BatchNormalization" else None
        if layer is None:
            continue
        own = (*layer.input[1:3], "")[:2]
        for place, array in enumerate(_folded(layer, norm, seen.constants)):
            name = own[place] if used[own[place]] == 1 else f"{norm.output[0]}.{('weight', 'bias')[place]}s"
            item = stored.get(name) or graph.initializer.add()
            item.CopyFrom(numpy_helper.from_array(array, name))
            layer.input[place + 1 :] = [name]
        layer.output[0] = norm.output[0]
        folded.append(index)
    for index in reversed(folded):
        del graph.node[index]


def foldable(seen: GraphView, norm: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the layer that a BatchNorm folds into: with constant weights, and read by nothing but this norm."""
    layer = seen.maker.get(norm.input[0])
    if layer is None or len(seen.readers[norm.input[0]]) > 1 or attribute(norm, "training_mode", 0):
        return None
    is_constant = all(name in seen.constants for name in (*norm.input[1:], *layer.input[1:]) if name)
    if not is_constant or not _is_plain(layer):
        return None
    channels = seen.constants[norm.input[1]].size
    bias = seen.constants.get(next(iter(layer.input[2:3]), ""))
    fits = seen.constants[layer.input[1]].shape[output_axis(layer)] == channels
    return layer if fits and (bias is None or bias.size in {1, channels}) else None


def output_axis(node: onnx.NodeProto) -> int:
    """Return the axis of the output channels in a layer's weight."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}[node.op_type]


def _is_plain(layer: onnx.NodeProto) -> bool:
    if layer.op_type == "Gemm":
        return bool(attribute(layer, "alpha", 1.0) == attribute(layer, "beta", 1.0) == 1.0)
    return layer.op_type == "Conv" or (layer.op_type == "ConvTranspose" and attribute(layer, "group", 1) == 1)


def _folded(
    layer: onnx.NodeProto, norm: onnx.NodeProto, arrays: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the weight and the bias of both, computed in float64."""
    scale, shift, mean, variance = (arrays[name].astype(np.float64) for name in norm.input[1:])
    factor = scale / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
    weight = arrays[layer.input[1]]
    bias = arrays.get(next(iter(layer.input[2:3]), ""))
    before = np.zeros(1) if bias is None else bias.astype(np.float64).reshape(-1)
    along = [1] * weight.ndim
    along[output_axis(layer)] = -1
    folded = weight.astype(np.float64) * factor.reshape(along)
    return folded.astype(weight.dtype), ((before - mean) * factor + shift).astype(weight.dtype)


# A folded Q/DQ pair would leave rounded weights and hide from TensorRT that the layer is INT8.
_NEVER_FOLDED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"}
)
_SPATIAL_AXES = ({2, 3}, {-1, -2})


def simplify(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return an equal graph without Constant, Identity and shape nodes, and with its global average pools named so.

    Each BatchNorm behind a layer of its own is folded into it.

    The graph must be valid; inputs, outputs and every kept tensor keep their names.
    """
    simple = deepcopy(proto)
    _fold_constants(simple)
    _fix_reshapes(simple)
    _drop_identities(simple.graph)
    fold_batch_norms(simple)
    _name_global_pools(simple)
    _drop_dead(simple.graph)
    return simple


def _fold_constants(proto: onnx.ModelProto) -> None:
    """Replace each node that reads constants only by its value."""
    graph = proto.graph
    known = {item.name for item in graph.initializer}
    kept_names = {item.name for item in graph.output}
    folded, kept = [], []
    for node in graph.node:
        if set(node.input) - {""} <= known and node.op_type not in _NEVER_FOLDED and not kept_names & set(node.output):
            folded.append(node)
            known.update(node.output)
        else:
            kept.append(node)
    read = {name for node in kept for name in node.input}
    wanted = [name for node in folded for name in node.output if name in read]
    values = _evaluate(proto, folded, wanted)
    _replace_nodes(graph, kept)
    graph.initializer.extend(numpy_helper.from_array(np.asarray(values[name]), name) for name in wanted)


def _evaluate(proto: onnx.ModelProto, nodes: list[onnx.NodeProto], wanted: list[str]) -> Mapping[str, Any]:
    if not wanted:
        return {}
    read = {name for node in nodes for name in node.input}
    part = helper.make_graph(
        nodes,
        "constants",
        [],
        [onnx.ValueInfoProto(name=name) for name in wanted],
        [item for item in proto.graph.initializer if item.name in read],
    )
    model = helper.make_model(part, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    return dict(zip(wanted, ReferenceEvaluator(model).run(wanted, {}), strict=True))


def _fix_reshapes(proto: onnx.ModelProto) -> None:
    """Write a constant shape, -1 for the batch, where an exporter computes it from the batch at run time."""
    inferred = shape_inference.infer_shapes(proto, data_prop=True).graph
    typed = [*inferred.input, *inferred.value_info, *inferred.output]
    shapes = {item.name: [dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim] for item in typed}
    constant = {item.name for item in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type != "Reshape" or node.input[1] in constant:
            continue
        tail = _tail(shapes.get(node.input[0], []), shapes.get(node.output[0], []))
        if tail is not None:
            node.input[1] = f"{node.output[0]}.shape"
            proto.graph.initializer.append(numpy_helper.from_array(np.array([-1, *tail], np.int64), node.input[1]))


def _tail(before: list[Any], after: list[Any]) -> list[int] | None:
    """Return the sizes behind the batch after a reshape that keeps the batch; at most one of them was left unknown."""
    if not after or before[:1] != after[:1] or not all(isinstance(size, int) for size in before[1:]):
        return None
    known = [size for size in after[1:] if isinstance(size, int)]
    if len(after) - 1 - len(known) > 1:
        return None
    rest = math.prod(before[1:]) // math.prod(known)
    return [size if isinstance(size, int) else rest for size in after[1:]]


def _drop_identities(graph: onnx.GraphProto) -> None:
    """Let consumers of an Identity (or of a Dropout, which does nothing at inference) read its input."""
    outputs = {item.name for item in graph.output}
    source: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = source.get(name, name)
        if node.op_type in {"Identity", "Dropout"} and node.output[0] not in outputs:
            source[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    _replace_nodes(graph, kept)


def _name_global_pools(proto: onnx.ModelProto) -> None:
    """Turn a mean over height and width into GlobalAveragePool, followed by Flatten where the mean drops both axes."""
    arrays = constants(proto.graph)
    nodes = []
    for node in proto.graph.node:
        if _is_spatial_mean(node, arrays):
            nodes.extend(_global_pool(node))
        else:
            nodes.append(node)
    _replace_nodes(proto.graph, nodes)


def _is_spatial_mean(node: onnx.NodeProto, arrays: Mapping[str, NDArray[Any]]) -> bool:
    if node.op_type != "ReduceMean":
        return False
    listed = [list(item.ints) for item in node.attribute if item.name == "axes"]  # an attribute below opset 18
    axes = listed[0] if listed else arrays.get(node.input[1], np.array([])).tolist() if len(node.input) > 1 else []
    return set(axes) in _SPATIAL_AXES


def _global_pool(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    keeps_axes = all(item.i == 1 for item in node.attribute if item.name == "keepdims")
    pooled = node.output[0] if keeps_axes else f"{node.output[0]}.pooled"
    pool = helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=node.name)
    pool.metadata_props.extend(node.metadata_props)
    if keeps_axes:
        return [pool]
    return [pool, helper.make_node("Flatten", [pooled], [node.output[0]], name=f"{node.name}.flatten", axis=1)]


def _drop_dead(graph: onnx.GraphProto) -> None:
    needed = {item.name for item in graph.output}
    alive = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            alive.append(node)
            needed.update(node.input)
    _replace_nodes(graph, alive[::-1])
    initializers = [item for item in graph.initializer if item.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(initializers)


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
