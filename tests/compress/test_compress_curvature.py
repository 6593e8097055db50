"""Second-order pruning against exhaustive search, least squares and autograd on layers small enough to work by hand."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field reads
from torch import Tensor, nn

from trtbench.compress.curvature import (
    Layer,
    cheapest_of_all,
    cheapest_of_each,
    columns,
    damped,
    input_moments,
    matrix_layers,
    output_curvatures,
    prune_by_curvature,
    solve_rows,
)
from trtbench.compress.reconstruct import reconstruct_in_order
from trtbench.compress.weights import Plan, better_on_validation, prune_second_order, recalibrated, training_images
from trtbench.errors import RowError


def _moments(seed: int = 0, size: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(200, size, generator=generator) @ torch.randn(size, size, generator=generator)
    return inputs.T @ inputs / 200


def _random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_rows_are_solved_as_least_squares_on_their_support() -> None:
    moments, target = _moments(), _random(3, 5)
    mask = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()

    found = solve_rows(moments, target @ moments, mask)

    root = np.linalg.cholesky(moments.double().numpy()).T
    for row in range(3):
        support = np.flatnonzero(mask[row].numpy())
        expected = np.zeros(5)
        if len(support):
            wanted = root @ target[row].double().numpy()
            expected[support] = np.linalg.lstsq(root[:, support], wanted, rcond=None)[0]
        assert found.weights[row].numpy() == pytest.approx(expected, abs=1e-4)
    inverse = torch.linalg.inv(moments[[0, 1, 3]][:, [0, 1, 3]]).diagonal()
    assert found.inverse_diagonal[0, [0, 1, 3]].numpy() == pytest.approx(inverse.numpy(), rel=1e-3)
    assert torch.isinf(found.inverse_diagonal[0, [2, 4]]).all()


def test_the_cost_of_a_weight_is_what_the_best_answer_without_it_loses() -> None:
    """OBS: w_j^2 / (H^-1)_jj is the squared error of the best row without weight j."""
    moments, row = _moments(), _random(1, 5)
    inverse = solve_rows(moments, row @ moments, torch.ones(1, 5, dtype=torch.bool)).inverse_diagonal

    for gone in range(5):
        mask = torch.ones(1, 5, dtype=torch.bool)
        mask[0, gone] = False
        error = solve_rows(moments, row @ moments, mask).weights - row
        assert float(error @ moments @ error.T) == pytest.approx(float(row[0, gone] ** 2 / inverse[0, gone]), rel=1e-3)


def test_one_at_a_time_it_finds_what_exhaustive_search_finds_on_a_small_row() -> None:
    moments, row = _moments(seed=3), _random(1, 5, seed=4)

    def error(support: tuple[int, ...]) -> float:
        mask = torch.zeros(1, 5, dtype=torch.bool)
        mask[0, list(support)] = True
        rest = solve_rows(moments, row @ moments, mask).weights - row
        return float(rest @ moments @ rest.T)

    layer = Layer(weights=row, moments=moments, curvature=torch.ones(1))
    _, masks = prune_by_curvature({"a": layer}, sparsity=0.2, steps=1, choose=cheapest_of_all)

    best = min(itertools.combinations(range(5), 4), key=error)
    assert tuple(masks["a"][0].nonzero()[:, 0].tolist()) == best


def test_all_layers_share_one_budget_or_each_has_its_own() -> None:
    cheap = Layer(weights=0.01 * _random(4, 5), moments=torch.eye(5), curvature=torch.ones(4))
    dear = Layer(weights=_random(4, 5, seed=2), moments=torch.eye(5), curvature=torch.ones(4))

    _, shared = prune_by_curvature({"cheap": cheap, "dear": dear}, sparsity=0.5, steps=3, choose=cheapest_of_all)
    weights, each = prune_by_curvature({"cheap": cheap, "dear": dear}, sparsity=0.5, steps=3, choose=cheapest_of_each)

    assert int(shared["cheap"].sum()) == 0
    assert int(shared["dear"].sum()) == 20
    assert [int(mask.sum()) for mask in each.values()] == [10, 10]
    assert all(not weights[name][~mask].any() for name, mask in each.items())


def test_a_curvature_of_the_outputs_protects_their_rows() -> None:
    layer = Layer(weights=_random(2, 5), moments=torch.eye(5), curvature=torch.tensor([1.0, 1000.0]))

    _, masks = prune_by_curvature({"a": layer}, sparsity=0.5, steps=2, choose=cheapest_of_all)

    assert masks["a"][1].all()
    assert not masks["a"][0].any()


def test_dead_inputs_are_lifted_so_that_the_moments_can_be_inverted() -> None:
    moments = torch.diag(torch.tensor([1.0, 0.0]))

    assert torch.linalg.cholesky(damped(moments)).isfinite().all()


class _Net(nn.Module):
    """A strided, padded convolution, a norm, a 1x1 convolution and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 1, bias=False)
        self.depthwise = nn.Conv2d(8, 8, 3, padding="same", groups=8)
        self.fc = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.norm(self.first(images)))
        hidden = F.relu(self.depthwise(self.second(hidden)))
        logits: Tensor = self.fc(hidden.mean((2, 3)))
        return logits


