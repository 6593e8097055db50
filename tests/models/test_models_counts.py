from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trtbench.errors import ConfigError
from trtbench.models import build_model, conv_widths, count_macs, count_params
from trtbench.models.counts import evaluating


class Twice(nn.Module):
    """A depthwise convolution that runs twice, then a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        out = self.norm(self.depthwise(self.depthwise(images)))
        logits: Tensor = self.fc(out.mean((2, 3)))
        return logits


def test_macs_are_outputs_times_kernel_per_run_of_a_layer() -> None:
    assert count_macs(Twice(), (4, 5, 6)) == 2 * (4 * 5 * 6) * (1 * 3 * 3) + 3 * 4


def test_resnet20_has_the_macs_of_its_layer_table() -> None:
    stage = [6 * 32 * 32 * 16 * 16 * 9, 16 * 16 * 32 * 9 * (16 + 5 * 32), 8 * 8 * 64 * 9 * (32 + 5 * 64)]
    shortcuts = 16 * 16 * 32 * 16 + 8 * 8 * 64 * 32
    by_hand = 32 * 32 * 16 * 3 * 9 + sum(stage) + shortcuts + 640
    assert count_macs(build_model("resnet20", num_classes=10), (3, 32, 32)) == by_hand


def test_a_parameter_that_two_layers_share_counts_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    assert count_params(model) == 16


def test_buffers_are_no_parameters() -> None:
    assert count_params(nn.BatchNorm2d(5)) == 10


def test_widths_are_the_output_channels_by_name_in_order() -> None:
    widths = conv_widths(build_model("resnet20", num_classes=10))
    assert len(widths) == 21
    assert list(widths.items())[:2] == [("conv1", 16), ("layer1.0.conv1", 16)]
    assert widths["layer3.0.downsample.0"] == 64


def test_counting_leaves_modes_hooks_and_statistics_as_they_were() -> None:
    model = Twice().train()
    model.norm.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    count_macs(model, (4, 5, 5))
    assert (model.training, model.norm.training, model.fc.training) == (True, False, True)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_counting_works_in_half_precision_and_without_parameters() -> None:
    assert count_macs(Twice().half(), (4, 2, 2)) == count_macs(Twice(), (4, 2, 2))
    assert count_macs(nn.Flatten(), (3, 2, 2)) == 0


def test_images_that_a_network_does_not_take_are_an_error_with_its_words() -> None:
    model = build_model("resnet20", num_classes=10).train()
    with pytest.raises(ConfigError, match=r"ResNet with images of 1 x 32 x 32: .*3 channels"):
        count_macs(model, (1, 32, 32))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_eval_mode_ends_with_the_block_even_after_an_error() -> None:
    model = nn.Dropout()
    seen = []

    def fail() -> None:
        with evaluating(model):
            seen.append(model.training)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [False]
    assert model.training


class _TwoInputs(nn.Module):
    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return one + other


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (_TwoInputs(), "_TwoInputs with images of 3 x 8 x 8: .* missing 1 required positional argument: 'other'"),
        (nn.ModuleDict({"a": nn.Conv2d(3, 3, 1)}), "ModuleDict with images .* forward"),
    ],
)
def test_whatever_a_forward_raises_is_an_error_of_the_network(model: nn.Module, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        count_macs(model, (3, 8, 8))
