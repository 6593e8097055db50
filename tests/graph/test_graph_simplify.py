from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from trtbench.graph.reference import run_reference
from trtbench.graph.simplify import _tail, simplify


def _model(body: str, *, inputs: str = "float[batch, 4, 6, 6] input", opset: int = 20) -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["" : {opset}]> net ({inputs}) => (float[batch, n] out) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def _operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


_EXPORTER_CLUTTER = """
    shape = Shape(input)
    zero = Constant<value = int64 {0}>()
    n = Gather<axis = 0>(shape, zero)
    first = Constant<value = int64[1] {0}>()
    n1 = Unsqueeze(n, first)
    rest = Constant<value = int64[1] {-1}>()
    target = Concat<axis = 0>(n1, rest)
    kept = Identity(input)
    quiet, mask = Dropout(kept)
    flat = Reshape(quiet, target)
    two = Constant<value = float {2.0}>()
    three = Constant<value = float {3.0}>()
    six = Mul(two, three)
    unused = Relu(flat)
    out = Mul(flat, six)
"""


def test_shape_arithmetic_constants_identities_and_dead_nodes_go() -> None:
    simple = simplify(_model(_EXPORTER_CLUTTER))
    assert _operators(simple) == {"Reshape": 1, "Mul": 1}
    values = {item.name: onnx.numpy_helper.to_array(item).tolist() for item in simple.graph.initializer}
    assert values == {"six": 6.0, "flat.shape": [-1, 144]}


@pytest.mark.parametrize(
    "body",
    [
        _EXPORTER_CLUTTER,
        "axes = Constant<value = int64[2] {2, 3}>() out = ReduceMean<keepdims = 1>(input, axes)",
        "axes = Constant<value = int64[2] {-1, -2}>() out = ReduceMean<keepdims = 0>(input, axes)",
        "axes = Constant<value = int64[1] {3}>() out = ReduceMean<keepdims = 0>(input, axes)",
    ],
)
def test_the_numbers_stay_the_same(body: str) -> None:
    model = _model(body)
    before = model.SerializeToString()
    images = np.random.default_rng(0).standard_normal((3, 4, 6, 6), dtype=np.float32)
    expected = run_reference(model, {"input": images})["out"]
    got = run_reference(simplify(model), {"input": images})["out"]
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
    assert got.shape == expected.shape
    assert model.SerializeToString() == before


@pytest.mark.parametrize(("keepdims", "operators"), [(1, ["GlobalAveragePool"]), (0, ["GlobalAveragePool", "Flatten"])])
def test_a_mean_over_height_and_width_is_a_global_average_pool(keepdims: int, operators: list[str]) -> None:
    body = f"axes = Constant<value = int64[2] {{3, 2}}>() out = ReduceMean<keepdims = {keepdims}>(input, axes)"
    assert [node.op_type for node in simplify(_model(body)).graph.node] == operators


def test_below_opset_18_the_axes_are_an_attribute() -> None:
    model = _model("out = ReduceMean<axes = [2, 3]>(input)", opset=17)
    assert [node.op_type for node in simplify(model).graph.node] == ["GlobalAveragePool"]


def test_a_mean_over_everything_stays_a_mean() -> None:
    assert _operators(simplify(_model("out = ReduceMean(input)"))) == {"ReduceMean": 1}


def test_a_reshape_that_mixes_the_batch_with_pixels_keeps_its_run_time_shape() -> None:
    body = """
        shape = Shape(input)
        six = Constant<value = int64[1] {6}>()
        first = Constant<value = int64[1] {0}>()
        n = Gather<axis = 0>(shape, first)
        rows = Mul(n, six)
        rest = Constant<value = int64[1] {-1}>()
        target = Concat<axis = 0>(rows, rest)
        out = Reshape(input, target)
    """
    simple = simplify(_model(body))
    assert "Concat" in _operators(simple)
    images = np.zeros((2, 4, 6, 6), np.float32)
    assert run_reference(simple, {"input": images})["out"].shape == (12, 24)


def test_a_reshape_with_two_unknown_sizes_keeps_its_run_time_shape() -> None:
    body = """
        out = Reshape(input, target)
    """
    simple = simplify(_model(body, inputs="float[batch, 4, 6, 6] input, int64[3] target"))
    assert simple.graph.node[0].input[1] == "target"


def test_quantized_constants_are_not_folded() -> None:
    body = """
        w = Constant<value = float[2] {0.3, 0.7}>()
        s = Constant<value = float {0.5}>()
        z = Constant<value = int8 {0}>()
        q = QuantizeLinear(w, s, z)
        d = DequantizeLinear(q, s, z)
        out = Mul(input, d)
    """
    simple = simplify(_model(body, inputs="float[batch, 2] input"))
    assert _operators(simple) == {"QuantizeLinear": 1, "DequantizeLinear": 1, "Mul": 1}


def test_a_constant_output_is_kept() -> None:
    simple = simplify(_model("out = Constant<value = float[1] {1.0}>()"))
    assert [node.output[0] for node in simple.graph.node] == ["out"]


def test_two_unknown_sizes_behind_the_batch_are_not_guessed() -> None:
    assert _tail(["batch", 4, 6], ["batch", "a", "b"]) is None
    assert _tail(["batch", 4, 6], ["batch", "a", 3]) == [8, 3]
