"""Which images are taken, and how they reach a network."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtbench.data import balanced, batches, normalise, spread, training_sample
from trtbench.errors import DataError
from trtbench.records import Dataset, Preprocessing, Split

_PREPROCESSING = Preprocessing(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0), size=4)
_IMAGES = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 4), dtype=np.uint8)


def _dataset(sizes: list[int]) -> Dataset:
    """Images class by class, as a folder gives them."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 3, 4, 4), dtype=np.uint8)
    split = Split(images=images, labels=labels)
    names = tuple(map(str, range(len(sizes))))
    return Dataset(
        name="ordered", classes=names, train=split, validation=split, test=split, preprocessing=_PREPROCESSING
    )


@given(st.integers(1, 9))
def test_batches_together_are_the_images_normalised(size: int) -> None:
    found = list(batches(_IMAGES, _PREPROCESSING, size=size))

    assert [len(batch) for batch in found[:-1]] == [size] * (len(found) - 1)
    np.testing.assert_array_equal(np.concatenate(found), normalise(_IMAGES, _PREPROCESSING))


def test_chosen_images_come_in_the_order_of_choice() -> None:
    found = np.concatenate(list(batches(_IMAGES, _PREPROCESSING, size=2, chosen=(6, 0, 3))))

    np.testing.assert_array_equal(found, normalise(_IMAGES[[6, 0, 3]], _PREPROCESSING))


@pytest.mark.parametrize("size", [2, 7, 10])
def test_a_padded_batch_is_filled_up_with_the_last_image(size: int) -> None:
    found = list(batches(_IMAGES, _PREPROCESSING, size=size, pads=True))

    expected = np.minimum(np.arange(size * len(found)), len(_IMAGES) - 1)
    assert {len(batch) for batch in found} == {size}
    np.testing.assert_array_equal(np.concatenate(found), normalise(_IMAGES[expected], _PREPROCESSING))


def test_no_images_are_no_batches() -> None:
    assert list(batches(_IMAGES[:0], _PREPROCESSING, size=2, pads=True)) == []


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 80), st.integers(0, 2**32 - 1))
def test_short_classes_give_all_they_have_and_the_others_stay_equal(sizes: list[int], count: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)

    chosen = balanced(labels, count=count, seed=seed)

    counts = np.bincount(labels[chosen], minlength=len(sizes))
    assert len(set(chosen.tolist())) == len(chosen) == min(count, len(labels))
    assert all(taken == size or taken >= counts.max() - 1 for taken, size in zip(counts, sizes, strict=True))


def test_a_spread_is_equal_in_classes_ascending_and_always_the_same() -> None:
    labels = np.repeat(np.arange(4), 50)

    chosen = spread(labels, count=40)

    assert np.bincount(labels[chosen]).tolist() == [10] * 4
    assert chosen.tolist() == sorted(chosen.tolist()) == spread(labels, count=40).tolist()
    assert spread(labels, count=1000).tolist() == list(range(200))


def test_a_training_sample_has_its_labels_and_every_class_in_equal_numbers() -> None:
    dataset = _dataset([30, 30, 30])

    inputs, labels = training_sample(dataset, count=12, seed=5)

    known = dict(zip(map(bytes, normalise(dataset.train.images, _PREPROCESSING)), dataset.train.labels, strict=True))
    assert [known[bytes(one)] for one in inputs] == labels.tolist()
    assert np.bincount(labels).tolist() == [4] * 3
    assert labels.tolist() != training_sample(dataset, count=12, seed=6)[1].tolist()


def test_without_training_images_there_is_no_sample() -> None:
    dataset = dataclasses.replace(_dataset([1, 1]), train=Split(images=_IMAGES[:0], labels=np.zeros(0, np.int64)))

    with pytest.raises(DataError, match="training images: expected at least one, got none"):
        training_sample(dataset, count=4, seed=0)
