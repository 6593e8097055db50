"""Channel pruning against the published tables, hand-ranked channels, and its own promises."""

from __future__ import annotations

import copy
import inspect
import itertools
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch_pruning
from torch import Tensor, nn

from trtbench.compress import PrunedModel, prune_channels
from trtbench.compress.torch_pruning import Watch
from trtbench.errors import ConfigError, RowError
from trtbench.models import build_model, conv_widths, count_macs, count_params, load_model, save_model
from trtbench.suite import ChannelsVariant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SHAPE = (3, 32, 32)

# ratio -> parameters in millions and MACs in millions, as published for the CIFAR ResNet-18 with max-pool.
_RESNET18 = {
    0.0: (11.17, 140.19),
    0.05: (10.06, 125.23),
    0.10: (9.02, 112.74),
    0.15: (8.05, 100.56),
    0.20: (7.12, 89.4),
    0.25: (6.29, 79.19),
    0.30: (5.46, 68.05),
    0.35: (4.70, 58.93),
    0.40: (4.01, 50.22),
    0.45: (3.36, 42.43),
    0.50: (2.80, 35.49),
    0.55: (2.25, 28.17),
    0.60: (1.78, 22.42),
    0.65: (1.36, 17.18),
    0.70: (1.00, 12.76),
    0.75: (0.70, 9.09),
    0.80: (0.44, 5.59),
    0.85: (0.25, 3.21),
    0.90: (0.11, 1.44),
}
# ratio -> parameters in thousands, MACs in millions, and the widths of the three stages, for ResNet-20.
_RESNET20 = {
    0.0: (272.47, 40.81, (16, 32, 64)),
    0.05: (239.63, 35.9, (15, 30, 60)),
    0.10: (214.29, 31.64, (14, 28, 57)),
    0.15: (193.46, 28.33, (13, 27, 54)),
    0.20: (170.77, 24.57, (12, 25, 51)),
    0.25: (153.77, 23.04, (12, 24, 48)),
    0.30: (129.36, 19.39, (11, 22, 44)),
    0.35: (110.93, 16.29, (10, 20, 41)),
    0.40: (96.09, 13.95, (9, 19, 38)),
    0.45: (80.31, 11.35, (8, 17, 35)),
    0.50: (68.79, 10.31, (8, 16, 32)),
    0.55: (52.81, 7.92, (7, 14, 28)),
    0.60: (41.29, 5.99, (6, 12, 25)),
    0.65: (32.44, 4.6, (5, 11, 22)),
    0.70: (23.58, 3.17, (4, 9, 19)),
    0.75: (17.53, 2.63, (4, 8, 16)),
    0.80: (9.99, 1.5, (3, 6, 12)),
    0.85: (5.38, 0.74, (2, 4, 9)),
    0.90: (2.53, 0.31, (1, 3, 6)),
}


def _variant(**settings: Any) -> ChannelsVariant:
    return ChannelsVariant(kind="channels", name="pruned", **settings)


def _network(name: str) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(name, num_classes=10).eval()


@pytest.fixture(scope="module")
def resnet18() -> Any:
    return _network("resnet18")


@pytest.fixture(scope="module")
def resnet20() -> Any:
    return _network("resnet20")


def _prune(model: nn.Module, *, round_to: int = 1, **settings: Any) -> PrunedModel:
    return prune_channels(model, _variant(**settings), input_shape=_SHAPE, round_to=round_to)


def _some(published: dict[float, Any]) -> Iterator[Any]:
    """Every fourth ratio; the others among the slow tests."""
    for number, values in enumerate(published.items()):
        yield pytest.param(*values, marks=pytest.mark.slow if number % 4 else ())


@pytest.mark.parametrize(("ratio", "published"), list(_some(_RESNET18)))
def test_resnet18_has_the_published_parameters_and_macs(
    resnet18: nn.Module, ratio: float, published: tuple[float, float]
) -> None:
    pruned = _prune(resnet18, ratio=ratio)

    assert (round(pruned.record.params_after / 1e6, 2), round(pruned.record.macs_after / 1e6, 2)) == published
    assert conv_widths(pruned.model) == {
        name: int(width * (1 - ratio)) for name, width in conv_widths(resnet18).items()
    }


