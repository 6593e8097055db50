from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, numpy_helper

from tests.graph.blocks import CONV, WEIGHTS, images_of, model_of
from trtbench.errors import UnsupportedError
from trtbench.graph.half import SMALLEST_NORMAL, half_scale, half_weight, to_half
from trtbench.graph.half_rules import check_half
from trtbench.graph.lint import lint
from trtbench.graph.placement import activation_tensors, plan_qdq
from trtbench.graph.qdq import insert_qdq
from trtbench.graph.reference import run_reference

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    plan = plan_qdq(model)
    values = run_reference(model, {"input": images_of()}, outputs=activation_tensors(plan))
    return insert_qdq(model, plan, {name: float(np.abs(value).max()) for name, value in values.items()})


def _constants(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def test_every_scale_and_all_between_is_fp16_and_inputs_and_outputs_are_not() -> None:
    half = to_half(_quantized(model_of()), dtype="fp16")

    kinds = {item.name: item.type.tensor_type.elem_type for item in half.proto.graph.value_info}
    onnx.checker.check_model(half.proto, full_check=True)
    assert lint(half.proto) == ()
    assert {value.dtype for value in _constants(half.proto).values()} == {np.dtype(np.float16), np.dtype(np.int8)}
    assert set(kinds.values()) == {TensorProto.FLOAT16, TensorProto.INT8}
    assert {item.type.tensor_type.elem_type for item in (*half.proto.graph.input, *half.proto.graph.output)} == {
        TensorProto.FLOAT
    }
    assert (half.share_of_nodes, half.kept) == (1.0, ())


def test_no_cast_stands_between_a_pair_and_its_layer() -> None:
    half = to_half(_quantized(model_of()), dtype="fp16").proto

    assert sum(node.op_type == "Cast" for node in half.graph.node) == 2
    makers = {node.output[0]: node.op_type for node in half.graph.node}
    for node in half.graph.node:
        if node.op_type in {"Conv", "Gemm"}:
            assert [makers[name] for name in node.input[:2]] == ["DequantizeLinear", "DequantizeLinear"]


def test_logits_are_as_near_the_float_ones_as_with_fp32_scales() -> None:
    model = model_of()
    quantized = _quantized(model)
    half = to_half(quantized, dtype="fp16").proto
    exact, with_fp32, with_fp16 = (
        run_reference(one, {"input": images_of()})["out"] for one in (model, quantized, half)
    )

    assert check_half(quantized, half, {"input": images_of()}, dtype="fp16").holds
    assert np.abs(with_fp16 - exact).max() < 1.5 * np.abs(with_fp32 - exact).max()


@pytest.mark.parametrize(("opset", "expected"), [(13, 19), (20, 20)])
def test_the_opset_is_raised_to_the_first_that_takes_fp16_scales(opset: int, expected: int) -> None:
    half = to_half(_quantized(model_of(opset=opset)), dtype="fp16").proto

    assert half.opset_import[0].version == expected
    assert lint(half) == ()


def test_a_dead_channel_gets_the_smallest_normal_scale_and_its_codes_are_those_of_it() -> None:
    weight = WEIGHTS["w2"].copy()
    weight[1], weight[2] = 0, 1e-4
    half = to_half(_quantized(model_of(w2=weight, b=np.zeros(4, np.float32))), dtype="fp16").proto
    found = _constants(half)

    scale, stored = found["w2.scale.float16"], found["w2.float16"]

    assert scale[1] == scale[2] == np.float16(2.0**-14)
    assert not stored[1].any()
    np.testing.assert_array_equal(stored[2], np.full((4, 3, 3), 2 * 2.0**-14))  # 1e-4 is 1.6 steps
    assert lint(half) == ()


def test_a_layer_whose_weights_fp16_scales_cannot_hold_keeps_fp32_pairs() -> None:
    quantized = _quantized(model_of(w2=WEIGHTS["w2"] * 1e-4))
    half = to_half(quantized, dtype="fp16")
    found = _constants(half.proto)

    ((name, reason),) = half.kept
    assert name == "a"
    assert "w2.scale reaches" in reason
    assert found["w2.scale"].dtype == np.float32
    assert check_half(quantized, half.proto, {"input": images_of()}, dtype="fp16").holds
    assert lint(half.proto) == ()


def test_layers_of_values_beyond_fp16_keep_fp32_pairs() -> None:
    half = to_half(_quantized(model_of(w2=WEIGHTS["w2"] * 1e8)), dtype="fp16")
    found = _constants(half.proto)

    reasons = dict(half.kept)
    assert "w2.scale reaches" in reasons["a"]
    assert "flat.scale reaches" in reasons["out"]
    assert "beyond 6.55e+04" in reasons["a"]
    assert found["w2.scale"].dtype == found["flat.scale"].dtype == np.float32


def test_a_pair_that_a_float_and_a_half_layer_share_is_half() -> None:
    body = f"x = Relu(input) a = {CONV}(x, w) c = {CONV}(x, w2) s = Add(a, c) out = Flatten(s)"
    half = to_half(_quantized(model_of(body, w=WEIGHTS["w"] * 1e8)), dtype="fp16")

    kinds = {item.name: item.type.tensor_type.elem_type for item in half.proto.graph.value_info}
    assert [name for name, _ in half.kept] == ["a"]
    assert kinds["x.dequantized"] == TensorProto.FLOAT16
    assert kinds["w.dequantized"] == TensorProto.FLOAT


def test_a_weight_read_along_two_axes_is_stored_for_each() -> None:
    body = "f = Flatten(input) r = Reshape(f, shape) g = Gemm<transB = 1>(r, square) out = Gemm(g, square)"
    square = np.array([[1, 2], [3, 254]], np.float32)
    model = model_of(body, square=square, shape=np.array([-1, 2]))
    half = to_half(_quantized(model), dtype="fp16").proto
    found = _constants(half)

    quantizers = [node for node in half.graph.node if node.op_type == "QuantizeLinear"]
    reads = [node.input[0] for node in quantizers if node.input[0].startswith("square")]
    assert len(set(reads)) == 2
    np.testing.assert_array_equal(found[reads[0]][0], half_weight(square[0], half_scale(np.array(2 / 127)), axis=None))
    np.testing.assert_array_equal(
        found[reads[1]][:, 0], half_weight(square[:, 0], half_scale(np.array(3 / 127)), axis=None)
    )


@pytest.mark.parametrize("options", [{"dtype": "bf16"}, {"dtype": "fp16", "method": "modelopt"}])
def test_other_ways_for_a_quantized_graph_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match="expected a float graph; choose fp16 by our own method"):
        to_half(_quantized(model_of()), **options)


