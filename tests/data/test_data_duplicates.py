from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from trtbench.data import duplicates, load_dataset, near_duplicates
from trtbench.data.duplicates import _area_weights
from trtbench.errors import DataError
from trtbench.suite import DataConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def photos() -> Images:
    """70 different tiles, 32 x 32, of the two photos bundled with scikit-learn; those of plain sky are left out."""
    tiles = [
        np.asarray(Image.fromarray(photo[y : y + 64, x : x + 64]).resize((32, 32), Image.Resampling.BICUBIC))
        for photo in load_sample_images().images
        for y in range(0, 384, 64)
        for x in range(0, 640, 64)
    ]
    return np.stack([tile for tile in tiles if tile.mean(axis=2).std() > 12]).transpose(0, 3, 1, 2)


def each(images: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    changed = [np.asarray(change(Image.fromarray(image.transpose(1, 2, 0)))) for image in images]
    return np.stack(changed).transpose(0, 3, 1, 2)


def jpeg(images: Images, *, quality: int) -> Images:
    def reencoded(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return each(images, reencoded)


def levels(pixels: NDArray[np.floating[Any]]) -> Images:
    clipped: Images = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return clipped


def cropped(images: Images) -> Images:
    return each(images, lambda image: image.crop((1, 1, 31, 31)).resize((32, 32), Image.Resampling.BICUBIC))


def moved(images: Images) -> Images:
    return np.concatenate([images[..., :1], images[..., :-1]], axis=3)


def noisy(images: Images) -> Images:
    return levels(images + np.random.default_rng(0).normal(0, 10, images.shape))


# What each change may miss of the 5,170 real photos; measured, see the module's docstring.
CHANGES: dict[str, tuple[Callable[[Images], Images], float]] = {
    "nothing": (lambda images: images.copy(), 0),
    "jpeg 30": (lambda images: jpeg(images, quality=30), 0),
    "jpeg 50": (lambda images: jpeg(images, quality=50), 0),
    "brighter": (lambda images: levels(images + 20.0), 0),
    "flatter": (lambda images: levels((images - 128.0) * 0.8 + 128), 0),
    "noise": (noisy, 0),
    "grey": (lambda images: each(images, lambda image: image.convert("L").convert("RGB")), 0),
    "moved": (moved, 0.025),
    "cropped": (cropped, 0.025),
}


@pytest.mark.shared
@pytest.mark.parametrize("change", [pytest.param(change, marks=pytest.mark.slow) for change in CHANGES])
def test_an_altered_copy_is_found_among_5170_photos(change: str, cifar10_lossless: Path) -> None:
    images = real_photos(cifar10_lossless)
    alter, may_miss = CHANGES[change]
    pairs = near_duplicates(images, alter(images))
    found = sum(i == j for i, j in pairs)
    assert found >= (1 - may_miss) * len(images)
    assert len(pairs) - found <= 20  # photos CIFAR-10 itself repeats, both ways round


_cache: dict[Path, Images] = {}


def real_photos(folder: Path) -> Images:
    if folder not in _cache:
        dataset = load_dataset(DataConfig(source=f"folder:{folder}"))
        _cache[folder] = np.concatenate([dataset.train.images, dataset.validation.images])
    return _cache[folder]


@pytest.mark.slow  # 5,170 photos beside 1,017; the manifest of the same photos meets the same repeats in every run
@pytest.mark.shared
def test_between_training_and_test_photos_only_the_known_repeats_are_reported(cifar10_lossless: Path) -> None:
    dataset = load_dataset(DataConfig(source=f"folder:{cifar10_lossless}"))
    assert len(near_duplicates(real_photos(cifar10_lossless), dataset.test.images)) == 5


@pytest.mark.parametrize("change", ["nothing", "jpeg 30", "jpeg 50", "brighter", "flatter", "grey"])
def test_an_altered_copy_is_found_and_nothing_else(change: str, photos: Images) -> None:
    alter, _ = CHANGES[change]
    assert near_duplicates(photos, alter(photos)) == [(i, i) for i in range(len(photos))]


@pytest.mark.parametrize("change", ["moved", "cropped"])
def test_a_moved_or_cropped_copy_is_mostly_found_and_nothing_else(change: str, photos: Images) -> None:
    alter, _ = CHANGES[change]
    pairs = near_duplicates(photos, alter(photos))
    assert all(i == j for i, j in pairs)
    assert len(pairs) >= len(photos) - 2


def test_photos_that_share_their_thumbnail_but_not_their_detail_are_different(photos: Images) -> None:
    blurred = each(photos, lambda image: image.resize((4, 4), Image.Resampling.BOX).resize((32, 32)))
    texture = np.random.default_rng(0).normal(0, 35, (2, len(photos), 1, 32, 32))
    first, second = (levels(0.8 * blurred + 25 + noise) for noise in texture)
    assert near_duplicates(first, second) == []


def test_grey_images_that_share_their_detail_are_different(photos: Images) -> None:
    in_grey = CHANGES["grey"][0](photos)
    found_by_detail = set(near_duplicates(photos, moved(photos))) - set(near_duplicates(in_grey, moved(in_grey)))
    assert found_by_detail


def test_the_closest_two_digits_are_different() -> None:
    dataset = load_dataset(DataConfig())
    images = np.concatenate([dataset.train.images, dataset.validation.images, dataset.test.images])
    assert near_duplicates(images, images) == [(i, i) for i in range(1797)]


def test_larger_images_are_compared_like_small_ones(photos: Images) -> None:
    large = each(photos[:40], lambda image: image.resize((100, 100), Image.Resampling.BICUBIC))
    assert near_duplicates(large, jpeg(large, quality=30)) == [(i, i) for i in range(40)]


def test_images_smaller_than_a_thumbnail_are_compared_whole() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 6, 6), dtype=np.uint8)
    assert near_duplicates(images, levels(images + 2.0)) == [(i, i) for i in range(50)]


