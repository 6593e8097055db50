"""Inputs of few bits: torch's own fake quantizer's numbers, gradients, and a network that keeps them in its file."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from trtbench.compress.fixed_point import by_reconstruction, calibrated_inputs
from trtbench.errors import CheckpointError
from trtbench.models import build_model, load_model, save_model
from trtbench.models.container import save_packed
from trtbench.models.rounding import InputGrid, fit_grid, grids_from_facts, input_grids, round_inputs

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


def test_rounding_is_torchs_own_and_clips_gradients() -> None:
    values = torch.randn(500, requires_grad=True)
    grid = InputGrid(scale=0.125, lowest=-8, highest=7)
    out = grid(torch.nn.Identity(), (values,))[0]
    theirs = torch.fake_quantize_per_tensor_affine(values.detach(), 0.125, 0, -8, 7)
    assert torch.equal(out.detach(), theirs)
    torch.autograd.backward(out.sum())
    inside = (values.detach() >= -1) & (values.detach() <= 0.875)
    assert values.grad is not None
    assert torch.equal(values.grad, inside.float())


def test_the_grid_has_the_least_error_of_many_and_is_unsigned_behind_a_relu() -> None:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    grid, positive = fit_grid(values, bits=4), fit_grid(values.relu(), bits=4)
    assert (grid.lowest, grid.highest, positive.lowest, positive.highest) == (-8, 7, 0, 15)

    def error(scale: float) -> float:
        rounded = torch.fake_quantize_per_tensor_affine(values, scale, 0, -8, 7)
        return (rounded - values).square().mean().item()

    assert error(grid.scale) <= min(error(scale) for scale in np.linspace(0.05, 1, 40)) * 1.01
    assert grid.scale == pytest.approx(0.335, abs=0.03)  # the uniform quantizer of a normal distribution (Max 1960)
    assert fit_grid(torch.zeros(3), bits=4).scale > 0


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model("resnet20", num_classes=10).eval()


@pytest.mark.slow
def test_a_network_keeps_the_rounding_of_its_inputs_in_either_file(network: nn.Module, tmp_path: Path) -> None:
    images = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    float_logits = network(images).detach()
    grids = calibrated_inputs(network, images, bits=4)
    assert (grids["conv1"].lowest, grids["layer1.0.conv1"].highest, len(grids)) == (-128, 15, 22)
    round_inputs(network, grids)
    made = by_reconstruction(network, images, bits=4, seed=0)
    expected = network(images).detach()
    assert not torch.equal(expected, float_logits)
    save_packed(tmp_path / "net.tbz", made.packed(facts={}))
    save_model(tmp_path / "net.safetensors", network, name="resnet20", num_classes=10, metadata={})
    for name in ("net.tbz", "net.safetensors"):
        loaded = load_model("resnet20", num_classes=10, checkpoint=tmp_path / name)
        assert torch.equal(loaded.model(images), expected)
        assert input_grids(loaded.model) == grids
        assert loaded.notes == ("22 layers round their inputs",)
    assert torch.equal(copy.deepcopy(network)(images), expected)


@pytest.mark.parametrize(
    "facts",
    [
        {"conv1": [0.0, -8, 7]},
        {"conv1": [1.0, 8, 7]},
        {"conv1": [1.0, -8, 10**9]},
        {"conv1": [float("nan"), -8, 7]},
        {"none": [1.0, -8, 7]},
        {"conv1": [1.0, -8]},
        {"conv1": "abc"},
        5,
    ],
)
def test_facts_that_make_no_sense_are_refused(facts: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="the rounding of its activations"):
        grids_from_facts(facts, layers=frozenset({"conv1"}), path=tmp_path)
