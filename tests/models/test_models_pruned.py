"""torch-pruning prunes every network of the zoo; what it leaves is saved, loaded and exported without it."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch
import torch_pruning
from torch import Tensor, nn

from trtbench.models import build_model, conv_widths, count_params, load_model, protected_layers, save_model

if TYPE_CHECKING:
    from pathlib import Path


@functools.cache
def pruned(name: str, *, protects: bool = True) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(name, num_classes=10).eval()
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    pruner = torch_pruning.pruner.BasePruner(
        model,
        torch.zeros(1, 3, 32, 32),
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        round_to=4,
        ignored_layers=[last, *(protected_layers(model) if protects else ())],
    )
    pruner.step()
    return model


def logits(model: nn.Module) -> Tensor:
    torch.manual_seed(2)
    with torch.no_grad():
        out: Tensor = model(torch.randn(2, 3, 32, 32))
    return out


FAST = ["resnet20", "resnet20_a", "mobilenet_v2"]  # the others take seconds each
SLOW = ["resnet18", "resnet56_a", "mobilenet_v2_cifar", "torchvision:densenet121", "torchvision:resnext50_32x4d",
        "torchvision:mnasnet0_5", "torchvision:regnet_y_400mf", "torchvision:googlenet"]  # fmt: skip


@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_pruned_network_comes_back_with_equal_logits(tmp_path: Path, name: str) -> None:
    model = pruned(name)
    assert count_params(model) < 0.6 * count_params(build_model(name, num_classes=10))
    save_model(tmp_path / "a.safetensors", model, name=name, num_classes=10, metadata={})
    loaded = load_model(name, num_classes=10, checkpoint=tmp_path / "a.safetensors")
    assert torch.equal(logits(model), logits(loaded.model))
    assert conv_widths(loaded.model) == conv_widths(model)
    assert str(loaded.model) == str(model)  # the numbers that modules print: channels, groups, features
    assert loaded.notes[0].startswith("pruned: ")


def test_only_the_inner_channels_of_option_a_are_pruned() -> None:
    widths, dense = (conv_widths(model) for model in (pruned("resnet20_a"), build_model("resnet20_a", num_classes=10)))
    for name, width in dense.items():
        is_inner = name.endswith("conv1") and name != "conv1"
        assert widths[name] == (width // 2 if is_inner else width)


def test_without_protection_torch_pruning_breaks_option_a() -> None:
    # The day this passes, the protection can go.
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        logits(pruned("resnet20_a", protects=False))


@pytest.mark.parametrize("exporter", ["torchscript", pytest.param("dynamo", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["resnet20", "resnet20_a", "mobilenet_v2"])
def test_a_pruned_network_exports_and_computes_the_same_in_onnx_runtime(
    tmp_path: Path, name: str, exporter: str
) -> None:
    model, path = pruned(name), tmp_path / "a.onnx"
    images = torch.randn(2, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the TorchScript exporter is deprecated; dynamo's pulls in deprecated parts
        torch.onnx.export(
            model, (images,), path, dynamo=exporter == "dynamo", external_data=False, opset_version=20, verbose=False
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(out, model(images).numpy(), rtol=1e-4, atol=1e-5)
