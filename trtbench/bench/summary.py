"""From raw samples to the record of a row's latency, and the ratio of two rows from what ran side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from trtbench.bench.interleave import side_by_side
from trtbench.bench.records import PLAIN
from trtbench.bench.spread import NO_POOL, Interval, of_ratio, pool_of, ratio_interval, time_interval
from trtbench.bench.statistics import latency_summary, paired_ratio
from trtbench.rows import LatencyRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from trtbench.bench.interleave import Timing
    from trtbench.bench.records import Measured, Way
    from trtbench.bench.spread import Pool

ENQUEUE_BOUND = 0.8  # trtexec warns from this share on (samples/common/sampleReporting.cpp)
NARROW = 0.05  # to either side of the median
_NS_PER_MS = 1e6

Verdict = Literal["narrow", "wide"]


def latency_record(measured: Measured, way: Way = PLAIN, *, pool: Pool = NO_POOL) -> LatencyRecord:
    """Summarise all samples of a row that were taken one way.

    Args:
        measured: what was learnt of the row.
        way: how the samples were taken.
        pool: what the rows of its runtime that were timed this way beside it tell of how processes differ.

    Raises:
        InconclusiveError: fewer than two samples.
    """
    timed = measured.timed_as(way)
    run = measured.last_run
    assert timed is not None, "a row without an error was timed in every way"
    assert run is not None
    launches = run.launches.get(way, 1)
    scale = _NS_PER_MS * launches
    processes = [timed.of_process(number).samples_ns for number in dict.fromkeys(timed.processes)]
    figures = latency_summary(timed.samples_ns, batch_size=measured.batch_size, launches=launches)
    median = _median(timed, pool, name=measured.engine.name)
    p50, low, high = (value / scale for value in (median.value, median.low, median.high))
    parts = {name: float(np.median(values)) / _NS_PER_MS for name, values in run.parts_ns.items() if len(values)}
    return LatencyRecord(
        scope=way.scope,
        mode=way.mode,
        clock=run.clock,
        p50_ms=p50,
        launches_per_sample=launches,
        verdict="narrow" if max(median.high / median.value, median.value / median.low) <= 1 + NARROW else "wide",
        p50_ci95_ms=(low, high),
        p50_by_process_ms=tuple(float(np.median(samples)) / scale for samples in processes),
        warm_up_ms=run.warm_up_ms,
        warm_up_inferences=run.warm_up_inferences,
        parts_ms=parts,
        is_enqueue_bound=is_enqueue_bound(parts),
        **figures,
    )


def is_enqueue_bound(parts_ms: Mapping[str, float]) -> bool | None:
    """Say whether launching takes so long that the device waits for it; None where the parts are not known."""
    if not {"enqueue", "compute"} <= set(parts_ms):
        return None
    return parts_ms["enqueue"] > ENQUEUE_BOUND * parts_ms["compute"]


def pool_of_rows(timed: Mapping[str, Timing]) -> Pool:
    """Return what rows of one runtime and batch size, timed side by side, tell together of how processes differ."""
    return pool_of({name: log_times(row) for name, row in timed.items()})


def timed_ratio(
    first: Timing | None, second: Timing | None, *, pools: tuple[Pool, Pool] = (NO_POOL, NO_POOL)
) -> Interval | None:
    """Return how many times as long `first` takes as `second`, from blocks that ran together.

    Over several processes these decide, moderated by the `pools` of both; within one, the interval lies between order
    statistics. None where fewer than two blocks pair.
    """
    if first is None or second is None:
        return None
    pairs = side_by_side(first, second)
    if len(pairs.first) < 2:  # noqa: PLR2004  an interval needs two
        return None
    if len(np.unique(pairs.processes)) == 1:
        return _within_one_process(pairs.first, pairs.second)
    return ratio_interval(np.log(pairs.first / pairs.second), pairs.processes, of_ratio(*pools))


def _median(timed: Timing, pool: Pool, *, name: str) -> Interval:
    """Return the median in nanoseconds with its 95 % interval; of one process both tell of that process only.

    Every process counts alike, as in ratios: of all samples together the median would lean to the processes that took
    most of them, and their interval might not even hold it.
    """
    times = log_times(timed)
    if len(times) == 1:
        medians = timed.block_medians_ns
        return _within_one_process(medians, np.ones_like(medians))
    return time_interval(times, pool, name=name)


def log_times(timed: Timing) -> dict[int, float]:
    """Return the log of the median of each process."""
    numbers = dict.fromkeys(timed.processes)
    return {number: float(np.log(np.median(timed.of_process(number).samples_ns))) for number in numbers}


def _within_one_process(first: NDArray[np.float64], second: NDArray[np.float64]) -> Interval:
    value, low, high = paired_ratio(first, second)
    return Interval(value=value, low=low, high=high)
