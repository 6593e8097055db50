"""Fold BatchNorm into the layer before it, where there is one that nothing else reads. Pure.

Jacob et al., 2018, section 3.2: weight scales are to be those of the folded weights. A BatchNorm that stands behind
anything else (a pre-activation block, the branch of an identity) stays a node of its own, in float.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper

from trtbench.graph.view import GraphView, attribute, view

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
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
