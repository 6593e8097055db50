"""Equalisation, reconstruction and bias correction: what they keep, and what they win."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from trtbench.calibrate.ranges import mean_by_channel
from trtbench.graph.equalise import equalise
from trtbench.graph.placement import activation_tensors, plan_qdq
from trtbench.graph.qdq import insert_qdq
from trtbench.graph.reference import run_reference
from trtbench.graph.view import as_rows, constants, rounded, weight_scales
from trtbench.make.refine import (
    correct_biases,
    gram,
    layer_rows,
    reconstructions,
    round_by_reconstruction,
    shift_graph,
    with_weights,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BODY = """
    a = Conv(input, w1, b1)
    x = {between}
    d = Conv<group = 6, pads = [1, 1, 1, 1], strides = [2, 2]>(x, w2, b2)
    y = Relu(d)
    out = Conv(y, w3)
"""
_SHAPES = {"w1": (6, 4, 1, 1), "b1": (6,), "w2": (6, 1, 3, 3), "b2": (6,), "w3": (5, 6, 1, 1)}


def _model(between: str = "Relu(a)", body: str = _BODY) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    signature = "net (float[batch, 4, 8, 8] input) => (float[batch, n, h, v] out)"
    text = f'<ir_version: 10, opset_import: ["" : 20]> {signature} {{ {body.format(between=between)} }}'
    model = onnx.parser.parse_model(text)
    values: dict[str, NDArray[Any]] = {name: rng.normal(size=shape) for name, shape in _SHAPES.items()}
    values["w1"] = values["w1"] * np.geomspace(0.01, 10, 6)[:, None, None, None]
    values |= {"zero": np.array(0.0), "six": np.array(6.0)}
    for name, value in values.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    return model


def _images(count: int = 8) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(count, 4, 8, 8)).astype(np.float32)


def _amax(model: onnx.ModelProto, images: NDArray[np.float32]) -> dict[str, float]:
    tensors = activation_tensors(plan_qdq(model))
    found = run_reference(model, {"input": images}, outputs=tensors)
    return {name: float(np.abs(values).max()) for name, values in found.items()}


def _run(model: onnx.ModelProto, images: NDArray[np.float32]) -> NDArray[np.float32]:
    return run_reference(model, {"input": images})["out"]


# --- equalisation


def test_equalising_keeps_what_a_network_computes() -> None:
    model, images = _model(), _images()
    found = equalise(model)
    assert len(found.pairs) == 2
    assert not found.clips
    np.testing.assert_allclose(_run(found.proto, images), _run(model, images), rtol=1e-4, atol=1e-4)


def test_equalised_neighbours_have_equal_ranges_in_every_channel() -> None:
    arrays = constants(equalise(_model()).proto.graph)
    outgoing, depthwise, incoming = (
        np.abs(arrays["w1"]).max(axis=(1, 2, 3)),
        np.abs(arrays["w2"]).max(axis=(1, 2, 3)),
        np.abs(arrays["w3"]).max(axis=(0, 2, 3)),
    )
    np.testing.assert_allclose(outgoing, depthwise, rtol=0.01)
    np.testing.assert_allclose(depthwise, incoming, rtol=0.01)


def test_equalising_a_lopsided_network_brings_its_int8_nearer_to_float() -> None:
    model, images = _model(), _images()
    errors = []
    for proto in (model, equalise(model).proto):
        quantized = insert_qdq(proto, plan_qdq(proto), _amax(proto, images))
        errors.append(float(np.square(_run(quantized, images) - _run(model, images)).mean()))
    assert errors[1] < errors[0]


def test_a_clip_between_the_two_becomes_a_relu_and_is_named() -> None:
    found = equalise(_model("Clip(a, zero, six)"))
    assert [node.op_type for node in found.proto.graph.node[:3]] == ["Conv", "Relu", "Conv"]
    assert list(found.proto.graph.node[1].input) == ["a"]
    assert found.clips == ("x",)


@pytest.mark.parametrize(
    "body",
    [
        _BODY.replace("{between}", "Sigmoid(a)").replace("out = Conv(y, w3)", "z = Sigmoid(y) out = Conv(z, w3)"),
        "a = Conv(input, w1, b1) x = Relu(a) s = Add(x, a) out = Conv(s, w3)",
        "x = Conv(input, w1, b1) y = Clip(x, six) out = Conv(y, w3)",
    ],
)
def test_layers_with_anything_else_in_between_stay_as_they_are(body: str) -> None:
    model = _model(body=body)
    found = equalise(model)
    assert found.pairs == ()
    assert found.proto == model


def test_a_dead_channel_does_not_stop_equalisation() -> None:
    model = _model()
    weight = np.array(constants(model.graph)["w1"])
    weight[2] = 0
    dead = with_weights(model, {"w1": weight})
    np.testing.assert_allclose(_run(equalise(dead).proto, _images()), _run(dead, _images()), rtol=1e-4, atol=1e-4)


# --- reconstruction


def test_the_gram_matrix_is_that_of_torchs_patches() -> None:
    model, images = _model(), _images()
    plan, amax = plan_qdq(model), _amax(model, images)
    layers = {layer.weight: layer for layer in reconstructions(model, plan)}
    assert list(layers) == ["w1", "w2", "w3"]
    values = run_reference(model, {"input": images}, outputs=["x"])["x"]
    scale = amax["x"] / 127
    codes = torch.from_numpy(np.clip(np.rint(values / np.float32(scale)), -128, 127) * np.float32(scale))
    patches = torch.nn.functional.unfold(codes, 3, padding=1, stride=2).double().reshape(8, 6, 9, -1)
    expected = torch.einsum("ngip,ngjp->gij", patches, patches).numpy()
    np.testing.assert_allclose(gram(layers["w2"], values, scale=scale), expected, rtol=1e-4, atol=1e-3)


def test_a_linear_layer_reads_rows() -> None:
    text = "<ir_version: 10, opset_import: ['' : 20]> n (float[b, 6] input) => (float[b, 5] out)".replace("'", '"')
    model = onnx.parser.parse_model(f"{text} {{ out = Gemm<transB = 1>(input, w) }}")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((5, 6), np.float32), "w"))
    layer = next(iter(reconstructions(model, plan_qdq(model))))
    rows = np.arange(12, dtype=np.float32).reshape(2, 6)
    np.testing.assert_allclose(gram(layer, rows, scale=1.0), (rows.T @ rows)[None])
    assert layer_rows(model, layer).shape == (5, 6)


def _output_error(weight: NDArray[Any], kept: NDArray[Any], inputs: NDArray[Any]) -> float:
    return float(np.square(inputs @ (weight - kept).T).sum())


def test_reconstruction_beats_nearest_rounding_and_comes_near_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(20, 6)).astype(np.float32)
    inputs = (rng.normal(size=(500, 6)) + 2 * rng.normal(size=(500, 1))).astype(np.float32)
    scales = np.full(20, 0.5, np.float32)
    found = round_by_reconstruction(weight, scales, (inputs.T @ inputs)[None].astype(np.float64))
    np.testing.assert_allclose(found / 0.5, np.rint(found / 0.5))
    nearest = _output_error(weight, rounded(weight, scales), inputs)
    ways = [np.array(way) for way in itertools.product((0, 1), repeat=6)]
    best = sum(
        min(_output_error(row[None], 0.5 * (np.floor(row / 0.5) + way)[None], inputs) for way in ways) for row in weight
    )
    assert best <= _output_error(weight, found, inputs) < 0.5 * (best + nearest)


def test_uncorrelated_inputs_leave_nearest_rounding() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    scales = weight_scales(weight, axis=0)
    grams = np.stack([np.eye(5)] * 2)
    np.testing.assert_array_equal(round_by_reconstruction(weight, scales, grams), rounded(weight, scales))


def test_inputs_that_are_always_zero_leave_nearest_rounding() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    scales = weight_scales(weight, axis=0)
    found = round_by_reconstruction(weight, scales, np.zeros((1, 5, 5)))
    np.testing.assert_array_equal(found, rounded(weight, scales))


# --- bias correction


def test_the_shift_of_a_channel_is_the_mean_of_quantized_minus_float() -> None:
    model, images = _model(), _images(2)
    quantized = insert_qdq(model, plan_qdq(model), {"input": 3.0, "x": 4.0, "y": 5.0})
    graph, names = shift_graph(model, quantized)
    shifts = mean_by_channel([run_reference(graph, {"input": images}, outputs=tuple(names.values()))], names=names)
    assert list(shifts) == ["a", "d", "out"]
    arrays = constants(model.graph)
    inputs = rounded(images.reshape(1, -1), np.array([3 / 127], np.float32)).reshape(images.shape)
    kept = rounded(as_rows(arrays["w1"], axis=0), weight_scales(arrays["w1"], axis=0)).reshape(6, 4, 1, 1)
    floats = np.einsum("nchw,oc->nohw", images, arrays["w1"][:, :, 0, 0])
    codes = np.einsum("nchw,oc->nohw", inputs, kept[:, :, 0, 0])
    np.testing.assert_allclose(shifts["a"], (codes - floats).mean(axis=(0, 2, 3)), atol=1e-5)


def test_correcting_the_biases_takes_the_shift_away() -> None:
    model, images = _model(), _images()
    plan, amax = plan_qdq(model), {"input": 2.0, "x": 1.0, "y": 1.0}  # far too narrow: the clipping shifts every mean
    graph, names = shift_graph(model, insert_qdq(model, plan, amax))
    shifts = mean_by_channel([run_reference(graph, {"input": images}, outputs=tuple(names.values()))], names=names)
    assert max(np.abs(shift).max() for shift in shifts.values()) > 0.1
    corrected = correct_biases(model, shifts)
    assert [len(node.input) for node in corrected.graph.node if node.op_type == "Conv"] == [3, 3, 3]
    onnx.checker.check_model(corrected)
    again, _ = shift_graph(model, insert_qdq(corrected, plan, amax, scales_of=model))
    left = mean_by_channel([run_reference(again, {"input": images}, outputs=tuple(names.values()))], names=names)
    assert max(np.abs(shift).max() for shift in left.values()) < 1e-4


def test_means_are_of_images_and_positions_over_all_batches() -> None:
    values = np.random.default_rng(0).normal(size=(7, 3, 4, 4)).astype(np.float32)
    found = mean_by_channel([{"t": values[:4]}, {"t": values[4:]}], names={"layer": "t"})
    np.testing.assert_allclose(found["layer"], values.mean(axis=(0, 2, 3)), rtol=1e-5)
