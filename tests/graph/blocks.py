"""The network of tests of graphs: a residual block of four channels of 6 x 6 pixels, and its classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_RNG = np.random.default_rng(0)
CONV = "Conv<pads = [1, 1, 1, 1]>"
BLOCK = f"""
    stem = {CONV}(input, w, b)
    x = Relu(stem)
    a = {CONV}(x, w2, b)
    sum = Add(a, x)
    y = Relu(sum)
    pooled = GlobalAveragePool(y)
    flat = Flatten(pooled)
    out = Gemm<transB = 1>(flat, fc)
"""
WEIGHTS: Mapping[str, NDArray[np.float32]] = {
    "w": _RNG.normal(size=(4, 4, 3, 3)).astype(np.float32),
    "w2": _RNG.normal(size=(4, 4, 3, 3)).astype(np.float32),
    "b": _RNG.normal(size=4).astype(np.float32),
    "fc": _RNG.normal(size=(3, 4)).astype(np.float32),
}


def model_of(body: str = BLOCK, *, opset: int = 20, **constants: Any) -> onnx.ModelProto:
    """Return a graph of these nodes; keywords add to the weights, of which it has those that are read."""
    signature = "net (float[batch, 4, 6, 6] input) => (float[batch, n] out)"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> {signature} {{ {body} }}')
    model.graph.output[0].type.tensor_type.ClearField("shape")
    read = {name for node in model.graph.node for name in node.input}
    for name, value in {**WEIGHTS, **constants}.items():
        if name in read:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return model


def images_of(count: int = 8) -> NDArray[np.float32]:
    """Return images of noise, always the same."""
    return np.random.default_rng(1).standard_normal((count, 4, 6, 6), dtype=np.float32)
