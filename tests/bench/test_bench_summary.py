"""What the raw samples of a row become: figures under their own names, and a verdict that follows one rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trtbench.bench.interleave import Timing
from trtbench.bench.records import PLAIN, EngineFile, Measured, Opening, Run, Way
from trtbench.bench.statistics import is_settled, settling
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
DRIFTING = [1_000_000] * 5 + [1_100_000] * 5


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


def test_several_launches_a_sample_are_told_per_inference() -> None:
    way = Way(mode="throughput")
    found = latency_record(_measured(_row(0, STEADY, STEADY), way=way, launches={way: 10}, clock="cuda-events"), way)

    assert (found.mode, found.launches_per_sample, found.clock) == ("throughput", 10, "cuda-events")
    assert found.p50_ms == pytest.approx(0.1005)
    assert found.p50_by_process_ms == pytest.approx((0.1005,))


@pytest.mark.parametrize(
    ("samples", "device", "was_unsettled", "verdict"),
    [
        (STEADY, "cuda:0", False, "stable"),
        (STEADY, "cuda:0", True, "stable"),
        (DRIFTING, "cuda:0", True, "inconclusive"),
        (DRIFTING, "cpu", False, "unsettled"),
    ],
)
def test_the_verdict_is_final_only_after_a_second_try(
    samples: list[int],
    device: str,
    was_unsettled: bool,  # noqa: FBT001  one of the cases
    verdict: str,
) -> None:
    measured = _measured(_row(0, STEADY), _row(1, samples), device=device)
    measured.was_unsettled = was_unsettled

    assert latency_record(measured).verdict == verdict


@pytest.mark.parametrize(
    ("samples", "halves", "within"),
    [
        ([100] * 10, 1.0, 1.0),
        ([100] * 5 + [105] * 5, 1.05, 1.0),
        ([106] * 5 + [100] * 5, 1.06, 1.0),
        ([100] * 8 + [120] * 2, 1.0, 0.8),
        ([100, 200] + [100] * 6 + [200, 100], 1.0, 0.8),
        ([100, 200, 100], 2.0, 2 / 3),  # fewer than ten are as many blocks
    ],
)
def test_settling_looks_at_halves_and_at_ten_blocks(samples: list[int], halves: float, within: float) -> None:
    found = settling(np.array(samples))

    if len(samples) == 10:
        assert found.halves == pytest.approx(halves)
    assert found.within == pytest.approx(within)


def test_the_limits_of_settling_are_five_percent_and_eight_of_ten() -> None:
    assert is_settled(np.array([100] * 5 + [105] * 5))
    assert not is_settled(np.array([100] * 5 + [106] * 5))
    assert is_settled(np.array([100] * 8 + [120] * 2))
    assert not is_settled(np.array([100] * 7 + [120] + [100] + [120] + [120]))


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
    assert one_process[0] == pytest.approx(1.0)
