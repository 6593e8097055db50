from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.graph.blocks import BLOCK, CONV, WEIGHTS, images_of, model_of
from trtbench.errors import GraphError
from trtbench.graph.lint import lint
from trtbench.graph.placement import activation_tensors, plan_qdq
from trtbench.graph.qdq import insert_qdq, strip_qdq
from trtbench.graph.reference import onnxruntime, run_reference
from trtbench.graph.view import SMALLEST_SCALE, weight_scales
from trtbench.precision import Runtime

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_WEIGHTS: dict[str, Any] = {
    **WEIGHTS,
    "w2": WEIGHTS["w2"] * np.array([1, 10, 100, 0.1], np.float32)[:, None, None, None],
}
_AMAX = {"input": 4.0, "x": 20.0, "y": 900.0, "flat": 300.0}


def _model(body: str = BLOCK, **weights: NDArray[np.float32]) -> onnx.ModelProto:
    return model_of(body, **_WEIGHTS | weights)


def _initializers(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


@pytest.fixture
def quantized() -> onnx.ModelProto:
    model = _model()
    return insert_qdq(model, plan_qdq(model), _AMAX)


def test_the_graph_is_valid_and_clean(quantized: onnx.ModelProto) -> None:
    onnx.checker.check_model(quantized, full_check=True)
    assert lint(quantized) == ()


def test_scales_are_amax_over_127_and_zero_points_are_int8_zeros(quantized: onnx.ModelProto) -> None:
    found = _initializers(quantized)
    for tensor, amax in _AMAX.items():
        assert found[f"{tensor}.scale"] == np.float32(amax / 127)
        assert found[f"{tensor}.zero_point"].dtype == np.int8
    expected = np.abs(_WEIGHTS["w2"]).reshape(4, -1).max(axis=1) / 127
    np.testing.assert_allclose(found["w2.scale"], expected, rtol=1e-6)  # type: ignore[arg-type]  # any dtype
    assert not any(value.any() for name, value in found.items() if name.endswith(".zero_point"))


def test_weights_and_biases_stay_float32(quantized: onnx.ModelProto) -> None:
    found = _initializers(quantized)
    for name, value in _WEIGHTS.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], value)
    conv = next(node for node in quantized.graph.node if node.output[0] == "stem")
    assert list(conv.input) == ["input.dequantized", "w.dequantized", "b"]


def test_every_pair_per_channel_writes_its_axis(quantized: onnx.ModelProto) -> None:
    axes = {node.name: [item.i for item in node.attribute if item.name == "axis"] for node in quantized.graph.node}
    for weight in ("w", "w2", "fc"):
        assert axes[f"{weight}.QuantizeLinear"] == axes[f"{weight}.DequantizeLinear"] == [0]
    assert axes["x.QuantizeLinear"] == []


def test_one_pair_serves_all_readers_of_a_tensor(quantized: onnx.ModelProto) -> None:
    reads = {node.output[0]: list(node.input) for node in quantized.graph.node}
    assert reads["a"][0] == "x.dequantized"
    assert reads["sum"] == ["a", "x.dequantized"]
    assert sum(node.op_type == "QuantizeLinear" for node in quantized.graph.node) == 4 + 3


def _rounded(values: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    codes: NDArray[np.float32] = np.clip(np.rint(values / scale), -128, 127)
    return (codes * scale).astype(np.float32, copy=False)


def test_the_arithmetic_is_that_of_rounding_by_hand(quantized: onnx.ModelProto) -> None:
    weight = _WEIGHTS["w"]
    scales = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / np.float32(127)
    images = images_of(2)
    by_hand = run_reference(
        _model(f"out = {CONV}(input, w, b)", w=_rounded(weight, scales)),
        {"input": _rounded(images, np.array(4 / 127, np.float32))},
    )["out"]
    got = run_reference(quantized, {"input": images}, outputs=["stem"])["stem"]
    np.testing.assert_allclose(got, by_hand, atol=1e-5)


def test_int8_logits_are_near_the_float_ones() -> None:
    model, images = _model(), images_of(8)
    plan = plan_qdq(model)
    values = run_reference(model, {"input": images}, outputs=activation_tensors(plan))
    quantized = insert_qdq(model, plan, {name: float(np.abs(value).max()) for name, value in values.items()})
    exact = run_reference(model, {"input": images})["out"]
    got = run_reference(quantized, {"input": images})["out"]
    assert 0 < np.abs(got - exact).max() < 0.02 * np.abs(exact).max()


def test_a_tensor_that_only_moves_values_shares_the_scale_of_its_source() -> None:
    model = _model("x = MaxPool<kernel_shape = [2, 2]>(input) out = Conv(x, w)")
    quantized = insert_qdq(model, plan_qdq(model), {"input": 2.0})
    pairs = {node.name: list(node.input[1:]) for node in quantized.graph.node if node.op_type == "QuantizeLinear"}
    assert pairs["x.QuantizeLinear"] == pairs["input.QuantizeLinear"] == ["input.scale", "input.zero_point"]


def test_a_weight_read_along_two_axes_has_two_pairs() -> None:
    body = "f = Flatten(input) r = Reshape(f, shape) g = Gemm<transB = 1>(r, square) out = Gemm(g, square)"
    square = np.array([[1, 2], [3, 254]], np.float32)
    model = _model(body, square=square)
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 2], np.int64), "shape"))
    quantized = insert_qdq(model, plan_qdq(model), dict.fromkeys(activation_tensors(plan_qdq(model)), 1.0))
    found = _initializers(quantized)
    np.testing.assert_allclose(found["square.scale"], [2 / 127, 2])  # type: ignore[arg-type]  # any dtype
    np.testing.assert_allclose(found["square.axis1.scale"], [3 / 127, 2])  # type: ignore[arg-type]  # any dtype
    onnx.checker.check_model(quantized, full_check=True)


