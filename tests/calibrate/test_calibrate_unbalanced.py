from __future__ import annotations

import numpy as np
import pytest

from trtbench.calibrate.manifest import SAMPLINGS, Sampling, sample_unbalanced
from trtbench.calibrate.ranges import Histogram, collect_histograms, observe, thresholds
from trtbench.errors import ConfigError, DataError

_LABELS = np.repeat(np.arange(10), 200).astype(np.int64)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_smaller_sample_is_the_beginning_of_a_larger_one(sampling: Sampling) -> None:
    small, large = (
        sample_unbalanced(_LABELS, sampling=sampling, num_classes=10, total=total, seed=3) for total in (20, 300)
    )

    assert small.tolist() == large[:20].tolist()
    assert len(set(large.tolist())) == 300


def test_a_uniform_sample_leaves_class_counts_to_chance() -> None:
    counts = np.mean(
        [
            np.bincount(_LABELS[sample_unbalanced(_LABELS, sampling="uniform", num_classes=10, total=100, seed=seed)])
            for seed in range(200)
        ],
        axis=0,
    )

    assert np.allclose(counts, 10, atol=1)


def test_a_long_tail_falls_a_hundredfold_in_an_order_of_the_seed() -> None:
    first, second = (
        np.bincount(
            _LABELS[sample_unbalanced(_LABELS, sampling="long-tailed", num_classes=10, total=300, seed=seed)],
            minlength=10,
        )
        for seed in (0, 1)
    )

    assert max(first) > 80
    assert min(first) <= 3
    assert first.argmax() != second.argmax()


def test_the_shares_of_a_long_tail_do_not_hang_on_the_sizes_of_the_classes() -> None:
    labels = np.repeat(np.arange(2), (10_000, 1_000)).astype(np.int64)
    shares = [
        np.bincount(labels[sample_unbalanced(labels, sampling="long-tailed", num_classes=2, total=101, seed=seed)])
        for seed in range(8)
    ]

    assert {int(counts.argmax()) for counts in shares} == {0, 1}
    assert all(counts.max() >= 95 for counts in shares)


def test_one_class_is_missing_and_the_others_are_there() -> None:
    found = sample_unbalanced(_LABELS, sampling="class-missing", num_classes=10, total=500, seed=0)

    assert np.count_nonzero(np.bincount(_LABELS[found], minlength=10)) == 9


def test_an_excluded_image_is_never_drawn() -> None:
    found = sample_unbalanced(_LABELS, sampling="uniform", num_classes=10, total=1990, seed=0, exclude=range(10))

    assert sorted(found.tolist()) == list(range(10, 2000))


def test_more_images_than_there_are_is_an_error_with_its_cure() -> None:
    with pytest.raises(DataError, match=r"1801 images, got 1800; lower --per-class"):
        sample_unbalanced(_LABELS, sampling="class-missing", num_classes=10, total=1801, seed=0)


def test_an_unknown_sampling_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"uniform \| long-tailed \| class-missing"):
        sample_unbalanced(_LABELS, sampling="odd", num_classes=10, total=1, seed=0)  # type: ignore[arg-type]  # on purpose


def test_thresholds_of_histograms_on_the_way_are_those_of_the_images_so_far() -> None:
    batches = [np.random.default_rng(seed).normal(size=500).astype(np.float32) * (1 + seed) for seed in range(4)]
    histogram = Histogram()
    for count, batch in enumerate(batches, start=1):
        histogram = observe(histogram, batch, tensor="t")
        so_far = [{"t": values} for values in batches[:count]]
        assert thresholds({"t": histogram}, method="mse") == thresholds(collect_histograms(so_far), method="mse")
