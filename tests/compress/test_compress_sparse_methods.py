"""The methods `weights` and `nm` on a network that learns in a moment: targets, schedules, masks that hold, checks."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field reads
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from trtbench.compress.method import Compressed, Context, method_of
from trtbench.compress.nm import has_pattern, largest_of_groups, sparse_layers
from trtbench.compress.sparsity import draw_sparsity, layer_sparsities, sparsity_csv, sparsity_of, verify_masks
from trtbench.compress.weights import global_percentile_masks, layer_masks
from trtbench.errors import ConfigError, RowError
from trtbench.models.masks import prunable_weights, zeros_of
from trtbench.suite import AugmentConfig, NmVariant, TrainConfig, Variant, WeightsVariant
from trtbench.train import Hooks, fit
from trtbench.train.hooks import NO_HOOKS

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.records import Dataset

_BUDGET = TrainConfig(epochs=4, batch_size=20, lr=0.05, augment=AugmentConfig(crop_padding=0, flip=False))


class _Net(nn.Module):
    """Three convolutions, the first of 3 inputs, a norm and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.shortcut = nn.Conv2d(16, 16, 1)
        self.fc = nn.Linear(16, 4)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.norm(self.first(images)))
        hidden = F.relu(self.second(hidden) + self.shortcut(hidden))
        logits: Tensor = self.fc(hidden.mean((2, 3)))
        return logits


@pytest.fixture
def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _Net().eval()


@dataclass
class _Tune:
    """Trains for real, and looks at the weights before each epoch and after each step."""

    dataset: Dataset
    folder: Path
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    masks: list[dict[str, Tensor]] = field(default_factory=list)

    def __call__(self, network: nn.Module, *, hooks: Hooks = NO_HOOKS, config: TrainConfig | None = None) -> Any:
        def before(model: nn.Module, epoch: int) -> None:
            if hooks.before_epoch is not None:
                hooks.before_epoch(model, epoch)
            self.before.append(sparsity_of(model))
            self.masks.append(zeros_of(model))

        def after(model: nn.Module, step: int) -> None:
            if hooks.after_step is not None:
                hooks.after_step(model, step)
            self.after.append(sparsity_of(model))

        watched = Hooks(key=hooks.key, before_epoch=before, after_step=after, first_best_epoch=hooks.first_best_epoch)
        return fit(network, self.dataset, config or _BUDGET, folder=self.folder, hooks=watched)


@pytest.fixture
def context(tiny_dataset: Dataset, tmp_path: Path) -> Context:
    return Context(dataset=tiny_dataset, budget=_BUDGET, tune=_Tune(tiny_dataset, tmp_path))


def compress(network: nn.Module, config: Variant, context: Context) -> Compressed:
    made: Compressed = method_of(config)(network, config, context)
    return made


def _weights(**settings: Any) -> WeightsVariant:
    return WeightsVariant(kind="weights", name="w", **settings).settled(builds_int8=False)


def _nm(**settings: Any) -> NmVariant:
    return NmVariant(kind="nm", name="nm", **settings).settled(builds_int8=False)


def _tuned(made: Compressed, context: Context) -> nn.Module:
    context.tune(made.model)
    return made.model


