from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from trtbench.graph.half import to_half
from trtbench.graph.placement import activation_tensors, plan_qdq
from trtbench.graph.qdq import insert_qdq
from trtbench.graph.sparsity import SparseLayers, sparse_layers


def _sparse(shape: tuple[int, ...], *, axis: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return ones of which the two last of every four along `axis` are zero."""
    keep = np.tile(np.array([1, 1, 0, 0], np.float32), shape[axis] // 4)
    return np.ones(shape, np.float32) * keep.reshape([-1 if index == axis else 1 for index in range(len(shape))])


def _model(body: str, **weights: Any) -> onnx.ModelProto:
    header = "net (float[batch, 8, 4, 4] input) => (float[batch, n, h, w] out)"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {header} {{ {body} }}')
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


def test_zeros_along_the_input_channels_qualify_and_along_the_output_channels_do_not() -> None:
    weights = {"along": _sparse((8, 8, 3, 3), axis=1), "across": _sparse((8, 8, 1, 1), axis=0)}
    model = _model("a = Conv<pads = [1, 1, 1, 1]>(input, along) out = Conv(a, across)", **weights)
    assert sparse_layers(model) == SparseLayers(
        qualifying=("a",),
        others=(("out", "8 of 16 groups of 4 input channels hold more than 2 nonzero weights"),),
    )


def test_one_weight_too_many_in_one_place_of_the_kernel_disqualifies() -> None:
    weight = _sparse((8, 8, 3, 3), axis=1)
    weight[5, 6, 2, 1] = 1e-30
    found = sparse_layers(_model("out = Conv(input, w)", w=weight))
    assert found.others == (("out", "1 of 144 groups of 4 input channels hold more than 2 nonzero weights"),)


@pytest.mark.parametrize(
    ("layer", "shape", "axis"),
    [("Gemm<transB = 1>", (5, 8), 1), ("Gemm", (8, 5), 0), ("MatMul", (8, 5), 0)],
)
def test_a_matrix_qualifies_along_the_axis_that_is_summed(layer: str, shape: tuple[int, int], axis: int) -> None:
    body = f"p = GlobalAveragePool(input) f = Flatten(p) out = {layer}(f, w)"
    assert sparse_layers(_model(body, w=_sparse(shape, axis=axis))).qualifying == ("out",)
    dense = np.ones(shape, np.float32)
    assert sparse_layers(_model(body, w=dense)).qualifying == ()


@pytest.mark.parametrize(
    ("body", "weights", "reason"),
    [
        ("out = Conv<group = 2>(input, w)", {"w": _sparse((8, 4, 1, 1), axis=1)}, "grouped"),
        ("out = ConvTranspose(input, w)", {"w": _sparse((8, 4, 1, 1), axis=0)}, "transposed"),
        ("w = Relu(input) out = MatMul(input, w)", {}, "computed at run time"),
        ("out = Conv(input, w)", {"w": np.zeros((8, 6, 1, 1), np.float32)}, "6 input channels, no multiple of 4"),
    ],
)
def test_the_others_say_why(body: str, weights: dict[str, Any], reason: str) -> None:
    ((name, why),) = sparse_layers(_model(body, **weights)).others
    assert name == "out"
    assert reason in why


def test_another_pattern_is_another_question() -> None:
    model = _model("out = Conv(input, w)", w=_sparse((8, 8, 1, 1), axis=1))
    assert sparse_layers(model, pattern=(1, 4)).qualifying == ()
    assert sparse_layers(model, pattern=(4, 8)).qualifying == ("out",)


def test_zeros_survive_quantization_and_half_precision() -> None:
    model = _model("a = Conv(input, w) out = Relu(a)", w=_sparse((8, 8, 3, 3), axis=1))
    plan = plan_qdq(model)
    quantized = insert_qdq(model, plan, dict.fromkeys(activation_tensors(plan), 4.0))
    for graph in (quantized, to_half(model, dtype="bf16").proto, to_half(quantized, dtype="fp16").proto):
        assert sparse_layers(graph).qualifying == ("a",)
