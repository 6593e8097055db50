from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from trtbench.graph.ablation import only, quantized_nodes, ranges_of_all, with_refinements, without_pairs
from trtbench.graph.placement import plan_qdq
from trtbench.graph.qdq import insert_qdq
from trtbench.graph.reference import run_reference
from trtbench.graph.view import constants

_GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 2, 4, 4] input) => (float[batch, 3] out)
<float[3, 2, 3, 3] kernel, float[3] bias, float[3, 3] head>
{
  conv = Conv <pads = [1, 1, 1, 1]> (input, kernel, bias)
  relu = Relu(conv)
  pooled = GlobalAveragePool(relu)
  flat = Flatten(pooled)
  out = Gemm <transB = 1> (flat, head)
}
"""


@pytest.fixture
def graph() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(_GRAPH)
    random = np.random.default_rng(0)
    shapes = {"kernel": (3, 2, 3, 3), "bias": (3,), "head": (3, 3)}
    del proto.graph.initializer[:]
    for name, shape in shapes.items():
        values = random.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    for node in proto.graph.node:
        node.name = f"/{node.output[0]}"
    return proto


def _quantized(graph: onnx.ModelProto) -> onnx.ModelProto:
    return insert_qdq(graph, plan_qdq(graph), {"input": 3.0, "relu": 4.0, "flat": 1.0})


def _images() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(1).normal(size=(5, 2, 4, 4)).astype(np.float32)


def test_nodes_that_compute_in_int8_come_with_the_macs_of_one_image(graph: onnx.ModelProto) -> None:
    found = quantized_nodes(graph, plan_qdq(graph))

    assert [(node.name, node.op_type, node.macs) for node in found] == [
        ("/conv", "Conv", 3 * 4 * 4 * 2 * 3 * 3),
        ("/pooled", "GlobalAveragePool", 0),
        ("/out", "Gemm", 3 * 3),
    ]
    assert found[0].output == "conv"


def test_the_macs_of_a_transposed_convolution_are_counted_from_its_input() -> None:
    proto = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 20]>
    up (float[batch, 2, 4, 4] input) => (float[batch, 3, 8, 8] out)
    <float[2, 3, 2, 2] kernel = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24}>
    { out = ConvTranspose <strides = [2, 2]> (input, kernel) }
    """)

    (node,) = quantized_nodes(proto, plan_qdq(proto))

    assert node.macs == 2 * 4 * 4 * 3 * 2 * 2


def test_without_activation_pairs_the_graph_is_the_float_one_with_rounded_weights(graph: onnx.ModelProto) -> None:
    rounded = onnx.ModelProto()
    rounded.CopyFrom(graph)
    for item in rounded.graph.initializer:
        weight = numpy_helper.to_array(item)
        if item.name != "bias":
            scale = np.abs(weight.reshape(3, -1)).max(axis=1).reshape(3, *[1] * (weight.ndim - 1)) / 127
            item.CopyFrom(numpy_helper.from_array((np.rint(weight / scale) * scale).astype(np.float32), item.name))

    found = run_reference(without_pairs(_quantized(graph), of="activations"), {"input": _images()})["out"]

    assert np.allclose(found, run_reference(rounded, {"input": _images()})["out"], atol=1e-5)


def test_without_weight_pairs_only_activations_are_rounded(graph: onnx.ModelProto) -> None:
    left = without_pairs(_quantized(graph), of="weights")

    quantizers = [node.input[0] for node in left.graph.node if node.op_type == "QuantizeLinear"]

    assert not set(quantizers) & constants(left.graph).keys()
    assert quantizers
    assert [node.input[1] for node in left.graph.node if node.op_type in {"Conv", "Gemm"}] == ["kernel", "head"]


def test_without_both_kinds_of_pairs_the_graph_computes_what_the_float_one_does(graph: onnx.ModelProto) -> None:
    bare = without_pairs(without_pairs(_quantized(graph), of="weights"), of="activations")

    assert np.array_equal(
        run_reference(bare, {"input": _images()})["out"], run_reference(graph, {"input": _images()})["out"]
    )


def test_an_excluded_layer_keeps_its_own_weights_and_the_others_take_the_refined_ones(graph: onnx.ModelProto) -> None:
    refined = onnx.ModelProto()
    refined.CopyFrom(graph)
    for item in refined.graph.initializer:
        item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item) + 1, item.name))

    found = constants(with_refinements(graph, refined, exclude={"/conv"}).graph)

    own = constants(graph.graph)
    assert np.array_equal(found["kernel"], own["kernel"])
    assert np.array_equal(found["bias"], own["bias"])
    assert np.array_equal(found["head"], own["head"] + 1)


def test_a_tensor_that_was_only_moved_has_the_range_of_its_source() -> None:
    proto = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 20]>
    moved (float[batch, 2, 4, 4] input) => (float[batch, 2, 2, 2] out)
    <float[2, 2, 1, 1] kernel = {1, 2, 3, 4}, float[2, 2, 1, 1] other = {1, 2, 3, 4}>
    {
      first = Conv(input, kernel)
      small = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (input)
      second = Conv(small, other)
      tiny = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (first)
      out = Add(second, tiny)
    }
    """)
    plan = plan_qdq(proto)
    found = ranges_of_all(plan, {"input": 2.0, "first": 3.0})

    assert found["input"] == found["small"] == 2.0
    insert_qdq(proto, plan_qdq(proto, exclude=["first"]), found)


def test_a_node_alone_reads_through_its_own_pairs_and_no_others(graph: onnx.ModelProto) -> None:
    plan = plan_qdq(graph)
    pool = next(node for node in quantized_nodes(graph, plan) if node.op_type == "GlobalAveragePool")

    alone = insert_qdq(graph, only(plan, pool), {"input": 3.0, "relu": 4.0, "flat": 1.0})

    assert [node.input[0] for node in alone.graph.node if node.op_type == "QuantizeLinear"] == ["relu"]
    kept = next(node for node in quantized_nodes(graph, plan) if node.op_type == "Conv")
    conv = insert_qdq(graph, only(plan, kept), {"input": 3.0, "relu": 4.0, "flat": 1.0})
    assert [node.input[0] for node in conv.graph.node if node.op_type == "QuantizeLinear"] == ["input", "kernel"]
