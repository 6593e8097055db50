from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, get_args

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.graph.blocks import BLOCK, CONV, WEIGHTS, images_of, model_of
from trtbench.errors import GraphError, UnsupportedError
from trtbench.graph.half import to_half
from trtbench.graph.half_rules import FORMATS, check_half, rounding_graph
from trtbench.graph.lint import lint
from trtbench.graph.reference import run_reference
from trtbench.precision import HalfType

_BLOCK = BLOCK.replace("Relu(sum)", "Clip(sum, zero, six)")
_BOUNDS: dict[str, Any] = {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
_FLOAT = TensorProto.FLOAT


def _model(body: str = _BLOCK, *, opset: int = 20, **constants: Any) -> onnx.ModelProto:
    return model_of(body, opset=opset, **_BOUNDS | constants)


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = model.graph
    typed = {item.name: item.type.tensor_type.elem_type for item in (*graph.input, *graph.value_info, *graph.output)}
    return typed | {item.name: item.data_type for item in graph.initializer}


def _casts(model: onnx.ModelProto) -> list[tuple[str, str]]:
    return [(node.input[0], node.output[0]) for node in model.graph.node if node.op_type == "Cast"]


@pytest.mark.parametrize("dtype", get_args(HalfType))
def test_all_computes_in_half_between_one_cast_at_each_end(dtype: HalfType) -> None:
    half = to_half(_model(), dtype=dtype)

    types, element = _types(half.proto), FORMATS[dtype].element
    onnx.checker.check_model(half.proto, full_check=True)
    assert types["input"] == types["out"] == _FLOAT
    assert {kind for name, kind in types.items() if name not in {"input", "out"}} == {element}
    name = TensorProto.DataType.Name(element).lower()
    assert [source for source, _ in _casts(half.proto)] == ["input", f"out.{name}"]
    assert (half.share_of_nodes, half.kept) == (1.0, ())


@pytest.mark.parametrize("dtype", get_args(HalfType))
def test_the_outputs_differ_by_rounding_alone(dtype: HalfType) -> None:
    model = _model()

    found = check_half(model, to_half(model, dtype=dtype).proto, {"input": images_of(4)}, dtype=dtype)

    assert found.holds
    assert FORMATS[dtype].unit_roundoff / 8 < found.error < 8 * FORMATS[dtype].unit_roundoff


def test_a_wrong_graph_does_not_hold() -> None:
    model = _model()
    other = _model(w=WEIGHTS["w"] * 1.1)

    assert not check_half(model, to_half(other, dtype="fp16").proto, {"input": images_of(4)}, dtype="fp16").holds


def test_onnx_runtime_runs_the_fp16_graph_to_the_same_numbers() -> None:
    proto = to_half(_model(), dtype="fp16").proto
    expected = run_reference(rounding_graph(proto), {"input": images_of(4)})["out"]

    got = run_reference(proto, {"input": images_of(4)})["out"]

    np.testing.assert_allclose(got, expected, atol=4 * 2.0**-11 * np.abs(expected).max())


def test_the_onnx_reference_runs_the_bf16_graph_to_the_same_numbers() -> None:
    proto = to_half(_model(), dtype="bf16").proto
    expected = run_reference(rounding_graph(proto), {"input": images_of(4)})["out"]

    outputs: Any = ReferenceEvaluator(proto).run(None, {"input": images_of(4)})
    got = outputs[0]

    np.testing.assert_allclose(got, expected, atol=8 * 2.0**-8 * np.abs(expected).max())


def test_the_graph_converted_is_not_changed_and_converts_to_the_same_bytes() -> None:
    model = _model()
    before = model.SerializeToString()

    first, again = (to_half(model, dtype="fp16").proto.SerializeToString() for _ in range(2))

    assert first == again
    assert model.SerializeToString() == before


def test_bf16_raises_the_opset_to_the_one_that_has_it_and_fp16_does_not() -> None:
    assert to_half(_model(opset=14), dtype="bf16").proto.opset_import[0].version == 22
    assert to_half(_model(opset=14), dtype="fp16").proto.opset_import[0].version == 14


_BEYOND = np.full((4, 4, 3, 3), 7e4, np.float32)


def test_a_node_that_is_kept_stays_between_casts() -> None:
    half = to_half(_model(w2=_BEYOND), dtype="fp16")

    types = _types(half.proto)
    assert [name for name, _ in half.kept] == ["a"]
    assert half.share_of_nodes == pytest.approx(7 / 8)
    assert types["a"] == types["w2"] == types["b"] == _FLOAT
    assert types["b.float16"] == TensorProto.FLOAT16
    assert ("x", "x.float") in _casts(half.proto)
    assert ("a", "a.float16") in _casts(half.proto)


def test_a_tensor_that_two_float_nodes_read_is_cast_once() -> None:
    body = f"x = Relu(input) a = {CONV}(x, w) c = {CONV}(x, w2) out = Add(a, c)"

    half = to_half(_model(body, w=WEIGHTS["w"] * 1e6, w2=_BEYOND), dtype="fp16")
    assert [name for name, _ in half.kept] == ["a", "c"]

    assert sum(source == "x" for source, _ in _casts(half.proto)) == 1


@pytest.mark.parametrize(
    ("constant", "reason"),
    [
        ({"w2": np.full((4, 4, 3, 3), 7e4, np.float32)}, "w2 reaches 7e+04, beyond 6.55e+04"),
        ({"w2": np.full((4, 4, 3, 3), 3e-5, np.float32)}, "w2 reaches 3e-05 only"),
        ({"b": np.full(4, 1e5, np.float32)}, "b reaches 1e+05, beyond 6.55e+04"),
    ],
)
def test_weights_beyond_fp16_keep_their_node_in_fp32_and_bf16_holds_them(constant: dict[str, Any], reason: str) -> None:
    model = _model(**constant)

    kept = dict(to_half(model, dtype="fp16").kept)

    assert kept["a"].startswith(reason)
    assert to_half(model, dtype="bf16").kept == ()


def test_single_tiny_weights_a_tiny_bias_and_infinite_bounds_keep_nothing() -> None:
    weight = WEIGHTS["w2"].copy()
    weight[0] = 1e-9
    infinite = np.array(np.inf, np.float32)

    assert to_half(_model(w2=weight, b=np.full(4, 1e-9, np.float32), six=infinite), dtype="fp16").kept == ()


def test_sums_and_exponentials_stay_in_fp32_and_need_no_cast_behind_them() -> None:
    body = "f = Flatten(input) out = Softmax(f)"

    half = to_half(_model(body), dtype="fp16")

    assert half.kept == (("out", "Softmax sums or raises to powers: its range is FP32's"),)
    assert _types(half.proto)["out"] == _FLOAT
    assert half.share_of_nodes == 0.5


def test_an_operand_that_is_float_by_definition_stays_float() -> None:
    body = 'r = Resize<mode = "nearest">(input, empty, scales) out = Relu(r)'
    scales = np.array([1, 1, 2, 2], np.float32)

    half = to_half(_model(body, scales=scales, empty=np.array([], np.float32)), dtype="fp16")

    types = _types(half.proto)
    assert half.kept == ()
    assert types["scales"] == _FLOAT
    assert types["r"] == TensorProto.FLOAT16


def test_an_operator_that_has_no_half_form_is_kept() -> None:
    half = to_half(_model("r = Relu(input) c = Celu(r) out = Flatten(c)"), dtype="fp16")

    assert half.kept == (("c", "Celu of opset 20 takes no FP16"),)


@pytest.mark.parametrize("operator", ["HardSwish", "Mish", "GlobalLpPool"])
def test_what_tensorrt_takes_in_fp16_only_is_kept_in_bf16(operator: str) -> None:
    model = _model(f"x = {CONV}(input, w, b) y = {operator}(x) out = Flatten(y)")
    model.graph.node[1].name = "act"

    assert to_half(model, dtype="bf16").kept == (("act", f"TensorRT's parser takes no {operator} in BF16"),)
    assert not {"bf16-operator", "mixed-operands"} & {found.rule for found in lint(to_half(model, dtype="bf16").proto)}
    assert to_half(model, dtype="fp16").kept == ()


def test_an_operator_of_another_domain_is_kept() -> None:
    model = _model("r = Relu(input) out = Flatten(r)")
    model.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    model.graph.node[0].domain = "acme"
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("r", _FLOAT, ["batch", 4, 6, 6]))

    assert to_half(model, dtype="fp16").kept == (("r", "Relu of opset 20 takes no FP16"),)


