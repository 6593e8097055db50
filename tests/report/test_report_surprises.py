"""A row that is no faster than its arithmetic promises gets a note with the likeliest cause."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trtbench.precision import PRECISIONS
from trtbench.report.observations import observations
from trtbench.report.surprises import is_launch_bound, misaligned_channels, surprises
from trtbench.rows import LatencyRecord, Row


def _row(variant: str, p50_ms: float, *, batch_size: int = 1, **changes: Any) -> Row:
    latency = LatencyRecord(
        scope="device",
        p50_ms=p50_ms,
        p90_ms=p50_ms,
        p99_ms=None,
        mean_ms=p50_ms,
        cov=0.0,
        ms_per_image=p50_ms / batch_size,
        n=100,
        verdict="stable",
        ratio=p50_ms,
        ratio_ci95=(0.99 * p50_ms, 1.01 * p50_ms),
        anchor=f"anchor b{batch_size}",
    )
    plain = Row(
        variant=variant,
        precision="fp16",
        backend="tensorrt",
        device="cuda:0",
        batch_size=batch_size,
        params=100,
        macs=1000_000,
        latency=latency,
        channels=(16, 32, 64),
    )
    return replace(plain, **changes)


DENSE = _row("dense", 1.0, params=200)


def test_a_pruned_row_that_keeps_its_promise_is_no_surprise() -> None:
    assert surprises([DENSE, _row("half", 0.6, macs=500_000)]) == ()
    assert surprises([DENSE, _row("hardly", 1.0, macs=900_000)]) == ()  # promised too little to tell
    assert surprises([]) == ()


def test_channel_counts_are_held_to_what_the_precision_computes_at_once() -> None:
    odd = _row("odd", 1.0, channels=(12, 16, 20, 24))
    assert misaligned_channels(odd) == (12, 20)
    for precision in PRECISIONS.values():
        expected = (12, 20, 24) if precision.is_int8 else (12, 20)
        named = replace(odd, precision=precision.name)
        assert misaligned_channels(named) == expected
        assert misaligned_channels(replace(named, sparse=True, build=2)) == expected
    assert "(12, 20): matrix units compute them padded, so round_to: 8" in surprises([odd])[0]
    many = _row("many", 1.0, channels=tuple(range(1, 20, 2)), device="cpu")
    assert "(1, 3, 5, 7, 9, 11 ...): vector units" in surprises([many])[0]


def test_what_takes_as_long_at_a_far_larger_batch_is_launch_bound() -> None:
    small, large = _row("dense", 1.0), _row("dense", 1.4, batch_size=8)
    assert is_launch_bound(small, [small, large])
    assert not is_launch_bound(small, [small, _row("dense", 1.6, batch_size=8)])
    assert not is_launch_bound(small, [small, _row("dense", 1.1, batch_size=4)])
    assert not is_launch_bound(small, [small, _row("other", 1.1, batch_size=8)])
    assert "is launch-bound" in surprises([small, large])[0]


def test_what_the_runtime_says_of_launching_comes_first() -> None:
    small, large = _row("dense", 1.0), _row("dense", 1.4, batch_size=8)
    assert small.latency is not None
    free = replace(small, latency=replace(small.latency, is_enqueue_bound=False))
    bound = replace(small, latency=replace(small.latency, is_enqueue_bound=True))
    assert not is_launch_bound(free, [free, large])
    assert is_launch_bound(bound, [bound])


def test_a_pruned_row_that_is_no_faster_is_explained() -> None:
    slow = _row("half", 0.95, macs=500_000)
    (found,) = surprises([DENSE, slow])
    assert found == (
        "half fp16 tensorrt b1 computes 0.50 of the MACs of dense fp16 and takes 0.95 of its time: it reaches 0.526"
        " GMAC/s where dense fp16 reaches 1.00, as a network does that is bound by memory or by the overhead of its"
        " layers, not by arithmetic."
    )
    odd = replace(slow, channels=(12,))
    assert surprises([DENSE, odd])[-1].endswith("its channel counts are misaligned.")
    assert slow.latency is not None
    bound = replace(slow, latency=replace(slow.latency, is_enqueue_bound=True))
    assert surprises([DENSE, bound])[-1].endswith("it is launch-bound.")


def test_int8_is_held_to_its_fp16_twin_too() -> None:
    rows = [DENSE, replace(_row("dense", 1.3, params=200), precision="int8")]
    assert any("slower than its FP16 twin" in line for line in observations(rows))
