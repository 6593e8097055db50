"""Augmentation against NumPy's own padding, and its promises about chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trtbench.data import normalise
from trtbench.records import Preprocessing, Split
from trtbench.suite import AugmentConfig
from trtbench.train.augment import augmented_batch, crop_positions, cutout_mask
from trtbench.train.evaluate import DeviceImages, place

_OFF = AugmentConfig(crop_padding=0, flip=False, cutout=0)
_PREPROCESSING = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), size=6)


def _split(count: int = 200, size: int = 6) -> Split:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 3, size, size), np.uint8)
    return Split(images=images, labels=np.arange(count, dtype=np.int64) % 10)


def _placed(split: Split) -> DeviceImages:
    return place(split, _PREPROCESSING, device=torch.device("cpu"), is_channels_last=False)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(size=st.integers(2, 9), padding=st.integers(0, 8), seed=st.integers(0, 100))
def test_a_crop_shows_a_window_of_the_reflected_image(size: int, padding: int, seed: int) -> None:
    padding = min(padding, size - 1)
    padded = np.pad(np.arange(size), padding, mode="reflect")
    windows = {tuple(padded[offset : offset + size].tolist()) for offset in range(2 * padding + 1)}

    positions = crop_positions(20, size, padding=padding, generator=_generator(seed))

    assert positions.shape == (20, size)
    assert {tuple(row) for row in positions.tolist()} <= windows


def test_every_offset_of_a_crop_is_equally_likely() -> None:
    positions = crop_positions(9000, 32, padding=4, generator=_generator())

    _, counts = torch.unique(positions, dim=0, return_counts=True)
    assert len(counts) == 9
    assert counts.min() > 880  # 1,000 expected each, standard deviation 30
    assert counts.max() < 1120


def test_without_augmentation_a_batch_is_the_normalised_images() -> None:
    split = _split()
    indices = torch.tensor([7, 3, 3, 150])

    inputs, labels = augmented_batch(_placed(split), indices, config=_OFF, generator=_generator())

    np.testing.assert_array_equal(inputs.numpy(), normalise(split.images[indices.numpy()], _PREPROCESSING))
    assert labels.tolist() == split.labels[indices.numpy()].tolist()
    assert inputs.is_contiguous()


def test_half_of_the_images_are_mirrored_and_no_other_change_is_made() -> None:
    split = _split()
    upright = torch.from_numpy(normalise(split.images, _PREPROCESSING))

    inputs, _ = augmented_batch(
        _placed(split), torch.arange(200), config=AugmentConfig(crop_padding=0, flip=True), generator=_generator()
    )

    is_upright = (inputs == upright).flatten(1).all(1)
    is_mirrored = (inputs == upright.flip(3)).flatten(1).all(1)
    assert bool((is_upright ^ is_mirrored).all())
    assert 70 < int(is_mirrored.sum()) < 130  # 100 expected, standard deviation 7


def test_a_mirrored_crop_is_the_mirror_image_of_the_crop() -> None:
    split = _split(50)
    everything = AugmentConfig(crop_padding=2, flip=True)
    padded = np.pad(split.images, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    windows = [padded[:, :, row : row + 6, col : col + 6] for row in range(5) for col in range(5)]
    crops = [normalise(np.ascontiguousarray(window), _PREPROCESSING) for window in windows]

    inputs, _ = augmented_batch(_placed(split), torch.arange(50), config=everything, generator=_generator())

    for image, shown in enumerate(inputs.numpy()):
        sources = [crop[image] for crop in crops]
        assert any(np.array_equal(shown, one) or np.array_equal(shown, one[:, :, ::-1]) for one in sources)


@given(side=st.integers(1, 12), seed=st.integers(0, 50))
def test_cutout_blanks_one_square_clipped_at_the_border(side: int, seed: int) -> None:
    mask = cutout_mask(4, 6, 9, side=side, generator=_generator(seed))

    assert mask.shape == (4, 1, 6, 9)
    for image in mask[:, 0]:
        rows, cols = (torch.nonzero((image == 0).any(axis)).flatten() for axis in (1, 0))
        assert int((image == 0).sum()) == len(rows) * len(cols) > 0
        assert 1 <= len(rows) <= min(side, 6)
        assert 1 <= len(cols) <= min(side, 9)
        assert rows.tolist() == list(range(int(rows[0]), int(rows[-1]) + 1))


def test_the_centre_of_a_cutout_is_anywhere_in_the_image() -> None:
    mask = cutout_mask(4000, 5, 5, side=1, generator=_generator())

    blanked = (mask == 0).sum((0, 1))
    assert blanked.sum() == 4000
    assert blanked.min() > 110  # 160 expected each, standard deviation 12
    assert blanked.max() < 210


def test_a_cutout_is_the_mean_image() -> None:
    inputs, _ = augmented_batch(
        _placed(_split(20)),
        torch.arange(20),
        config=AugmentConfig(crop_padding=0, flip=False, cutout=3),
        generator=_generator(),
    )

    blank = (inputs == 0).all(1).sum((1, 2))
    assert bool(((blank >= 4) & (blank <= 9)).all())


@pytest.mark.parametrize("seed", [1, 2])
def test_the_generator_decides_everything(seed: int) -> None:
    images = _placed(_split())
    config = AugmentConfig(crop_padding=2, flip=True, cutout=2)
    first, again, other = (
        augmented_batch(images, torch.arange(50), config=config, generator=_generator(one))[0]
        for one in (seed, seed, seed + 1)
    )

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
