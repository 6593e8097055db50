"""Masks by magnitude against torch.nn.utils.prune, NumPy's percentile and hand-worked schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from trtbench.compress.weights import (
    cubic_sparsity,
    global_masks,
    global_percentile_masks,
    layer_masks,
    linear_sparsity,
    share_of_a_round,
)
from trtbench.models import build_model
from trtbench.models.masks import prunable_weights, set_to_zero, zeros_of

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture(scope="module")
def resnet20() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model("resnet20", num_classes=10).eval()


def _torch_masks(model: nn.Module, amounts: list[float]) -> dict[str, Tensor]:
    """Prune a copy with torch's own global L1 pruning, once for each amount."""
    import copy

    twin = copy.deepcopy(model)
    layers: dict[str, Any] = {name: twin.get_submodule(name) for name in prunable_weights(model)}
    pairs = [(layer, "weight") for layer in layers.values()]
    for amount in amounts:
        torch_prune.global_unstructured(pairs, pruning_method=torch_prune.L1Unstructured, amount=amount)
    return {name: layer.weight_mask.bool() for name, layer in layers.items()}


def _equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7, 0.9])
def test_global_masks_are_those_of_torch(resnet20: nn.Module, sparsity: float) -> None:
    masks = global_masks(prunable_weights(resnet20), sparsity=sparsity)

    assert _equal(masks, _torch_masks(resnet20, [sparsity]))


@pytest.mark.parametrize(("share", "published"), [(0.13, 0.50158), (0.243, 0.75141), (0.369, 0.89997)])
def test_rounds_add_up_as_published_and_as_in_torch(resnet20: nn.Module, share: float, published: float) -> None:
    sparsity = 1 - (1 - share) ** 5

    masks = global_masks(prunable_weights(resnet20), sparsity=sparsity, rounds=5)

    assert sparsity == pytest.approx(published, abs=5e-6)
    assert share_of_a_round(sparsity, 5) == pytest.approx(share)
    assert _equal(masks, _torch_masks(resnet20, [share] * 5))


@given(st.floats(0, 0.95), st.integers(1, 9))
def test_the_share_of_a_round_reaches_the_sparsity(sparsity: float, rounds: int) -> None:
    assert 1 - (1 - share_of_a_round(sparsity, rounds)) ** rounds == pytest.approx(sparsity, abs=1e-9)


@pytest.mark.parametrize("sparsity", [0.2, 0.8])
def test_layer_masks_are_the_source_studys_percentile(resnet20: nn.Module, sparsity: float) -> None:
    for name, mask in layer_masks(prunable_weights(resnet20), sparsity=sparsity).items():
        weight: Any = resnet20.get_submodule(name).weight
        magnitude = np.abs(weight.detach().numpy())
        threshold = np.percentile(magnitude.flatten(), sparsity * 100)
        assert np.array_equal(mask.numpy(), ~(magnitude < threshold))


def test_the_global_percentile_is_that_of_all_layers_together() -> None:
    weights = {"a": torch.tensor([[1.0, -5.0]]), "b": torch.tensor([[-2.0, 3.0, 4.0]])}

    masks = global_percentile_masks(weights, sparsity=0.5)  # the median of 1 2 3 4 5 is 3

    assert masks["a"].tolist() == [[False, True]]
    assert masks["b"].tolist() == [[False, True, True]]


def test_applied_masks_leave_exact_zeros_and_nothing_else_changes(resnet20: nn.Module) -> None:
    weights = {name: weight.detach().clone() for name, weight in prunable_weights(resnet20).items()}
    before = {name: weight.clone() for name, weight in weights.items()}
    masks = layer_masks(weights, sparsity=0.5)

    set_to_zero(weights, masks)

    for name, weight in weights.items():
        assert not weight[~masks[name]].any()
        assert not weight[~masks[name]].signbit().any()  # a negative zero would pack badly
        assert torch.equal(weight[masks[name]], before[name][masks[name]])


def test_the_linear_ramp_is_8_percent_an_epoch_and_then_flat() -> None:
    shares = [linear_sparsity(0.8, epoch=epoch, ramp=10) for epoch in (1, 2, 10, 20)]

    assert shares == pytest.approx([0.08, 0.16, 0.8, 0.8])


def test_the_cubic_schedule_is_the_papers() -> None:
    # Zhu and Gupta, equation 1: s_t = s_f + (s_i - s_f) * (1 - (t - t0) / (n dt))^3 with s_i = t0 = 0.
    for step in (0, 25, 50, 100):
        assert cubic_sparsity(0.8, step=step, ramp=100) == pytest.approx(0.8 + (0 - 0.8) * (1 - step / 100) ** 3)
    assert cubic_sparsity(0.8, step=500, ramp=100) == pytest.approx(0.8)


def test_layers_are_excluded_by_a_part_of_their_name(resnet20: nn.Module) -> None:
    every, some = prunable_weights(resnet20), prunable_weights(resnet20, exclude=("downsample", "fc"))

    assert len(every) == 22
    assert [name for name in every if name not in some] == ["layer2.0.downsample.0", "layer3.0.downsample.0", "fc"]
    assert zeros_of(resnet20, exclude=("layer",)).keys() == {"conv1", "fc"}
