from __future__ import annotations

import runpy
import sys
from typing import TYPE_CHECKING

import pytest
import torch
import torchvision
from torch import nn

from trtbench import _optional
from trtbench.errors import CapabilityError, ConfigError
from trtbench.models import build_model, count_macs, count_params, model_names, protected_layers, zoo
from trtbench.models.zoo import PaddedBlock, ResNet

if TYPE_CHECKING:
    from pathlib import Path

# Parameters: He et al. (2015), the source studies and torchvision's documentation. MACs at 32x32, by hand for resnet20.
PARAMS = {
    "resnet20": 272_474,
    "resnet20_a": 269_722,
    "resnet32_a": 464_154,
    "resnet44_a": 658_586,
    "resnet56_a": 853_018,
    "resnet18": 11_173_962,
    "resnet18_3x3": 11_173_962,
    "resnet18_imagenet": 11_181_642,
    "mobilenet_v2": 2_236_682,
    "mobilenet_v2_cifar": 2_236_682,
}
MACS = {
    "resnet20": 40_813_184,
    "resnet18": 140_186_624,
    "resnet18_3x3": 555_422_720,
    "resnet18_imagenet": 37_016_576,
}


@pytest.mark.parametrize(("name", "params"), PARAMS.items())
def test_the_zoo_has_the_parameters_that_its_papers_state(name: str, params: int) -> None:
    assert count_params(build_model(name, num_classes=10)) == params


@pytest.mark.parametrize(("name", "macs"), MACS.items())
def test_the_zoo_has_the_macs_that_the_source_studies_state(name: str, macs: int) -> None:
    assert count_macs(build_model(name, num_classes=10), (3, 32, 32)) == macs


def test_a_projecting_shortcut_costs_its_1x1_convolutions_and_norms() -> None:
    for depth in (20, 32, 44, 56):
        with_projection = count_params(build_model(f"resnet{depth}", num_classes=10))
        without = count_params(build_model(f"resnet{depth}_a", num_classes=10))
        assert with_projection - without == 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64


@pytest.mark.parametrize("name", model_names())
def test_every_network_of_the_zoo_maps_images_to_one_logit_per_class(name: str) -> None:
    model = build_model(name, num_classes=7, in_channels=1).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 1, 16, 16)).shape == (2, 7)


def test_resnet18_imagenet_computes_what_torchvision_computes() -> None:
    torch.manual_seed(0)
    ours = build_model("resnet18_imagenet", num_classes=10).eval()
    theirs = torchvision.models.resnet18(weights=None, num_classes=10).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=0)


def test_mobilenet_v2_computes_what_torchvision_computes() -> None:
    torch.manual_seed(0)
    ours = build_model("mobilenet_v2", num_classes=10).eval()
    theirs = torchvision.models.mobilenet_v2(weights=None, num_classes=10).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=0)


def test_mobilenet_v2_cifar_keeps_4x4_pixels_to_the_last_stage() -> None:
    images = torch.zeros(1, 3, 32, 32)
    imagenet, cifar = (build_model(name, num_classes=10).eval() for name in ("mobilenet_v2", "mobilenet_v2_cifar"))
    assert imagenet.get_submodule("features")(images).shape[2:] == (1, 1)
    assert cifar.get_submodule("features")(images).shape[2:] == (4, 4)


def test_option_a_subsamples_and_pads_half_the_zeros_on_each_side() -> None:
    block = PaddedBlock(2, 6, stride=2).eval()
    nn.init.zeros_(block.bn2.weight)  # what remains is the shortcut
    images = torch.arange(1.0, 33.0).reshape(1, 2, 4, 4)
    out = block(images)
    assert out.shape == (1, 6, 2, 2)
    torch.testing.assert_close(out[:, 2:4], images[:, :, ::2, ::2], rtol=0, atol=0)
    assert out[:, :2].abs().max() == 0
    assert out[:, 4:].abs().max() == 0


def test_convolutions_start_with_kaimings_deviation_over_the_fan_out() -> None:
    torch.manual_seed(0)
    weight = build_model("resnet18", num_classes=10).get_submodule("layer4.1.conv2").weight
    assert isinstance(weight, torch.Tensor)
    assert float(weight.detach().std()) == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)


def test_equal_seeds_build_equal_networks() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_model("resnet20", num_classes=10).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_protected_layers_are_the_residual_stream_of_option_a() -> None:
    model = build_model("resnet20_a", num_classes=10)
    assert isinstance(model, ResNet)
    names = {module: name for name, module in model.named_modules()}
    protected = [names[module] for module in protected_layers(model)]
    assert protected[0] == "conv1"
    assert len(protected) == 10
    assert all(name.endswith("conv2") for name in protected[1:])


def test_only_option_a_needs_protected_layers() -> None:
    assert protected_layers(build_model("resnet20", num_classes=10)) == ()
    assert protected_layers(build_model("mobilenet_v2", num_classes=10)) == ()


