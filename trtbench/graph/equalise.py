"""Cross-layer equalisation: move magnitude between neighbouring layers so that every channel uses int8 alike. Pure.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), section 4.1. Between two
layers with nothing but a ReLU in between, dividing output channel i of the first by s_i and multiplying input channel i
of the second by it changes nothing, as ReLU(s x) = s ReLU(x) for s > 0. A Clip at 6 has no such property: where it
stands between the two it becomes a ReLU, as in the paper (section 5.1.1), which does change the network.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from trtbench.graph.view import GraphView, attribute, node_name, view

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDS = 40  # at most; a chain of three layers settles in about ten
_SETTLED = 1e-3  # of the largest change of a channel, relative


@dataclass(frozen=True, slots=True, kw_only=True)
class Equalised:
    """An equalised graph, the pairs of layers it was done on, and the Clips that became ReLUs."""

    proto: onnx.ModelProto
    pairs: tuple[tuple[str, str], ...]
    clips: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    first: onnx.NodeProto
    between: onnx.NodeProto | None
    second: onnx.NodeProto


def equalise(proto: onnx.ModelProto) -> Equalised:
    """Return the graph with the weight ranges of each pair of neighbouring convolutions made equal, channel by channel.

    Args:
        proto: a float graph, BatchNorm folded; it is not changed.
    """
    equal = deepcopy(proto)
    seen = view(equal)
    pairs = list(_pairs(seen))
    arrays = {name: np.array(seen.constants[name]) for pair in pairs for name in _parameters(pair)}
    for _ in range(_ROUNDS if pairs else 0):
        if max(_balance(pair, arrays) for pair in pairs) < _SETTLED:
            break
    for item in equal.graph.initializer:
        if item.name in arrays:
            item.CopyFrom(numpy_helper.from_array(arrays[item.name], item.name))
    clips = [pair.between for pair in pairs if pair.between is not None and pair.between.op_type == "Clip"]
    for node in clips:
        node.op_type = "Relu"
        del node.input[1:]
    return Equalised(
        proto=equal,
        pairs=tuple((node_name(pair.first), node_name(pair.second)) for pair in pairs),
        clips=tuple(node_name(node) for node in clips),
    )


def _pairs(seen: GraphView) -> list[_Pair]:
    """Return the neighbours: the second alone reads what the first makes, through a ReLU, a Clip from 0, or nothing."""
    outputs = {item.name for item in seen.graph.output}
    found = []
    for node in seen.nodes:
        between, second = None, _only_reader(seen, node.output[0], outputs)
        if second is not None and _keeps_proportion(seen, second):
            between, second = second, _only_reader(seen, second.output[0], outputs)
        if second is None or not (_is_plain(seen, node) and _is_plain(seen, second)):
            continue
        weight = second.input[1]
        is_ungrouped = attribute(second, "group", 1) in {1, len(seen.constants[weight])}  # or depthwise
        if is_ungrouped and seen.readers[weight] == ((second, 1),):
            found.append(_Pair(first=node, between=between, second=second))
    return found


def _only_reader(seen: GraphView, tensor: str, outputs: set[str]) -> onnx.NodeProto | None:
    readers = seen.readers.get(tensor, ())
    return readers[0][0] if len(readers) == 1 and readers[0][1] == 0 and tensor not in outputs else None


def _keeps_proportion(seen: GraphView, node: onnx.NodeProto) -> bool:
    if node.op_type != "Clip":
        return node.op_type == "Relu"
    lowest = seen.constants.get(next(iter(node.input[1:2]), ""))
    return lowest is not None and bool(lowest == 0)


def _is_plain(seen: GraphView, node: onnx.NodeProto) -> bool:
    parameters = list(node.input[1:])
    is_own = all(name in seen.constants and len(seen.readers[name]) == 1 for name in parameters)
    return node.op_type == "Conv" and bool(parameters) and is_own


def _parameters(pair: _Pair) -> list[str]:
    return [*pair.first.input[1:], pair.second.input[1]]


def _balance(pair: _Pair, arrays: dict[str, NDArray[np.float32]]) -> float:
    """Scale one pair to equal ranges, sqrt(r1 r2) for both (the paper's equation 11); return the largest change."""
    first, second = arrays[pair.first.input[1]], arrays[pair.second.input[1]]
    is_depthwise = attribute(pair.second, "group", 1) > 1
    incoming = second if is_depthwise else np.swapaxes(second, 0, 1)
    r1, r2 = (np.abs(weight).reshape(len(weight), -1).max(axis=1).astype(np.float64) for weight in (first, incoming))
    is_alive = (r1 > 0) & (r2 > 0)
    scale = np.sqrt(np.where(is_alive, r1, 1.0) / np.where(is_alive, r2, 1.0))
    for name in pair.first.input[1:]:
        array = arrays[name]
        arrays[name] = (array / scale.reshape(-1, *[1] * (array.ndim - 1))).astype(np.float32)
    channels = 0 if is_depthwise else 1
    shape = [-1 if axis == channels else 1 for axis in range(second.ndim)]
    arrays[pair.second.input[1]] = (second * scale.reshape(shape)).astype(np.float32)
    return float(np.abs(scale - 1).max())
