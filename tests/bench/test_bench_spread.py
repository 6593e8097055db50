"""Intervals from a few processes hold what they say, are never below zero, and learn from the rows beside them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from trtbench.bench.spread import (
    NO_POOL,
    Interval,
    Pool,
    Prior,
    of_ratio,
    pool_of,
    ratio_interval,
    relative_noise,
    time_interval,
)
from trtbench.errors import InconclusiveError


def test_a_row_alone_has_student_s_interval_of_its_processes_on_the_log_scale() -> None:
    logs = [0.0, 0.3, 0.1]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(logs), scale=stats.sem(logs))

    found = time_interval(dict(enumerate(logs)))

    assert (found.value, found.low, found.high) == pytest.approx(
        (math.exp(np.mean(logs)), math.exp(low), math.exp(high))
    )
    assert found.freedom == 2


def _times(
    spreads: list[float], *, shared: tuple[float, ...] = (0.0, 0.0, 0.0), seed: int = 0
) -> dict[str, dict[int, float]]:
    random = np.random.default_rng(seed)
    return {
        f"r{row}": {process: row + shared[process] + random.normal(0, spread) for process in range(len(shared))}
        for row, spread in enumerate(spreads)
    }


def test_the_residuals_of_rows_and_processes_are_those_of_the_analysis_of_variance() -> None:
    times = _times([0.1, 0.2, 0.3, 0.1])
    table = np.array([list(row.values()) for row in times.values()])
    left = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    freedom = 2 * 3 / 4  # (processes - 1)(rows - 1) / rows
    variances = (left**2).sum(axis=1) / freedom

    found = pool_of(times)

    for name, variance in zip(times, variances, strict=True):
        assert found.rows[name].variance == pytest.approx(
            found.prior.moderate(float(variance), freedom).variance, rel=1e-6
        )
    shared = np.array(list(found.shared.values()))
    assert shared - shared.mean() == pytest.approx(table.mean(axis=0) - table.mean())


def test_rows_that_vary_alike_lend_each_other_degrees_of_freedom() -> None:
    pool = pool_of(_times([0.1] * 12))

    assert pool.prior.freedom == 6
    assert pool.prior.variance == pytest.approx(0.01, rel=0.6)


def test_rows_that_vary_unlike_each_other_lend_less() -> None:
    unlike = pool_of(_times([0.01, 0.1] * 20)).prior

    assert unlike.freedom < 4


def test_what_the_machine_does_to_all_rows_of_a_process_widens_their_times_and_not_their_ratios() -> None:
    steady, drifting = _times([0.01] * 6), _times([0.01] * 6, shared=(0.0, 0.3, 0.6))
    widths = []
    for times in (steady, drifting):
        pool = pool_of(times)
        found = time_interval(times["r0"], pool, name="r0")
        widths.append(math.log(found.high / found.low))
        assert pool.prior.variance == pytest.approx(pool_of(steady).prior.variance)
    assert widths[1] > 20 * widths[0]


def test_processes_of_some_rows_only_are_no_obstacle() -> None:
    times = _times([0.1] * 4)
    times["r0"] |= {7: 0.05, 8: -0.05}  # sampled on, beside one other
    times["r1"] |= {7: 1.0, 8: 1.1}
    del times["r3"][2]

    pool = pool_of(times)

    assert set(pool.rows) == set(times)
    assert time_interval(times["r0"], pool, name="r0").low > 0


def test_one_row_or_one_process_pools_nothing() -> None:
    assert pool_of({"a": {0: 1.0, 1: 2.0}}) == NO_POOL
    assert pool_of({"a": {0: 1.0}, "b": {0: 2.0}}) == NO_POOL
    assert pool_of({"a": {0: 1.0}, "b": {1: 2.0}}) == NO_POOL


def test_rows_without_any_noise_still_have_an_interval() -> None:
    times = {name: dict.fromkeys(range(3), value) for name, value in (("a", 0.0), ("b", 1.0))}

    found = time_interval(times["a"], pool_of(times), name="a")

    assert found.low < found.high < 1.001 * found.low


def test_the_ratio_counts_every_process_alike_and_is_the_reciprocal_the_other_way_round() -> None:
    logs = np.log([1.0, 1.1, 1.2, 1.3, 1.3])
    processes = np.array([0, 0, 0, 1, 1])

    found, other = ratio_interval(logs, processes), ratio_interval(-logs, processes)

    assert found.value == pytest.approx(math.sqrt(1.1 * 1.3))
    assert (other.value, other.low, other.high) == pytest.approx((1 / found.value, 1 / found.high, 1 / found.low))


def test_a_prior_narrows_the_interval_of_a_ratio() -> None:
    logs, processes = np.log([1.0, 1.1, 1.05]), np.arange(3)
    prior = of_ratio(Pool(prior=Prior(variance=0.001, freedom=6)), Pool(prior=Prior(variance=0.001, freedom=4)))

    alone, beside = ratio_interval(logs, processes), ratio_interval(logs, processes, prior)

    assert (alone.freedom, beside.freedom) == (2, 6)
    assert alone.low < beside.low < beside.value < beside.high < alone.high


def test_the_ratio_covers_the_truth_through_drift_and_bursts() -> None:
    random, covered, runs = np.random.default_rng(5), 0, 300
    processes = np.repeat([0, 1, 2], 20)
    for _ in range(runs):
        logs = math.log(1.1) + random.normal(0, 0.02, 60) + np.repeat(random.normal(0, 0.05, 3), 20)
        logs[random.random(60) < 0.1] += 0.5 * random.choice([-1, 1])
        found = ratio_interval(logs, processes)
        covered += found.low <= 1.1 <= found.high
    assert covered / runs > 0.92


def test_a_bound_at_another_confidence_is_student_s() -> None:
    found = Interval(value=1.0, low=math.exp(-stats.t.ppf(0.975, 4)), high=math.exp(stats.t.ppf(0.975, 4)), freedom=4)

    assert found.upper(0.99) == pytest.approx(math.exp(stats.t.ppf(0.99, 4)))
    assert found.upper(0.975) == pytest.approx(found.high)


def test_noise_is_half_the_width_of_the_order_statistics_interval() -> None:
    assert relative_noise([float(value) for value in range(1, 11)]) == pytest.approx((9 - 2) / 2 / 5.5)  # Conover 1999
    assert relative_noise([1.0] * 5) == math.inf
    assert relative_noise([]) == math.inf


def test_the_noise_of_any_number_of_blocks_is_scipy_s() -> None:
    random = np.random.default_rng(0)
    for size in (6, 7, 20, 51):
        values = random.normal(10, 1, size).tolist()
        low, high = stats.quantile_test(values, p=0.5).confidence_interval(0.95)
        assert relative_noise(values) == pytest.approx((high - low) / 2 / np.median(values))


def test_a_single_process_pair_has_no_spread() -> None:
    with pytest.raises(InconclusiveError, match="at least 2"):
        ratio_interval(np.zeros(4), np.zeros(4, dtype=np.int64))


def test_two_rows_lend_each_other_nothing_that_they_do_not_know() -> None:
    times = _times([0.1, 0.1])
    pool = pool_of(times)
    differences = np.array([times["r0"][process] - times["r1"][process] for process in range(3)])

    found = ratio_interval(differences, np.arange(3), of_ratio(pool, pool))

    assert found.freedom == 2
    assert (found.low, found.high) == pytest.approx(
        tuple(np.exp(stats.t.interval(0.95, 2, loc=differences.mean(), scale=stats.sem(differences))))
    )
    assert pool_of(_times([0.1] * 3)).prior.freedom <= 2
