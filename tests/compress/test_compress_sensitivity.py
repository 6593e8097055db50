"""Sensitivity by layer against pruning by hand, and the Hessian importance against autograd image by image."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field reads
from torch import nn

from trtbench.compress import prune_channels
from trtbench.compress.torch_pruning import _HessianImportance
from trtbench.compress.weights import count_right
from trtbench.errors import ConfigError
from trtbench.models import build_model, conv_widths
from trtbench.studies.sensitivity import draw_sensitivities, layer_sensitivities, sensitivity_csv
from trtbench.suite import ChannelsVariant

if TYPE_CHECKING:
    from trtbench.records import Dataset


@pytest.fixture
def net() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)
        ).eval()


def test_each_layer_alone_loses_its_smallest_outputs_and_the_network_is_left_as_it_was(
    net: Any, tiny_dataset: Dataset
) -> None:
    before = copy.deepcopy(net.state_dict())

    found = layer_sensitivities(net, tiny_dataset, ratios=(0.0, 0.5))

    assert [(one.layer, one.ratio) for one in found] == [("0", 0.0), ("0", 0.5), ("2", 0.0), ("2", 0.5)]
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert found[0].correct == found[2].correct == count_right(net, tiny_dataset)
    twin = copy.deepcopy(net)
    norms = (twin[2].weight ** 2).sum((1, 2, 3))
    for output in norms.sort().indices[:4]:
        twin[2].weight.data[output] = 0
        twin[2].bias.data[output] = 0
    assert found[3].correct == count_right(twin, tiny_dataset)


def test_the_table_and_the_plot_show_every_layer(net: Any, tiny_dataset: Dataset) -> None:
    found = layer_sensitivities(net, tiny_dataset, ratios=(0.5,))

    lines = sensitivity_csv(found).splitlines()
    assert lines[0] == "layer_name,ratio,correct,total"
    assert lines[1] == f"0,0.5,{found[0].correct},40"
    assert draw_sensitivities(found).startswith(b"\x89PNG")


def test_the_hessian_importance_counts_every_image(net: Any) -> None:
    images, labels = torch.rand(5, 3, 8, 8), torch.arange(5) % 4
    importance = _HessianImportance()
    expected = torch.zeros_like(net[0].weight)
    for image, label in zip(images, labels, strict=True):
        net.zero_grad()
        torch.autograd.backward(F.cross_entropy(net(image[None]), label[None]))
        importance.accumulate_grad(net)
        expected += net[0].weight.grad ** 2

    assert torch.allclose(importance._accu_grad[net[0].weight], expected)
    assert importance._counter[net[0].weight] == 5


def test_hessian_keeps_the_channels_the_loss_depends_on_and_needs_images() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_model("resnet20", num_classes=10).eval()
    config = ChannelsVariant(kind="channels", name="p", ratio=0.5, importance="hessian")
    batches = [(torch.rand(4, 3, 16, 16), torch.arange(4))]

    pruned = prune_channels(network, config, input_shape=(3, 16, 16), round_to=1, batches=batches)

    assert conv_widths(pruned.model)["conv1"] == 8
    with pytest.raises(ConfigError, match="importance hessian"):
        prune_channels(network, config, input_shape=(3, 16, 16), round_to=1)


_ARCHITECTURES = (
    "efficientnet_b0",
    "googlenet",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "resnet18",
    "resnet34",
    "resnet50",
    "squeezenet1_1",
    "vgg11_bn",
    "wide_resnet50_2",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", _ARCHITECTURES)
def test_a_network_of_torchvision_is_pruned_exported_and_run(name: str, tmp_path: Any) -> None:
    import numpy as np
    import onnxruntime

    from trtbench.graph.export import export_onnx
    from trtbench.suite import ExportConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_model(f"torchvision:{name}", num_classes=10).eval()
    config = ChannelsVariant(kind="channels", name="p", ratio=0.3)

    pruned = prune_channels(network, config, input_shape=(3, 64, 64), round_to=8)
    path = tmp_path / "model.onnx"
    # torchscript, the faster one, has no pooling to 7x7 from 2x2.
    exporter = "dynamo" if name == "vgg11_bn" else "torchscript"
    export_onnx(pruned.model, path, input_shape=(3, 64, 64), config=ExportConfig(exporter=exporter))

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    (logits,) = session.run(None, {session.get_inputs()[0].name: images})
    with torch.no_grad():
        expected = pruned.model(torch.from_numpy(images)).numpy()
    assert pruned.record.params_after < pruned.record.params_before
    assert np.abs(logits - expected).max() < 1e-3 * max(1.0, np.abs(expected).max())
