"""Which nodes compute in half precision, and whether such a graph still says what its float graph says.

ONNX Runtime's CPU engine has few FP16 kernels and hardly a BF16 one, so the graph is run as a GPU computes it: every
operator in FP32, every tensor that is half rounded to the half type.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper, shape_inference

from trtbench.graph.reference import run_reference
from trtbench.graph.view import LAYERS, LEVELS, QUANTIZERS, WITHOUT_BF16, element_types

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from trtbench.graph.view import GraphView
    from trtbench.precision import HalfType


_BIAS = 2  # which input of a layer
# What PyTorch's autocast computes in FP32 ("CUDA Ops that can autocast to float32"): sums, norms and exponentials leave
# FP16's range on the way to a result inside it. Means over height and width are GlobalAveragePool here, and not listed.
SENSITIVE = frozenset(
    {
        "CumSum",
        "Exp",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "Pow",
        "Reciprocal",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Softmax",
        "Softplus",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfFormat:
    """A half-precision format: its type in ONNX and NumPy, its largest and its smallest normal number."""

    element: int
    numpy: np.dtype[Any]
    spelling: str
    largest: float
    smallest_normal: float
    unit_roundoff: float


def _format(element: int, numpy_type: Any, spelling: str) -> HalfFormat:
    limits = ml_dtypes.finfo(numpy_type)  # type: ignore[no-untyped-call]  # the package has no types for it
    return HalfFormat(
        element=element,
        numpy=np.dtype(numpy_type),
        spelling=spelling,
        largest=float(limits.max),
        smallest_normal=float(limits.smallest_normal),
        unit_roundoff=float(limits.eps) / 2,
    )


FORMATS: Mapping[HalfType, HalfFormat] = {
    "fp16": _format(TensorProto.FLOAT16, np.float16, "tensor(float16)"),
    "bf16": _format(TensorProto.BFLOAT16, ml_dtypes.bfloat16, "tensor(bfloat16)"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operands:
    """The inputs and outputs of a node, by index, that take the half type."""

    inputs: frozenset[int]
    outputs: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfPlan:
    """What each node that touches floats becomes: `halves` by first output tensor, `kept` by it too, with the reason.

    Q/DQ nodes and casts stand in neither count: `computing` lists the first outputs of the nodes that compute.
    """

    halves: Mapping[str, Operands]
    kept: Mapping[str, str]
    computing: tuple[str, ...]


def plan_half(seen: GraphView, types: Mapping[str, int], *, dtype: HalfType) -> HalfPlan:
    """Decide for every node.

    Args:
        seen: the graph, of the opset it will have.
        types: the element type of every tensor.
        dtype: the half format.
    """
    halves: dict[str, Operands] = {}
    kept: dict[str, str] = {}
    # Backwards, since a Q/DQ pair is what its readers are.
    for node in reversed(seen.nodes):
        if node.op_type == "Cast" or not any(types.get(name) == TensorProto.FLOAT for name in _tensors(node)):
            continue
        key = node.output[0]
        operands = _operands(seen, node, types, dtype=dtype)
        if node.op_type in QUANTIZERS:
            readers = [reader.output[0] for reader, _ in seen.readers.get(key, ())]
            reason = "all that reads it stays in FP32" if readers and kept.keys() >= set(readers) else ""
        else:
            reason = _reason(seen, node, dtype=dtype)
        if not reason and operands is None:
            reason = f"{node.op_type} of opset {seen.opset} takes no {dtype.upper()}"
        if reason or operands is None:
            kept[key] = reason
        else:
            halves[key] = operands
    order = [node.output[0] for node in seen.nodes if node.op_type not in QUANTIZERS]
    return HalfPlan(
        halves=halves,
        kept=kept,
        computing=tuple(key for key in order if key in halves or key in kept),
    )


def _tensors(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    yield from node.output


def _operands(seen: GraphView, node: onnx.NodeProto, types: Mapping[str, int], *, dtype: HalfType) -> Operands | None:
    """Return which float operands the operator's definition lets be half; None where one of them must not be."""
    if node.domain not in {"", "ai.onnx"} or not defs.has(node.op_type, seen.opset):
        return None
    schema = defs.get_schema(node.op_type, seen.opset)
    allowed = {item.type_param_str: set(item.allowed_type_strs) for item in schema.type_constraints}
    chosen: list[frozenset[int]] = []
    for names, formal in ((node.input, schema.inputs), (node.output, schema.outputs)):
        free: set[int] = set()
        for index, name in enumerate(names):
            if types.get(name) != TensorProto.FLOAT:
                continue
            spelling = formal[min(index, len(formal) - 1)].type_str
            if spelling not in allowed:  # written as tensor(float): this operand is never half
                continue
            if FORMATS[dtype].spelling not in allowed[spelling]:
                return None
            free.add(index)
        chosen.append(frozenset(free))
    return Operands(inputs=chosen[0], outputs=chosen[1]) if any(chosen) else None


def _reason(seen: GraphView, node: onnx.NodeProto, *, dtype: HalfType) -> str:
    if node.op_type in SENSITIVE:
        return f"{node.op_type} sums or raises to powers: its range is FP32's"
    if dtype == "bf16" and node.op_type in WITHOUT_BF16:
        return f"TensorRT's parser takes no {node.op_type} in BF16"
    for index, name in enumerate(node.input):
        if found := _out_of_range(seen, name, FORMATS[dtype], is_bias=node.op_type in LAYERS and index == _BIAS):
            return found
    return ""


