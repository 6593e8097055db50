"""What the raw samples of a row become: figures under their own names, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trtbench.bench.interleave import Timing
from trtbench.bench.records import PLAIN, EngineFile, Measured, Opening, Run, Way
from trtbench.bench.summary import is_enqueue_bound, latency_record, timed_ratio


def _row(process: int, *blocks: list[int]) -> Timing:
    return Timing(
        blocks=tuple(np.array(block) for block in blocks),
        processes=(process,) * len(blocks),
        spans=((0, 1),) * len(blocks),
    )


def _measured(*rows: Timing, way: Way = PLAIN, device: str = "cuda:0", **run: Any) -> Measured:
    return Measured(
        engine=EngineFile(name="dense fp32", backend="fake", path=Path("e")),
        batch_size=2,
        opening=Opening(load_ms=1, first_inference_ms=1, device=device, settings={}),
        runs={index: Run(timed={way: row}, **run) for index, row in enumerate(rows)},
    )


STEADY = [1_000_000, 1_010_000] * 5


def test_a_record_holds_every_figure_of_all_processes() -> None:
    found = latency_record(
        _measured(_row(0, STEADY), _row(1, [2 * one for one in STEADY]), warm_up_ms=200.0, warm_up_inferences=150)
    )

    assert (found.scope, found.mode, found.clock, found.n) == ("device", "latency", "wall", 20)
    assert found.p50_by_process_ms == pytest.approx((1.005, 2.01))
    assert found.p50_ci95_ms is not None
    assert found.p50_ci95_ms[0] <= 1.005
    assert found.p50_ci95_ms[1] >= 2.0
    assert (found.min_ms, found.max_ms) == (1.0, 2.02)
    assert found.ms_per_image == pytest.approx(found.mean_ms / 2)
    assert (found.warm_up_ms, found.warm_up_inferences) == (200.0, 150)
    assert found.is_enqueue_bound is None


def test_the_median_is_the_middle_of_its_interval_however_many_samples_a_process_took() -> None:
    found = latency_record(
        _measured(_row(0, *[STEADY] * 9), _row(1, [2 * one for one in STEADY]), _row(2, [4 * one for one in STEADY]))
    )

    assert found.p50_ci95_ms is not None
    low, high = found.p50_ci95_ms
    assert found.p50_ms == pytest.approx(2.01)  # the median of all samples is 1.01
    assert low < found.p50_ms == pytest.approx((low * high) ** 0.5)


def test_a_sample_that_was_held_up_moves_no_median() -> None:
    found = latency_record(_measured(*(_row(number, STEADY, [*STEADY, 500_000_000]) for number in range(3))))

    assert found.p50_ms == pytest.approx(1.01)
    assert found.p50_by_process_ms == pytest.approx((1.01,) * 3)
    assert (found.verdict, found.max_ms) == ("narrow", 500.0)


def test_several_launches_a_sample_are_told_per_inference() -> None:
    way = Way(mode="throughput")
    found = latency_record(_measured(_row(0, STEADY, STEADY), way=way, launches={way: 10}, clock="cuda-events"), way)

    assert (found.mode, found.launches_per_sample, found.clock) == ("throughput", 10, "cuda-events")
    assert found.p50_ms == pytest.approx(0.1005)
    assert found.p50_by_process_ms == pytest.approx((0.1005,))


@pytest.mark.parametrize(
    ("factors", "verdict"), [((1.0, 1.001, 1.002), "narrow"), ((1.0, 1.1, 1.2), "wide"), ((1.0,), "narrow")]
)
def test_an_interval_within_five_percent_of_the_median_is_narrow(factors: tuple[float, ...], verdict: str) -> None:
    blocks = [[1_000_000, 1_001_000]] * 10
    rows = [
        _row(number, *([round(factor * one) for one in block] for block in blocks))
        for number, factor in enumerate(factors)
    ]

    assert latency_record(_measured(*rows)).verdict == verdict


def test_no_interval_of_a_time_reaches_below_zero() -> None:
    rows = [_row(number, [factor * 1_000_000] * 2) for number, factor in enumerate((1, 8, 64))]

    found = latency_record(_measured(*rows)).p50_ci95_ms

    assert found is not None
    assert 0 < found[0] < 1.0
    assert found[1] > 64.0


def test_a_launch_that_takes_over_four_fifths_of_the_computing_binds() -> None:
    assert is_enqueue_bound({"enqueue": 0.81, "compute": 1.0}) is True
    assert is_enqueue_bound({"enqueue": 0.8, "compute": 1.0}) is False
    assert is_enqueue_bound({"enqueue": 0.8}) is None


def test_the_parts_of_an_inference_are_told_apart_by_their_medians() -> None:
    parts = {"h2d": [1e6, 3e6], "enqueue": [2e6], "compute": [2e6], "d2h": []}

    found = latency_record(_measured(_row(0, STEADY, STEADY), parts_ns=parts))

    assert found.parts_ms == {"h2d": 2.0, "enqueue": 2.0, "compute": 2.0}
    assert found.is_enqueue_bound is True


def test_rows_that_never_ran_side_by_side_have_no_ratio() -> None:
    assert timed_ratio(_row(0, STEADY, STEADY), _row(1, STEADY, STEADY)) is None
    assert timed_ratio(_row(0, STEADY, STEADY), None) is None
    one_process = timed_ratio(_row(0, STEADY, STEADY), _row(0, STEADY, STEADY))
    assert one_process is not None
    assert one_process.value == pytest.approx(1.0)
