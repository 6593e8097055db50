"""The exact test of a paired drop, against closed forms, enumeration of all outcomes, and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trtbench.bench.paired_drop import bootstrap_uppers, drop_p_value, drop_upper_bound, smallest_provable_drop
from trtbench.errors import ConfigError, DataError


@pytest.mark.parametrize("total", [1, 20, 360, 900, 10_000, 1_000_000])
@pytest.mark.parametrize("error", [0.05, 0.05 / 8, 0.05 / 24])
def test_without_a_discordant_image_the_bound_is_the_exact_one(total: int, error: float) -> None:
    exact = 1 - error ** (1 / total)
    bound = smallest_provable_drop(total, confidence=1 - error)
    assert exact - 1e-7 <= bound <= 1.003 * exact + 2e-7


def test_no_loss_in_360_images_does_not_prove_a_drop_below_083_points() -> None:
    assert 100 * drop_upper_bound(0, 0, 360) == pytest.approx(0.829, abs=0.001)  # Tango's score interval: 0.746


def test_losses_alone_are_bounded_as_a_proportion_is() -> None:
    # Clopper & Pearson (1934): without gains the drop is the chance of a loss
    for lost in (1, 2, 5):
        exact = float(stats.beta.ppf(0.95, lost + 1, 360 - lost))
        assert drop_upper_bound(lost, 0, 360) == pytest.approx(exact, rel=4e-3)
        assert drop_upper_bound(lost, 0, 360) >= exact - 1e-7


def test_where_everything_was_lost_any_drop_may_be() -> None:
    assert drop_upper_bound(7, 0, 7) == 1


@settings(max_examples=10)
@given(data=st.data(), total=st.integers(2, 1000))
def test_the_bound_rises_with_each_loss_falls_with_each_gain_and_lies_above_the_estimate(
    data: st.DataObject, total: int
) -> None:
    lost = data.draw(st.integers(0, min(total - 1, 200)))
    gained = data.draw(st.integers(0, min(total - 1 - lost, 200)))
    bound = drop_upper_bound(lost, gained, total)
    assert (lost - gained) / total < bound <= 1
    assert drop_upper_bound(lost + 1, gained, total) > bound - 1e-6
    assert drop_upper_bound(lost, gained + 1, total) < bound + 1e-6


@settings(max_examples=10)
@given(lost=st.integers(0, 40), gained=st.integers(0, 40), drop=st.floats(-0.05, 0.2))
def test_the_bound_is_where_the_test_begins_to_reject(lost: int, gained: int, drop: float) -> None:
    bound = drop_upper_bound(lost, gained, 400)
    if abs(drop - bound) > 1e-4:
        assert (drop_p_value(lost, gained, 400, drop=drop) < 0.05) == (drop > bound)


@pytest.mark.parametrize("error", [0.05, 0.05 / 24])
@pytest.mark.parametrize(
    ("loss", "gain"), [(0.02, 0.02), (0.05, 0.01), (0.1, 0.1), (0.2, 0.05), (0.05, 0.0), (0.0, 0.05), (0.033, 0.013)]
)
def test_the_bound_misses_the_true_drop_no_oftener_than_it_says(loss: float, gain: float, error: float) -> None:
    total = 60
    lost, gained = np.meshgrid(np.arange(total + 1), np.arange(total + 1), indexing="ij")
    is_whole = lost + gained <= total
    counts = np.stack([lost, gained, total - lost - gained], axis=-1)[is_whole]
    chances = stats.multinomial.pmf(counts, total, [loss, gain, 1 - loss - gain])
    missed = sum(
        chance
        for (losses, gains, _), chance in zip(counts.tolist(), chances, strict=True)
        if chance > 1e-6 and drop_p_value(losses, gains, total, drop=loss - gain, error=error) <= error
    )
    assert missed <= error


@pytest.mark.parametrize("counts", [(1, 0, 0), (-1, 0, 5), (0, -1, 5), (3, 3, 5)])
def test_counts_that_cannot_be_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(DataError):
        drop_upper_bound(*counts)


@pytest.mark.parametrize("confidence", [0.5, 1.0, float("nan")])
def test_a_confidence_of_no_use_is_refused(confidence: float) -> None:
    with pytest.raises(ConfigError, match="confidence"):
        drop_upper_bound(1, 0, 5, confidence=confidence)


def test_the_bootstrap_bounds_are_those_of_scipy() -> None:
    drops = np.random.default_rng(1).exponential(0.3, 60) - 0.2
    found = bootstrap_uppers(drops, engines=8)
    for engines, precision in ((1, 0.005), (8, 0.02)):  # rarer resamples, and fewer of them
        confidence = 1 - 2 * 0.05 / engines  # two-sided: its upper end is the one-sided bound
        theirs = stats.bootstrap(
            (drops,),
            np.mean,
            n_resamples=20_000,
            confidence_level=confidence,
            method="BCa",
            rng=np.random.default_rng(2),
        )
        assert found[engines - 1] == pytest.approx(theirs.confidence_interval.high, abs=precision)
    assert list(found) == sorted(found)
    assert bootstrap_uppers(drops, engines=8) == found


@pytest.mark.slow
def test_the_bootstrap_bound_is_below_the_true_drop_as_seldom_as_it_says() -> None:
    random = np.random.default_rng(3)
    missed = sum(bootstrap_uppers(random.exponential(1, 50) - 1, engines=1)[0] < 0 for _ in range(40))
    assert missed <= 7  # of 40 at 5 %


def test_drops_that_are_all_the_same_bound_themselves() -> None:
    assert bootstrap_uppers(np.zeros(20), engines=3) == (0.0, 0.0, 0.0)
    assert bootstrap_uppers(np.full(20, 0.25), engines=2) == (0.25, 0.25)
