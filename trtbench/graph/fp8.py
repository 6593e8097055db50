"""Where FP8 pairs go in a float graph, and what they are: E4M3 codes with one scale a tensor, weights stored. Pure.

In a strongly typed network TensorRT computes a layer in FP8 or fails to build it: what has no FP8 kernel stays float.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from trtbench.errors import GraphError
from trtbench.graph.placement import plan_qdq
from trtbench.graph.qdq import Pairs, pair, require_ranges, rewired
from trtbench.graph.view import LAYERS, attribute, constants, node_name, view

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from trtbench.graph.placement import QdqPlan

LARGEST = 448.0  # of E4M3 with NaN and no infinity (OCP 8-bit floating point, ONNX float8e4m3fn)
# A scale below FP16's normal numbers keeps its layer out of fp8+fp16; E4M3 floats, and loses nothing by a larger one.
_SMALLEST_SCALE = float(np.finfo(np.float16).smallest_normal)
_FIRST_OPSET = 19  # ONNX: QuantizeLinear and DequantizeLinear of float8
# TensorRT 10.12's release notes: no optimised FP8 kernels of grouped convolutions. ModelOpt's rules for ONNX graphs:
# 16 channels at least, fewer than 32 values a kernel. Rows of 16 bytes are what FP8 matrix units of every library want.
_STEP, _LARGEST_KERNEL = 16, 31


def plan_fp8(proto: onnx.ModelProto, *, exclude: Collection[str] = ()) -> QdqPlan:
    """Decide which layers of a float graph run in FP8: pairs stand before those, and nowhere else.

    Args:
        proto: a float32 graph in topological order, as `simplify` leaves it; it is not changed.
        exclude: names of nodes that stay in float.

    Raises:
        GraphError: the opset has no FP8, the graph is quantized already, or an excluded name is unknown.
    """
    seen = view(proto)
    if seen.opset < _FIRST_OPSET:
        cure = f"export it anew: `export: {{opset: {_FIRST_OPSET}}}` or more"
        raise GraphError("FP8 codes", expected=f"opset {_FIRST_OPSET}", got=f"opset {seen.opset}", cure=cure)
    obstacles = {
        node_name(node): why
        for node in seen.nodes
        if node.op_type in LAYERS and (why := _obstacle(node, seen.constants.get(node.input[1])))
    }
    plan = plan_qdq(proto, exclude=(*exclude, *obstacles))
    quantized = {node.output[0] for node in seen.nodes if node.op_type in LAYERS} & {
        reader.node for point in plan.weights for reader in point.readers
    }
    read = ((one, tuple(reader for reader in one.readers if reader.node in quantized)) for one in plan.activations)
    return replace(
        plan,
        activations=tuple(replace(one, readers=readers) for one, readers in read if readers),
        layers=tuple(replace(one, reason=obstacles.get(one.node, one.reason)) for one in plan.layers),
    )


def _obstacle(node: onnx.NodeProto, weight: NDArray[np.float32] | None) -> str:
    """Say what keeps a layer out of FP8's kernels; "" if nothing does."""
    if weight is None:
        return "its weight is computed at run time"
    if node.op_type == "ConvTranspose":
        return "transposed convolutions have no FP8 kernel"
    if attribute(node, "group", 1) != 1:
        return "grouped convolutions have no FP8 kernel"
    if any(size % _STEP for size in weight.shape[:2]):
        return f"FP8 kernels want channels in multiples of {_STEP}, not {' and '.join(map(str, weight.shape[:2]))}"
    values = math.prod(weight.shape[2:])
    return "" if values <= _LARGEST_KERNEL else f"FP8 kernels have up to {_LARGEST_KERNEL} values, not {values}"


def insert_fp8(proto: onnx.ModelProto, plan: QdqPlan, activation_amax: Mapping[str, float]) -> onnx.ModelProto:
    """Return the graph with its FP8 pairs; of a weight its codes are stored, behind a DequantizeLinear.

    Args:
        proto: the float graph the plan was made for; it is not changed.
        plan: where the pairs go.
        activation_amax: for each of `activation_tensors(plan)` the largest magnitude to represent; more are ignored.

    Raises:
        GraphError: a range is missing, or no positive number; or a weight is not finite.
    """
    require_ranges(plan, activation_amax)
    made, arrays = deepcopy(proto), constants(proto.graph)
    before: Pairs = {}
    for point in plan.activations:
        scale = _scale(plan.amax(point.range_of, activation_amax))
        _add(made.graph, point.range_of, scale)
        placed = pair(point.tensor, point.tensor, point.range_of)
        before |= {(reader.node, reader.index): placed for reader in point.readers}
    for weight in plan.weights:
        values = arrays[weight.tensor]
        if not np.isfinite(values).all():
            what = f"weight {weight.tensor!r}"
            raise GraphError(what, expected="finite values", got="NaN or infinity", cure="train it anew")
        scale = _scale(float(np.abs(values).max()))
        _add(made.graph, weight.tensor, scale)
        _add_constant(made.graph, f"{weight.tensor}.codes", (values / scale).astype(ml_dtypes.float8_e4m3fn))
        before |= {(reader.node, reader.index): _stored(weight.tensor) for reader in weight.readers}
    del made.graph.node[:]
    made.graph.node.extend(rewired(proto.graph, before))
    _drop_unread(made.graph)
    return shape_inference.infer_shapes(made, strict_mode=True, data_prop=True)


def _scale(amax: float) -> NDArray[np.float32]:
    return np.array(max(amax / LARGEST, _SMALLEST_SCALE), np.float32)


def _add(graph: onnx.GraphProto, name: str, scale: NDArray[np.float32]) -> None:
    if f"{name}.scale" not in {item.name for item in graph.initializer}:
        _add_constant(graph, f"{name}.scale", scale)
        _add_constant(graph, f"{name}.zero_point", np.zeros((), ml_dtypes.float8_e4m3fn))


def _add_constant(graph: onnx.GraphProto, name: str, values: NDArray[np.generic]) -> None:
    if name not in {item.name for item in graph.initializer}:
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name))


def _stored(weight: str) -> tuple[str, list[onnx.NodeProto]]:
    values = f"{weight}.dequantized"
    given = [f"{weight}.codes", f"{weight}.scale", f"{weight}.zero_point"]
    return values, [helper.make_node("DequantizeLinear", given, [values], name=f"{weight}.DequantizeLinear")]


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input} | {item.name for item in graph.output}
    kept = [item for item in graph.initializer if item.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
