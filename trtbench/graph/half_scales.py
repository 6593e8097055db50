"""FP16 scales of a Q/DQ graph, and weights that hit their codes exactly. Pure.

FP16 keeps 11 bits of a scale, so codes are those of the rounded scale. How a runtime divides FP16 weights by FP16
scales when it folds them is its own affair: a weight that is already code x scale gives the same code either way, for
its own rounding and the division's move it by less than 127 x 2^-10 < 0.13 of a code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.graph.view import QUANTIZERS, attribute
from trtbench.graph.weights import LEVELS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import onnx
    from numpy.typing import NDArray

    from trtbench.graph.view import GraphView

SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)  # 2^-14; below it a scale loses bits or becomes 0


def half_scale(scale: NDArray[Any]) -> NDArray[np.float16]:
    """Round scales to FP16, raised to its smallest normal number: what underflows is a dead channel's."""
    raised: NDArray[np.float16] = np.maximum(scale, SMALLEST_NORMAL).astype(np.float16)
    return raised


def half_weight(weight: NDArray[Any], scale: NDArray[Any], *, axis: int | None) -> NDArray[np.float16]:
    """Return code x scale in FP16, with codes in [-127, 127] of the FP16 scale.

    Args:
        weight: float32, of any shape.
        scale: positive FP16, one, or one for each slice along `axis`.
        axis: None for one scale.
    """
    shape = [1] * weight.ndim
    if axis is not None and scale.size > 1:
        shape[axis] = -1
    step = scale.astype(np.float64).reshape(shape if scale.size > 1 else ())
    codes = np.clip(np.rint(weight.astype(np.float64) / step), -LEVELS, LEVELS)
    return (codes * step).astype(np.float16)


def half_constants(seen: GraphView, *, quantizers: Collection[str]) -> Mapping[tuple[str, int], NDArray[np.float16]]:
    """Return the FP16 value of each constant that a Q or DQ node reads, by its first output and the input's index.

    Args:
        seen: the graph.
        quantizers: the first outputs of the nodes that become half; others are passed over.
    """
    found: dict[tuple[str, int], NDArray[np.float16]] = {}
    for node in seen.nodes:
        if node.op_type not in QUANTIZERS or node.output[0] not in quantizers or node.input[1] not in seen.constants:
            continue
        scale = half_scale(seen.constants[node.input[1]])
        found[node.output[0], 1] = scale
        if node.op_type == "QuantizeLinear" and node.input[0] in seen.constants:
            found[node.output[0], 0] = half_weight(seen.constants[node.input[0]], scale, axis=_axis(node))
    return found


def _axis(node: onnx.NodeProto) -> int:
    return int(attribute(node, "axis", 1))