@given(
    arrays(np.float32, (3, 5), elements=st.floats(-100, 100, width=32)),
    arrays(np.float32, (3,), elements=st.floats(2.0**-20, 1, width=32)),
)
def test_stored_weights_hit_their_codes_in_fp16_and_in_fp32_arithmetic(
    weight: NDArray[np.float32], scale: NDArray[np.float32]
) -> None:
    step = half_scale(scale)
    stored = half_weight(weight, step, axis=0)
    wide = step.astype(np.float64)[:, None]
    codes = np.clip(np.rint(weight.astype(np.float64) / wide), -127, 127)

    assert (step >= SMALLEST_NORMAL).all()
    np.testing.assert_array_equal(np.rint(stored / step[:, None]), codes)
    np.testing.assert_array_equal(np.rint(stored.astype(np.float32) / step.astype(np.float32)[:, None]), codes)


def test_one_scale_serves_a_whole_weight() -> None:
    weight = np.array([[0.5, -1], [2, 0]], np.float32)

    np.testing.assert_array_equal(half_weight(weight, np.array(0.25, np.float16), axis=1), weight)


def test_zeros_of_a_pruned_weight_survive_quantization_and_half_precision() -> None:
    weight = np.random.default_rng(1).normal(size=(4, 4, 3, 3)).astype(np.float32)
    weight[:, 2:] = 0
    quantized = _quantized(model_of(w=weight))

    for graph in (quantized, to_half(model_of(w=weight), dtype="bf16").proto, to_half(quantized, dtype="fp16").proto):
        (found,) = (value for name, value in _constants(graph).items() if name.split(".")[0] == "w" and value.ndim > 1)
        assert not found[:, 2:].astype(np.float32).any()
        assert found[:, :2].astype(np.float32).any()