@pytest.mark.parametrize("method", ["magnitude", "second-order"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_target_is_met_and_fine_tuning_keeps_every_zero(
    net: nn.Module, context: Context, method: str, scope: str
) -> None:
    config = _weights(sparsity=0.75, method=method, scope=scope, fine_tune=True, steps=3, images=40)

    made = compress(net, config, context)
    gone = zeros_of(made.model)
    network = _tuned(made, context)

    assert sparsity_of(network) == pytest.approx(0.75, abs=0.01)
    assert all(not weight[~gone[name]].any() for name, weight in prunable_weights(network).items())
    assert made.check is not None
    made.check(network, after="fine-tuning")
    if scope == "layer":
        assert all(one.sparsity == pytest.approx(0.75, abs=0.03) for one in layer_sparsities(network))


def test_the_check_names_the_layer_whose_mask_broke(net: nn.Module, context: Context) -> None:
    made = compress(net, _weights(sparsity=0.5), context)
    weight = prunable_weights(made.model)["second"]
    weight.data[weight == 0] = 1e-12

    assert made.check is not None
    with pytest.raises(RowError, match="layer 'second' after the saved file was read again"):
        made.check(made.model, after="the saved file was read again")


def test_per_round_is_the_share_of_what_is_left(net: nn.Module, context: Context) -> None:
    made = compress(net, _weights(per_round=0.369, rounds=5), context)

    assert sparsity_of(made.model) == pytest.approx(0.89997, abs=1e-3)


def test_excluded_layers_keep_all_weights_and_are_not_counted_in_the_target(net: nn.Module, context: Context) -> None:
    made = compress(net, _weights(sparsity=0.5, exclude=("shortcut", "fc")), context)

    found = {one.layer: one for one in layer_sparsities(made.model)}
    assert found["shortcut"].zeros == found["fc"].zeros == 0
    pruned = [found["first"], found["second"]]
    assert sum(one.zeros for one in pruned) == round(0.5 * sum(one.weights for one in pruned))


def test_excluding_everything_is_refused(net: nn.Module, context: Context) -> None:
    with pytest.raises(ConfigError, match="a layer left to prune"):
        compress(net, _weights(sparsity=0.5, exclude=("",)), context)


@pytest.mark.parametrize(("scope", "choose"), [("layer", layer_masks), ("global", global_percentile_masks)])
def test_the_iterative_schedule_prunes_before_each_epoch_lets_weights_grow_back_and_then_holds(
    net: nn.Module, context: Context, scope: str, choose: Any
) -> None:
    config = _weights(sparsity=0.8, schedule="iterative", ramp=3, scope=scope, fine_tune=True)
    first = choose(prunable_weights(net), sparsity=0.8 / 3)

    made = compress(net, config, context)

    tune: Any = context.tune
    steps = len(tune.after) // 4
    assert tune.before == pytest.approx([0.8 / 3, 1.6 / 3, 0.8, 0.8], abs=0.01)
    assert all(torch.equal(mask, tune.masks[0][name]) for name, mask in first.items())
    assert max(tune.after[: 2 * steps]) < 0.01  # a single step lets every weight grow back
    assert tune.after[2 * steps :] == pytest.approx([tune.before[2]] * (2 * steps))
    assert made.is_tuned
    assert sparsity_of(made.model) == pytest.approx(tune.before[2])  # the best epoch is none of the ramp's


def test_the_cubic_schedule_follows_the_paper_and_never_lets_a_weight_back(net: nn.Module, context: Context) -> None:
    config = _weights(sparsity=0.8, schedule="cubic", ramp=3, every=2, fine_tune=True)

    made = compress(net, config, context)

    tune: Any = context.tune
    assert len(tune.after) == 12
    for step, found in enumerate(tune.after, start=1):
        reached = min(step - step % 2 if step != 9 else 9, 9)  # every 2 steps, and at the ramp's end
        expected = 0.8 * (1 - (1 - reached / 9) ** 3) if reached < 9 else 0.8
        assert found == pytest.approx(expected, abs=0.001)
    for earlier, later in zip(tune.masks, tune.masks[1:], strict=False):
        assert all(not (later[name] & ~mask).any() for name, mask in earlier.items())
    assert sparsity_of(made.model) == pytest.approx(0.8, abs=0.001)


def test_the_cubic_schedule_has_a_layer_by_layer_form(net: nn.Module, context: Context) -> None:
    made = compress(net, _weights(sparsity=0.5, schedule="cubic", scope="layer", ramp=1, fine_tune=True), context)

    assert all(one.sparsity == pytest.approx(0.5, abs=0.01) for one in layer_sparsities(made.model))


def test_a_budget_shorter_than_the_schedule_is_refused(net: nn.Module, context: Context) -> None:
    with pytest.raises(ConfigError, match="at most the 4 epochs"):
        compress(net, _weights(sparsity=0.5, schedule="iterative", ramp=5, fine_tune=True), context)


@pytest.mark.parametrize("choice", ["recalibrate", "validation"])
def test_batch_norm_statistics_are_measured_anew_only_on_request(net: Any, context: Context, choice: str) -> None:
    kept: Any = compress(copy.deepcopy(net), _weights(sparsity=0.3), context).model
    other = compress(copy.deepcopy(net), _weights(sparsity=0.3, batch_norm=choice), context)
    norm: Any = other.model.norm

    assert torch.equal(kept.norm.running_mean, net.norm.running_mean)
    assert torch.equal(norm.running_mean, net.norm.running_mean) == any("kept" in note for note in other.notes)
    assert bool(other.notes) == (choice == "validation")


def test_second_order_chooses_its_statistics_on_validation_unless_it_is_fine_tuned() -> None:
    assert _weights(sparsity=0.5, method="second-order").batch_norm == "validation"
    assert _weights(sparsity=0.5, method="second-order", fine_tune=True).batch_norm == "keep"
    assert _weights(sparsity=0.5).batch_norm == "keep"
    assert _nm(method="second-order").batch_norm == "validation"


@pytest.mark.parametrize("method", ["magnitude", "second-order"])
@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:4"])
def test_nm_holds_along_the_input_channels_at_every_output_and_kernel_position(
    net: nn.Module, context: Context, method: str, pattern: str
) -> None:
    kept, of = (int(part) for part in pattern.split(":"))
    made = compress(net, _nm(pattern=pattern, method=method, images=40), context)

    weights = prunable_weights(_tuned(made, context))
    for name in ("second", "shortcut", "fc"):
        weight = weights[name].detach()
        groups = weight.reshape(weight.shape[0], weight.shape[1] // of, of, -1)
        assert ((groups != 0).sum(2) == kept).all()
    assert (weights["first"] != 0).all()
    check = made.facts["nm"]
    assert check["qualified"] == ["second", "shortcut"]
    assert check["too_small"] == ["fc"]
    assert check["without"] == ["first"]
    assert any("2 of 4 layers qualify" in note for note in made.notes)


def test_nm_by_magnitude_keeps_the_largest_of_each_group_the_first_of_equals() -> None:
    scores = torch.tensor([[1.0, 4.0, 3.0, 2.0, 5.0, 5.0, 5.0, 5.0]])

    assert largest_of_groups(scores, kept=2, of=4).tolist() == [[False, True, True, False, True, True, False, False]]


def test_nm_by_curvature_is_nearer_to_the_dense_network(net: nn.Module, context: Context) -> None:
    images = torch.from_numpy(np.random.default_rng(1).normal(size=(40, 3, 8, 8)).astype(np.float32))
    target = net(images).detach()

    def error(method: str) -> float:
        made = compress(copy.deepcopy(net), _nm(method=method, images=60, batch_norm="keep"), context)
        return float((made.model(images).detach() - target).square().sum())

    assert error("second-order") < 0.8 * error("magnitude")


def test_a_network_without_channels_in_groups_is_refused(net: nn.Module, context: Context) -> None:
    with pytest.raises(ConfigError, match="a multiple of 7"):
        compress(net, _nm(pattern="3:7"), context)


@given(st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_the_check_agrees_with_counting_group_by_group(kept: int, seed: int) -> None:
    weight = np.random.default_rng(seed).integers(0, 3, (2, 8, 1, 2)).astype(np.float32)

    counted = [
        np.count_nonzero(weight[output, first : first + 4, 0, column]) <= kept
        for output in range(2)
        for first in (0, 4)
        for column in range(2)
    ]

    assert has_pattern(weight, kept=kept, of=4) == all(counted)


def test_biases_and_odd_channels_have_no_pattern() -> None:
    found = sparse_layers({"bias": np.zeros(8, np.float32), "odd": np.zeros((8, 6), np.float32)}, kept=2, of=4)

    assert found.without == ("bias", "odd")
    assert "0 of 2 layers qualify" in found.sentence


def test_the_table_counts_each_layer_and_the_total(net: nn.Module) -> None:
    weights = prunable_weights(net)
    weights["fc"].data[0] = 0.0

    lines = sparsity_csv(layer_sparsities(net)).splitlines()

    assert lines[0] == "layer_name,weight_shape,total_params,zero_params,sparsity"
    assert lines[-2] == 'fc,"[4, 16]",64,16,0.250000'
    total = sum(weight.numel() for weight in weights.values())
    assert lines[-1] == f"TOTAL,,{total},16,{16 / total:.6f}"
    assert sparsity_of(net) == 16 / total
    assert draw_sparsity(layer_sparsities(net)).startswith(b"\x89PNG")


def test_masks_of_zeros_hold_where_nothing_changed(net: nn.Module) -> None:
    verify_masks(net, zeros_of(net), after="nothing")
