"""Dynamic INT8: the linear layers alone, close to the float logits and to torch's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from trtbench.compress.dynamic_int8 import quantize_linear
from trtbench.errors import GraphError
from trtbench.graph.export import export_onnx
from trtbench.graph.reference import run_reference
from trtbench.suite import ExportConfig

if TYPE_CHECKING:
    from pathlib import Path


class Network(nn.Module):
    """A convolution and, if wanted, a linear layer."""

    def __init__(self, *, is_linear: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3)
        self.fc = nn.Linear(32, 10) if is_linear else nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(torch.relu(self.conv(images)).mean((2, 3)))
        return logits


def _exported(folder: Path, *, is_linear: bool = True) -> tuple[Network, onnx.ModelProto]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(is_linear=is_linear).eval()
    config = ExportConfig(exporter="torchscript", opset=17)
    export_onnx(network, folder / "model.onnx", input_shape=(3, 8, 8), config=config)
    return network, onnx.load(folder / "model.onnx")


def test_only_linear_layers_become_int8_and_their_share_is_said(tmp_path: Path) -> None:
    network, proto = _exported(tmp_path)
    quantized, record = quantize_linear(proto)
    assert (record.layers, record.weights, record.total_weights) == (1, 320, 320 + 864)
    assert record.share == 320 / 1184
    assert "touches 320 of 1,184 weights (27.03 %)" in record.summary
    operators = {node.op_type for node in quantized.graph.node}
    assert {"Conv", "MatMulInteger", "DynamicQuantizeLinear"} <= operators
    images = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    found = run_reference(quantized, {"input": images})["logits"]
    assert 0 < np.abs(found - expected).max() < 0.02 * np.abs(expected).max() + 0.01


def test_the_arithmetic_is_that_of_the_source(tmp_path: Path) -> None:
    """Weights int8 by their largest magnitude, activations uint8 by their own range: written down again in NumPy."""
    network, proto = _exported(tmp_path)
    quantized, _ = quantize_linear(proto)
    images = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        features = torch.relu(network.conv(torch.from_numpy(images))).mean((2, 3)).numpy()
    weight, bias = (value.detach().numpy() for value in network.fc.parameters())
    step = np.abs(weight).max() / 127
    codes = np.round(weight / step)
    low, high = min(features.min(), 0), max(features.max(), 0)
    scale = (high - low) / 255
    rounded = np.round(features / scale) * scale
    expected = rounded @ (codes * step).T + bias
    found = run_reference(quantized, {"input": images})["logits"]
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_graph_without_linear_layers_is_refused(tmp_path: Path) -> None:
    _, proto = _exported(tmp_path, is_linear=False)
    with pytest.raises(GraphError, match="expected a linear layer, got none"):
        quantize_linear(proto)


def test_what_onnx_runtime_refuses_is_told(tmp_path: Path) -> None:
    _, proto = _exported(tmp_path)
    proto.ClearField("opset_import")
    with pytest.raises(GraphError, match="quantize_dynamic"):
        quantize_linear(proto)