def test_an_unknown_name_is_answered_with_the_nearest_names() -> None:
    with pytest.raises(ConfigError, match=r"'resnet21'.*nearest names:.*resnet20"):
        build_model("resnet21", num_classes=10)


def test_a_name_like_no_other_is_answered_with_names_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"nearest names: mobilenet_v2, "):
        build_model("???", num_classes=10)


@pytest.mark.parametrize("arguments", [{"num_classes": 0}, {"num_classes": 10, "in_channels": 0}])
def test_a_network_needs_a_class_and_a_channel(arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected at least 1, got 0"):
        build_model("resnet20", **arguments)


def test_an_onnx_file_is_no_network_to_train_or_prune() -> None:
    with pytest.raises(ConfigError, match=r"got an ONNX file; score, calibrate, build or bench it as it is"):
        build_model("onnx:model.onnx", num_classes=10)


def test_torchvision_networks_come_without_weights_and_with_our_classes() -> None:
    model = build_model("torchvision:squeezenet1_1", num_classes=7, in_channels=1).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 7)


def test_torchvision_networks_return_logits_in_training_too() -> None:
    model = build_model("torchvision:googlenet", num_classes=7)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_an_unknown_torchvision_name_is_answered_with_the_nearest_names() -> None:
    with pytest.raises(ConfigError, match=r"'torchvision:resnet19'.*torchvision:resnet18"):
        build_model("torchvision:resnet19", num_classes=10)


def test_torchvision_segmentation_networks_are_unknown() -> None:
    with pytest.raises(ConfigError, match="classification network"):
        build_model("torchvision:fcn_resnet50", num_classes=10)


USERS = """
from torch import nn
SIZE = 3
def build(num_classes, in_channels=3):
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
def only_classes(num_classes):
    return build(num_classes)
def number(num_classes):
    return num_classes
def breaks(num_classes):
    raise ZeroDivisionError("by the user")
"""


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "users_networks.py").write_text(USERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_networks", raising=False)
    return "users_networks"


def test_a_callable_of_the_user_is_called_with_the_classes(users: str) -> None:
    model = build_model(f"{users}:build", num_classes=5)
    assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 5)
    assert build_model(f"{users}:only_classes", num_classes=5)(torch.zeros(1, 3, 8, 8)).shape == (1, 5)


def test_a_callable_of_the_user_hears_of_images_that_are_not_rgb(users: str) -> None:
    model = build_model(f"{users}:build", num_classes=5, in_channels=1)
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 5)
    with pytest.raises(ConfigError, match=r"num_classes=5, in_channels=1: .*TypeError"):
        build_model(f"{users}:only_classes", num_classes=5, in_channels=1)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("number", "expected an nn.Module, got int"),
        ("breaks", "got ZeroDivisionError: by the user"),
        ("bild", "nearest names: users_networks:build"),
        ("SIZE", "expected a callable of 'users_networks'"),
    ],
)
def test_a_callable_that_yields_no_network_is_told_why(users: str, function: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(f"{users}:{function}", num_classes=5)


@pytest.mark.parametrize("module", ["no_such_package.networks", ""])
def test_a_module_that_cannot_be_imported_is_told_why(module: str) -> None:
    with pytest.raises(ConfigError, match="expected an importable module") as caught:
        build_model(f"{module}:build", num_classes=5)
    assert caught.value.exit_code == 2


@pytest.mark.skipif(_optional.is_installed("timm"), reason="timm is installed")
def test_timm_is_optional_and_its_absence_names_the_cure() -> None:
    with pytest.raises(CapabilityError, match="pip install 'trtbench\\[timm\\]'"):
        build_model("timm:resnet18", num_classes=10)


# A double of the three functions of timm that are used; it takes only what timm takes.
TIMM = """
from torch import nn
def list_models():
    return ["resnet10t"]
def is_model(name):
    return name in list_models()
def create_model(model_name, pretrained=False, *, num_classes, in_chans):
    assert model_name == "resnet10t" and not pretrained
    return nn.Sequential(nn.Conv2d(in_chans, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""


@pytest.mark.skipif(_optional.is_installed("timm"), reason="timm is installed, and the test below uses it")
def test_timm_networks_come_without_weights_and_with_our_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "timm.py").write_text(TIMM)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    try:
        assert build_model("timm:resnet10t", num_classes=7, in_channels=1)(torch.zeros(1, 1, 8, 8)).shape == (1, 7)
        with pytest.raises(ConfigError, match="nearest names: timm:resnet10t"):
            build_model("timm:resnet10", num_classes=7)
    finally:
        sys.modules.pop("timm", None)


@pytest.mark.skipif(not _optional.is_installed("timm"), reason="timm is not installed")
def test_timm_builds_a_real_network() -> None:
    model = build_model("timm:resnet10t", num_classes=7, in_channels=1).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 7)


def test_no_network_of_our_own_waits_for_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it raises

    found = runpy.run_path(zoo.__file__)

    assert found["build_model"]("resnet20", num_classes=2)
    with pytest.raises(ImportError):
        found["build_model"]("mobilenet_v2", num_classes=2)
