from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trtbench.engines.onnxruntime import iterate_activations, sessions
from trtbench.engines.onnxruntime.sessions import start
from trtbench.errors import EngineError
from trtbench.graph.reference import onnxruntime, run_reference

if TYPE_CHECKING:
    import pytest
    from numpy.typing import NDArray

_WIDTH = 17  # no block of 8 or of 16 channels
_INNER = ("down",)


def _residual_block() -> onnx.ModelProto:
    """Return what PyTorch's older exporter makes of a block with a downsampling shortcut: the shortcut first."""
    weights: list[onnx.TensorProto] = []

    def convolution(source: str, name: str, channels: int, *, side: int = 3, stride: int = 1) -> onnx.NodeProto:
        weight: NDArray[np.float32] = np.full((_WIDTH, channels, side, side), 0.1, np.float32)
        weights.append(numpy_helper.from_array(weight, f"{name}.weight"))
        weights.append(numpy_helper.from_array(np.arange(_WIDTH, dtype=np.float32), f"{name}.bias"))
        return helper.make_node(
            "Conv",
            [source, f"{name}.weight", f"{name}.bias"],
            [name],
            name=name,
            strides=[stride] * 2,
            pads=[side // 2] * 4,
        )

    nodes = [
        convolution("input", "stem", 3),
        helper.make_node("Relu", ["stem"], ["stem.relu"]),
        convolution("stem.relu", "down", _WIDTH, side=1, stride=2),
        convolution("stem.relu", "first", _WIDTH, stride=2),
        helper.make_node("Relu", ["first"], ["first.relu"]),
        convolution("first.relu", "second", _WIDTH),
        helper.make_node("Add", ["second", "down"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["output"]),
    ]
    shapes = (("input", ("n", 3, 8, 8)), ("output", ("n", _WIDTH, 4, 4)))
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes]
    graph = helper.make_graph(nodes, "block", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_the_shortcut_of_an_odd_width_is_an_output() -> None:
    """ONNX Runtime's blocking by channels loses it on CPUs with AVX-512."""
    batch = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)

    found = list(iterate_activations(_residual_block(), _INNER, iter([batch])))

    wanted = run_reference(_residual_block(), {"input": batch}, outputs=_INNER)
    for tensor in _INNER:
        np.testing.assert_allclose(found[0][tensor], wanted[tensor], rtol=1e-5)


def test_what_is_refused_at_the_highest_level_is_computed_one_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on a CPU without AVX-512, where the case above passes at any level."""
    levels = []

    def refusing(ort: Any, graph: bytes, options: Any, *, providers: Any) -> Any:
        levels.append(options.graph_optimization_level)
        if len(levels) == 1:
            raise EngineError("the graph", got="Failed to find node output", cure="none")
        return start(ort, graph, options, providers=providers)

    monkeypatch.setattr(sessions, "start", refusing)
    batch = np.zeros((1, 3, 8, 8), np.float32)

    assert list(next(iterate_activations(_residual_block(), _INNER, iter([batch])))) == ["down"]

    known = onnxruntime().GraphOptimizationLevel
    assert levels == [known.ORT_ENABLE_ALL, known.ORT_ENABLE_EXTENDED]