@pytest.mark.parametrize(("ratio", "published"), list(_some(_RESNET20)))
def test_resnet20_has_the_published_parameters_macs_and_widths(
    resnet20: nn.Module, ratio: float, published: tuple[float, float, tuple[int, int, int]]
) -> None:
    record = _prune(resnet20, ratio=ratio).record

    stages = tuple(record.widths_after[f"layer{stage}.0.conv1"] for stage in (1, 2, 3))
    assert (round(record.params_after / 1e3, 2), round(record.macs_after / 1e6, 2), stages) == published


def test_the_headline_networks_are_exact(resnet18: nn.Module, resnet20: nn.Module) -> None:
    assert _prune(resnet18, ratio=0.6).record.params_after == 1_776_662
    assert _prune(resnet20, ratio=0.5).record.params_after == 68_786


def test_a_width_is_cut_in_floating_point_as_torch_pruning_cuts_it() -> None:
    model = _small(width=160)

    pruned = prune_channels(model, _variant(ratio=0.8), input_shape=(1, 4, 4), round_to=1)

    assert pruned.record.widths_after == {"conv": 31}  # 160 * (1 - 0.8) = 31.999999999999996


def test_the_record_counts_what_the_pruned_network_has(resnet20: nn.Module) -> None:
    pruned = _prune(resnet20, ratio=0.3)
    record = pruned.record

    assert record.params_before == 272_474
    assert record.macs_before == count_macs(resnet20, _SHAPE)
    assert record.params_after == count_params(pruned.model)
    assert record.macs_after == count_macs(pruned.model, _SHAPE)
    assert record.widths_before == conv_widths(resnet20)
    assert record.widths_after == conv_widths(pruned.model)
    assert record.achieved_ratio == 1 - sum(record.widths_after.values()) / sum(record.widths_before.values())


def test_the_given_network_is_not_changed() -> None:
    model = _network("resnet20").train()
    model.layer2.eval()
    model.layer1.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())

    pruned: Any = _prune(model, ratio=0.5).model

    for network in (model, pruned):
        assert network.training
        assert not network.layer2.training
        frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
        assert frozen == {name for name in before if name.startswith("layer1.") and name.endswith(("weight", "bias"))}
        assert all(parameter.grad is None for parameter in network.parameters())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_pruning_twice_gives_the_same_network(resnet20: nn.Module) -> None:
    first, second = (_prune(resnet20, ratio=0.4).model.state_dict() for _ in range(2))

    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_grouped_convolutions_leave_nothing_behind_for_later_pruners() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    ).eval()

    assert _prune(model, ratio=0.5).record.widths_after == {"0": 4, "1": 8}

    parameters = inspect.signature(torch_pruning.BasePruner.__init__).parameters
    assert all(parameters[f"{side}_channel_groups"].default == {} for side in ("in", "out"))  # its mutable defaults


