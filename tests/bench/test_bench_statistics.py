"""What counts and samples prove, against SciPy, published values, exact enumeration and seeded simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trtbench.bench.statistics import (
    expected_calibration_error,
    holm,
    is_chance_level,
    latency_summary,
    mcnemar_exact,
    paired_ratio,
    wilson_interval,
)
from trtbench.errors import ConfigError, InconclusiveError

Z95 = 1.6448536269514722


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (10, 10), (7, 10), (351, 360), (9213, 10_000)])
def test_the_wilson_interval_is_the_closed_form_of_1927(correct: int, total: int) -> None:
    z, p = 1.959963984540054, correct / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    assert wilson_interval(correct, total) == pytest.approx((centre - half, centre + half), abs=1e-12)


def test_the_wilson_interval_is_the_one_newcombe_printed() -> None:
    # Newcombe (1998), Statistics in Medicine 17:857-872, table I: 81 of 263, method 3
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize(("lost", "gained"), list(itertools.product(range(9), repeat=2)))
def test_mcnemar_is_the_sum_over_all_ways_the_discordant_images_can_fall(lost: int, gained: int) -> None:
    n = lost + gained
    ways = sum(math.comb(n, k) for k in range(n + 1) if math.comb(n, k) <= math.comb(n, lost))
    assert mcnemar_exact(lost, gained) == pytest.approx(ways / 2**n)


@pytest.mark.parametrize("confidence", [0.5, 1.0, float("nan")])
def test_a_confidence_of_no_use_is_refused(confidence: float) -> None:
    with pytest.raises(ConfigError, match="confidence"):
        wilson_interval(3, 4, confidence=confidence)


def test_a_summary_tells_milliseconds_of_the_batch_and_of_one_image() -> None:
    summary = latency_summary(np.arange(1, 1001, dtype=np.int64) * 1_000_000, batch_size=4)
    assert (summary["p90_ms"], summary["p95_ms"], summary["p99_ms"]) == pytest.approx((900.1, 950.05, 990.01))
    assert (summary["mean_ms"], summary["ms_per_image"], summary["n"]) == pytest.approx((500.5, 500.5 / 4, 1000))
    assert summary["cov"] == pytest.approx(math.sqrt(1000 * 1001 / 12) / 500.5)  # sample deviation of 1..n


def test_p99_needs_a_thousand_samples() -> None:
    assert latency_summary(np.full(999, 5, dtype=np.int64), batch_size=1)["p99_ms"] is None


@pytest.mark.parametrize("samples", [[], [5], [5, 0], [5, -1]])
def test_samples_that_tell_nothing_are_inconclusive(samples: list[int]) -> None:
    with pytest.raises(InconclusiveError, match="latency samples"):
        latency_summary(np.array(samples, dtype=np.int64), batch_size=1)


def test_of_several_launches_a_sample_each_figure_is_of_one_and_there_is_no_p99() -> None:
    samples = np.arange(1, 1001, dtype=np.int64) * 1_000_000
    one, four = (latency_summary(samples, batch_size=1, launches=launches) for launches in (1, 4))
    assert (four["p90_ms"], four["min_ms"], four["max_ms"]) == pytest.approx((one["p90_ms"] / 4, 0.25, 250))
    assert one["p95_ms"] == pytest.approx(950.05)
    assert four["p99_ms"] is None


@settings(max_examples=40)
@given(st.lists(st.floats(0.5, 50), min_size=2, max_size=80), st.integers(0, 1000))
def test_the_ratio_of_two_engines_is_the_reciprocal_of_the_other_way_round(medians: list[float], seed: int) -> None:
    b = np.random.default_rng(seed).uniform(0.5, 50, len(medians))
    ratio, low, high = paired_ratio(medians, b)
    assert paired_ratio(b, medians) == pytest.approx((1 / ratio, 1 / high, 1 / low))
    assert low <= ratio <= high


def test_drift_that_hits_both_engines_cancels() -> None:
    drift = np.exp(np.linspace(0, 1, 30))
    assert paired_ratio(3 * drift, 2 * drift) == pytest.approx((1.5, 1.5, 1.5))


def test_the_interval_of_many_blocks_lies_between_order_statistics() -> None:
    ratios = np.arange(1.0, 11.0)  # n = 10: the second and the ninth, Conover (1999), table A3
    assert paired_ratio(ratios, np.ones(10)) == pytest.approx((math.sqrt(5 * 6), 2, 9))


def test_the_interval_of_few_blocks_is_student_s_on_the_logs() -> None:
    logs = np.log([1.0, 1.2, 1.1])
    low, high = stats.t.interval(0.95, 2, loc=logs.mean(), scale=stats.sem(logs))
    assert paired_ratio([1.0, 1.2, 1.1], [1, 1, 1]) == pytest.approx(np.exp([logs.mean(), low, high]))


def _coverage(blocks: int, *, disturbed: float, runs: int) -> tuple[float, float]:
    """Return how often our interval, and Student's, hold a true ratio of 1.1 in seeded runs."""
    random, ours, students = np.random.default_rng(20250101), 0, 0
    for _ in range(runs):
        drift = np.exp(random.normal(0, 0.3, blocks).cumsum())
        bursts = (random.random(blocks) < disturbed) * random.exponential(0.3, blocks)
        a = 1.1 * drift * np.exp(random.normal(0, 0.02, blocks) + bursts)
        _, low, high = paired_ratio(a, drift)
        ours += low <= 1.1 <= high
        logs = np.log(a / drift)
        t_low, t_high = stats.t.interval(0.95, blocks - 1, loc=logs.mean(), scale=stats.sem(logs))
        students += t_low <= math.log(1.1) <= t_high
    return ours / runs, students / runs


