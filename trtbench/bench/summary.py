"""From raw samples to the record of a row's latency, and the ratio of two rows from what ran side by side."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

import numpy as np

from trtbench.bench.interleave import side_by_side
from trtbench.bench.records import PLAIN
from trtbench.bench.resampling import median_interval, ratio_interval
from trtbench.bench.statistics import latency_summary, paired_ratio, settling
from trtbench.rows import LatencyRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbench.bench.interleave import Timing
    from trtbench.bench.records import Measured, Way

ENQUEUE_BOUND = 0.8  # trtexec warns from this share on (samples/common/sampleReporting.cpp)
_NS_PER_MS = 1e6

Verdict = Literal["stable", "unsettled", "inconclusive"]


def latency_record(measured: Measured, way: Way = PLAIN) -> LatencyRecord:
    """Summarise all samples of a row that were taken one way.

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
    found = [settling(samples) for samples in processes]
    low, high = median_interval(timed.blocks, timed.processes)
    parts = {name: float(np.median(values)) / _NS_PER_MS for name, values in run.parts_ns.items() if len(values)}
    return LatencyRecord(
        scope=way.scope,
        mode=way.mode,
        clock=run.clock,
        launches_per_sample=launches,
        verdict=_verdict(all(one.is_settled for one in found), measured),
        p50_ci95_ms=(low / scale, high / scale),
        p50_by_process_ms=tuple(float(np.median(samples)) / scale for samples in processes),
        halves=max(one.halves for one in found),
        blocks_within=min(one.within for one in found),
        was_unsettled=measured.was_unsettled,
        warm_up_ms=run.warm_up_ms,
        warm_up_inferences=run.warm_up_inferences,
        parts_ms=parts,
        is_enqueue_bound=is_enqueue_bound(parts),
        **asdict(latency_summary(timed.samples_ns, batch_size=measured.batch_size, launches=launches)),
    )


def is_enqueue_bound(parts_ms: Mapping[str, float]) -> bool | None:
    """Say whether launching takes so long that the device waits for it; None where the parts are not known."""
    if not {"enqueue", "compute"} <= set(parts_ms):
        return None
    return parts_ms["enqueue"] > ENQUEUE_BOUND * parts_ms["compute"]


def timed_ratio(first: Timing | None, second: Timing | None) -> tuple[float, float, float] | None:
    """Return how many times as long `first` takes as `second`, with its 95 % interval, from blocks that ran together.

    Over several processes both they and their blocks are drawn anew; within one, the interval lies between order
    statistics. None where fewer than two blocks pair.
    """
    if first is None or second is None:
        return None
    pairs = side_by_side(first, second)
    if len(pairs.first) < 2:  # noqa: PLR2004  an interval needs two
        return None
    if len(np.unique(pairs.processes)) == 1:
        return paired_ratio(pairs.first, pairs.second)
    return ratio_interval(np.log(pairs.first / pairs.second), pairs.processes)


def _verdict(is_settled: bool, measured: Measured) -> Verdict:  # noqa: FBT001  the fact the verdict is named after
    """Say what the rule says: on a device of one's own a second failure is final, on a shared CPU it is a note."""
    if is_settled:
        return "stable"
    return "inconclusive" if measured.was_unsettled else "unsettled"