def test_constant_nodes_are_converted_like_initializers() -> None:
    body = "k = Constant<value = float {0.5}>() m = Mul(input, k) out = Relu(m)"

    types = _types(to_half(_model(body), dtype="fp16").proto)

    assert types["k.float16"] == TensorProto.FLOAT16


def test_a_graph_output_that_other_nodes_read_is_cast_for_the_outside_only() -> None:
    model = _model("x = Relu(input) out = Flatten(x)")
    model.graph.output.append(onnx.ValueInfoProto(name="x"))
    model.graph.output[1].type.tensor_type.elem_type = _FLOAT

    half = to_half(model, dtype="fp16")

    types = _types(half.proto)
    flatten = next(node for node in half.proto.graph.node if node.op_type == "Flatten")
    assert types["x"] == _FLOAT
    assert types[flatten.input[0]] == TensorProto.FLOAT16
    assert [item.name for item in half.proto.graph.output] == ["out", "x"]


@pytest.mark.parametrize("body", ["out = Conv(input, fc)", "x = Relu(input) x = Relu(input) out = Flatten(x)"])
def test_an_invalid_graph_is_refused(body: str) -> None:
    with pytest.raises(GraphError, match="in half precision: expected a graph that ONNX's checker takes"):
        to_half(_model(body), dtype="fp16")


