"""Every graph that trtbench makes of its own networks is taken by NVIDIA's real parser, and built as it was planned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
import torch
from torch import nn

from tests.rtx.compiler import Options, compiled, parsed
from tests.rtx.mutations import subjects
from trtbench.engines.tensorrt.inspector import report_layers
from trtbench.engines.tensorrt_rtx.layer_text import inspector_json
from trtbench.graph.export import export_onnx
from trtbench.graph.half import to_half
from trtbench.graph.lint import lint
from trtbench.graph.placement import activation_tensors, plan_qdq
from trtbench.graph.qdq import insert_qdq
from trtbench.models import build_model, model_names
from trtbench.suite import ExportConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbench.graph.plan import QdqPlan

pytestmark = pytest.mark.rtx

_TARGETS = ("SM89", "SM120")
_BUILT = ("resnet20", "resnet20_a", "mobilenet_v2_cifar")
_SIZES = {"mobilenet_v2": 64, "resnet18_imagenet": 64}
_RANGE = 4.0  # of every activation: what a builder makes of a graph does not hang on its scales


def _network(name: str) -> nn.Module:
    """Return a network whose activations keep their size from layer to layer, as a trained one's do."""
    torch.manual_seed(0)
    network = build_model(name, num_classes=10)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1
    with torch.no_grad():
        network.train()(torch.randn(8, 3, _SIZES.get(name, 32), _SIZES.get(name, 32)))
    return network.eval()


def _graphs(network: nn.Module, folder: Path, *, size: int = 32) -> tuple[Mapping[str, onnx.ModelProto], QdqPlan]:
    path = folder / "model.onnx"
    export_onnx(network, path, input_shape=(3, size, size), config=ExportConfig(exporter="torchscript"))
    proto = onnx.load(path)
    plan = plan_qdq(proto)
    quantized = insert_qdq(proto, plan, dict.fromkeys(activation_tensors(plan), _RANGE))
    graphs = {
        "fp32": proto,
        "fp16": to_half(proto, dtype="fp16").proto,
        "bf16": to_half(proto, dtype="bf16").proto,
        "int8": quantized,
        "int8+fp16": to_half(quantized, dtype="fp16").proto,
    }
    return graphs, plan


def _require_as_planned(graphs: Mapping[str, onnx.ModelProto], plan: QdqPlan, *, targets: tuple[str, ...]) -> None:
    planned = [layer.node for layer in plan.layers if layer.is_quantized]
    for precision, graph in graphs.items():
        for target in targets:
            found = compiled(graph.SerializeToString(), Options(targets=(target,)))
            assert (found.exit_code, found.faults) == (0, ())
            assert found.plan_bytes, found.log
            report = report_layers(inspector_json(found.layers), convolutions=planned)
            if precision.startswith("int8"):
                assert dict.fromkeys(planned, "int8") == report.convolutions
            else:
                assert "int8" not in report.by_precision


@pytest.mark.parametrize("name", model_names())
def test_every_precision_of_a_shipped_network_is_parsed(name: str, tmp_path: Path) -> None:
    graphs, plan = _graphs(_network(name), tmp_path, size=_SIZES.get(name, 32))

    assert {precision: lint(graph) for precision, graph in graphs.items() if lint(graph)} == {}
    found = parsed([graph.SerializeToString() for graph in graphs.values()])
    assert [(one.is_parsed, one.faults) for one in found] == [(True, ())] * len(graphs)
    if name in _BUILT:
        _require_as_planned(graphs, plan, targets=_TARGETS)


def test_the_recorded_layers_are_those_that_the_builder_lists() -> None:
    recorded = (Path(__file__).parents[1] / "engines" / "layers-tensorrt-rtx-1.7.txt").read_text(encoding="utf-8")

    found = compiled(subjects()[0].SerializeToString()).layers

    assert report_layers(inspector_json(found)) == report_layers(inspector_json(recorded))
