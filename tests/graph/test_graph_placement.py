from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from trtbench.errors import GraphError
from trtbench.graph.placement import activation_tensors, plan_qdq

if TYPE_CHECKING:
    from trtbench.graph.placement import QdqPlan

_W = np.ones((4, 4, 3, 3), np.float32)
_W1 = np.ones((4, 4, 1, 1), np.float32)
_FC = np.ones((2, 4), np.float32)


def _model(body: str, *, opset: int = 20, **constants: Any) -> onnx.ModelProto:
    signature = "net (float[batch, 4, 8, 8] input) => (float[batch, n] out)"
    text = f'<ir_version: 10, opset_import: ["" : {opset}]> {signature} {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for name, value in ({"w": _W, "w1": _W1, "fc": _FC} | constants).items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


def _quantized_inputs(plan: QdqPlan) -> dict[str, list[str]]:
    """Return for each quantized activation the nodes (by their output) that read it through its pair."""
    return {point.tensor: [reader.node for reader in point.readers] for point in plan.activations}


_CONV = "Conv<pads = [1, 1, 1, 1]>"
_IDENTITY_BLOCK = f"""
    stem = {_CONV}(input, w)
    x = Relu(stem)
    a = {_CONV}(x, w)
    b = Relu(a)
    c = {_CONV}(b, w)
    sum = Add(c, x)
    y = Relu(sum)
    pooled = GlobalAveragePool(y)
    flat = Flatten(pooled)
    out = Gemm<transB = 1>(flat, fc)
"""


def test_a_residual_block_quantizes_layer_inputs_and_the_residual_input_only() -> None:
    plan = plan_qdq(_model(_IDENTITY_BLOCK))
    assert _quantized_inputs(plan) == {
        "input": ["stem"],
        "x": ["a", "sum"],  # one pair for the convolution and the shortcut
        "b": ["c"],
        "y": ["pooled"],
        "flat": ["out"],
    }
    assert plan.summary == "3 of 3 convolutions, 1 of 1 linear layers"
    assert activation_tensors(plan) == ("input", "x", "b", "y", "flat")


@pytest.mark.parametrize("order", ["c, short", "short, c"])
def test_where_convolutions_make_both_branches_the_shorter_one_is_quantized(order: str) -> None:
    body = f"""
        x = Relu(input)
        a = {_CONV}(x, w)
        b = Relu(a)
        c = {_CONV}(b, w)
        short = Conv(x, w1)
        sum = Add({order})
        out = Relu(sum)
    """
    assert _quantized_inputs(plan_qdq(_model(body))) == {"x": ["a", "short"], "b": ["c"], "short": ["sum"]}


def test_a_layer_that_others_read_too_is_not_the_one_that_fuses() -> None:
    body = f"""
        short = Conv(input, w1)
        deep = {_CONV}(input, w)
        deeper = {_CONV}(deep, w)
        sum = Add(short, deeper)
        pooled = GlobalAveragePool(deeper)
        out = Add(sum, pooled)
    """
    assert _quantized_inputs(plan_qdq(_model(body)))["deeper"] == ["sum", "pooled"]


def test_shortcut_a_is_quantized_at_its_source_and_before_the_add_with_one_scale() -> None:
    body = f"""
        x = Relu(input)
        a = {_CONV.replace("<", "<strides = [2, 2], ")}(x, w)
        b = Relu(a)
        c = {_CONV}(b, w)
        rows = Slice(x, zero, end, two, step)
        both = Slice(rows, zero, end, three, step)
        padded = Pad(both, pads, fill)
        sum = Add(c, padded)
        out = Relu(sum)
    """
    numbers = {"zero": [0], "end": [99], "two": [2], "three": [3], "step": [2], "pads": [0] * 8}
    constants: dict[str, Any] = {name: np.array(value, np.int64) for name, value in numbers.items()}
    plan = plan_qdq(_model(body, fill=np.array(0, np.float32), **constants))
    assert _quantized_inputs(plan) == {"x": ["a", "rows"], "b": ["c"], "padded": ["sum"]}
    assert {point.tensor: point.range_of for point in plan.activations} == {"x": "x", "b": "b", "padded": "x"}
    assert activation_tensors(plan) == ("x", "b")
    other = plan_qdq(_model(body, fill=np.array(1, np.float32), **constants))
    assert {point.tensor: point.range_of for point in other.activations}["padded"] == "padded"


