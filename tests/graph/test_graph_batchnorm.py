"""BatchNorm folds into a layer of its own, whatever that is, and the numbers stay; elsewhere it stays, in float."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from trtbench.graph.network import GraphNetwork
from trtbench.graph.placement import plan_qdq
from trtbench.graph.reference import run_reference
from trtbench.graph.simplify import simplify

_IMAGES = np.random.default_rng(0).standard_normal((2, 4, 6, 6), dtype=np.float32)


def _model(body: str) -> onnx.ModelProto:
    header = "net (float[batch, 4, 6, 6] input) => (float[batch, n] out)"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {header} {{ {body} }}')
    model.graph.output[0].type.tensor_type.ClearField("shape")
    draw = np.random.default_rng(1).uniform
    shapes = {"w": (4, 4, 1, 1), "bias": (4,), "one": (1,), "grouped": (4, 2, 1, 1), "m": (4, 4), "f": (144, 4)}
    stored = {name: draw(-1, 1, shape) for name, shape in shapes.items()}
    stored |= {"s": draw(0.5, 2, 4), "b": draw(-1, 1, 4), "mean": draw(-1, 1, 4), "v": draw(0.5, 2, 4)}
    for name, array in stored.items():
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    return model


def _norm(data: str, to: str = "out") -> str:
    return f"{to} = BatchNormalization<epsilon = 0.25>({data}, s, b, mean, v)"


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (f"c = Conv(input, w) {_norm('c')}", 0),
        (f"c = Conv(input, w, bias) {_norm('c')}", 0),
        (f"c = ConvTranspose(input, w, bias) {_norm('c')}", 0),
        (f"c = Conv(input, w) n = Relu(c) d = Conv(n, w) {_norm('d')}", 0),  # the weight of `c` stays
        (f"c = Conv(input, w) {_norm('c', 'n')} d = Conv(n, w) {_norm('d')}", 0),
        (f"p = Flatten(input) c = Gemm(p, f, bias) {_norm('c')}", 0),
        (f"p = Flatten(input) c = Gemm(p, f, one) {_norm('c')}", 0),
        (f"p = GlobalAveragePool(input) q = Flatten(p) c = Gemm<transB = 1>(q, m) {_norm('c')}", 0),
        (f"p = GlobalAveragePool(input) q = Flatten(p) c = Gemm<alpha = 2.0>(q, m) {_norm('c')}", 1),
        (f"c = ConvTranspose<group = 2>(input, grouped) {_norm('c')}", 1),
        (f"c = Conv(input, w) {_norm('c', 'n')} out = Add(c, n)", 1),
        (f"{_norm('input')}", 1),
        (f"c = Conv(input, w) {_norm('c', 'n')} {_norm('n')}", 1),
        (f"c = Relu(input) {_norm('c', 'n')} out = Conv(n, w)", 1),
    ],
)
def test_a_norm_folds_into_a_layer_of_its_own_and_the_numbers_stay(body: str, left: int) -> None:
    model = _model(body)
    simple = simplify(model)
    assert Counter(node.op_type for node in simple.graph.node)["BatchNormalization"] == left
    expected, got = (run_reference(one, {"input": _IMAGES})["out"] for one in (model, simple))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_norm_that_stays_reads_the_tensor_as_it_is_beside_an_int8_layer() -> None:
    plan = plan_qdq(
        simplify(_model(f"x = Relu(input) c = Conv(x, w) {_norm('x', 'n')} d = Conv(n, w) out = Add(c, d)"))
    )
    readers = {point.tensor: [reader.node for reader in point.readers] for point in plan.activations}
    assert readers["x"] == ["c"]
    assert readers["n"] == ["d"]


def test_a_norm_that_stays_learns_its_scale_and_shift_but_not_its_statistics() -> None:
    model = _model(f"{_norm('input', 'n')} out = Conv(n, w)")
    network = GraphNetwork(model)
    with torch.no_grad():
        got = network(torch.from_numpy(_IMAGES)).numpy()
    np.testing.assert_allclose(got, run_reference(model, {"input": _IMAGES})["out"], rtol=1e-5, atol=1e-6)
    assert {"s", "b"} <= dict(network.named_parameters()).keys()
    assert {"mean", "v"} <= dict(network.named_buffers()).keys()