def test_a_dead_channel_gets_the_smallest_safe_scale() -> None:
    weight = np.zeros((3, 2, 1, 1), np.float32)
    weight[1] = 127
    assert weight_scales(weight, axis=0).tolist() == [SMALLEST_SCALE, 1, SMALLEST_SCALE]
    assert np.float16(SMALLEST_SCALE) > 0
    assert weight_scales(weight, axis=0).dtype == np.float32


def test_insertion_changes_neither_graph_nor_its_outputs_and_repeats_itself() -> None:
    model = _model()
    before = model.SerializeToString()
    plan = plan_qdq(model)
    first, again = (insert_qdq(model, plan, _AMAX | {"unknown": 1.0}).SerializeToString() for _ in range(2))
    assert first == again
    assert model.SerializeToString() == before


def test_missing_ranges_are_named() -> None:
    model = _model()
    with pytest.raises(GraphError, match="ranges of 2 tensors: y, flat"):
        insert_qdq(model, plan_qdq(model), {"input": 1.0, "x": 1.0})


@pytest.mark.parametrize("amax", [0.0, -1.0, float("nan"), float("inf"), 1e-44])
def test_a_range_that_gives_no_positive_float32_scale_is_refused(amax: float) -> None:
    model = _model()
    with pytest.raises(GraphError, match="range of tensor 'x': expected a positive float32"):
        insert_qdq(model, plan_qdq(model), _AMAX | {"x": amax})


def test_a_weight_with_nan_is_named() -> None:
    model = _model(w2=np.full((4, 4, 3, 3), np.nan, np.float32))
    with pytest.raises(GraphError, match="weight 'w2': expected finite values"):
        insert_qdq(model, plan_qdq(model), _AMAX)


