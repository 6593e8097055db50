"""A graph as a network that learns computes what ONNX Runtime computes, with Q/DQ pairs and without."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from trtbench.compress.method import GraphContext
from trtbench.compress.qat import held_zeros, learn, learn_int8
from trtbench.errors import UnsupportedError
from trtbench.graph.export import export_onnx
from trtbench.graph.network import GraphNetwork
from trtbench.graph.placement import activation_tensors, plan_qdq
from trtbench.graph.qdq import insert_qdq
from trtbench.graph.reference import run_reference
from trtbench.models import build_model
from trtbench.suite import ExportConfig, QatVariant
from trtbench.train.hooks import NO_HOOKS, Hooks

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray
    from torch import nn

    from trtbench.precision import Runtime

_NETWORKS = ["resnet20", "resnet20_a", "resnet18", "mobilenet_v2_cifar"]


def _exported(name: str, folder: Path) -> tuple[onnx.ModelProto, NDArray[np.float32]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_model(name, num_classes=10).eval()
    config = ExportConfig(exporter="torchscript", opset=17)
    export_onnx(network, folder / "model.onnx", input_shape=(3, 32, 32), config=config)
    images = np.random.default_rng(1).normal(size=(4, 3, 32, 32)).astype(np.float32)
    return onnx.load(folder / "model.onnx"), images


def _ranges(proto: onnx.ModelProto, images: NDArray[np.float32], runtime: Runtime) -> dict[str, float]:
    tensors = activation_tensors(plan_qdq(proto, runtime=runtime))
    values = run_reference(proto, {"input": images}, outputs=tensors)
    return {name: float(np.abs(value).max()) * 0.9 + 1e-6 for name, value in values.items()}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "resnet18" else ()) for name in _NETWORKS]
)
@pytest.mark.parametrize("runtime", ["tensorrt", "onnxruntime-cpu"])
def test_logits_are_those_of_the_exported_graph(name: str, runtime: str, tmp_path: Path) -> None:
    proto, images = _exported(name, tmp_path)
    with torch.no_grad():
        ours = GraphNetwork(proto)(torch.from_numpy(images)).numpy()
    theirs = run_reference(proto, {"input": images})["logits"]
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
    placed = cast("Runtime", runtime)
    plan, amax = plan_qdq(proto, runtime=placed), _ranges(proto, images, placed)
    with torch.no_grad():
        rounded = GraphNetwork(proto, plan, amax)(torch.from_numpy(images)).numpy()
    quantized = run_reference(insert_qdq(proto, plan, amax), {"input": images})["logits"]
    # A sum that falls on the edge between two codes may go either way: the two add in another order.
    apart, lost = np.abs(rounded - quantized).mean(), np.abs(ours - quantized).mean()
    assert apart < 0.6 * lost
    assert apart < 0.02 * np.abs(quantized).max()


def test_each_rounding_is_exactly_the_exported_one(tmp_path: Path) -> None:
    proto, images = _exported("resnet20", tmp_path)
    plan, amax = plan_qdq(proto), _ranges(proto, images, "tensorrt")
    quantized = insert_qdq(proto, plan, amax)
    weights = [f"{point.tensor}.dequantized" for point in plan.weights]
    theirs = run_reference(quantized, {"input": images}, outputs=weights)
    network = GraphNetwork(proto, plan, amax)
    arrays = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in proto.graph.initializer}
    layers = {node.output[0]: node for node in proto.graph.node}
    for point in plan.weights:
        ours = network._rounded_weight(layers[point.readers[0].node], arrays)
        np.testing.assert_allclose(ours.numpy(), theirs[f"{point.tensor}.dequantized"], rtol=1e-6)


def test_training_moves_the_weights_and_the_export_computes_what_was_trained(tmp_path: Path) -> None:
    proto, images = _exported("resnet20", tmp_path)
    plan, amax = plan_qdq(proto), _ranges(proto, images, "tensorrt")
    trained: dict[str, nn.Module] = {}

    def tune(network: nn.Module, **_: Any) -> None:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        labels = torch.tensor([1, 2, 3, 4])
        losses = []
        for _step in range(8):
            loss = torch.nn.functional.cross_entropy(network(torch.from_numpy(images)), labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
        trained["network"] = network

    learnt = learn_int8(proto, plan, amax, tune=tune)
    assert [node.SerializeToString() for node in learnt.graph.node] == [
        node.SerializeToString() for node in proto.graph.node
    ]
    with torch.no_grad():
        ours = trained["network"](torch.from_numpy(images)).numpy()
    theirs = run_reference(insert_qdq(learnt, plan, amax), {"input": images})["logits"]
    np.testing.assert_allclose(ours, theirs, atol=0.02 * np.abs(theirs).max())
    assert (ours.argmax(1) == theirs.argmax(1)).all()


def test_zero_weights_are_held_while_a_graph_learns(tmp_path: Path) -> None:
    proto, images = _exported("resnet20", tmp_path)
    layers = ("layer1.0.conv1",)
    target = next(item for item in proto.graph.initializer if item.name == f"{layers[0]}.weight")
    array = numpy_helper.to_array(target).copy()
    array[:, ::2] = 0
    target.CopyFrom(numpy_helper.from_array(array, target.name))

    def tune(network: nn.Module, *, hooks: Hooks = NO_HOOKS, **_: Any) -> None:
        assert isinstance(network, GraphNetwork)
        assert hooks.key == held_zeros(network, layers).key
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=0.1)
        torch.autograd.backward(network(torch.from_numpy(images)).square().sum())
        optimizer.step()
        assert hooks.after_step is not None
        hooks.after_step(network, 1)

    plan, amax = plan_qdq(proto), _ranges(proto, images, "tensorrt")
    learnt = learn_int8(proto, plan, amax, tune=tune, sparse_layers=layers)
    found = next(numpy_helper.to_array(item) for item in learnt.graph.initializer if item.name == target.name)
    assert not found[:, ::2].any()
    assert not np.array_equal(found, array)


def test_an_operator_that_cannot_be_trained_is_named() -> None:
    graph = helper.make_graph([helper.make_node("Erf", ["input"], ["logits"])], "g", [], [])
    with pytest.raises(UnsupportedError, match="Erf"):
        GraphNetwork(helper.make_model(graph))


def test_a_node_that_stays_in_float_is_learnt_in_float(tmp_path: Path) -> None:
    proto, images = _exported("resnet20", tmp_path)
    left_out = (next(node.name for node in proto.graph.node if node.op_type == "Conv"),)
    plan = plan_qdq(proto, exclude=left_out)
    every = _ranges(proto, images, "tensorrt")
    ranges = {name: every[name] for name in activation_tensors(plan)}
    seen: list[nn.Module] = []
    context = GraphContext(tune=lambda network, **_: seen.append(network), ranges=ranges, exclude=left_out)

    made = learn(proto, QatVariant(kind="qat", name="q"), context)

    assert made.notes == (f"learnt in INT8: {plan.summary}",)
    ours = seen[0](torch.from_numpy(images)).detach().numpy()
    theirs = run_reference(insert_qdq(made.proto, plan, ranges), {"input": images})["logits"]
    np.testing.assert_allclose(ours, theirs, atol=0.02 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("out = MaxPool<kernel_shape = [2, 2], dilations = [2, 2]>(input)", "MaxPool 'out'.* shape"),
        ("r = Relu(input) out = MaxPool<kernel_shape = [2, 2], pads = [0, 0, 1, 1]>(r)", "MaxPool 'out'"),
        ('out = Pad<mode = "reflect">(input, pads)', "Pad 'out'.* values that differ"),
        ("f = Flatten<axis = 2>(input) out = Relu(f)", "Flatten 'f'.* shape"),
        ('out = Conv<auto_pad = "SAME_UPPER">(input, w)', "Conv 'out'.* shape"),
    ],
)
def test_a_node_with_attributes_that_are_not_known_is_refused_by_name(body: str, words: str) -> None:
    header = "net (float[batch, 3, 6, 6] input) => (float[batch, n] out)"
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {header} {{ {body} }}')
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads"))
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32), "w"))
    with pytest.raises(UnsupportedError, match=words):
        GraphNetwork(proto).require_same()


def test_a_graph_of_known_nodes_is_the_same(tmp_path: Path) -> None:
    proto, _ = _exported("resnet20_a", tmp_path)
    GraphNetwork(proto).require_same()
