"""Bias correction: what quantization adds to the mean of a layer's channels is taken off its bias. Pure.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), section 4.2, the
empirical form: the shift is measured on calibration images, layer by layer on the float network's own activations, so
that no layer corrects what another one already has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trtbench.graph.view import LAYERS, QUANTIZERS, constants

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_WITH_BIAS = LAYERS - {"MatMul"}
_WITHOUT_BIAS = 2  # inputs of a layer that has none


def shift_graph(proto: onnx.ModelProto, quantized: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return a graph that computes each layer as float and as quantized, from the same float activations.

    Args:
        proto: the float graph.
        quantized: the same graph with Q/DQ pairs; its weights may be rounded otherwise.

    Returns:
        The graph, and for each layer with a bias, by its output, the tensor that holds quantized minus float.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(proto)
    known = {item.name for item in proto.graph.initializer}
    own = {name: f"{name}.quantized-copy" for name in known}
    float_layers = {node.output[0]: node for node in proto.graph.node}
    shifts: dict[str, str] = {}
    copies = []
    for original in quantized.graph.node:
        is_layer = original.op_type in _WITH_BIAS and list(original.input) != list(
            float_layers[original.output[0]].input
        )
        if not is_layer and original.op_type not in QUANTIZERS:
            continue
        node = onnx.NodeProto()
        node.CopyFrom(original)
        node.input[:] = [own.get(name, name) for name in node.input]
        copies.append(node)
        if is_layer:
            tensor = original.output[0]
            node.name, node.output[0], shifts[tensor] = f"{tensor}.copy", f"{tensor}.copy", f"{tensor}.shift"
            copies.append(helper.make_node("Sub", [f"{tensor}.copy", tensor], [shifts[tensor]]))
    for item in quantized.graph.initializer:
        copy = onnx.TensorProto()
        copy.CopyFrom(item)
        copy.name = own.get(item.name, item.name)
        graph.graph.initializer.append(copy)
    graph.graph.node.extend(copies)  # all they read is made by the nodes before
    return graph, shifts


def correct_biases(proto: onnx.ModelProto, shifts: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """Return the graph with the mean shift of each channel, by layer output, taken off its bias."""
    corrected = onnx.ModelProto()
    corrected.CopyFrom(proto)
    arrays = constants(proto.graph)
    for node in corrected.graph.node:
        shift = shifts.get(node.output[0])
        if shift is None:
            continue
        has_bias = len(node.input) > _WITHOUT_BIAS and bool(node.input[_WITHOUT_BIAS])
        bias = arrays[node.input[_WITHOUT_BIAS]] if has_bias else np.zeros(len(shift), np.float32)
        name = f"{node.output[0]}.corrected-bias"  # its own: another layer may share the old one
        node.input[:] = [*node.input[:_WITHOUT_BIAS], name]
        value = (bias.astype(np.float64) - shift).astype(np.float32)
        corrected.graph.initializer.append(numpy_helper.from_array(value, name))
    used = {name for node in corrected.graph.node for name in node.input}
    kept = [item for item in corrected.graph.initializer if item.name in used]
    del corrected.graph.initializer[:]
    corrected.graph.initializer.extend(kept)
    return corrected
