"""A Q/DQ graph as x86 CPUs without VNNI compute it: pairs of products added in 16 bits, saturating. Pure.

The instruction is VPMADDUBSW (Intel, "64 and IA-32 Architectures Software Developer's Manual", vol. 2): it multiplies
unsigned by signed bytes and adds neighbours to an int16 that saturates. ONNX Runtime's kernels feed it the codes of one
output position in the order (row, column, channel), and signed codes shifted by 128. Everything but these sums is
computed as the standard says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from trtbench.graph.view import GraphView, attribute, view

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

DOMAIN = "trtbench"
_INT16 = np.iinfo(np.int16)
_SIGNED_SHIFT = 128  # int8 codes become uint8 ones with this zero point
_LARGEST_CODE = 255


def saturating_matmul(codes: NDArray[np.uint8], weights: NDArray[np.int8]) -> tuple[NDArray[np.int64], int]:
    """Multiply uint8 (positions, K) by int8 (K, channels), each pair of neighbours along K added in saturating int16.

    Returns:
        The sums, int64 (positions, channels), and how many pairs saturated.
    """
    exact = np.rint(codes.astype(np.float64) @ weights.astype(np.float64)).astype(np.int64)
    even = len(weights) // 2 * 2  # a last, single product fits int16
    first, second = weights[0:even:2].astype(np.int32), weights[1:even:2].astype(np.int32)
    # Only pairs of the same sign whose magnitudes are large enough can leave int16 at all.
    can = (np.sign(first) == np.sign(second)) & (_LARGEST_CODE * np.abs(first + second) > _INT16.max)
    saturated = 0
    for pair in np.flatnonzero(can.any(axis=1)):
        channels = np.flatnonzero(can[pair])
        left, right = (codes[:, 2 * pair + offset, None].astype(np.int32) for offset in (0, 1))
        sums = left * first[pair, channels] + right * second[pair, channels]
        lost = sums - np.clip(sums, _INT16.min, _INT16.max)
        saturated += int(np.count_nonzero(lost))
        exact[:, channels] -= lost
    return exact, saturated


def saturating_graph(quantized: onnx.ModelProto, *, layers: Sequence[str]) -> onnx.ModelProto:
    """Return the graph with these layers (by first output) replaced by ones that saturate; for `run_saturating`."""
    seen = view(quantized)
    graph = onnx.ModelProto()
    graph.CopyFrom(quantized)
    del graph.graph.node[:]
    for node in quantized.graph.node:
        graph.graph.node.append(_replaced(seen, node) if node.output[0] in layers else node)
    graph.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return graph


def run_saturating(
    graph: onnx.ModelProto, batches: Iterator[Mapping[str, NDArray[Any]]]
) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Run a graph from `saturating_graph` in NumPy; yield each batch's first output and how many pairs saturated."""
    evaluator = ReferenceEvaluator(graph, new_ops=[SaturatingConv, SaturatingGemm])
    for inputs in batches:
        _Counter.pairs = 0
        (logits, *_) = evaluator.run(None, dict(inputs))
        yield np.asarray(logits, np.float32), _Counter.pairs


class _Counter:
    """What an evaluation counts beside its tensors: onnx hands an operator no other place."""

    pairs: ClassVar[int] = 0


class SaturatingConv(OpRun):
    """Conv on codes: (codes, scale, zero point, weight codes, weight scales, bias)."""

    op_domain = DOMAIN

    def _run(  # noqa: PLR0917  onnx passes inputs by position
        self,
        codes: Any,
        scale: Any,
        zero: Any,
        weights: Any,
        scales: Any,
        bias: Any = None,
        *,
        group: int = 1,
        pads: Any = None,
        strides: Any = None,
    ) -> tuple[NDArray[np.float32]]:
        unsigned, shift = _unsigned(codes, zero)
        patches = _patches(
            unsigned, weights.shape[2:], pads=pads or (0, 0, 0, 0), strides=strides or (1, 1), fill=shift
        )
        batch, rows, columns = patches.shape[:3]
        outputs, inputs = len(weights) // group, weights.shape[1]
        parts = []
        for index in range(group):
            part = patches[..., index * inputs : (index + 1) * inputs].reshape(batch * rows * columns, -1)
            kernel = weights[index * outputs : (index + 1) * outputs].transpose(2, 3, 1, 0).reshape(-1, outputs)
            parts.append(_sums(part, kernel, shift))
        found = _scaled(np.concatenate(parts, axis=1), scale, scales, bias)
        return (found.reshape(batch, rows, columns, -1).transpose(0, 3, 1, 2),)


class SaturatingGemm(OpRun):
    """Gemm on codes: (codes, scale, zero point, weight codes, weight scales, bias)."""

    op_domain = DOMAIN

    def _run(  # noqa: PLR0917  onnx passes inputs by position
        self,
        codes: Any,
        scale: Any,
        zero: Any,
        weights: Any,
        scales: Any,
        bias: Any = None,
        *,
        transB: int = 0,  # noqa: N803  ONNX's name
    ) -> tuple[NDArray[np.float32]]:
        unsigned, shift = _unsigned(codes, zero)
        return (_scaled(_sums(unsigned, weights.T if transB else weights, shift), scale, scales, bias),)


def _replaced(seen: GraphView, node: onnx.NodeProto) -> onnx.NodeProto:
    data, weight = (seen.maker[tensor] for tensor in node.input[:2])
    inputs = [*data.input[:3], *weight.input[:2], *node.input[2:3]]
    kept = ("group", "pads", "strides") if node.op_type == "Conv" else ("transB",)
    attributes = {name: attribute(node, name) for name in kept if attribute(node, name) is not None}
    return helper.make_node(
        f"Saturating{node.op_type}", inputs, list(node.output), name=node.name, domain=DOMAIN, **attributes
    )


def _unsigned(codes: NDArray[Any], zero: NDArray[Any]) -> tuple[NDArray[np.uint8], int]:
    """Return codes as uint8, and their zero point."""
    if codes.dtype == np.uint8:
        return codes, int(zero)
    return (codes.astype(np.int16) + _SIGNED_SHIFT).astype(np.uint8), int(zero) + _SIGNED_SHIFT


def _patches(
    codes: NDArray[np.uint8], kernel: tuple[int, int], *, pads: Sequence[int], strides: Sequence[int], fill: int
) -> NDArray[np.uint8]:
    """Return what each output position sees: (batch, rows, columns, kernel rows, kernel columns, channels).

    The channels come last but for slicing by group, so groups are cut along the last axis.
    """
    top, left, bottom, right = pads
    padded = np.pad(codes, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(2, 3))
    return np.asarray(windows[:, :, :: strides[0], :: strides[1]].transpose(0, 2, 3, 4, 5, 1))


def _sums(codes: NDArray[np.uint8], weights: NDArray[np.int8], shift: int) -> NDArray[np.int64]:
    found, saturated = saturating_matmul(codes, weights)
    _Counter.pairs += saturated
    return np.asarray(found - shift * weights.sum(axis=0, dtype=np.int64))


def _scaled(sums: NDArray[np.int64], scale: Any, scales: Any, bias: Any) -> NDArray[np.float32]:
    values = sums * (np.float64(scale) * np.asarray(scales, np.float64).reshape(-1))
    return (values if bias is None else values + np.asarray(bias, np.float64)).astype(np.float32)