def test_a_pad_without_a_fill_value_pads_with_zeros() -> None:
    body = f"a = {_CONV}(input, w) padded = Pad(input, pads) out = Add(a, padded)"
    plan = plan_qdq(_model(body, pads=np.zeros(8, np.int64)))
    assert [(point.tensor, point.range_of) for point in plan.activations] == [("input", "input"), ("padded", "input")]


def test_max_pool_hands_its_scale_on_and_average_pools_have_their_own() -> None:
    body = f"""
        x = Relu(input)
        m = MaxPool<kernel_shape = [2, 2]>(x)
        a = {_CONV}(m, w)
        p = AveragePool<kernel_shape = [2, 2]>(a)
        out = {_CONV}(p, w)
    """
    plan = plan_qdq(_model(body))
    assert {point.tensor: point.range_of for point in plan.activations} == {"x": "x", "m": "x", "a": "a", "p": "p"}


def test_nothing_stands_between_a_layer_and_its_activation_even_if_others_read_it_quantized() -> None:
    body = f"""
        a = {_CONV}(input, w)
        r = Clip(a, low)
        b = {_CONV}(a, w)
        out = Add(r, b)
    """
    plan = plan_qdq(_model(body, low=np.array(0, np.float32)))
    assert _quantized_inputs(plan) == {"input": ["a"], "a": ["b"], "r": ["out"]}


def test_other_readers_of_a_quantized_tensor_share_its_pair() -> None:
    body = f"x = Relu(input) a = {_CONV}(x, w) gate = Sigmoid(x) out = Mul(a, gate)"
    assert _quantized_inputs(plan_qdq(_model(body))) == {"x": ["a", "gate"]}


def test_an_add_without_a_layer_before_it_stays_in_float() -> None:
    body = f"""
        x = Relu(input)
        y = Sigmoid(input)
        sum = Add(x, y)
        a = {_CONV}(x, w)
        biased = Add(a, fc4)
        out = Relu(biased)
    """
    plan = plan_qdq(_model(body, fc4=np.ones((4, 1, 1), np.float32)))
    assert _quantized_inputs(plan) == {"x": ["a"]}


def test_weight_axes_are_the_output_channels() -> None:
    body = """
        a = Conv(input, w)
        b = ConvTranspose(a, deconv)
        p = GlobalAveragePool(b)
        f = Flatten(p)
        g = Gemm<transB = 1>(f, fc)
        h = Gemm(g, fc)
        out = MatMul(h, mat)
    """
    constants: dict[str, Any] = {"deconv": np.ones((4, 6, 3, 3), np.float32), "mat": np.ones((4, 3), np.float32)}
    plan = plan_qdq(_model(body, **constants))
    axes = {reader.node: point.axis for point in plan.weights for reader in point.readers}
    assert axes == {"a": 0, "b": 1, "g": 0, "h": 1, "out": 1}
    assert [(point.tensor, point.axis) for point in plan.weights][2:4] == [("fc", 0), ("fc", 1)]
    assert plan.summary == "1 of 1 convolutions, 1 of 1 transposed convolutions, 3 of 3 linear layers"


def test_a_shared_weight_has_one_pair() -> None:
    plan = plan_qdq(_model(_IDENTITY_BLOCK))
    [conv, _linear] = plan.weights
    assert [reader.node for reader in conv.readers] == ["stem", "a", "c"]


def test_an_excluded_layer_reads_float_and_its_add_does_too() -> None:
    plan = plan_qdq(_model(_IDENTITY_BLOCK), exclude=["c"])
    assert _quantized_inputs(plan) == {"input": ["stem"], "x": ["a"], "y": ["pooled"], "flat": ["out"]}
    assert plan.summary == "2 of 3 convolutions, 1 of 1 linear layers"
    assert [(layer.node, layer.reason) for layer in plan.layers if not layer.is_quantized] == [("c", "excluded")]


def test_an_excluded_pool_reads_float() -> None:
    assert "y" not in _quantized_inputs(plan_qdq(_model(_IDENTITY_BLOCK), exclude=["pooled"]))


