"""The kinds of what others quantize: `dynamic_int8`, and how little of a CNN that is; and `stripped`."""

from __future__ import annotations

import logging
import math
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from trtbench.compress.method import CompressedGraph, GraphContext
from trtbench.errors import GraphError
from trtbench.graph.qdq import strip_qdq
from trtbench.graph.reference import onnxruntime
from trtbench.graph.view import LAYERS, constants
from trtbench.jsonable import to_jsonable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbench.suite import DynamicInt8Variant, StrippedVariant

_LINEAR = ("MatMul", "Gemm")


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicRecord:
    """What became INT8: linear layers and their weights, of all weights of convolutions and linear layers."""

    layers: int
    weights: int
    total_weights: int

    @property
    def share(self) -> float:
        """The share of the weights that were touched."""
        return self.weights / max(self.total_weights, 1)

    @property
    def summary(self) -> str:
        """What people should know."""
        return (
            f"dynamic INT8 touches {self.weights:,} of {self.total_weights:,} weights ({100 * self.share:.2f} %): "
            "convolutions stay in float"
        )


def quantize(proto: onnx.ModelProto, _config: DynamicInt8Variant, _context: GraphContext) -> CompressedGraph:
    """Quantize the linear layers of a float graph, and say how little that is."""
    quantized, record = quantize_linear(proto)
    facts = {**to_jsonable(record), "share": record.share}
    return CompressedGraph(proto=quantized, facts=facts, notes=(record.summary,))


def strip(proto: onnx.ModelProto, _config: StrippedVariant, _context: GraphContext | None) -> CompressedGraph:
    """Take the Q/DQ pairs that a graph came with out of it, and say what that leaves."""
    found = strip_qdq(proto)
    facts = {"pairs": found.pairs, "codes": found.codes, "clips": found.clips}
    return CompressedGraph(proto=found.proto, facts=facts, notes=(found.note,))


def quantize_linear(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, DynamicRecord]:
    """Quantize the linear layers of a float graph: weights once, activations as they come.

    The source study's `torch.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)`, by ONNX Runtime's
    function of that name: weights int8 per tensor, each activation uint8 by its own minimum and maximum.

    Raises:
        GraphError: there is no linear layer, or ONNX Runtime refuses the graph.
    """
    record = _count(proto)
    if not record.layers:
        raise GraphError("dynamic INT8", expected="a linear layer", got="none", cure="calibrate it: static INT8")
    onnxruntime()  # its door, before its subpackage
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _without_advice():
        path = Path(folder) / "model.onnx"
        try:
            quantize_dynamic(proto, path, op_types_to_quantize=list(_LINEAR), weight_type=QuantType.QInt8)
            quantized = onnx.load(path)
        except Exception as error:  # its exceptions share no base but Exception
            raise GraphError(
                "ONNX Runtime's quantize_dynamic", got=" ".join(str(error).split()), cure="calibrate it: static INT8"
            ) from error
    return quantized, record


def _count(proto: onnx.ModelProto) -> DynamicRecord:
    sizes = {name: math.prod(array.shape) for name, array in constants(proto.graph).items()}
    layers = [node for node in proto.graph.node if node.op_type in LAYERS and node.input[1] in sizes]
    linear = [node for node in layers if node.op_type in _LINEAR]
    return DynamicRecord(
        layers=len(linear),
        weights=sum(sizes[node.input[1]] for node in linear),
        total_weights=sum(sizes[node.input[1]] for node in layers),
    )


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep ONNX Runtime from telling users of ours to run its own pre-processing."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
