from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trtbench.data.preprocess import measure_mean_std, normalise
from trtbench.errors import DataError
from trtbench.records import Preprocessing

PREPROCESSING = Preprocessing(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0), size=4)


def random_images(count: int, *, seed: int = 0, size: int = 4) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


def test_a_hand_worked_pixel_is_scaled_shifted_and_divided() -> None:
    images = np.zeros((1, 3, 4, 4), np.uint8)
    images[0, :, 0, 0] = (255, 51, 102)  # 1, 0.2 and 0.4
    normalised = normalise(images, PREPROCESSING)
    assert normalised[0, :, 0, 0] == pytest.approx([1.0, -0.2, 0.4])
    assert normalised[0, :, 1, 1] == pytest.approx([-1.0, -1.0, 0.0])


def test_normalised_images_are_what_torch_computes() -> None:
    images = random_images(3)
    pixels = torch.from_numpy(images).double() / 255
    mean, std = (torch.tensor(value).double()[:, None, None] for value in (PREPROCESSING.mean, PREPROCESSING.std))
    np.testing.assert_array_equal(normalise(images, PREPROCESSING), ((pixels - mean) / std).float().numpy())


def test_normalised_images_are_contiguous_float32_and_the_pixels_stay() -> None:
    images = random_images(2)
    before = images.copy()
    normalised = normalise(images.transpose(0, 1, 3, 2), PREPROCESSING)
    assert normalised.dtype == np.float32
    assert normalised.flags.c_contiguous
    np.testing.assert_array_equal(images, before)


@given(st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_an_image_has_the_same_floats_in_every_batch(index: int, seed: int) -> None:
    images = random_images(6, seed=seed)
    whole = normalise(images, PREPROCESSING)
    np.testing.assert_array_equal(whole[index : index + 1], normalise(images[index : index + 1], PREPROCESSING))


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 3, 4, 4), np.float32),
        np.zeros((1, 1, 4, 4), np.uint8),
        np.zeros((1, 3, 8, 8), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
    ],
)
def test_images_of_another_kind_are_refused(images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    with pytest.raises(DataError, match=r"expected uint8 \(N, 3, 4, 4\), got .*data\.size"):
        normalise(images, PREPROCESSING)


def test_mean_and_deviation_are_those_of_numpy_over_more_than_one_block() -> None:
    images = random_images(2100) // np.array([1, 2, 3], np.uint8)[:, None, None]
    mean, std = measure_mean_std(images)
    pixels = images.astype(np.float64) / 255
    assert mean == pytest.approx(pixels.mean(axis=(0, 2, 3)), abs=5.1e-5)
    assert std == pytest.approx(pixels.std(axis=(0, 2, 3)), abs=5.1e-5)
    assert all(round(value, 4) == value for value in mean + std)


def test_a_channel_without_contrast_is_refused() -> None:
    images = random_images(4)
    images[:, 1] = 7
    with pytest.raises(DataError, match=r"channel 1 .* the same value everywhere; .*data\.mean"):
        measure_mean_std(images)