def test_control_flow_is_refused() -> None:
    body = "c = Constant<value = bool {1}>() out = If<then_branch = g () => (float[1] t) { t = Identity(six) }>(c)"
    with pytest.raises(GraphError, match="no control flow"):
        to_half(_model(body), dtype="fp16")


def test_an_opset_that_cannot_be_raised_is_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no adapter")

    monkeypatch.setattr("onnx.version_converter.convert_version", fail)

    with pytest.raises(GraphError, match=r"expected opset 22 or more, got opset 20, and no adapter; .*opset: 22"):
        to_half(_model(), dtype="bf16")


@given(st.lists(st.floats(-6e4, 6e4, width=32), min_size=8, max_size=8), st.sampled_from(get_args(HalfType)))
def test_weights_are_rounded_to_nearest(values: list[float], dtype: HalfType) -> None:
    weight = np.array([*values, 1], np.float32).reshape(1, 9, 1, 1)
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 22]> net (float[1, 9, 2, 2] input) => (float[1, 1, 2, 2] out) '
        "{ out = Conv(input, w) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))

    (stored,) = to_half(model, dtype=dtype).proto.graph.initializer

    expected = weight.astype(np.float16 if dtype == "fp16" else ml_dtypes.bfloat16)
    np.testing.assert_array_equal(numpy_helper.to_array(stored).astype(np.float32), expected.astype(np.float32))


def test_autocast_is_refused_with_the_cure_where_modelopt_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt.onnx.autocast", None)

    with pytest.raises(UnsupportedError, match=r"pip install 'trtbench\[modelopt\]'"):
        to_half(_model(), dtype="fp16", method="modelopt")


def _autocast(monkeypatch: pytest.MonkeyPatch, convert: Any) -> None:
    """Stand in for the package: its one function, with the arguments that version 0.47.0 has."""
    module = ModuleType("modelopt.onnx.autocast")
    module.convert_to_mixed_precision = convert  # type: ignore[attr-defined]  # a module is made of what it is given
    for name in ("modelopt", "modelopt.onnx"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "modelopt.onnx.autocast", module)


def test_what_autocast_keeps_is_read_off_the_types_it_left(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def convert(**options: Any) -> onnx.ModelProto:
        asked.update(options)
        return to_half(onnx.load(options["onnx_path"]), dtype="fp16").proto

    _autocast(monkeypatch, convert)

    half = to_half(_model(w2=_BEYOND), dtype="fp16", method="modelopt")

    assert half.kept == (("a", "AutoCast keeps it"),)
    assert half.share_of_nodes == pytest.approx(7 / 8)
    assert (asked["low_precision_type"], asked["keep_io_types"]) == ("fp16", True)


def test_a_failure_inside_autocast_is_a_graph_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(**_: Any) -> onnx.ModelProto:
        raise KeyError("no type")

    _autocast(monkeypatch, convert)

    with pytest.raises(GraphError, match="by AutoCast: got 'no type'"):
        to_half(_model(), dtype="fp16", method="modelopt")
