from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from trtbench.errors import ConfigError
from trtbench.models import build_model
from trtbench.models.widths import (
    Request,
    classifier_of,
    first_convolution_of,
    fitting_names,
    narrow,
    narrowed_layers,
    shapes_of,
    width_misfits,
)

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.models.names import Misfit


class Scale(nn.Module):
    """A layer of the user's own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, features: Tensor) -> Tensor:
        return features * self.weight


class Layers(nn.Module):
    """One layer of each kind that keeps numbers beside its tensors, and bare parameters."""

    def __init__(self, width: int, *, groups: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.depthwise = nn.Conv2d(width, 2 * width, 3, padding=1, groups=width)
        self.grouped = nn.Conv2d(2 * width, width, 3, padding=1, groups=groups)
        self.batch = nn.BatchNorm2d(width)
        self.bare = nn.BatchNorm2d(width, affine=False)
        self.group = nn.GroupNorm(2, width)
        self.instance = nn.InstanceNorm2d(width, affine=True)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.activation = nn.PReLU(width)
        self.layer = nn.LayerNorm(width)
        self.scale = nn.Parameter(torch.ones(width), requires_grad=False)
        self.token = nn.Parameter(torch.ones(1, 3, width))
        self.own = Scale(width)
        self.fc = nn.Linear(width, 5)

    def forward(self, images: Tensor) -> Tensor:
        out = self.grouped(self.depthwise(self.conv(images)))
        out = self.activation(self.instance(self.group(self.bare(self.batch(out)))))
        tokens = torch.cat([out.flatten(2).transpose(1, 2), self.token.expand(len(out), -1, -1)], 1)
        attended = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        logits: Tensor = self.fc(self.own(self.layer(attended.mean(1)) * self.scale))
        return logits


def test_a_network_takes_the_shapes_of_its_narrow_twin() -> None:
    wide, slim = Layers(16), Layers(8)
    narrow(wide, shapes_of(slim.state_dict()))
    assert shapes_of(wide.state_dict()) == shapes_of(slim.state_dict())
    assert str(wide) == str(slim)  # the numbers that modules print: channels, groups, features
    assert not wide.scale.requires_grad
    assert wide.conv.weight.requires_grad


def test_a_narrowed_network_computes_what_its_narrow_twin_computes() -> None:
    torch.manual_seed(0)
    wide, slim = Layers(16).eval(), Layers(8).eval()
    narrow(wide, shapes_of(slim.state_dict()))
    wide.load_state_dict(slim.state_dict())
    images = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        assert torch.equal(wide(images), slim(images))


def test_outputs_that_do_not_divide_into_the_groups_are_refused() -> None:
    shapes = shapes_of(Layers(16).state_dict()) | {"grouped.weight": (6, 8, 3, 3)}
    with pytest.raises(ConfigError, match="'grouped': expected a multiple of its 4 groups, got 6 outputs"):
        narrow(Layers(16), shapes)


def test_widths_that_do_not_stand_together_are_refused() -> None:
    shapes = shapes_of(Layers(16).state_dict()) | {"conv.weight": (8, 3, 3, 3), "conv.bias": (8,)}
    with pytest.raises(ConfigError, match="Layers with images of 3 x 32 x 32"):
        narrow(Layers(16), shapes)


def test_a_network_that_takes_no_usual_size_is_narrowed_unchecked() -> None:
    wide = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 5 * 5, 2))
    slim = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 5 * 5, 2))
    narrow(wide, shapes_of(slim.state_dict()))
    assert str(wide) == str(slim)


def test_networks_without_convolutions_are_narrowed_too() -> None:
    def mlp(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, width), nn.ReLU(), nn.Linear(width, 2))

    wide = mlp(8)
    narrow(wide, shapes_of(mlp(3).state_dict()))
    assert str(wide) == str(mlp(3))


def misfits_of(wide: nn.Module, changes: dict[str, tuple[int, ...]]) -> tuple[Misfit, ...]:
    return width_misfits(wide, shapes_of(wide.state_dict()) | changes, num_classes=5)


def test_narrower_layers_are_no_misfits() -> None:
    assert width_misfits(Layers(16), shapes_of(Layers(8).state_dict()), num_classes=5) == ()


@pytest.mark.parametrize(
    ("key", "got"),
    [
        ("grouped.weight", (17, 8, 3, 3)),  # wider
        ("grouped.weight", (16, 8, 5, 5)),  # another kernel
        ("grouped.weight", (16, 8)),  # another kind
        ("grouped.weight", (0, 8, 3, 3)),  # nothing left
        ("conv.weight", (16, 1, 3, 3)),  # other images
        ("token", (1, 2, 8)),  # fewer tokens too
        ("fc.weight", (4, 16)),  # other classes
        ("fc.bias", (4,)),
    ],
)
def test_what_no_pruning_explains_is_a_misfit(key: str, got: tuple[int, ...]) -> None:
    (misfit,) = misfits_of(Layers(16), {key: got})
    assert misfit.layer == key
    assert misfit.shapes[1] == got
    assert misfit.got == " x ".join(map(str, got))


def test_the_classifier_is_the_last_layer_with_an_output_per_class() -> None:
    assert classifier_of(build_model("resnet20", num_classes=7), num_classes=7) == "fc"
    assert classifier_of(build_model("torchvision:squeezenet1_1", num_classes=7), num_classes=7) == "classifier.1"
    assert classifier_of(nn.ReLU(), num_classes=7) is None


def test_the_first_convolution_sees_the_image() -> None:
    assert first_convolution_of(build_model("mobilenet_v2", num_classes=7)) == "features.0.0"
    assert first_convolution_of(nn.ReLU()) is None


def test_narrowed_layers_are_told_with_both_widths() -> None:
    narrowed = narrowed_layers(Layers(16), shapes_of(Layers(8).state_dict()))
    assert narrowed == {
        "conv": (16, 8),
        "depthwise": (32, 16),
        "grouped": (16, 8),
        "attention.out_proj": (16, 8),
    }


def test_a_regnet_is_found_by_its_shapes(tmp_path: Path) -> None:
    names = ["torchvision:regnet_x_400mf", "torchvision:regnet_y_400mf"]
    shapes = shapes_of(build_model(names[1], num_classes=7).state_dict())
    request = Request(name="", num_classes=7, in_channels=3, path=tmp_path / "a.pth", is_ordered=True)

    assert fitting_names(shapes, request, names=names) == names[1:]
