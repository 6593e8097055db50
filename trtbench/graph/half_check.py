"""Whether a half-precision graph still says what its float graph says, run on the CPU.

ONNX Runtime's CPU engine has few FP16 kernels and hardly a BF16 one, so the graph is run as a GPU computes it: every
operator in FP32, every tensor that is half rounded to the half type.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from trtbench.graph.half_rules import FORMATS
from trtbench.graph.reference import run_reference
from trtbench.graph.view import LEVELS, element_types

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from trtbench.precision import HalfType

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
    result = onnx.ModelProto()
    result.CopyFrom(half)
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
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    rounded = [(index, name) for index, name in enumerate(node.output) if name in halves]
    for index, name in rounded:
        copy.output[index] = f"{name}.exact"
    if node.op_type == "Cast" and rounded:
        copy = helper.make_node("Identity", list(node.input), [f"{node.output[0]}.exact"])
    yield copy
    for _, name in rounded:
        yield helper.make_node("Cast", [f"{name}.exact"], [f"{name}.rounded"], to=types[name])
        yield helper.make_node("Cast", [f"{name}.rounded"], [name], to=TensorProto.FLOAT)
