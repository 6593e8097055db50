"""Intervals by resampling blocks within processes cover what they say, where intervals of single samples do not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from trtbench.bench.resampling import block_counts, median_interval, ratio_interval, relative_noise
from trtbench.errors import InconclusiveError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def test_every_draw_takes_as_many_blocks_as_there_are_where_processes_have_equally_many() -> None:
    counts = block_counts([0, 0, 1, 1, 2, 2], seed=0, resamples=500)

    assert (counts.sum(axis=1) == 6).all()
    per_process = counts.reshape(500, 3, 2).sum(axis=2) / 2
    assert set(per_process.ravel()) == {0, 1, 2, 3}  # whole processes are drawn
    assert per_process.mean(axis=0) == pytest.approx([1, 1, 1], abs=0.15)


def test_the_interval_is_that_of_resampled_medians_worked_out_the_long_way() -> None:
    random = np.random.default_rng(3)
    blocks = [random.integers(100, 200, size) for size in (3, 5, 4, 2)]
    processes = [0, 0, 1, 1]
    counts = block_counts(processes, seed=7, resamples=300)
    long_way = [
        np.median(np.concatenate([np.repeat(block, times) for block, times in zip(blocks, row, strict=True)]))
        for row in counts
    ]

    found = median_interval(blocks, processes, seed=7, resamples=300)

    low, high = np.quantile(long_way, [0.025, 0.975])
    centre = float(np.median(np.concatenate(blocks)))
    stretched = (centre - math.sqrt(2) * (centre - low), centre + math.sqrt(2) * (high - centre))
    assert found == pytest.approx(stretched)


def test_a_single_process_is_the_bootstrap_of_its_blocks() -> None:
    values = np.random.default_rng(0).normal(100, 5, 40)
    blocks = [values[index : index + 1] for index in range(40)]
    rng = np.random.default_rng(1)
    other = stats.bootstrap((values,), np.median, n_resamples=4000, method="percentile", random_state=rng)

    low, high = median_interval(blocks, [0] * 40, resamples=4000)

    assert low == pytest.approx(other.confidence_interval.low, abs=0.3)
    assert high == pytest.approx(other.confidence_interval.high, abs=0.3)


def _autocorrelated(random: np.random.Generator, *, processes: int, samples: int, rho: float) -> NDArray[np.float64]:
    """AR(1) noise around 100, in the steady state."""
    noise = random.standard_normal((samples, processes))
    values = np.empty((samples, processes))
    values[0] = noise[0] / math.sqrt(1 - rho**2)
    for index in range(1, samples):
        values[index] = rho * values[index - 1] + noise[index]
    return 100 + values.T


@pytest.mark.slow
def test_the_median_s_interval_covers_94_percent_on_autocorrelated_samples_and_a_naive_one_half() -> None:
    runs, processes, blocks, per_block = 10_000, 3, 10, 20
    random = np.random.default_rng(20260101)
    everything = _autocorrelated(random, processes=runs * processes, samples=blocks * per_block, rho=0.9)
    covered = naive = 0
    numbers = np.repeat(np.arange(processes), blocks)
    for run in range(runs):
        samples = everything[run * processes : (run + 1) * processes]
        low, high = median_interval(list(samples.reshape(-1, per_block)), list(numbers), seed=run, resamples=199)
        covered += low <= 100 <= high
        ordered = np.sort(samples, axis=None)
        half = 1.96 * math.sqrt(ordered.size) / 2
        naive += ordered[int(ordered.size / 2 - half)] <= 100 <= ordered[int(ordered.size / 2 + half)]

    assert covered / runs >= 0.94
    assert naive / runs < 0.6


def test_processes_that_differ_widen_the_interval_to_hold_them() -> None:
    random = np.random.default_rng(0)
    blocks = [random.normal(centre, 0.1, 5) for centre in (100, 104, 108) for _ in range(10)]

    low, high = median_interval(blocks, [process for process in range(3) for _ in range(10)])

    assert low < 100.2
    assert high > 107.8


def test_the_ratio_counts_every_process_alike_and_is_the_reciprocal_the_other_way_round() -> None:
    logs = np.log([1.0, 1.1, 1.2, 1.3, 1.3])
    processes = np.array([0, 0, 0, 1, 1])

    ratio, low, high = ratio_interval(logs, processes)

    assert ratio == pytest.approx(math.sqrt(1.1 * 1.3))
    assert ratio_interval(-logs, processes) == pytest.approx((1 / ratio, 1 / high, 1 / low), rel=0.01)
    assert low >= ratio - math.sqrt(2) * (ratio - 1.0)
    assert high <= ratio * (1.3 / ratio) ** math.sqrt(2) + 1e-9


def test_the_ratio_covers_the_truth_through_drift_and_bursts() -> None:
    random, covered, runs = np.random.default_rng(5), 0, 300
    processes = np.repeat([0, 1, 2], 20)
    for run in range(runs):
        bursts = (random.random(60) < 0.1) * random.exponential(0.3, 60)
        logs = math.log(1.1) + random.normal(0, 0.02, 60) + bursts
        _, low, high = ratio_interval(logs, processes, seed=run, resamples=200)
        covered += low <= 1.1 <= high
    assert covered / runs > 0.9


def test_noise_is_half_the_width_of_the_order_statistics_interval() -> None:
    assert relative_noise([float(value) for value in range(1, 11)]) == pytest.approx((9 - 2) / 2 / 5.5)  # Conover 1999
    assert relative_noise([1.0] * 5) == math.inf
    assert relative_noise([]) == math.inf


def test_a_single_block_has_no_interval() -> None:
    with pytest.raises(InconclusiveError, match="at least 2"):
        median_interval([np.array([1.0, 2.0])], [0])
    with pytest.raises(InconclusiveError, match="at least 2"):
        ratio_interval(np.zeros(1), np.zeros(1, dtype=np.int64))
