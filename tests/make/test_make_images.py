"""What weights expect of their images: their file is asked, then who published them; what is assumed is said."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from trtbench import _optional
from trtbench.errors import CheckpointError
from trtbench.make.images import expected_input, framing_proposed
from trtbench.make.makings import Makings, Places
from trtbench.make.networks import dense
from trtbench.models.checkpoints import network_of, networks_of
from trtbench.records import Framing
from trtbench.suite import Suite, adhoc_suite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_OPEN = "neither suite nor checkpoint says it: data.mean and data.std do"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_torchvision_s_weights_are_known_by_the_name_of_their_file(tmp_path: Path) -> None:
    first, second, own = (tmp_path / name for name in ("resnet50-0676ba61.pth", "resnet50-11ad3fa6.pth", "mine.pth"))
    found = [expected_input("torchvision:resnet50", path) for path in (first, second, own)]
    assert [one.framing.crop_ratio for one in found if one] == [0.875, 0.965517, 0.875]
    assert [one.source for one in found if one] == [
        f"torchvision's for ResNet50_Weights.IMAGENET1K_{name}" for name in ("V1", "V2", "V1")
    ]
    assert found[0] is not None
    assert (found[0].mean, found[0].std) == _IMAGENET
    assert expected_input("resnet20", own) is None
    assert expected_input("torchvision:no_such_net", own) is None


def test_timm_is_asked_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm: Any = ModuleType("timm")
    config = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "input_size": (3, 240, 320), "crop_pct": 0.95}
    timm.get_pretrained_cfg = lambda name: SimpleNamespace(**config, interpolation="bicubic") if name == "a" else None
    monkeypatch.setattr(_optional, "is_installed", lambda name: name == "timm")
    monkeypatch.setattr(_optional, "load", lambda _: timm)

    found = expected_input("timm:a", tmp_path / "a.pth")

    assert found is not None
    assert found.framing == Framing(size=(240, 320), crop_ratio=0.95, interpolation="bicubic")
    assert found.mean == (0.5,) * 3
    assert expected_input("timm:b", tmp_path / "a.pth") is None


@pytest.fixture(scope="module")
def small(noise: Callable[..., Path]) -> Path:
    return noise(train=6, test=3)


def _suite(images: Path, checkpoint: Path | None, model: str = "torchvision:squeezenet1_1", **data: Any) -> Suite:
    weights: dict[str, Any] = {"train": {"epochs": 0}} if checkpoint is None else {"checkpoint": str(checkpoint)}
    return adhoc_suite(model={"name": model, **weights}, data={"source": f"folder:{images}", **data})


def test_images_are_framed_as_the_published_weights_expect_and_it_is_said(small: Path, tmp_path: Path) -> None:
    torch.save({}, tmp_path / "mine.pth")

    found = Makings(_suite(small, tmp_path / "mine.pth"), Places(runs=tmp_path)).dataset

    fit = found.preprocessing
    assert (fit.size, fit.crop_ratio, (fit.mean, fit.std)) == (224, 0.875, _IMAGENET)
    source = "torchvision's for SqueezeNet1_1_Weights.IMAGENET1K_V1"
    assert found.notes == (
        f"assumed: mean 0.485,0.456,0.406, std 0.229,0.224,0.225, {source}; {_OPEN}",
        f"images are size 224, crop_ratio 0.875, interpolation bilinear, {source}: the suite names no data.size",
    )


def test_a_suite_that_says_otherwise_is_obeyed_and_told(small: Path, tmp_path: Path) -> None:
    torch.save({}, tmp_path / "mine.pth")
    said: dict[str, Any] = {"size": 16, "mean": [0.5] * 3, "std": [0.5] * 3}

    found = Makings(_suite(small, tmp_path / "mine.pth", **said), Places(runs=tmp_path)).dataset

    assert (found.preprocessing.size, found.preprocessing.crop_ratio) == (16, None)
    assert [note.partition(";")[0] for note in found.notes] == [
        "the suite says mean 0.5,0.5,0.5, std 0.5,0.5,0.5",
        "images are size 16, interpolation bilinear",
    ]


def test_what_we_save_notes_its_input_and_other_images_follow_it(
    small: Path, noise: Callable[..., Path], tmp_path: Path
) -> None:
    trained = Makings(_suite(small, None, "resnet20", size=16, interpolation="bicubic"), Places(runs=tmp_path))
    weights = dense(trained).path("model.safetensors")
    others = noise(train=8, test=2)

    found = Makings(_suite(others, weights, "resnet20"), Places(runs=tmp_path)).dataset

    assert found.preprocessing == trained.dataset.preprocessing
    assert found.notes == trained.dataset.notes == ()


def test_weights_that_say_nothing_have_their_normalisation_measured_and_it_is_said(small: Path, tmp_path: Path) -> None:
    torch.save({}, tmp_path / "mine.pth")

    found = Makings(_suite(small, tmp_path / "mine.pth", "resnet20", size=16), Places(runs=tmp_path)).dataset

    (note,) = found.notes
    assert note.endswith(f", measured on the training images; {_OPEN}")


def test_a_checkpoint_says_or_shows_which_network_it_is_of(tmp_path: Path) -> None:
    from trtbench.models import build_model, save_model

    network = build_model("resnet20_a", num_classes=7)
    save_model(tmp_path / "ours.safetensors", network, name="resnet32_a", num_classes=7, metadata={})
    torch.save(network.state_dict(), tmp_path / "plain.pth")
    torch.save(build_model("resnet18", num_classes=7).state_dict(), tmp_path / "two.pth")

    assert networks_of(tmp_path / "ours.safetensors") == ("resnet32_a",)
    assert networks_of(tmp_path / "plain.pth") == ("resnet20_a",)
    assert networks_of(tmp_path / "resnet50-0676ba61.pth") == ("torchvision:resnet50",)
    with pytest.raises(CheckpointError, match="expected one network that it fits, got resnet18 and resnet18_3x3"):
        network_of(tmp_path / "two.pth")


def test_what_is_proposed_of_pictures_is_published_or_measured(small: Path, tmp_path: Path) -> None:
    from PIL import Image

    published, why = framing_proposed(_suite(small, None))
    assert published == {
        "validation": 0.2,
        "size": 224,
        "crop_ratio": 0.875,
        "interpolation": "bilinear",
        "mean": _IMAGENET[0],
        "std": _IMAGENET[1],
    }
    assert why["size"] == why["mean"] == "torchvision's for SqueezeNet1_1_Weights.IMAGENET1K_V1"
    for number, width in enumerate((300, 40, 500)):
        folder = tmp_path / "train" / str(number)
        folder.mkdir(parents=True)
        Image.new("RGB", (width, 400)).save(folder / "0.png")
    measured = {name: framing_proposed(_suite(tmp_path, None, name)) for name in ("resnet20", "resnet18")}
    assert {name: found["size"] for name, (found, _) in measured.items()} == {"resnet20": 32, "resnet18": 224}
    assert "measured: the shorter side is of 300 pixels" in measured["resnet18"][1]["size"]
    assert framing_proposed(_suite(small, None, "resnet20", size=24, validation=0.3)) == ({}, {})
