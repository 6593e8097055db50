"""A Q/DQ graph with parts of its quantization taken away, to see what each part costs. Pure."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import onnx
from onnx import shape_inference

from trtbench.graph.placement import plan_qdq
from trtbench.graph.qdq import insert_qdq
from trtbench.graph.view import LAYERS, GraphView, constants, node_name, view

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from trtbench.graph.placement import QdqPlan, Reader
    from trtbench.graph.view import WeightClip
    from trtbench.precision import Runtime

Operand = Literal["weights", "activations"]

_OTHERS = frozenset({"Add", "AveragePool", "Concat", "GlobalAveragePool", "MaxPool"})


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedNode:
    """A node that computes from quantized inputs; `output` is its first output, `macs` those of one image."""

    name: str
    op_type: str
    output: str
    macs: int


class Placement:
    """One placement of Q/DQ pairs, and the graphs with fewer of them.

    Args:
        reference: the float graph.
        quantized: its Q/DQ graph, of which come refined weights and biases.
        amax: the ranges of its activations.
    """

    def __init__(
        self,
        reference: onnx.ModelProto,
        quantized: onnx.ModelProto,
        amax: Mapping[str, float],
        *,
        runtime: Runtime,
        weights: WeightClip,
        exclude: Collection[str],
    ) -> None:
        self._reference = reference
        self._quantized = quantized
        self._runtime = runtime
        self._clip = weights
        self._excluded = exclude
        self._plan = plan_qdq(reference, exclude=exclude, runtime=runtime)
        self._amax = ranges_of_all(self._plan, amax)
        self.nodes = quantized_nodes(reference, self._plan)

    def graph(self, exclude: Collection[str]) -> onnx.ModelProto:
        """Return the Q/DQ graph with these nodes left out, beside those that are in any case."""
        left_out = {*self._excluded, *exclude}
        return self._insert(plan_qdq(self._reference, exclude=left_out, runtime=self._runtime), left_out)

    def only(self, node: QuantizedNode) -> onnx.ModelProto:
        """Return the graph in which one node alone reads quantized values."""
        return self._insert(only(self._plan, node), {other.name for other in self.nodes} - {node.name})

    def _insert(self, plan: QdqPlan, in_float: Collection[str]) -> onnx.ModelProto:
        refined = with_refinements(self._reference, self._quantized, exclude=in_float)
        return insert_qdq(refined, plan, self._amax, weights=self._clip, scales_of=self._reference)


def quantized_nodes(proto: onnx.ModelProto, plan: QdqPlan) -> tuple[QuantizedNode, ...]:
    """Return the nodes that a plan lets compute in INT8, in the order of the graph.

    Nodes that only move values are left out: they round nothing.
    """
    readers = [point.readers for point in plan.activations] + [point.readers for point in plan.weights]
    reading = {reader.node for found in readers for reader in found}
    seen, shapes = view(proto), _shapes(proto)
    return tuple(
        QuantizedNode(name=node_name(node), op_type=node.op_type, output=node.output[0], macs=_macs(seen, node, shapes))
        for node in seen.nodes
        if node.op_type in LAYERS | _OTHERS and node.output[0] in reading
    )


def only(plan: QdqPlan, node: QuantizedNode) -> QdqPlan:
    """Return the plan in which one node alone reads through its Q/DQ pairs."""
    activations = ((point, _read_by(node, point.readers)) for point in plan.activations)
    weights = ((point, _read_by(node, point.readers)) for point in plan.weights)
    return replace(
        plan,
        activations=tuple(replace(point, readers=readers) for point, readers in activations if readers),
        weights=tuple(replace(point, readers=readers) for point, readers in weights if readers),
    )


def without_pairs(quantized: onnx.ModelProto, *, of: Operand) -> onnx.ModelProto:
    """Return a Q/DQ graph in which the weights, or the activations, are read as they were before quantization."""
    stored = constants(quantized.graph)
    gone: dict[str, str] = {}  # what a removed pair put out -> what went in
    kept = []
    for node in quantized.graph.node:
        source = node.input[0] if node.input else ""
        if node.op_type == "QuantizeLinear" and (source in stored) == (of == "weights"):
            gone[node.output[0]] = source
        elif node.op_type == "DequantizeLinear" and source in gone:
            gone[node.output[0]] = gone[source]
        else:
            kept.append(node)
    stripped = deepcopy(quantized)
    del stripped.graph.node[:]
    stripped.graph.node.extend(_reading(node, gone) for node in kept)
    return stripped


def with_refinements(
    proto: onnx.ModelProto, quantized: onnx.ModelProto, *, exclude: Collection[str]
) -> onnx.ModelProto:
    """Return a float graph with the weights and biases that its Q/DQ graph has, but for the nodes excluded.

    Rounding by reconstruction and bias correction change them; a layer that stays in float keeps its own.
    """
    seen = view(proto)
    changed = {item.name: item for item in quantized.graph.initializer}
    refined = deepcopy(proto)
    for item in refined.graph.initializer:
        readers = seen.readers.get(item.name, ())
        if item.name in changed and not any(node_name(node) in exclude for node, _ in readers):
            item.CopyFrom(changed[item.name])
    return refined


def ranges_of_all(plan: QdqPlan, found: Mapping[str, float]) -> dict[str, float]:
    """Return the ranges that also serve plans with more exclusions: a moved tensor has that of its source.

    Where the source is not quantized any more, the tensor it was moved to needs a range of its own.
    """
    return {point.tensor: plan.amax(point.range_of, found) for point in plan.activations} | dict(found)


def _read_by(node: QuantizedNode, readers: tuple[Reader, ...]) -> tuple[Reader, ...]:
    return tuple(reader for reader in readers if reader.node == node.output)


def _reading(node: onnx.NodeProto, instead: Mapping[str, str]) -> onnx.NodeProto:
    copy = deepcopy(node)
    for index, tensor in enumerate(node.input):
        copy.input[index] = instead.get(tensor, tensor)
    return copy


def _shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor without its first axis, the batch; unknown lengths count as 1."""
    inferred = shape_inference.infer_shapes(proto).graph
    return {
        item.name: tuple(axis.dim_value or 1 for axis in item.type.tensor_type.shape.dim[1:])
        for item in (*inferred.input, *inferred.value_info, *inferred.output)
    }


def _macs(seen: GraphView, node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Count the multiply-accumulates of one image; 0 for nodes without a weight."""
    weight: NDArray[Any] | None = seen.constants.get(node.input[1]) if len(node.input) > 1 else None
    if node.op_type not in LAYERS or weight is None:
        return 0
    if node.op_type == "ConvTranspose":
        return math.prod(shapes.get(node.input[0], ())) * math.prod(weight.shape[1:])
    if node.op_type == "Conv":
        return math.prod(shapes.get(node.output[0], ())) * math.prod(weight.shape[1:])
    return math.prod(shapes.get(node.output[0], ())[:-1]) * math.prod(weight.shape)
