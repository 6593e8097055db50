"""Zeros that stay: recorded in files, inferred where a file says nothing, and never where they are values."""

from __future__ import annotations

import base64
import copy
import json
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from trtbench.compress.reconstruct import asymmetric, symmetric
from trtbench.errors import CheckpointError
from trtbench.models import build_model, load_model, save_model
from trtbench.models.files import FACTS
from trtbench.models.masks import inferred_masks, keep_zeros, masks_of, prunable_weights, set_to_zero, zeros_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

_NAME = "tiny_nets:resnet8"


@pytest.fixture
def network() -> nn.Module:
    """A small network with 60 % of the weights of each layer at zero, and no masks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = build_model(_NAME, num_classes=10).eval()
        for weight in prunable_weights(found).values():
            weight.data.masked_fill_(torch.rand_like(weight) < 0.6, 0.0)
    return found


def _saved(network: nn.Module, path: Path) -> Path:
    save_model(path, network, name=_NAME, num_classes=10, metadata={})
    return path


def _loaded(path: Path, **options: Any) -> tuple[nn.Module, str]:
    found = load_model(_NAME, num_classes=10, checkpoint=path, **options)
    return found.model, "; ".join(found.notes)


def _facts(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()[FACTS])
    return found


def test_masks_go_into_the_file_and_come_back(network: nn.Module, tmp_path: Path) -> None:
    masks = {name: mask for name, mask in zeros_of(network).items() if name != "fc"}
    masks["conv1"] = torch.ones_like(masks["conv1"])
    masks["conv1"][0] = network.get_parameter("conv1.weight")[0] != 0  # the other zeros of this layer may learn
    keep_zeros(network, masks)

    path = _saved(network, tmp_path / "net.safetensors")
    found, notes = _loaded(path)

    recorded = _facts(path)["masks"]
    assert isinstance(recorded.pop("conv1"), str)
    assert recorded == dict.fromkeys(name for name in masks if name != "conv1")
    assert masks_of(found).keys() == masks.keys()
    assert all(torch.equal(mask, masks[name]) for name, mask in masks_of(found).items())
    assert f"zeros stay zero in {len(masks)} layers" in notes
    assert "by the masks of the file" in notes


def test_a_mask_of_few_zeros_that_may_learn_takes_few_bytes_and_the_old_form_is_read(
    network: nn.Module, tmp_path: Path
) -> None:
    mask = zeros_of(network)["conv1"]
    mask.view(-1)[int((~mask).reshape(-1).nonzero()[0])] = True
    keep_zeros(network, {"conv1": mask})
    path = _saved(network, tmp_path / "net.safetensors")
    of_all = base64.b64encode(zlib.compress(np.packbits(mask.reshape(-1).numpy()).tobytes(), 9)).decode()
    old = tmp_path / "old.safetensors"
    safetensors.torch.save_file(network.state_dict(), old, metadata={FACTS: json.dumps({"masks": {"conv1": of_all}})})

    assert len(_facts(path)["masks"]["conv1"]) < len(of_all) / 2
    assert all(torch.equal(masks_of(_loaded(file)[0])["conv1"], mask) for file in (path, old))


def test_a_file_of_ours_without_masks_keeps_no_zeros(network: nn.Module, tmp_path: Path) -> None:
    found, notes = _loaded(_saved(network, tmp_path / "net.safetensors"))

    assert masks_of(found) == {}
    assert "zero" not in notes


def test_masks_of_another_file_are_inferred_and_said_and_dense_lets_all_learn(
    network: nn.Module, tmp_path: Path
) -> None:
    torch.save(network.state_dict(), tmp_path / "net.pth")

    found, notes = _loaded(tmp_path / "net.pth")
    dense, _ = _loaded(tmp_path / "net.pth", is_dense=True)

    assert all(torch.equal(mask, zeros_of(network)[name]) for name, mask in masks_of(found).items())
    assert masks_of(found).keys() == prunable_weights(network).keys()
    assert "which look pruned; --dense (model.dense) lets them learn" in notes
    assert masks_of(dense) == {}


def test_the_masks_of_torchs_own_pruning_are_taken(network: nn.Module, tmp_path: Path) -> None:
    layer = network.get_submodule("conv1")
    torch_prune.l1_unstructured(layer, "weight", amount=0.8)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    mask = layer.get_buffer("weight_mask").bool()
    torch.save(network.state_dict(), tmp_path / "net.pth")

    found, notes = _loaded(tmp_path / "net.pth")

    assert torch.equal(masks_of(found)["conv1"], mask)
    assert "by the masks of the file" in notes
    assert not prunable_weights(found)["conv1"][~masks_of(found)["conv1"]].signbit().any()


def _ternary(weight: Tensor) -> Tensor:
    return weight.sign() * 0.3


def _per_channel_grid(weight: Tensor) -> Tensor:
    step = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True) / 127
    return (weight / step).round() * step


def _few_values(weight: Tensor) -> Tensor:
    return torch.tensor([-0.31, 0.0, 0.107, 0.42])[torch.bucketize(weight, torch.tensor([-0.1, 0.05, 0.2]))]


def _rows_at_zero(weight: Tensor) -> Tensor:
    found = torch.where(weight == 0, 0.1 * torch.rand_like(weight), weight)
    found[-2:] = 0  # classes added, to be learnt
    return found


@pytest.mark.parametrize(
    "change",
    [
        _ternary,
        _per_channel_grid,
        _few_values,
        _rows_at_zero,
        torch.zeros_like,
        lambda weight: asymmetric(weight, bits=4),
        lambda weight: symmetric(weight, bits=8),
    ],
    ids=["ternary", "per-channel", "code book", "rows begin at zero", "begins at zero", "asymmetric", "symmetric"],
)
def test_zeros_that_are_values_or_beginnings_are_not_taken_for_pruned(
    network: nn.Module, change: Callable[[Tensor], Tensor]
) -> None:
    weight = prunable_weights(network)["layer2.0.conv1"]
    weight.data.copy_(change(weight.data))

    masks, odd = inferred_masks(network)

    assert masks.keys() == prunable_weights(network).keys() - {"layer2.0.conv1"}
    assert set(odd) <= {"layer2.0.conv1"}


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_pruned_weights_of_half_precision_are_no_grid(network: nn.Module, kind: torch.dtype) -> None:
    for weight in prunable_weights(network).values():
        weight.data.copy_(weight.data.to(kind).float())

    assert inferred_masks(network)[0].keys() == prunable_weights(network).keys()


def test_a_mask_only_grows_and_a_copy_has_it(network: nn.Module) -> None:
    weight = prunable_weights(network)["conv1"]
    first, second = torch.ones_like(weight, dtype=torch.bool), torch.ones_like(weight, dtype=torch.bool)
    first[0], second[1] = False, False
    keep_zeros(network, {"conv1": first})
    keep_zeros(network, {"conv1": second})

    twin = copy.deepcopy(network)
    set_to_zero(prunable_weights(twin), masks_of(twin))

    assert torch.equal(masks_of(twin)["conv1"], first & second)
    assert not prunable_weights(twin)["conv1"][:2].any()


@pytest.mark.parametrize(
    "masks",
    [{"nowhere": None}, {"conv1": "AAAA"}, {"conv1": "no base64"}, {"conv1": 3}, ["conv1"], {"conv1": "eJwDAAAAAAE="}],
)
def test_masks_of_another_network_are_refused(network: nn.Module, tmp_path: Path, masks: Any) -> None:
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(network.state_dict(), path, metadata={FACTS: json.dumps({"masks": masks})})

    with pytest.raises(CheckpointError, match="the masks of its zeros"):
        _loaded(path)


def test_a_weight_that_its_mask_lets_go_must_be_zero(network: nn.Module, tmp_path: Path) -> None:
    keep_zeros(network, zeros_of(network))
    network.get_parameter("fc.weight").data.fill_(0.5)  # the mask is not its zeros any more
    path = _saved(network, tmp_path / "net.safetensors")

    with pytest.raises(CheckpointError, match="a weight that is not zero where its mask lets it go"):
        _loaded(path)