def _out_of_range(seen: GraphView, tensor: str, half: HalfFormat, *, is_bias: bool) -> str:
    """Say why a constant, or a scale of a quantized operand, does not fit the format; "" where it does.

    Single small values of a large tensor round to multiples of the smallest subnormal number, which is far below the
    rounding of the large ones; only a tensor that is small as a whole loses what it means. A bias is added to far
    larger sums, and may be small.
    """
    maker = seen.maker.get(tensor)
    is_scale = maker is not None and maker.op_type == "DequantizeLinear"
    name = maker.input[1] if maker is not None and is_scale else tensor
    value = seen.constants.get(name)
    if value is None or value.dtype != np.float32 or not value.size:
        return ""
    finite = np.abs(value[np.isfinite(value)], dtype=np.float64)
    largest = float(finite.max(initial=0)) * (LEVELS if is_scale else 1)
    if largest > half.largest:
        return f"{name} reaches {largest:.3g}, beyond {half.largest:.3g}"
    smallest_kept = half.smallest_normal * (LEVELS if is_scale else 1)
    if 0 < largest < smallest_kept and not is_bias:
        return f"{name} reaches {largest:.3g} only, below the {smallest_kept:.3g} that keep their precision"
    return ""


def has_subgraph(node: onnx.NodeProto) -> bool:
    """Whether a node runs a graph of its own, which may read tensors of this one by name."""
    return any(item.HasField("g") or item.graphs for item in node.attribute)


# Higham & Mary 2019, "A New Approach to Probabilistic Rounding Error Analysis", Theorem 2.4: n roundings grow an error
# by more than lambda sqrt(n) u with probability 2 exp(-lambda^2 / 2); 4 leaves 7 in 10,000.
_LAMBDA = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfCheck:
    """The largest difference to the graph before as a share of its largest logit, and what rounding may amount to."""

    error: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether rounding explains the difference; NaN is no difference that rounding explains."""
        return self.error <= self.tolerance


def check_half(
    proto: onnx.ModelProto, half: onnx.ModelProto, inputs: Mapping[str, NDArray[Any]], *, dtype: HalfType
) -> HalfCheck:
    """Compare a converted graph with the graph it was converted from, both run in true arithmetic.

    A Q/DQ graph that quantization hurts much is another matter: half precision moves values over the borders of codes,
    which moves its logits about as far as quantization itself did. Compare such a one with the float graph.

    Args:
        proto: the graph before.
        half: the graph after.
        inputs: one array for each graph input.
        dtype: the half format.

    Raises:
        GraphError: ONNX Runtime refuses a graph or the inputs.
    """
    before = run_reference(proto, inputs)
    after = run_reference(rounding_graph(half), inputs)
    name = next(iter(before))
    error = float(np.abs(after[name] - before[name]).max() / np.abs(before[name]).max(initial=1e-30))
    return HalfCheck(error=error, tolerance=tolerance(half, dtype=dtype))


def tolerance(half: onnx.ModelProto, *, dtype: HalfType) -> float:
    """Return what the roundings of a graph's half tensors may add up to, as a share of the result.

    In a Q/DQ graph a value that half precision moves over the border of two codes takes the other one, so that each
    quantized tensor may count as rounded anew: by half a code of 127.
    """
    types, element = element_types(half.graph), FORMATS[dtype].element
    rounded = sum(kind == element for kind in types.values())
    quantized = sum(node.op_type == "QuantizeLinear" for node in half.graph.node)
    return _LAMBDA * (math.sqrt(rounded) * FORMATS[dtype].unit_roundoff + math.sqrt(quantized) / (2 * LEVELS))


def rounding_graph(half: onnx.ModelProto) -> onnx.ModelProto:
    """Return an FP32 graph that rounds to the half type wherever the given one has a half tensor."""
    types = element_types(shape_inference.infer_shapes(half).graph)
    halves = {name for name, kind in types.items() if kind in {item.element for item in FORMATS.values()}}
    result = deepcopy(half)
    for field in (result.graph.node, result.graph.value_info):
        del field[:]
    for item in result.graph.initializer:
        if item.name in halves:
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float32), item.name))
    for node in half.graph.node:
        result.graph.node.extend(_rounding(node, halves, types))
    return result


def _rounding(node: onnx.NodeProto, halves: set[str], types: Mapping[str, int]) -> Iterator[onnx.NodeProto]:
    """Yield a node that computes in FP32, and the two casts that round each of its half outputs."""
    copy = deepcopy(node)
    rounded = [(index, name) for index, name in enumerate(node.output) if name in halves]
    for index, name in rounded:
        copy.output[index] = f"{name}.exact"
    if node.op_type == "Cast" and rounded:
        copy = helper.make_node("Identity", list(node.input), [f"{node.output[0]}.exact"])
    yield copy
    for _, name in rounded:
        yield helper.make_node("Cast", [f"{name}.exact"], [f"{name}.rounded"], to=types[name])
        yield helper.make_node("Cast", [f"{name}.rounded"], [name], to=TensorProto.FLOAT)