class _Small(nn.Module):
    """A convolution with BatchNorm before a classifier: one group of channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 2, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.relu(self.bn(self.conv(images))).mean((2, 3)))
        return logits


def _small(width: int) -> _Small:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _Small(width).eval()


@torch.no_grad()
def _ranked() -> _Small:
    """Build four channels, each of which is the least important by one measure only."""
    model = _small(4)
    rows = [[3.0, 0, 0, 0], [1.2] * 4, [2.0] * 4, [2.5] * 4]  # L1: 3, 4.8, 8, 10; squares: 9, 5.76, 16, 25
    model.conv.weight.copy_(torch.tensor(rows).reshape(4, 1, 2, 2))
    model.bn.weight.copy_(torch.tensor([1.0, 1.0, 0.9, 1.0]))
    model.fc.weight.copy_(torch.tensor([[0.1, 0.1, 0.1, 0.0], [-0.1, -0.1, -0.1, 0.0]]))
    return model


def _batches() -> list[tuple[Tensor, Tensor]]:
    inputs = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    return [(inputs[:3], torch.tensor([0, 1, 0])), (inputs[3:], torch.tensor([1, 0, 0]))]


@pytest.mark.parametrize(
    ("importance", "least"), [("l1", 0), ("l2", 1), ("lamp", 1), ("bn-scale", 2), ("taylor", 3)], ids=str
)
@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_the_least_important_channel_goes(importance: str, least: int, scope: str) -> None:
    model = _ranked()

    pruned: Any = prune_channels(
        model,
        _variant(ratio=0.25, importance=importance, scope=scope),
        input_shape=(1, 4, 4),
        round_to=1,
        batches=iter(_batches()),
    ).model

    kept = [channel for channel in range(4) if channel != least]
    torch.testing.assert_close(pruned.conv.weight, model.conv.weight[kept], rtol=0, atol=0)
    torch.testing.assert_close(pruned.fc.weight, model.fc.weight[:, kept], rtol=0, atol=0)


def test_gradients_are_taken_anew_before_every_step() -> None:
    pruned = prune_channels(
        _ranked(),
        _variant(ratio=0.5, importance="taylor", steps=2),
        input_shape=(1, 4, 4),
        round_to=1,
        batches=_batches(),
    )

    assert pruned.record.widths_after == {"conv": 2}
    assert all(parameter.grad is None for parameter in pruned.model.parameters())


@pytest.mark.parametrize("batches", [None, []])
def test_taylor_without_images_is_a_configuration_error(batches: list[tuple[Tensor, Tensor]] | None) -> None:
    with pytest.raises(ConfigError, match="give batches, or choose importance l2"):
        prune_channels(
            _ranked(), _variant(ratio=0.5, importance="taylor"), input_shape=(1, 4, 4), round_to=1, batches=batches
        )


def test_iterative_steps_end_at_the_same_widths(resnet20: nn.Module) -> None:
    once, thrice = (_prune(resnet20, ratio=0.5, steps=steps).record.widths_after for steps in (1, 3))

    assert once == thrice


def test_global_scope_gives_layers_different_ratios(resnet20: nn.Module) -> None:
    record = _prune(resnet20, ratio=0.5, scope="global", importance="lamp").record

    shares = {round(width / record.widths_before[name], 2) for name, width in record.widths_after.items()}
    assert len(shares) > 2
    assert record.achieved_ratio == pytest.approx(0.5, abs=0.05)


def test_widths_go_down_to_multiples_of_round_to(resnet20: nn.Module) -> None:
    record = _prune(resnet20, ratio=0.3, round_to=8).record

    assert [record.widths_after[f"layer{stage}.0.conv1"] for stage in (1, 2, 3)] == [8, 16, 40]  # 11, 22, 44 rounded


def test_a_layer_too_narrow_for_its_ratio_keeps_round_to_channels(resnet20: nn.Module) -> None:
    # torch-pruning itself would round 6 of 16 channels down to 0, and then leave all 16.
    record = _prune(resnet20, ratio=0.6, round_to=8).record

    assert [record.widths_after[f"layer{stage}.0.conv1"] for stage in (1, 2, 3)] == [8, 8, 24]


def test_every_layer_keeps_at_least_one_channel(resnet20: nn.Module) -> None:
    assert set(_prune(resnet20, ratio=0.95).record.widths_after.values()) == {1, 3}


def test_rounding_beyond_the_ratio_is_said(resnet20: nn.Module) -> None:
    record = _prune(resnet20, ratio=0.05, round_to=16).record

    assert any(note.startswith("28.6% of the channels went where 5.0% were asked") for note in record.notes)
    assert not any("channels went" in note for note in _prune(resnet20, ratio=0.3).record.notes)


def test_pruning_says_nothing_of_kernels_that_it_does_not_know(resnet20: nn.Module) -> None:
    assert _prune(resnet20, ratio=0.5).record.notes == ()  # the stage of 8 channels is no fault on a CPU


def test_a_ratio_that_prunes_nothing_is_an_error(resnet20: nn.Module) -> None:
    with pytest.raises(RowError, match="lower round_to"):
        _prune(resnet20, ratio=0.3, round_to=64)


def test_bn_scale_without_batch_norm_is_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))

    with pytest.raises(RowError, match="choose importance l2"):
        _prune(model, ratio=0.5, importance="bn-scale")


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("kind", ["macs", "params"])
@pytest.mark.parametrize("target", [0.1, 0.5, 0.9])
def test_a_target_is_met_by_the_closest_network_not_above_it(kind: str, target: float, scope: str) -> None:
    model = _chain()

    record = _prune(model, scope=scope, **_target(kind, target)).record
    looser = _prune(model, scope=scope, ratio=record.ratio - 1 / 1024).record

    share, next_share = (getattr(one, f"{kind}_after") / getattr(one, f"{kind}_before") for one in (record, looser))
    assert share <= target < next_share


def test_resnet20_reaches_a_quarter_of_its_macs_with_half_of_its_channels(resnet20: nn.Module) -> None:
    record = _prune(resnet20, macs=0.2528).record

    assert record.achieved_ratio == 0.5
    assert record.macs_after == 10_314_048


def _target(kind: str, value: float) -> dict[str, Any]:
    return {kind: value}


def _chain() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=4),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3),
            nn.ReLU(),
            nn.Conv2d(16, 24, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(24, 10),
        ).eval()


def test_a_target_out_of_reach_names_the_least(resnet20: nn.Module) -> None:
    least = _prune(resnet20, ratio=0.99, round_to=8).record
    share = least.macs_after / least.macs_before

    with pytest.raises(RowError, match=f"macs 0.01: .* got {share:.4f} at least"):
        _prune(resnet20, macs=0.01, round_to=8)


@pytest.mark.parametrize("target", [{"ratio": 0.0}, {"macs": 1.0}, {"params": 1.0}])
def test_a_target_of_the_dense_network_prunes_nothing(resnet20: nn.Module, target: dict[str, Any]) -> None:
    pruned = _prune(resnet20, **target)

    assert pruned.record.notes == ("nothing was pruned: the target is the dense network",)
    assert pruned.record.achieved_ratio == 0
    torch.testing.assert_close(pruned.model.state_dict(), resnet20.state_dict(), rtol=0, atol=0)
    assert pruned.model is not resnet20


def _reloads(pruned: nn.Module, name: str, folder: Path) -> bool:
    path = folder / "pruned.safetensors"
    save_model(path, pruned, name=name, num_classes=10, metadata={})
    again = load_model(name, num_classes=10, checkpoint=path).model
    noise = torch.randn(2, *_SHAPE, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits = pruned(noise)
        return bool(torch.isfinite(logits).all()) and torch.equal(logits, again(noise))


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("name", ["resnet20", "resnet20_a"])
def test_a_pruned_network_is_finite_and_reloads(name: str, scope: str, tmp_path: Path) -> None:
    pruned = _prune(_network(name), ratio=0.5, scope=scope)

    assert pruned.record.params_after < 0.6 * pruned.record.params_before
    assert _reloads(pruned.model, name, tmp_path)


def test_depthwise_convolutions_follow_their_neighbours(tmp_path: Path) -> None:
    pruned = _prune(_network("mobilenet_v2_cifar"), ratio=0.5, round_to=8)

    depthwise = [module for module in pruned.model.modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
    assert len(depthwise) == 17
    assert all(module.groups == module.in_channels == module.out_channels for module in depthwise)
    assert _reloads(pruned.model, "mobilenet_v2_cifar", tmp_path)


def test_the_residual_stream_of_option_a_is_protected() -> None:
    record = _prune(_network("resnet20_a"), ratio=0.5).record

    changed = {name for name, width in record.widths_after.items() if width != record.widths_before[name]}
    assert changed == {f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in range(3)}
    assert record.notes[:2] == (
        "10 convolutions on the residual stream of option A are protected",
        "10 of 19 convolutions keep all channels",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "resnet18_3x3", "resnet18_imagenet", "torchvision:densenet121", "torchvision:vgg11_bn"]
)
def test_the_rest_of_the_zoo_is_pruned_and_reloads(name: str, tmp_path: Path) -> None:
    pruned = _prune(_network(name), ratio=0.5, round_to=8)

    assert pruned.record.params_after < 0.3 * pruned.record.params_before
    assert _reloads(pruned.model, name, tmp_path)


@pytest.mark.slow
def test_a_classifier_that_is_a_convolution_keeps_its_outputs() -> None:
    record = _prune(_network("torchvision:squeezenet1_1"), ratio=0.5).record

    assert record.widths_after["classifier.1"] == 10


class _Scaled(_Small):
    """A network with a parameter that belongs to no layer."""

    def __init__(self) -> None:
        super().__init__(4)
        self.scale = nn.Parameter(torch.ones(1, 4, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc((self.bn(self.conv(images)) * self.scale).mean((2, 3)))
        return logits


def test_what_torch_pruning_warns_of_becomes_a_note(
    capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    pruned = prune_channels(_Scaled().eval(), _variant(ratio=0.5), input_shape=(1, 4, 4), round_to=1)

    assert [note for note in pruned.record.notes if "Unwrapped parameters detected: ['scale']" in note]
    assert not recwarn.list
    assert capsys.readouterr() == ("", "")


class _Opaque(_Small):
    """A network whose features lose their history."""

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self.fc(self.bn(self.conv(images)).mean((2, 3)))
        return logits


def test_a_network_without_a_graph_is_an_error() -> None:
    with pytest.raises(RowError, match="none that torch-pruning finds"):
        prune_channels(_Opaque(4).eval(), _variant(ratio=0.5), input_shape=(1, 4, 4), round_to=1)


class _Shuffled(nn.Module):
    """A block of ShuffleNet V2: half of the channels pass by, and both halves are shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 1)
        self.narrow, self.deep, self.wide = (
            nn.Conv2d(4, 6, 1),
            nn.Conv2d(6, 6, 3, padding=1, groups=6),
            nn.Conv2d(6, 4, 1),
        )
        self.fc = nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        passed, taken = self.stem(images).chunk(2, dim=1)
        both = torch.cat((passed, self.wide(self.deep(self.narrow(taken)))), dim=1)
        count, width, height, _ = both.shape
        mixed = both.view(count, 2, width // 2, height, -1).transpose(1, 2).contiguous().view(count, width, height, -1)
        logits: Tensor = self.fc(mixed.mean((2, 3)))
        return logits


def test_channels_that_torch_pruning_cannot_follow_are_kept_and_named_and_the_rest_goes() -> None:
    torch.manual_seed(0)
    pruned = prune_channels(_Shuffled().eval(), _variant(ratio=0.5), input_shape=(1, 4, 4), round_to=1)
    assert pruned.record.widths_after == {"stem": 8, "narrow": 3, "deep": 3, "wide": 4}
    assert "kept whole, for torch-pruning cannot follow their channels: wide" in pruned.record.notes


def test_a_group_whose_indices_multiply_beyond_measure_is_kept_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trtbench.compress.torch_pruning._MOST_INDICES", 200)
    layers = (nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(8 * 36, 4), nn.Linear(4, 2))
    pruned = prune_channels(nn.Sequential(*layers).eval(), _variant(ratio=0.5), input_shape=(1, 6, 6), round_to=1)
    assert pruned.record.widths_after == {"0": 4, "1": 8}
    assert "kept whole, for torch-pruning cannot follow their channels: 1" in pruned.record.notes


class _Proud(_Small):
    """A network that counts on its width."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) / (self.conv.out_channels - 2)


def test_following_dependencies_tells_how_far_it_is_and_ends_after_a_limit(resnet20: nn.Module) -> None:
    told: list[str] = []
    seconds = itertools.count(0, 0.25)  # within a group too time is looked at

    def prune(**limit: float) -> PrunedModel:
        watch = Watch(told.append, clock=lambda: next(seconds), **limit)
        return prune_channels(resnet20, _variant(ratio=0.5), input_shape=_SHAPE, round_to=1, watch=watch)

    prune()
    assert re.fullmatch(r"torch-pruning has followed [1-9]\d* groups of layers in 10 s", told[0])
    cure = "leave this variant out, or prune single weights: kind weights"
    with pytest.raises(RowError, match=f"pruning ResNet: expected .* follows within 7 s, got one that takes.*{cure}"):
        prune(limit_s=7)


def test_a_network_that_breaks_when_pruned_is_an_error() -> None:
    with pytest.raises(RowError, match=r"expected finite logits of shape \(2, 2\), got shape \(2, 2\), 0 of 4 finite"):
        prune_channels(_Proud(4).eval(), _variant(ratio=0.5), input_shape=(1, 4, 4), round_to=1)


def test_a_network_without_a_classifier_keeps_its_outputs() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten())

    assert _prune(model, ratio=0.5).record.widths_after == {"0": 4, "2": 8}  # no layer has its 32 outputs


def test_images_of_another_shape_are_a_configuration_error(resnet20: nn.Module) -> None:
    with pytest.raises(ConfigError, match="1 x 32 x 32"):
        prune_channels(resnet20, _variant(ratio=0.5), input_shape=(1, 32, 32), round_to=1)
