"""A tiny real network as ONNX, float and Q/DQ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CLASSES, SIZE = 4, 8


@pytest.fixture(scope="session")
def images() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((6, 3, SIZE, SIZE), dtype=np.float32)


@pytest.fixture
def float_graph(tmp_path: Path) -> Path:
    """Conv, ReLU, global average pool, Gemm: (batch, 3, 8, 8) to (batch, 4)."""
    random = np.random.default_rng(1)
    weights = {
        "conv.weight": random.standard_normal((8, 3, 3, 3)),
        "conv.bias": random.standard_normal(8),
        "fc.weight": random.standard_normal((CLASSES, 8)),
        "fc.bias": random.standard_normal(CLASSES),
    }
    nodes = [
        helper.make_node("Conv", ["input", "conv.weight", "conv.bias"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path / "float.onnx"
    onnx.save(proto, path)
    return path


@pytest.fixture
def quantized_graph(float_graph: Path, tmp_path: Path) -> Path:
    """The same network with Q/DQ nodes, by the rules of the graph room."""
    from trtbench.graph.placement import activation_tensors, plan_qdq
    from trtbench.graph.qdq import insert_qdq

    proto = onnx.load(float_graph)
    plan = plan_qdq(proto)
    path = tmp_path / "qdq.onnx"
    onnx.save(insert_qdq(proto, plan, dict.fromkeys(activation_tensors(plan), 4.0)), path)
    return path
