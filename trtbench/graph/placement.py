"""Where Q/DQ pairs go so that TensorRT fuses INT8 kernels: a plan, no change of the graph. Pure.

TensorRT computes a layer in INT8 where it finds a Q/DQ pair before each of its inputs. The rules, from NVIDIA's guide
to explicit quantization, the ResNets of its toolkits and its answers on NVIDIA/TensorRT#1992:

* the data input of Conv, ConvTranspose, Gemm and MatMul is quantized per tensor, the weight per output channel; biases
  stay float;
* nothing stands between a convolution and the ReLU, Clip or Add behind it, which become one kernel with it;
* of an Add's two inputs only the residual one is quantized: Conv+Add+ReLU then is one INT8 kernel. Where convolutions
  make both, the one on the longer branch is fused and the downsampling one is quantized;
* pools read INT8: TensorRT moves Q and DQ through them;
* a Concat whose output is read in INT8 reads INT8 itself, all its inputs and its output with one scale: codes can stand
  side by side only if they mean the same, and else TensorRT would rescale each input;
* a tensor has one Q/DQ pair for all its readers.

Operators that only move values (Slice, Pad with zeros, Reshape, MaxPool, ...) hand the scale of their input on. So in a
shortcut without parameters (option A: Slice, Slice, Pad) the block's input is quantized once, for the first convolution
and for the Slice, and the Pad's output again before the Add, with the same scale. The second pair changes no number
(int8 codes times the scale are its fixed points) and spares us to hope that TensorRT moves a DQ through a fill: Slice
and Pad stand between DQ and Q and run in INT8, and the Add finds its pattern. A pair on the Pad alone would let the
Slices run in float; a pair at the source alone would leave the Add without one if it did not move.

ONNX Runtime's CPU kernels want four things otherwise: a pair on both inputs of an Add, whose kernel is one of its own;
unsigned codes behind a ReLU, which then vanishes into the rounding; a pair where a convolution ends, behind it or its
ReLU, whoever reads that, for the kernel writes codes, and behind the Sigmoid of a SiLU or a gate, which then reads a
table; and codes of one type, uint8, into which it brings those of int8 only where one node reads them. Without them it
computes the convolution in float between Q/DQ nodes, slower than the float graph. A convolution that makes an output of
the network stays in float there, and so does what has no such kernel.
"""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from trtbench.errors import GraphError
from trtbench.graph.simplify import output_axis
from trtbench.graph.view import (
    FIRST_QDQ_OPSET,
    FUSED_BEHIND_LAYER,
    LAYERS,
    QUANTIZERS,
    GraphView,
    attribute,
    node_name,
    view,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import onnx

    from trtbench.precision import Runtime

_KINDS = {"Conv": "convolutions", "ConvTranspose": "transposed convolutions"}
_CUT_AT_ZERO = frozenset({"Clip", "Relu"})
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool"})
_MOVERS = frozenset({"Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
_KEEP_SIGN = _MOVERS | _POOLS
_FLOAT_READERS = LAYERS | {"Add", "BatchNormalization"}  # read a tensor as it is, unless they are why it is quantized
_MATRIX_RANK = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One input of one node; `node` is the node's first output tensor, which names it without doubt."""

    node: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationPoint:
    """One Q/DQ pair on an activation; its scale is that of the tensor `range_of`, which may be itself.

    `is_unsigned` means uint8 with scale amax / 255, for a runtime that wants it where no value is negative.
    """

    tensor: str
    range_of: str
    readers: tuple[Reader, ...]
    is_unsigned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPoint:
    """One Q/DQ pair on a constant weight, with a scale for each output channel along `axis`."""

    tensor: str
    axis: int
    readers: tuple[Reader, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlacement:
    """Whether a layer runs in INT8, and if not, why."""

    node: str
    op_type: str
    is_quantized: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QdqPlan:
    """Every Q/DQ pair of a graph, in the order of the graph, and what becomes of each layer.

    `joined` holds the tensors that meet in Concats, by the `range_of` of their pairs: their range is the largest of
    theirs, so that no input of a Concat is clipped harder than it would be alone. `in_uint8` writes signed codes of
    activations as uint8 about 128: the same numbers in the one type that the runtime's kernels share.
    """

    activations: tuple[ActivationPoint, ...]
    weights: tuple[WeightPoint, ...]
    layers: tuple[LayerPlacement, ...]
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    in_uint8: bool = False

    def sources(self, range_of: str) -> tuple[str, ...]:
        """Return the tensors whose values make a range: the tensor itself, or those that meet it in Concats."""
        return self.joined.get(range_of, (range_of,))

    def amax(self, range_of: str, found: Mapping[str, float]) -> float:
        """Return the magnitude that a pair's scale represents, from those of the tensors in `found`."""
        return max(found[tensor] for tensor in self.sources(range_of))

    @property
    def summary(self) -> str:
        """What is INT8, as `19 of 21 convolutions, 1 of 1 linear layers`."""
        kinds = [_KINDS.get(layer.op_type, "linear layers") for layer in self.layers]
        total, quantized = Counter(kinds), Counter[str]()
        for kind, layer in zip(kinds, self.layers, strict=True):
            quantized[kind] += layer.is_quantized
        return ", ".join(f"{quantized[kind]} of {total[kind]} {kind}" for kind in total)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedRanges:
    """The groups by the tensor that names their scale: the last of each in the order of the graph."""

    groups: Mapping[str, tuple[str, ...]]

    def leader(self, tensor: str) -> str:
        """Return the tensor that names this one's scale: itself where it is in no group."""
        return next((leader for leader, members in self.groups.items() if tensor in members), tensor)

    def members(self, leader: str) -> tuple[str, ...]:
        """Return the tensors that share a scale named so."""
        return self.groups.get(leader, (leader,))


def join_ranges(concats: Sequence[onnx.NodeProto], ranges: Mapping[str, str]) -> JoinedRanges:
    """Group the tensors whose values meet in Concats.

    Args:
        concats: those that run in INT8.
        ranges: for each quantized tensor, in the order of the graph, the one whose range it has.
    """
    groups: list[set[str]] = []
    for node in concats:
        meeting = {ranges[tensor] for tensor in (*node.input, node.output[0]) if tensor in ranges}
        groups, apart = (
            [group for group in groups if group & meeting],
            [group for group in groups if not group & meeting],
        )
        groups = [*apart, meeting.union(*groups)]
    order = {tensor: index for index, tensor in enumerate(dict.fromkeys(ranges.values()))}
    members = [tuple(sorted(group, key=order.__getitem__)) for group in groups]
    return JoinedRanges(groups={group[-1]: group for group in members})


def plan_qdq(proto: onnx.ModelProto, *, exclude: Collection[str] = (), runtime: Runtime = "tensorrt") -> QdqPlan:
    """Decide where the Q/DQ pairs of a float graph go.

    Args:
        proto: a float32 graph in topological order, as `simplify` leaves it; it is not changed.
        exclude: names of nodes that stay in float: their inputs are read unquantized.
        runtime: whose kernels the pairs are for.

    Raises:
        GraphError: the opset is below 13, the graph is quantized already, or an excluded name is unknown.
    """
    seen = view(proto)
    _require_float_graph(seen)
    _require_known(seen, exclude)
    nodes = [node for node in seen.nodes if node.op_type in LAYERS]
    layers = tuple(_layer(seen, node, exclude, runtime) for node in nodes)
    quantized = {node.output[0] for node, layer in zip(nodes, layers, strict=True) if layer.is_quantized}
    for_cpu = runtime == "onnxruntime-cpu"
    ends = _ends(seen, quantized, exclude) if for_cpu else frozenset()
    edges = _Edges(
        view=seen, quantized=quantized, exclude=frozenset(exclude), for_cpu=for_cpu, ends=ends, depths=_depths(seen)
    )
    points, joined = _points(edges)
    # A ReLU vanishes into unsigned codes alone: before signed ones, its Concat's, the convolution ends in itself.
    signed = {point.tensor for point in points if point.tensor in ends and not point.is_unsigned}
    if bare := {seen.maker[tensor].input[0] for tensor in signed if seen.made_by(tensor) in _CUT_AT_ZERO}:
        points, joined = _points(replace(edges, ends=ends | bare))
    weights = tuple(_weights(seen, quantized))
    return QdqPlan(activations=points, weights=weights, layers=layers, joined=joined.groups, in_uint8=for_cpu)


def _points(edges: _Edges) -> tuple[tuple[ActivationPoint, ...], JoinedRanges]:
    seen = edges.view
    tensors = [tensor for tensor in _tensors_in_order(seen.graph) if edges.has_pair(tensor)]
    ranges: dict[str, str] = {}
    for tensor in tensors:
        ranges[tensor] = _range_source(seen, tensor, ranges)
    joined = join_ranges([node for node in seen.nodes if node.op_type == "Concat" and edges.needs(node, 0)], ranges)
    ranges = {tensor: joined.leader(source) for tensor, source in ranges.items()}
    points = (
        ActivationPoint(
            tensor=tensor,
            range_of=ranges[tensor],
            readers=edges.readers(tensor),
            is_unsigned=edges.for_cpu
            and all(_is_non_negative(seen, source) for source in joined.members(ranges[tensor])),
        )
        for tensor in tensors
    )
    return tuple(points), joined


def activation_tensors(plan: QdqPlan) -> tuple[str, ...]:
    """Return the tensors whose ranges a plan needs, in the order of the graph."""
    return tuple(dict.fromkeys(source for point in plan.activations for source in plan.sources(point.range_of)))


def _require_float_graph(seen: GraphView) -> None:
    if seen.opset < FIRST_QDQ_OPSET:
        raise GraphError(
            "the graph's opset", expected=f"{FIRST_QDQ_OPSET} or more", got=str(seen.opset), cure="export it anew"
        )
    if placed := [node_name(node) for node in seen.nodes if node.op_type in QUANTIZERS]:
        raise GraphError(
            f"the graph is quantized already, at {placed[0]}",
            expected="a float graph",
            cure="fp32 builds it with its own Q/DQ pairs; ours: a variant of kind stripped, or the FP32 export",
        )


def _require_known(seen: GraphView, names: Collection[str]) -> None:
    known = {node_name(node) for node in seen.nodes}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            raise GraphError(
                f"excluded node {name!r}",
                expected="a node of the graph",
                cure=f"nearest names: {', '.join(near) or '-'}",
            )


def _layer(seen: GraphView, node: onnx.NodeProto, exclude: Collection[str], runtime: Runtime) -> LayerPlacement:
    name = node_name(node)
    reason = "excluded" if name in exclude else _obstacle(seen, node)
    if not reason and runtime == "onnxruntime-cpu":
        reason = _obstacle_on_cpu(seen, node)
    return LayerPlacement(node=name, op_type=node.op_type, is_quantized=not reason, reason=reason)


def _obstacle(seen: GraphView, node: onnx.NodeProto) -> str:
    """Say what keeps a layer in float; "" if nothing does."""
    if node.input[0] in seen.constants:
        return "its data input is constant"
    weight = seen.constants.get(node.input[1])
    if weight is None:
        return "" if node.op_type in {"Gemm", "MatMul"} else "its weight is computed at run time"
    if weight.dtype != np.float32:
        return f"its weight is {weight.dtype}, not float32"
    if node.op_type == "MatMul" and weight.ndim != _MATRIX_RANK:
        return f"its weight has rank {weight.ndim}, not {_MATRIX_RANK}"
    if node.op_type == "ConvTranspose" and attribute(node, "group", 1) != 1:
        return "the output channels of a grouped transposed convolution share no axis of the weight"
    return ""


def _obstacle_on_cpu(seen: GraphView, node: onnx.NodeProto) -> str:
    """Say why ONNX Runtime's CPU would compute a layer in float all the same; "" if it would not."""
    if node.op_type == "ConvTranspose":
        return "ONNX Runtime's CPU has no INT8 kernel for it"
    if node.op_type == "Conv" and _end(seen, node) in {item.name for item in seen.graph.output}:
        return "it makes an output of the network, and ONNX Runtime's INT8 kernel makes codes"
    return ""


def _end(seen: GraphView, conv: onnx.NodeProto) -> str:
    """Return the tensor whose codes a convolution's kernel writes: its own, or that of the ReLU behind it."""
    tensor = str(conv.output[0])
    readers = [node for node, _ in seen.readers.get(tensor, ())]
    if len(readers) == 1 and readers[0].op_type in _CUT_AT_ZERO and _is_non_negative(seen, readers[0].output[0]):
        return str(readers[0].output[0])
    return tensor


def _ends(seen: GraphView, quantized: Collection[str], exclude: Collection[str]) -> frozenset[str]:
    """Return the tensors that kernels must write as codes, unless an excluded node or whoever runs it reads floats.

    In them end convolutions, linear layers with a bias, which is added to codes, and Sigmoids behind these that scale.
    """
    bare = {item.name for item in seen.graph.output}
    bare.update(name for node in seen.nodes if node_name(node) in exclude for name in node.input)
    layers = (node for node in seen.nodes if node.op_type in LAYERS and node.output[0] in quantized)
    ends = {_end(seen, node) for node in layers if node.op_type == "Conv" or node.input[2:]}
    gates = {node.output[0] for node in seen.nodes if node.op_type == "Sigmoid" and node.input[0] in ends - bare}
    scaling = {tensor for tensor in gates if {node.op_type for node, _ in seen.readers.get(tensor, ())} == {"Mul"}}
    return frozenset(tensor for tensor in (ends | scaling) - bare if tensor in seen.readers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edges:
    """The rules for one reading of one tensor by one node.

    `quantized` holds the INT8 layers by their first output; `for_cpu` says that the kernels are ONNX Runtime's, whose
    convolutions write the codes of the tensors in `ends`.
    """

    view: GraphView
    quantized: Collection[str]
    exclude: Collection[str]
    for_cpu: bool
    ends: frozenset[str]
    depths: Mapping[str, int]

    def has_pair(self, tensor: str) -> bool:
        return tensor in self.ends or any(self.needs(*read) for read in self.of(tensor))

    def of(self, tensor: str) -> tuple[tuple[onnx.NodeProto, int], ...]:
        """Return the nodes that read a tensor, with the input they read it by."""
        return self.view.readers.get(tensor, ())

    def readers(self, tensor: str) -> tuple[Reader, ...]:
        """Return the readings of a tensor that go through its Q/DQ pair."""
        reads = [(node, index) for node, index in self.of(tensor) if self.takes(tensor, node, index)]
        return tuple(Reader(node=node.output[0], index=index) for node, index in reads)

    def needs(self, node: onnx.NodeProto, index: int) -> bool:
        """Whether this reading is why a tensor is quantized."""
        if node_name(node) in self.exclude:
            return False
        if node.op_type in LAYERS:
            return index <= 1 and node.output[0] in self.quantized
        if node.op_type == "Add":
            residual = self.residual(node)
            return residual is not None and (self.for_cpu or index == residual)
        if node.op_type == "Concat":
            return self.joins(node)
        return node.op_type in _POOLS

    def joins(self, concat: onnx.NodeProto) -> bool:
        """Whether a Concat runs in INT8: what it makes is read so."""
        return any(self.needs(*read) for read in self.of(concat.output[0]))

    def takes(self, tensor: str, node: onnx.NodeProto, index: int) -> bool:
        """Whether this reading goes through the Q/DQ pair, given that the tensor has one."""
        if tensor in self.ends or self.needs(node, index):
            return True
        if node.op_type in _FLOAT_READERS or node_name(node) in self.exclude:
            return False
        return not (self.view.made_by(tensor) in LAYERS and node.op_type in FUSED_BEHIND_LAYER)

    def residual(self, add: onnx.NodeProto) -> int | None:
        """Return which input of an Add is its residual one; None where no INT8 layer stands before it to fuse with."""
        if any(tensor in self.view.constants for tensor in add.input):
            return None
        fusable = [index for index, tensor in enumerate(add.input) if tensor in self.quantized]
        if not fusable:
            return None
        # A layer read by others too cannot vanish into the Add's kernel; a longer branch is the block's main one.
        main = max(fusable, key=lambda index: (len(self.of(add.input[index])) == 1, self.depths[add.input[index]]))
        return 1 - main


def _depths(seen: GraphView) -> dict[str, int]:
    depths: dict[str, int] = {}
    for node in seen.nodes:
        depth = 1 + max((depths.get(source, 0) for source in node.input), default=0)
        depths.update(dict.fromkeys(node.output, depth))
    return depths


def _tensors_in_order(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield every tensor that changes with the image."""
    constant = {item.name for item in graph.initializer}
    constant.update(node.output[0] for node in graph.node if node.op_type == "Constant")
    for item in graph.input:
        if item.name not in constant:
            yield item.name
    for node in graph.node:
        yield from (tensor for tensor in node.output if tensor and tensor not in constant)


def _range_source(seen: GraphView, tensor: str, ranges: Mapping[str, str]) -> str:
    """Return the quantized tensor that this one's values come from unchanged, or the tensor itself."""
    source = tensor
    while (maker := seen.maker.get(source)) is not None and _only_moves(seen, maker):
        source = maker.input[0]
        if source in ranges:
            return ranges[source]
    return tensor


def _only_moves(seen: GraphView, node: onnx.NodeProto) -> bool:
    """Whether every value of a node's output is a value of its input, or zero."""
    if node.op_type == "Pad" and attribute(node, "mode", b"constant") == b"constant":
        fill = next(iter(node.input[2:3]), "")
        return not fill or (fill in seen.constants and not seen.constants[fill].any())
    return node.op_type in _MOVERS


def _is_non_negative(seen: GraphView, tensor: str) -> bool:
    """Whether a tensor's maker lets nothing below zero through."""
    maker = seen.maker.get(tensor)
    if maker is None:
        return False
    if maker.op_type == "Clip":
        lowest = seen.constants.get(next(iter(maker.input[1:2]), ""))
        return lowest is not None and bool(lowest >= 0)
    if maker.op_type == "Concat":
        return all(_is_non_negative(seen, part) for part in maker.input)
    if maker.op_type in _KEEP_SIGN and (maker.op_type != "Pad" or _only_moves(seen, maker)):
        return _is_non_negative(seen, maker.input[0])
    return maker.op_type in {"Relu", "Sigmoid"}


def _weights(seen: GraphView, quantized: Collection[str]) -> Iterator[WeightPoint]:
    """Yield one point for each weight and axis, in the order of the first layer that reads it."""
    readers: dict[tuple[str, int], list[Reader]] = {}
    for node in seen.nodes:
        if node.output[0] in quantized and node.input[1] in seen.constants:
            reader = Reader(node=node.output[0], index=1)
            readers.setdefault((node.input[1], output_axis(node)), []).append(reader)
    for (tensor, axis), found in readers.items():
        yield WeightPoint(tensor=tensor, axis=axis, readers=tuple(found))
