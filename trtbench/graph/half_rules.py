"""Which nodes compute in half precision, which of their operands are half, and why the others stay in FP32. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, defs

from trtbench.errors import GraphError
from trtbench.graph.view import LAYERS, LEVELS, QUANTIZERS, WITHOUT_BF16, node_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import onnx

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


def plan_half(seen: GraphView, types: Mapping[str, int], *, dtype: HalfType, keep: Collection[str] = ()) -> HalfPlan:
    """Decide for every node.

    Args:
        seen: the graph, of the opset it will have.
        types: the element type of every tensor.
        dtype: the half format.
        keep: names of nodes that stay in FP32.

    Raises:
        GraphError: `keep` names a node that is not there.
    """
    _require_known(seen, keep)
    halves: dict[str, Operands] = {}
    kept: dict[str, str] = {}
    # Backwards, since a Q/DQ pair is what its readers are.
    for node in reversed(seen.nodes):
        if node.op_type == "Cast" or not any(types.get(name) == TensorProto.FLOAT for name in _tensors(node)):
            continue
        key = node.output[0]
        operands = _operands(seen, node, types, dtype=dtype)
        if node.op_type in QUANTIZERS:
            reason = "" if _is_read_in_half(seen, key, kept) else "all that reads it stays in FP32"
        else:
            reason = _reason(seen, node, dtype=dtype, keep=keep)
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


def _require_known(seen: GraphView, keep: Collection[str]) -> None:
    if unknown := sorted(set(keep) - {node_name(node) for node in seen.nodes}):
        raise GraphError(
            f"nodes to keep in FP32: {', '.join(unknown[:5])}",
            expected="names of nodes of the graph",
            got="none of that name",
            cure="name them as `trtbench inspect` or Netron shows them",
        )


def _tensors(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    yield from node.output


def _is_read_in_half(seen: GraphView, tensor: str, kept: Mapping[str, str]) -> bool:
    readers = seen.readers.get(tensor, ())
    return not readers or any(node.output[0] not in kept for node, _ in readers)


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


def _reason(seen: GraphView, node: onnx.NodeProto, *, dtype: HalfType, keep: Collection[str]) -> str:
    if node_name(node) in keep:
        return "asked for"
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