def test_an_unknown_excluded_name_is_an_error_with_the_nearest_names() -> None:
    with pytest.raises(GraphError, match=r"excluded node 'pool': .*nearest names: pooled"):
        plan_qdq(_model(_IDENTITY_BLOCK), exclude=["pool"])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("w2 = Relu(w) out = Conv(input, w2)", "its weight is computed at run time"),
        ("out = Conv(input, half)", "its weight is float16, not float32"),
        ("out = MatMul(input, w)", "its weight has rank 4, not 2"),
        ("out = MatMul(w, input)", "its data input is constant"),
        ("out = ConvTranspose<group = 2>(input, w)", "the output channels of a grouped transposed convolution"),
    ],
)
def test_a_layer_left_in_float_says_why(body: str, reason: str) -> None:
    plan = plan_qdq(_model(body, half=_W.astype(np.float16)))
    [layer] = plan.layers
    assert (layer.is_quantized, plan.activations, plan.weights) == (False, (), ())
    assert layer.reason.startswith(reason)


def test_a_product_of_two_activations_quantizes_both() -> None:
    plan = plan_qdq(_model("x = Relu(input) out = MatMul(x, input)"))
    assert _quantized_inputs(plan) == {"input": ["x", "out"], "x": ["out"]}
    assert plan.weights == ()


def test_depthwise_convolutions_are_quantized_per_channel() -> None:
    plan = plan_qdq(_model("out = Conv<group = 4>(input, dw)", dw=np.ones((4, 1, 3, 3), np.float32)))
    assert [(point.tensor, point.axis) for point in plan.weights] == [("dw", 0)]


def test_constants_of_nodes_and_listed_weights_are_no_activations() -> None:
    model = _model(f"k = Constant<value = float[1] {{1.0}}>() x = Mul(input, k) out = {_CONV}(x, w)")
    model.graph.input.add(name="w")
    assert _quantized_inputs(plan_qdq(model)) == {"x": ["out"]}


def test_planning_changes_nothing_and_repeats_itself() -> None:
    model = _model(_IDENTITY_BLOCK)
    before = model.SerializeToString()
    assert plan_qdq(model) == plan_qdq(model)
    assert model.SerializeToString() == before


def test_an_old_opset_is_refused() -> None:
    with pytest.raises(GraphError, match="opset: expected 13 or more, got 12"):
        plan_qdq(_model("out = Relu(input)", opset=12))


def test_a_quantized_graph_is_refused() -> None:
    model = _model("out = QuantizeLinear(input, s)", s=np.array(1, np.float32))
    with pytest.raises(GraphError, match="quantized already, at out"):
        plan_qdq(model)


_DOWNSAMPLING_BLOCK = f"""
    x = Relu(input)
    a = {_CONV}(x, w)
    b = Clip(a, zero)
    c = {_CONV}(b, w)
    short = Conv(x, w1)
    sum = Add(c, short)
    y = Relu(sum)
    m = MaxPool<kernel_shape = [2, 2]>(y)
    d = {_CONV}(m, w)
    out = Flatten(d)
"""


def test_for_onnx_runtime_both_inputs_of_an_add_are_quantized() -> None:
    plan = plan_qdq(_model(_DOWNSAMPLING_BLOCK, zero=np.array(0, np.float32)), runtime="onnxruntime-cpu")
    assert _quantized_inputs(plan) == {
        "x": ["a", "short"],
        "b": ["c"],
        "c": ["sum"],
        "short": ["sum"],
        "y": ["m"],
        "m": ["d"],
        "d": ["out"],
    }


def test_for_onnx_runtime_codes_are_unsigned_where_no_value_is_negative() -> None:
    plan = plan_qdq(_model(_DOWNSAMPLING_BLOCK, zero=np.array(0, np.float32)), runtime="onnxruntime-cpu")
    unsigned = {point.tensor for point in plan.activations if point.is_unsigned}
    assert unsigned == {"x", "b", "y", "m"}
    signed_clip = plan_qdq(_model(_DOWNSAMPLING_BLOCK, zero=np.array(-1, np.float32)), runtime="onnxruntime-cpu")
    assert "b" not in {point.tensor for point in signed_clip.activations if point.is_unsigned}


