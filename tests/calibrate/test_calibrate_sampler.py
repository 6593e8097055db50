from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtbench.calibrate.manifest import sample_balanced
from trtbench.errors import ConfigError, DataError

SEEDS = st.integers(0, 2**32 - 1)


def labels_of(sizes: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))


def assert_balanced_prefixes(classes: np.ndarray[tuple[int], np.dtype[np.int64]], num_classes: int) -> None:
    counts = np.cumsum(classes[:, None] == np.arange(num_classes), axis=0)
    assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1


@pytest.mark.parametrize("num_classes", [2, 10, 100, 1000])
@given(st.data(), SEEDS)
def test_every_prefix_of_the_sample_is_balanced(num_classes: int, data: st.DataObject, seed: int) -> None:
    smallest = data.draw(st.integers(1, 4))
    labels = labels_of([smallest + label % 3 for label in range(num_classes)])
    total = data.draw(st.integers(1, smallest * num_classes))
    indices = sample_balanced(labels, num_classes=num_classes, total=total, seed=seed)
    assert len(indices) == len(set(indices.tolist())) == total
    assert indices.dtype == np.int64
    assert_balanced_prefixes(labels[indices], num_classes)


@given(st.lists(st.integers(5, 20), min_size=1, max_size=12), st.integers(1, 5), SEEDS)
def test_per_class_gives_exactly_that_many_of_each(sizes: list[int], per_class: int, seed: int) -> None:
    labels = labels_of(sizes)
    indices = sample_balanced(labels, num_classes=len(sizes), per_class=per_class, seed=seed)
    assert np.bincount(labels[indices]).tolist() == [per_class] * len(sizes)
    assert_balanced_prefixes(labels[indices], len(sizes))


@given(SEEDS, st.integers(0, 29))
def test_excluding_an_image_leaves_the_other_drawn_ones_drawn(seed: int, place: int) -> None:
    labels = labels_of([20, 20, 20])
    before = sample_balanced(labels, num_classes=3, per_class=10, seed=seed).tolist()
    gone = before[place]
    after = sample_balanced(labels, num_classes=3, per_class=10, seed=seed, exclude=[gone]).tolist()
    assert set(before) - set(after) == {gone}
    (substitute,) = set(after) - set(before)
    assert labels[substitute] == labels[gone]
    assert_balanced_prefixes(labels[after], 3)


def test_the_seed_alone_decides() -> None:
    labels = labels_of([50] * 10)
    first, again, other = (
        sample_balanced(labels, num_classes=10, per_class=5, seed=seed).tolist() for seed in (3, 3, 4)
    )
    assert first == again != other


def test_every_image_of_a_class_is_drawn_equally_often() -> None:
    labels = labels_of([8, 8])
    draws = np.concatenate([sample_balanced(labels, num_classes=2, total=3, seed=seed) for seed in range(4000)])
    # 12,000 draws over 16 images: 750 each, and a standard deviation of at most 25
    assert np.abs(np.bincount(draws, minlength=16) - 750).max() < 125


def test_the_last_partial_round_takes_from_classes_that_still_have_images() -> None:
    labels = labels_of([3, 2, 2])
    for seed in range(20):
        indices = sample_balanced(labels, num_classes=3, total=7, seed=seed)
        assert sorted(indices.tolist()) == list(range(7))


def test_a_total_below_the_number_of_classes_takes_different_classes() -> None:
    labels = labels_of([4] * 100)
    indices = sample_balanced(labels, num_classes=100, total=30, seed=0)
    assert len(set(labels[indices].tolist())) == 30


@pytest.mark.parametrize(
    ("sizes", "size", "message"),
    [
        (
            [60, 55, 70, 12],
            {"per_class": 50},
            "class 3 has 12 images, fewer than per_class = 50; lower it, add images or allow short",
        ),
        ([9, 3], {"total": 8}, "class 1 has 3 images, fewer than the 4 that total = 8 takes of each class"),
        ([9, 3, 3], {"total": 11}, "class 1 has 3 images, fewer than the 4 that total = 11 takes of each class"),
    ],
)
def test_a_class_too_small_is_named_with_its_cure(sizes: list[int], size: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        sample_balanced(
            labels_of(sizes), num_classes=len(sizes), per_class=size.get("per_class"), total=size.get("total"), seed=0
        )


def test_excluded_images_count_as_missing() -> None:
    labels = np.array([0, 0, 1, 1])
    with pytest.raises(DataError, match="class 1 has 1 images, fewer than per_class = 2"):
        sample_balanced(labels, num_classes=2, per_class=2, seed=0, exclude=[3])


@pytest.mark.parametrize("size", [{}, {"per_class": 2, "total": 4}, {"per_class": 0}, {"total": -1}])
def test_exactly_one_positive_size_is_given(size: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"exactly one of per_class and total, at least 1, got .*; set calibration"):
        sample_balanced(
            labels_of([5, 5]), num_classes=2, per_class=size.get("per_class"), total=size.get("total"), seed=0
        )


@pytest.mark.parametrize("stranger", [-1, 2])
def test_a_label_out_of_range_is_refused(stranger: int) -> None:
    with pytest.raises(DataError, match=rf"labels: expected 0 to 1, for 2 classes, got {stranger};"):
        sample_balanced(np.array([0, 1, stranger]), num_classes=2, per_class=1, seed=0)


# --- short classes


@pytest.mark.parametrize("num_classes", [10, 100, 1000])
def test_a_long_tail_is_taken_short_where_that_is_allowed(num_classes: int) -> None:
    sizes = np.maximum(1, 200 // np.arange(1, num_classes + 1)).tolist()  # Zipf's law: most classes have few
    labels = np.random.default_rng(0).permutation(labels_of(sizes))
    with pytest.raises(DataError, match=r"class \d+ has \d+ images, fewer than per_class = 30"):
        sample_balanced(labels, num_classes=num_classes, per_class=30, seed=0)
    indices = sample_balanced(labels, num_classes=num_classes, per_class=30, seed=0, allow_short=True)
    assert len(set(indices.tolist())) == len(indices)
    counts = np.bincount(labels[indices], minlength=num_classes)
    np.testing.assert_array_equal(counts, np.minimum(sizes, 30))


def test_of_a_total_the_larger_classes_give_what_short_ones_lack() -> None:
    labels = labels_of([20, 3, 20])
    indices = sample_balanced(labels, num_classes=3, total=21, seed=0, allow_short=True)
    assert sorted(np.bincount(labels[indices]).tolist()) == [3, 9, 9]


def test_a_total_beyond_all_images_takes_all() -> None:
    assert len(sample_balanced(labels_of([2, 3]), num_classes=2, total=9, seed=0, allow_short=True)) == 5


def test_where_no_class_is_short_allowing_it_changes_nothing() -> None:
    labels = labels_of([9, 9, 9])
    strict, lax = (
        sample_balanced(labels, num_classes=3, per_class=4, seed=5, allow_short=allowed).tolist()
        for allowed in (False, True)
    )
    assert strict == lax


def test_no_image_at_all_is_an_error_even_so() -> None:
    with pytest.raises(DataError, match="calibration images: expected at least one, got none"):
        sample_balanced(labels_of([2]), num_classes=1, per_class=1, seed=0, exclude=[0, 1], allow_short=True)
