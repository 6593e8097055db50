"""A graph that cannot become what it is asked for is refused by node, before TensorRT's parser sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from trtbench.engines.base import BuildOptions
from trtbench.engines.tensorrt.library import Abilities
from trtbench.engines.tensorrt.precision import PrecisionPlan, plan_precision
from trtbench.engines.tensorrt.source import read_source
from trtbench.errors import EngineError, GraphError
from trtbench.graph.half import to_half

if TYPE_CHECKING:
    from pathlib import Path

_TEN = Abilities(version="10.16.1.11", has_calibrator=True, has_weak_typing=True)


def _plan(precision: str) -> PrecisionPlan:
    return plan_precision(precision, abilities=_TEN, options=BuildOptions(), compute_capability=(8, 0))


def test_a_float_graph_tells_its_convolutions_and_the_bytes_of_its_weights(float_graph: Path) -> None:
    source = read_source(float_graph, _plan("fp32"))

    assert source.convolutions == ("conv",)
    assert source.quantizers == 0
    assert source.weight_bytes == 4 * (8 * 3 * 9 + 8 + 4 * 8 + 4)
    assert source.data == float_graph.read_bytes()


def test_quantizers_on_weights_are_not_counted(quantized_graph: Path) -> None:
    proto = onnx.load(quantized_graph)
    nodes = [node for node in proto.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    weights = {item.name for item in proto.graph.initializer}
    q_of_weights = [node for node in nodes if node.input[0] in weights]

    source = read_source(quantized_graph, _plan("int8"))

    assert source.quantizers == len(nodes) - 2 * len(q_of_weights)
    assert source.quantizers > 0


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_half_engine_of_an_fp32_graph_is_refused(precision: str, float_graph: Path) -> None:
    with pytest.raises(GraphError, match=f"{precision}.*expected a graph with B?FLOAT16 weights or casts"):
        read_source(float_graph, _plan(precision))


def test_a_half_graph_is_taken(float_graph: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    onnx.save(to_half(onnx.load(float_graph), dtype="fp16").proto, path)

    assert "FLOAT16" in read_source(path, _plan("fp16")).element_types


def test_an_int8_engine_of_a_float_graph_is_refused(float_graph: Path) -> None:
    with pytest.raises(GraphError, match=r"expected Q/DQ nodes on its activations.*trtbench calibrate"):
        read_source(float_graph, _plan("int8"))


@pytest.mark.parametrize("precision", ["fp32", "int8-implicit"])
def test_q_dq_nodes_in_a_float_or_calibrated_engine_are_refused(precision: str, quantized_graph: Path) -> None:
    with pytest.raises(GraphError, match="expected a graph without Q/DQ nodes"):
        read_source(quantized_graph, _plan(precision))


def test_a_breach_of_the_rules_is_told_by_its_node(quantized_graph: Path) -> None:
    proto = onnx.load(quantized_graph)
    broken = next(node for node in proto.graph.node if node.op_type == "QuantizeLinear")
    scale = next(item for item in proto.graph.initializer if item.name == broken.input[1])
    scale.CopyFrom(numpy_helper.from_array(np.zeros_like(numpy_helper.to_array(scale)), scale.name))
    onnx.save(proto, quantized_graph)

    with pytest.raises(GraphError, match=rf"{broken.name}: scale 0.*bad-scale"):
        read_source(quantized_graph, _plan("int8"))


def test_a_float_graph_of_an_old_opset_is_taken_and_a_quantized_one_is_not(
    float_graph: Path, quantized_graph: Path
) -> None:
    for path in (float_graph, quantized_graph):
        proto = onnx.load(path)
        proto.opset_import[0].version = 11
        onnx.save(proto, path)

    assert read_source(float_graph, _plan("fp32")).convolutions == ("conv",)
    with pytest.raises(GraphError, match="opset 11; scales per channel need 13"):
        read_source(quantized_graph, _plan("int8"))


def test_a_graph_that_onnx_cannot_infer_is_refused_by_its_node(float_graph: Path) -> None:
    proto = onnx.load(float_graph)
    proto.graph.node[0].op_type, proto.graph.node[0].domain = "Foo", "nowhere"
    onnx.save(proto, float_graph)

    with pytest.raises(GraphError, match=r"nowhere\.Foo is no operator of ONNX, and no plugin is loaded \(operator\)"):
        read_source(float_graph, _plan("fp32"))


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\xff" * 40)

    with pytest.raises(EngineError, match="expected an ONNX file"):
        read_source(path, _plan("fp32"))
    with pytest.raises(EngineError, match="expected an ONNX file"):
        read_source(tmp_path / "none.onnx", _plan("fp32"))