def _fused(model: onnx.ModelProto, path: Path) -> Counter[str]:
    """Return the operators by type after all optimisations of ONNX Runtime for this CPU."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3  # it warns that the file fits this CPU only
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_on_this_cpu_only_the_plan_for_it_becomes_int8_kernels(tmp_path: Path) -> None:
    model, images = _model(), images_of(8)
    exact = run_reference(model, {"input": images})["out"]
    operators = {}
    for runtime in get_args(Runtime):
        plan = plan_qdq(model, runtime=runtime)
        values = run_reference(model, {"input": images}, outputs=activation_tensors(plan))
        quantized = insert_qdq(model, plan, {name: float(np.abs(value).max()) for name, value in values.items()})
        onnx.checker.check_model(quantized, full_check=True)
        got = run_reference(quantized, {"input": images})["out"]
        assert 0 < np.abs(got - exact).max() < 0.02 * np.abs(exact).max()
        operators[runtime] = _fused(quantized, tmp_path / f"{runtime}.onnx")
    assert operators["onnxruntime-cpu"]["QLinearConv"] == 2
    assert operators["onnxruntime-cpu"]["QLinearAdd"] == 1
    assert operators["tensorrt"]["QLinearConv"] == 0


@pytest.mark.parametrize(
    "activation",
    [
        "s = Sigmoid(c) f = Mul(c, s)",
        "f = HardSwish(c)",
        "k = Add(c, three) l = Clip(k, zero, six) m = Mul(c, l) f = Div(m, six)",
        "k = Div(c, three) e = Erf(k) l = Add(e, three) f = Mul(c, l)",
        "f = LeakyRelu(c)",
        "p = GlobalAveragePool(c) s = Sigmoid(p) f = Mul(c, s)",
        "f = Clip(c, zero, six)",
        "r = Relu(c) t = Tanh(c) f = Add(r, t)",
    ],
)
def test_on_this_cpu_every_convolution_is_int8_whatever_activation_is_behind_it(
    activation: str, tmp_path: Path
) -> None:
    body = f"c = {CONV}(input, w, b) {activation} d = {CONV}(f, w2, b) flat = Flatten(d) out = Relu(flat)"
    numbers = {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)}
    model, images = _model(body, **{name: np.asarray(value) for name, value in numbers.items()}), images_of(2)
    plan = plan_qdq(model, runtime="onnxruntime-cpu")
    values = run_reference(model, {"input": images}, outputs=activation_tensors(plan))
    quantized = insert_qdq(model, plan, {name: float(np.abs(value).max()) for name, value in values.items()})
    found = _fused(quantized, tmp_path / "fused.onnx")
    assert (found["QLinearConv"], found["Conv"] + found["FusedConv"]) == (2, 0)


def test_unsigned_codes_divide_the_range_by_255() -> None:
    model = _model()
    plan = plan_qdq(model, runtime="onnxruntime-cpu")
    found = _initializers(insert_qdq(model, plan, _AMAX | {"a": 2.0}))
    assert found["x.scale"] == np.float32(20 / 255)
    assert found["x.zero_point"].dtype == np.uint8
    assert found["input.scale"] == np.float32(4 / 127)
    np.testing.assert_equal(found["x.zero_point"], 0)
    np.testing.assert_equal(found["a.zero_point"], 128)  # signed codes stand about it, of the same type
    assert found["a.zero_point"].dtype == np.uint8


@pytest.mark.parametrize("runtime", get_args(Runtime))
def test_a_dead_channel_with_a_bias_overflows_no_kernel_of_onnx_runtime(runtime: Runtime) -> None:
    weight = _WEIGHTS["w"].copy()
    weight[1:3] *= np.array([0, 1e-9], np.float32)[:, None, None, None]
    model = _model(f"a = {CONV}(input, w, b) r = Relu(a) out = {CONV}(r, w2)", w=weight, b=np.full(4, 5, np.float32))
    plan = plan_qdq(model, runtime=runtime)
    quantized = insert_qdq(model, plan, {"input": 2.0, "r": 20.0})
    images = images_of(2)
    session = onnxruntime().InferenceSession(quantized.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = run_reference(quantized, {"input": images})["out"]
    # One step of an input code may tip over, where an int32 overflow is off by the whole channel.
    np.testing.assert_allclose(session.run(None, {"input": images})[0], expected, atol=0.02 * np.abs(expected).max())


def test_a_bias_of_another_shape_sets_no_floor() -> None:
    body = "f = Flatten(input) r = Reshape(f, shape) out = Gemm<transB = 1>(r, fc, c)"
    model = _model(body, c=np.full((6, 3), 1e6, np.float32), fc=np.full((3, 24), 127, np.float32))
    model.graph.initializer.append(numpy_helper.from_array(np.array([6, 24], np.int64), "shape"))
    quantized = insert_qdq(model, plan_qdq(model), {"r": 127.0})
    assert _initializers(quantized)["fc.scale"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_graph_that_onnx_runtime_quantized_is_the_float_graph_again(tmp_path: Path, *, per_channel: bool) -> None:
    model, quantized = _model(), _quantized_by_others(tmp_path, per_channel=per_channel)
    assert "Relu" not in {node.op_type for node in quantized.graph.node}

    found = strip_qdq(quantized)

    operators = Counter(node.op_type for node in found.proto.graph.node)
    assert operators == {"Conv": 2, "Clip": 2, "Add": 1, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
    assert (found.pairs > 5, found.clips) == (True, 2)
    assert f"{found.codes} weights and biases were codes" in found.note
    images = {"input": images_of(8)}
    floats, ours, theirs = (run_reference(one, images)["out"] for one in (model, found.proto, quantized))
    rounding = np.abs(theirs - floats).max()
    assert np.abs(ours - floats).max() <= rounding  # of the weights alone
    assert rounding < 0.05 * np.abs(floats).max()
    assert plan_qdq(found.proto).activations  # ours go in


def _quantized_by_others(folder: Path, *, per_channel: bool) -> onnx.ModelProto:
    onnxruntime()
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return {"input": left.pop()} if left else None

    left = [images_of(8)]
    onnx.save(_model(), folder / "float.onnx")
    quantization.quantize_static(folder / "float.onnx", folder / "qdq.onnx", Reader(), per_channel=per_channel)
    return onnx.load(folder / "qdq.onnx")


def test_our_own_pairs_come_out_as_they_went_in() -> None:
    model = _model()

    found = strip_qdq(insert_qdq(model, plan_qdq(model), _AMAX))

    assert (found.codes, found.clips) == (0, 0)  # its weights are floats before their pairs
    images = {"input": images_of(2)}
    np.testing.assert_array_equal(run_reference(found.proto, images)["out"], run_reference(model, images)["out"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("c = Relu(input)", "it has no Q/DQ pairs"),
        ("q = QuantizeLinear(input, s, z) c = MaxPool<kernel_shape = [1, 1]>(q)", "MaxPool reads codes"),
        ("q = QuantizeLinear(input, s, z) c = DequantizeLinear(q, t, z)", "another scale than"),
        ("m = ReduceMax<keepdims = 0>(input) c = QuantizeLinear(input, m, z)", "computed at run time"),
    ],
)
def test_what_cannot_be_stripped_says_why(body: str, words: str) -> None:
    numbers: dict[str, Any] = {"s": np.float32(0.1), "t": np.float32(0.2), "z": np.int8(0)}

    with pytest.raises(GraphError, match=f"{words}.*build it as it is"):
        strip_qdq(_model(f"{body} out = Flatten(c)", **numbers))