@pytest.mark.parametrize(
    ("body", "is_unsigned"),
    [
        ("x = Relu(input) p = Pad(x, pads) c = Conv(p, w)", True),
        ("x = Relu(input) p = Pad(x, pads, below) c = Conv(p, w)", False),
        ("x = Sigmoid(input) p = GlobalAveragePool(x) c = Conv(p, w1)", True),
        ("x = Clip(input) c = Conv(x, w)", False),
        ("x = Tanh(input) c = Conv(x, w)", False),
    ],
)
def test_the_sign_of_a_tensor_is_traced_to_its_maker(body: str, *, is_unsigned: bool) -> None:
    constants: dict[str, Any] = {"pads": np.zeros(8, np.int64), "below": np.array(-1, np.float32)}
    plan = plan_qdq(_model(f"{body} out = Flatten(c)", **constants), runtime="onnxruntime-cpu")
    assert plan.activations[-2].is_unsigned is is_unsigned


def test_for_tensorrt_no_code_is_unsigned() -> None:
    plan = plan_qdq(_model(_DOWNSAMPLING_BLOCK, zero=np.array(0, np.float32)))
    assert not any(point.is_unsigned for point in plan.activations)


@pytest.mark.parametrize(
    ("behind", "pair"),
    [
        ("s = Sigmoid(c) f = Mul(c, s)", {"c": ["s", "f"], "s": ["f"]}),
        ("f = Sigmoid(c)", {"c": ["f"]}),
        ("f = HardSwish(c)", {"c": ["f"]}),
        ("k = Add(c, three) l = Clip(k, zero, six) f = Mul(c, l)", {"c": ["k", "f"]}),
        ("k = Div(c, three) e = Erf(k) f = Mul(c, e)", {"c": ["k", "f"]}),
        ("f = LeakyRelu(c)", {"c": ["f"]}),
        ("r = Relu(c) f = Sigmoid(r)", {"r": ["f"]}),
        ("r = Clip(c, zero, six) f = Sigmoid(r)", {"r": ["f"]}),
        ("r = Clip(c, below, six) f = Sigmoid(r)", {"c": ["r"]}),
        ("r = Relu(c) s = Tanh(c) f = Mul(r, s)", {"c": ["r", "s"]}),
    ],
)
def test_for_onnx_runtime_a_pair_stands_where_a_convolution_ends_whatever_reads_it(
    behind: str, pair: dict[str, list[str]]
) -> None:
    numbers = {"zero": 0, "three": 3, "six": 6, "below": -1}
    constants: dict[str, Any] = {name: np.array(value, np.float32) for name, value in numbers.items()}
    model = _model(f"x = Relu(input) c = {_CONV}(x, w) {behind} out = Flatten(f)", **constants)
    assert _quantized_inputs(plan_qdq(model, runtime="onnxruntime-cpu")) == {"x": ["c"]} | pair
    assert _quantized_inputs(plan_qdq(model)) == {"x": ["c"]}


def test_for_onnx_runtime_a_convolution_ends_before_its_relu_where_that_has_a_sign() -> None:
    body = f"""
        x = Relu(input)
        a = {_CONV}(x, w)
        r = Relu(a)
        t = Tanh(x)
        both = Concat<axis = 1>(r, t)
        c = Conv(both, wide)
        out = Flatten(c)
    """
    plan = plan_qdq(_model(body, wide=np.ones((4, 8, 1, 1), np.float32)), runtime="onnxruntime-cpu")
    assert _quantized_inputs(plan) == {
        "x": ["a", "t"],
        "a": ["r"],
        "r": ["both"],
        "t": ["both"],
        "both": ["c"],
        "c": ["out"],
    }


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("c = Conv(x, w) out = Relu(c)", "it makes an output of the network"),
        ("out = Conv(x, w)", "it makes an output of the network"),
        ("d = ConvTranspose(x, w) out = Flatten(d)", "ONNX Runtime's CPU has no INT8 kernel for it"),
    ],
)
def test_for_onnx_runtime_what_it_computes_in_float_all_the_same_reads_floats(body: str, reason: str) -> None:
    plan = plan_qdq(_model(f"x = Relu(input) {body}"), runtime="onnxruntime-cpu")
    [layer] = plan.layers
    assert (plan.activations, plan.weights) == ((), ())
    assert layer.reason.startswith(reason)
    assert plan_qdq(_model(f"x = Relu(input) {body}")).layers[0].is_quantized


def test_for_onnx_runtime_a_convolution_that_an_excluded_node_reads_has_no_pair() -> None:
    body = f"x = Relu(input) a = {_CONV}(x, w) b = {_CONV}(a, w) out = Flatten(b)"
    plan = plan_qdq(_model(body), exclude=["b"], runtime="onnxruntime-cpu")
    assert _quantized_inputs(plan) == {"x": ["a"]}
