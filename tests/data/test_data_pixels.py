"""Pictures become pixels as torchvision's transforms on Pillow images make them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import functional
from torchvision.transforms.functional import InterpolationMode

from trtbench.data.pixels import framed
from trtbench.errors import ConfigError
from trtbench.jsonable import to_jsonable
from trtbench.records import Framing, Preprocessing
from trtbench.suite import DataConfig, load_suite, options

if TYPE_CHECKING:
    from pathlib import Path


def picture(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("own", [(300, 400), (401, 299), (64, 64), (40, 500)])
@pytest.mark.parametrize(("size", "resize"), [(224, 256), (224, 232), (160, 160), (97, 111)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_crop_is_what_torchvision_cuts_out(own: tuple[int, int], size: int, resize: int, interpolation: str) -> None:
    image = picture(*own)
    theirs = functional.resize(image, [resize], InterpolationMode(interpolation))
    theirs = functional.center_crop(theirs, [size, size])

    ours = framed(image, size=size, crop_ratio=round(size / resize, 6), interpolation=interpolation)

    np.testing.assert_array_equal(ours, np.asarray(theirs))


def test_a_rectangle_is_covered_and_cut_out_of_the_middle() -> None:
    found = framed(picture(100, 300), size=(50, 60), crop_ratio=1.0)
    whole = np.asarray(picture(100, 300).resize((150, 50), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(found, whole[:, 45:105])


def test_without_antialias_only_the_nearest_pixels_count() -> None:
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::4] = 200  # every fourth column: of a quarter of the size, their mean or none of them
    image = Image.fromarray(stripes)
    assert np.abs(framed(image, size=8)[:, 1:-1].astype(int) - 50).max() <= 10
    assert framed(image, size=8, antialias=False).max() == 0


def test_what_frames_otherwise_has_another_fingerprint_and_what_does_not_has_the_old_one() -> None:
    usual = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3, size=32)
    other = replace(usual, crop_ratio=0.9)
    assert usual.fingerprint.startswith("7b917dc3")
    assert other.fingerprint != usual.fingerprint


def test_a_preprocessing_is_read_back_from_json() -> None:
    fit = Preprocessing(mean=(0.5,) * 3, std=(0.25,) * 3, size=(3, 4), crop_ratio=0.9)
    assert Preprocessing.read(json.loads(json.dumps(to_jsonable(fit)))) == fit


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"size": 0}, "a number of pixels greater than 0, or height and width"),
        ({"size": [8, 8, 8]}, "a number of pixels greater than 0, or height and width"),
        ({"size": "big"}, "a number of pixels greater than 0, or height and width"),
        ({"crop_ratio": 1.5}, "less than or equal to 1"),
        ({"crop_ratio": 0.9}, "crop_ratio with folder:PATH alone; digits has its own"),
        ({"source": "folder:x", "antialias": False, "interpolation": "lanczos"}, "nearest, bilinear, bicubic where"),
    ],
)
def test_what_cannot_be_framed_is_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options(DataConfig, **keys)


def test_sizes_come_as_a_number_or_as_two() -> None:
    assert [options(DataConfig, size=one).size for one in (32, [32], [32, 32], [24, 32])] == [32, 32, 32, (24, 32)]
    assert Framing(size=(24, 32)).height_width == (24, 32)


def test_a_file_of_classes_is_taken_from_the_folder_of_the_suite(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "name: a\nmodel: {name: 'onnx:a.onnx'}\nvariants: [{kind: dense, name: dense}]\n"
        "data: {source: 'folder:x', classes: names.txt, size: [16, 24]}\n"
    )
    suite = load_suite(tmp_path / "s.yaml")
    assert suite.data.classes == tmp_path / "names.txt"
    assert suite.data.size == (16, 24)
