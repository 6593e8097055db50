"""Which layers have the N:M zeros that sparse tensor cores skip. Pure.

Of every M consecutive input channels, for each output channel and each place of the kernel, at most N weights are not
zero (Mishra et al. 2021, "Accelerating Sparse Deep Neural Networks"; TensorRT's developer guide, "Sparsity"). Whether a
sparse kernel is then used is TensorRT's choice: it times both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trtbench.graph.view import LAYERS, attribute, node_name, view

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from trtbench.graph.view import GraphView

_PASSED_THROUGH = frozenset({"Cast", "DequantizeLinear", "QuantizeLinear"})  # zero stays zero in each
_WEIGHT = 1  # which input of a layer


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseLayers:
    """The layers that qualify, and the others with the reason, both by node name in the order of the graph."""

    qualifying: tuple[str, ...]
    others: tuple[tuple[str, str], ...]


def sparse_layers(proto: onnx.ModelProto, *, pattern: tuple[int, int] = (2, 4)) -> SparseLayers:
    """Sort a graph's layers by whether their weights are N:M sparse along the input channels.

    Args:
        proto: a float, half or Q/DQ graph, weights inside.
        pattern: N and M.
    """
    seen = view(proto)
    reasons = {node_name(node): _reason(seen, node, pattern=pattern) for node in seen.nodes if node.op_type in LAYERS}
    return SparseLayers(
        qualifying=tuple(name for name, reason in reasons.items() if not reason),
        others=tuple((name, reason) for name, reason in reasons.items() if reason),
    )


def _reason(seen: GraphView, node: onnx.NodeProto, *, pattern: tuple[int, int]) -> str:
    """Say why a layer does not qualify; "" where it does."""
    if node.op_type == "ConvTranspose":
        return "a transposed convolution has no sparse kernel"
    if attribute(node, "group", 1) > 1:
        return "a grouped convolution has no sparse kernel"
    weight = seen.constants.get(_root(seen, node.input[_WEIGHT]))
    if weight is None:
        return "its weights are computed at run time"
    kept, group = pattern
    rows = np.moveaxis(weight, _input_axis(node, weight), -1)
    if rows.shape[-1] % group:
        return f"{rows.shape[-1]} input channels, no multiple of {group}"
    filled = np.count_nonzero(rows.reshape(-1, group), axis=1)
    too_full = int((filled > kept).sum())
    if too_full:
        return f"{too_full} of {filled.size} groups of {group} input channels hold more than {kept} nonzero weights"
    return ""


def _root(seen: GraphView, tensor: str) -> str:
    """Return the tensor that a weight comes from, behind casts and a Q/DQ pair."""
    while tensor not in seen.constants and seen.made_by(tensor) in _PASSED_THROUGH:
        tensor = seen.maker[tensor].input[0]
    return tensor


def _input_axis(node: onnx.NodeProto, weight: NDArray[np.generic]) -> int:
    """Return the axis of the products that are summed: KCRS for a convolution, KN for a matrix unless transposed."""
    if node.op_type == "Conv":
        return 1
    return weight.ndim - 1 if attribute(node, "transB", 0) else weight.ndim - 2