@pytest.mark.parametrize("blocks", [4, 12, 40])
def test_the_paired_interval_covers_the_true_ratio_through_any_drift(blocks: int) -> None:
    ours, _ = _coverage(blocks, disturbed=0.0, runs=200)
    assert ours >= 0.92  # 95 % less two standard errors of 200 runs


def test_a_tenth_of_disturbed_blocks_spoils_student_s_interval_and_hardly_this_one() -> None:
    ours, students = _coverage(60, disturbed=0.1, runs=200)
    assert ours > 0.88
    assert students < 0.7


def test_unequal_numbers_of_blocks_are_inconclusive() -> None:
    with pytest.raises(InconclusiveError, match="3 of each engine, got 2"):
        paired_ratio([1, 2, 3], [1, 2])


def test_holm_s_adjustment_matches_a_case_worked_by_hand() -> None:
    # Holm (1979): sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, made monotone
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx((0.06, 0.04, 0.06, 0.06))
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_stepping_down_rejects(p_values: list[float]) -> None:
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    rejected: set[int] = set()
    for step, index in enumerate(order):
        if p_values[index] * (len(p_values) - step) > 0.05:
            break
        rejected.add(index)
    assert {index for index, value in enumerate(holm(p_values)) if value <= 0.05} == rejected


def test_chance_level_is_what_guessing_reaches_once_in_a_hundred_tries() -> None:
    limit = int(stats.binom.isf(0.01, 360, 0.1))  # the largest count that guessing exceeds at most once in a hundred
    assert is_chance_level(limit, 360, classes=10)
    assert not is_chance_level(limit + 1, 360, classes=10)


def test_the_calibration_error_is_the_weighted_gap_of_its_bins() -> None:
    confidence = np.array([0.95, 0.97, 0.55, 0.56, 1.0])
    right = np.array([True, False, True, True, True])
    # of 15 bins, the last holds 0.95, 0.97 and 1.0, the ninth 0.55 and 0.56
    expected = (abs(0.95 + 0.97 + 1.0 - 2) + abs(0.55 + 0.56 - 2)) / 5
    assert expected_calibration_error(confidence, right) == pytest.approx(expected)
    assert expected_calibration_error(np.ones(4), np.ones(4, dtype=bool)) == 0


def test_wilson_s_interval_covers_95_percent_on_average_over_the_accuracies_that_occur() -> None:
    total = 360
    intervals = [wilson_interval(correct, total) for correct in range(total + 1)]
    coverages = []
    for proportion in np.linspace(0.80, 0.99, 191):
        holds = np.array([low <= proportion <= high for low, high in intervals])
        coverages.append(float(stats.binom.pmf(np.arange(total + 1), total, proportion)[holds].sum()))
    assert 0.945 <= np.mean(coverages) <= 0.965
