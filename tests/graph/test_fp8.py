"""FP8 graphs: which layers are quantized, what is stored of them, and how near they come to the float graph."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from trtbench.errors import GraphError
from trtbench.graph.fp8 import LARGEST, insert_fp8, plan_fp8
from trtbench.graph.half import to_half
from trtbench.graph.lint import lint
from trtbench.graph.placement import activation_tensors
from trtbench.graph.reference import run_reference

_NETWORK = """
<ir_version: 10, opset_import: ["" : OPSET]>
net (float[batch, 3, 8, 8] input) => (float[batch, 16] logits) {
    s = Conv<pads = [1, 1, 1, 1]>(input, stem)
    a = Relu(s)
    m = Conv<pads = [1, 1, 1, 1]>(a, main, bias)
    n = Add(m, a)
    r = Relu(n)
    d = Conv<group = 16, pads = [1, 1, 1, 1]>(r, depth)
    k = Conv<pads = [3, 3, 3, 3]>(d, large)
    p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(k)
    g = GlobalAveragePool(p)
    f = Flatten(g)
    logits = Gemm<transB = 1>(f, fc)
}
"""
_WEIGHTS = {
    "stem": (16, 3, 3, 3),
    "main": (16, 16, 3, 3),
    "bias": (16,),
    "depth": (16, 1, 3, 3),
    "large": (16, 16, 7, 7),
    "fc": (16, 16),
}


def _graph(opset: int = 20) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(_NETWORK.replace("OPSET", str(opset)))
    random = np.random.default_rng(0)
    for name, shape in _WEIGHTS.items():
        values = random.normal(0, 1 / math.sqrt(math.prod(shape[1:]) or 1), shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    for node in proto.graph.node:
        node.name = f"{node.output[0]}.{node.op_type}"
    return proto


def _made(proto: onnx.ModelProto) -> onnx.ModelProto:
    plan = plan_fp8(proto)
    return insert_fp8(proto, plan, dict.fromkeys(activation_tensors(plan), 8.0))


def test_only_layers_with_fp8_kernels_are_quantized_and_the_others_say_why() -> None:
    plan = plan_fp8(_graph(), exclude=["logits.Gemm"])

    assert {layer.node: layer.reason for layer in plan.layers} == {
        "s.Conv": "FP8 kernels want channels in multiples of 16, not 16 and 3",
        "m.Conv": "",
        "d.Conv": "grouped convolutions have no FP8 kernel",
        "k.Conv": "FP8 kernels have up to 31 values, not 49",
        "logits.Gemm": "excluded",
    }
    assert [point.tensor for point in plan.activations] == ["a"]
    assert [reader.node for point in plan.activations for reader in point.readers] == ["m"]  # the sum reads floats


def test_codes_are_stored_with_one_scale_and_the_float_weight_is_gone() -> None:
    made = _made(_graph())

    arrays = {item.name: numpy_helper.to_array(item) for item in made.graph.initializer}
    assert "main" not in arrays
    assert arrays["main.codes"].dtype.name == "float8_e4m3fn"
    assert arrays["main.scale"].shape == ()
    weight = next(numpy_helper.to_array(item) for item in _graph().graph.initializer if item.name == "main")
    stored = arrays["main.codes"].astype(np.float32) * arrays["main.scale"]
    assert np.abs(stored).max() == pytest.approx(np.abs(weight).max())
    assert np.abs(stored - weight).max() <= np.abs(weight).max() / 16  # 3 bits of mantissa
    assert arrays["a.scale"] == pytest.approx(8 / LARGEST)
    onnx.checker.check_model(made, full_check=True)
    assert lint(made) == ()


def test_logits_stay_near_those_of_the_float_graph() -> None:
    images = np.random.default_rng(1).standard_normal((4, 3, 8, 8), dtype=np.float32)
    expected, found = (run_reference(one, {"input": images})["logits"] for one in (_graph(), _made(_graph())))

    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    assert 0 < error < 0.1


def test_a_layer_of_small_weights_keeps_a_scale_that_fp16_has() -> None:
    proto = _graph()
    weight = next(item for item in proto.graph.initializer if item.name == "main")
    values = numpy_helper.to_array(weight) / 100
    weight.CopyFrom(numpy_helper.from_array(values, "main"))

    made = _made(proto)
    arrays = {item.name: numpy_helper.to_array(item).astype(np.float32) for item in made.graph.initializer}
    assert arrays["main.scale"] == np.finfo(np.float16).smallest_normal
    stored = arrays["main.codes"] * arrays["main.scale"]
    assert np.abs(stored - values).max() <= np.abs(values).max() / 16
    assert to_half(made, dtype="fp16").kept == ()


def test_an_opset_without_fp8_is_refused_with_the_cure() -> None:
    with pytest.raises(GraphError, match=r"FP8 codes: expected opset 19, got opset 18.*export"):
        plan_fp8(_graph(18))


def test_a_weight_that_is_not_finite_is_refused() -> None:
    proto = _graph()
    values = np.full(_WEIGHTS["main"], np.inf, np.float32)
    next(item for item in proto.graph.initializer if item.name == "main").CopyFrom(
        numpy_helper.from_array(values, "main")
    )

    with pytest.raises(GraphError, match="weight 'main'"):
        _made(proto)