def test_images_of_one_channel_are_compared_by_that_channel(photos: Images) -> None:
    assert near_duplicates(photos[:20, 1:2], photos[:20, 1:2]) == [(i, i) for i in range(20)]


def test_almost_flat_images_are_left_to_their_hashes() -> None:
    faint = (
        np.zeros((3, 3, 32, 32), np.uint8)
        + np.arange(32, dtype=np.uint8) // np.array([32, 4, 1], np.uint8)[:, None, None, None]
    )
    assert near_duplicates(faint, faint) == [(2, 2)]  # contrasts of 0, 2.3 and 9.2 levels


def test_blocks_do_not_change_the_answer(photos: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    altered = moved(photos)[::-1]
    whole = near_duplicates(photos, altered)
    monkeypatch.setattr(duplicates, "_BLOCK", 7)
    monkeypatch.setattr(duplicates, "_FLOATS", 3 * 32 * 32 * 5)
    assert near_duplicates(photos, altered) == whole


def test_an_empty_set_has_no_duplicates(photos: Images) -> None:
    assert near_duplicates(photos[:0], photos) == near_duplicates(photos, photos[:0]) == []


def test_sets_of_different_sizes_are_refused(photos: Images) -> None:
    with pytest.raises(DataError, match=r"one image shape, \(3, 32, 32\), got \(3, 16, 16\); load both"):
        near_duplicates(photos, photos[:, :, ::2, ::2])


@pytest.mark.parametrize(("size", "cells"), [(32, 8), (28, 8), (9, 8), (8, 8), (224, 32), (33, 32)])
def test_averaging_by_area_weighs_every_pixel_alike(size: int, cells: int) -> None:
    weights = _area_weights(size, cells)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(weights.sum(axis=0), cells / size, rtol=1e-5)


def test_averaging_three_pixels_into_two_cells_is_hand_worked() -> None:
    np.testing.assert_allclose(_area_weights(3, 2), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], rtol=1e-6)
