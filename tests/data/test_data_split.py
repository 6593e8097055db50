from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtbench.data.batches import stratified_split
from trtbench.errors import DataError

NAMES = tuple("abcdefghij")


def labels_of(sizes: list[int], *, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))


@given(st.lists(st.integers(2, 60), min_size=1, max_size=10), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_both_sides_partition_the_images_and_hold_every_class(sizes: list[int], share: float, seed: int) -> None:
    labels = labels_of(sizes)
    kept, held = stratified_split(labels, classes=NAMES[: len(sizes)], count=round(share * sum(sizes)), seed=seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert set(labels[kept]) == set(labels[held]) == set(range(len(sizes)))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()


@given(st.lists(st.integers(20, 60), min_size=1, max_size=10), st.integers(0, 2**32 - 1))
def test_every_class_gives_its_share_to_within_one_image(sizes: list[int], seed: int) -> None:
    labels = labels_of(sizes)
    count = sum(sizes) // 3
    _, held = stratified_split(labels, classes=NAMES[: len(sizes)], count=count, seed=seed)
    assert len(held) == count
    given_up = np.bincount(labels[held], minlength=len(sizes))
    assert (np.abs(given_up - np.array(sizes) * count / sum(sizes)) < 1).all()


def test_the_largest_remainder_gets_the_missing_image() -> None:
    # 10 of 41 images: exact quotas 4.88, 3.66, 1.46 -> floors 4, 3, 1 -> two more for the two largest remainders
    _, held = stratified_split(labels_of([20, 15, 6]), classes="abc", count=10, seed=0)
    assert np.bincount(labels_of([20, 15, 6])[held]).tolist() == [5, 4, 1]


def test_the_seed_alone_decides() -> None:
    labels = labels_of([50, 50])
    first, again, other = (stratified_split(labels, classes="ab", count=20, seed=seed)[1] for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


def test_a_class_of_one_image_is_named() -> None:
    with pytest.raises(DataError, match=r"training images: expected a class of two at least, .*, got 1; add images"):
        stratified_split(labels_of([1, 1]), classes="ab", count=1, seed=0)


def test_a_class_of_one_image_or_none_stays_whole() -> None:
    kept, held = stratified_split(labels_of([5, 1, 0, 4]), classes="abcd", count=5, seed=0)
    assert sorted(np.concatenate([kept, held]).tolist()) == list(range(10))
    assert labels_of([5, 1, 0, 4])[held].tolist().count(1) == 0