@pytest.fixture
def net() -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _Net().eval()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 5, 3, stride=2, padding=1),
        nn.Conv2d(3, 5, (3, 1), padding="same", dilation=2),
        nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"),
    ],
)
def test_a_convolution_is_its_matrix_times_the_columns(layer: nn.Conv2d) -> None:
    images = _random(2, 3, 8, 8)

    found = columns(layer, images)[0] @ layer.weight.reshape(5, -1).T

    expected = layer(images) - layer.bias.reshape(1, -1, 1, 1)  # type: ignore[union-attr]  # it has one
    assert torch.allclose(found, expected.flatten(2).transpose(1, 2).reshape(-1, 5), atol=1e-5)


def test_moments_and_curvatures_are_those_of_autograd_one_image_at_a_time(net: Any) -> None:
    images = _random(6, 3, 8, 8)
    layers = tuple(matrix_layers(net))
    moments = input_moments(net, layers, images, generator=torch.Generator().manual_seed(0))
    curvatures = output_curvatures(net, layers, images, generator=torch.Generator().manual_seed(5))

    hidden = net.second(F.relu(net.norm(net.first(images))))
    features = F.relu(net.depthwise(hidden)).mean((2, 3)).detach()
    labels = torch.multinomial(net(images).detach().softmax(1), 1, generator=torch.Generator().manual_seed(5))[:, 0]
    gradients = []
    for image, label in zip(images, labels, strict=True):
        logits = net(image[None])
        (found,) = torch.autograd.grad(F.cross_entropy(logits, label[None]), logits)
        gradients.append(found[0].square())

    assert "unused" not in moments
    assert "depthwise" not in layers
    assert torch.allclose(moments["fc"], features.T @ features / 6, atol=1e-5)
    assert torch.allclose(curvatures["fc"], torch.stack(gradients).mean(0), atol=1e-6)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_layer_that_runs_twice_is_solved_once_and_one_that_never_runs_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, images: Tensor) -> Tensor:
            found: Tensor = self.shared(self.shared(images))
            return found

    dense = Twice().eval()
    other = copy.deepcopy(dense)
    other.shared.weight.data.zero_()
    masks = {"shared": torch.ones(4, 4, dtype=torch.bool), "unused": torch.zeros(4, 4, dtype=torch.bool)}

    reconstruct_in_order(other, dense, masks, _random(300, 4), generator=torch.Generator().manual_seed(0))

    assert torch.allclose(other.shared.weight, dense.shared.weight, atol=1e-2)
    assert torch.equal(other.unused.weight, dense.unused.weight)


def test_reconstruction_undoes_the_harm_of_a_layer_before(net: Any) -> None:
    """Where nothing is masked, the second layer makes up for a first that was scaled."""
    images = _random(60, 3, 8, 8)
    harmed = copy.deepcopy(net)
    harmed.norm.weight.data *= 3
    harmed.norm.bias.data *= 3
    masks = {"second": torch.ones(8, 8, dtype=torch.bool)}

    reconstruct_in_order(harmed, net, masks, images, generator=torch.Generator().manual_seed(0))

    assert torch.allclose(harmed.second.weight, net.second.weight / 3, atol=1e-2)
    assert torch.allclose(harmed(images), net(images), atol=2e-2)


def test_pruned_weights_are_zero_and_the_outputs_nearer_than_by_the_mask_alone(net: Any) -> None:
    images = _random(60, 3, 8, 8)
    plan = Plan(layers=("first", "second", "fc"), sparsity=0.5, steps=4, choose=cheapest_of_all, passes=1, seed=0)
    pruned = copy.deepcopy(net)

    masks = prune_second_order(pruned, plan, images)

    plain = copy.deepcopy(net)
    for name, mask in masks.items():
        weight = pruned.get_submodule(name).weight
        assert not weight[~mask].any()
        plain.get_submodule(name).weight.data.mul_(mask)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == total - round(0.5 * total)
    target = net(images)
    assert (pruned(images) - target).square().sum() < 0.7 * (plain(images) - target).square().sum()


def test_layers_that_never_run_cannot_be_pruned(net: Any) -> None:
    plan = Plan(layers=("unused",), sparsity=0.5, steps=1, choose=cheapest_of_all, passes=0, seed=0)

    with pytest.raises(RowError, match="0 of the 1 layers"):
        prune_second_order(net, plan, _random(4, 3, 8, 8))


def test_batch_norms_measured_anew_have_the_mean_of_the_batches(net: Any) -> None:
    images = 5 + _random(100, 3, 8, 8)

    twin: Any = recalibrated(net, images)

    hidden = net.first(images)
    assert torch.allclose(twin.norm.running_mean, hidden.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(twin.norm.running_var, hidden.transpose(0, 1).flatten(1).var(1), rtol=1e-3)
    assert twin.norm.momentum == net.norm.momentum
    assert torch.equal(net.norm.running_mean, torch.zeros(8))


def test_batch_norms_are_measured_anew_only_where_validation_gains(tiny_dataset: Any, net: Any) -> None:
    images = training_images(tiny_dataset, count=30, seed=0)
    assert len(images) == 30

    chosen, note = better_on_validation(net, images, tiny_dataset)
    own, new = (int(part) for part in (note.split(": ")[1].split(" ")[0], note.rsplit(", ", 1)[1].split(" ")[0]))

    assert (chosen is net) == (new <= own)
    assert note.startswith("batch norm recalibrated" if new > own else "batch norm kept")
