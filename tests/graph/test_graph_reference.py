from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from trtbench.errors import GraphError
from trtbench.graph.reference import onnxruntime, run_reference

_GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
rounding (float[batch, 4] input) => (float[batch, 4] out)
<float scale = {0.5}, int8 zero = {0}>
{
  doubled = Add(input, input)
  codes = QuantizeLinear(doubled, scale, zero)
  out = DequantizeLinear(codes, scale, zero)
}
"""


@pytest.fixture
def graph() -> onnx.ModelProto:
    return onnx.parser.parse_model(_GRAPH)


def test_a_qdq_pair_rounds_half_to_even_and_clips_to_int8(graph: onnx.ModelProto) -> None:
    values = np.array([[0.125, 0.375, 0.3, 1e6]], np.float32)
    out = run_reference(graph, {"input": values})["out"]
    assert out.tolist() == [[0.0, 1.0, 0.5, 63.5]]


def test_inner_tensors_and_inputs_come_in_the_order_asked_for(graph: onnx.ModelProto) -> None:
    before = graph.SerializeToString()
    values = np.array([[1, 2, 3, 4]], np.float32)
    found = run_reference(graph, {"input": values}, outputs=["out", "doubled", "input"])
    assert list(found) == ["out", "doubled", "input"]
    assert found["doubled"].tolist() == [[2, 4, 6, 8]]
    assert found["input"] is values
    assert graph.SerializeToString() == before


def test_asking_for_inputs_alone_runs_nothing(graph: onnx.ModelProto) -> None:
    values = np.zeros((1, 4), np.float32)
    assert list(run_reference(graph, {"input": values}, outputs=["input"])) == ["input"]


def test_an_input_of_the_wrong_shape_is_a_graph_error(graph: onnx.ModelProto) -> None:
    with pytest.raises(GraphError, match="cannot run graph 'rounding'"):
        run_reference(graph, {"input": np.zeros((1, 5), np.float32)})


def test_telemetry_is_off_before_onnx_runtime_loads_and_torch_is_not_loaded() -> None:
    code = (
        "import os, sys; from trtbench.graph.reference import onnxruntime; assert 'onnxruntime' not in sys.modules;"
        "onnxruntime();"
        "print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules, 'torch' in sys.modules)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["1", "True", "False"]


def test_a_user_who_set_the_telemetry_variable_keeps_his_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    assert onnxruntime().__name__ == "onnxruntime"
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"
