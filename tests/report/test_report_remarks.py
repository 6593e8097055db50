"""What is said of rows beside the recommendation: of each disturbance, and of a surprise its likeliest cause."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.records import latency_of
from trtbench.bench.spread import Interval
from trtbench.precision import PRECISIONS
from trtbench.report.document import read_report
from trtbench.report.remarks import (
    advice,
    is_launch_bound,
    misaligned_widths,
    observations,
    observed,
    remarks,
    surprises,
)
from trtbench.rows import Row

ROWS = read_report(Path(__file__).parent / "twenty-four-rows.json").rows
NAMED = {row.name: row for row in ROWS}
INT8 = NAMED["channels-50 int8 onnxruntime-cpu b1"]
FP32 = NAMED["channels-50 fp32 onnxruntime-cpu b1"]
HOST = {"host": {"cpu": {"logical_cores": 2, "governor": "performance"}}}


def _row(variant: str, p50_ms: float, *, batch_size: int = 1, **changes: Any) -> Row:
    latency = latency_of(
        p50_ms,
        ms_per_image=p50_ms / batch_size,
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
        widths=(16, 32, 64),
    )
    return replace(plain, **changes)


DENSE = _row("dense", 1.0, params=200)


def test_a_pruned_row_that_keeps_its_promise_is_no_surprise() -> None:
    assert surprises([DENSE, _row("half", 0.6, macs=500_000)]) == ()
    assert surprises([DENSE, _row("hardly", 1.0, macs=900_000)]) == ()  # promised too little to tell
    assert surprises([]) == ()


def test_channel_counts_are_held_to_what_the_precision_computes_at_once() -> None:
    odd = _row("odd", 1.0, widths=(12, 16, 20, 24))
    assert misaligned_widths(odd) == (12, 20)
    for precision in PRECISIONS.values():
        expected = () if precision.name == "fp32" else (12, 20, 24) if precision.codes else (12, 20)
        named = replace(odd, precision=precision.name)
        assert misaligned_widths(named) == expected
        assert misaligned_widths(replace(named, sparse=True, build=2)) == expected
    assert "(12, 20): tensor cores compute them padded, so measure round_to: 8" in surprises([odd])[0]
    many = _row("many", 1.0, widths=tuple(range(1, 20, 2)))
    assert "(1, 3, 5, 7, 9, 11 ...): tensor cores" in surprises([many])[0]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_nothing_is_said_of_padding_on_a_cpu(precision: str) -> None:
    odd = _row("odd", 0.95, widths=(8, 24), device="cpu", precision=precision, macs=500_000)
    dense = replace(DENSE, device="cpu", precision=precision)
    said = " ".join(surprises([dense, odd]))
    assert "computes 0.50 of the MACs" in said
    assert "round_to" not in said
    assert "misaligned" not in said


def test_what_takes_as_long_at_a_far_larger_batch_is_launch_bound() -> None:
    small, large = _row("dense", 1.0), _row("dense", 1.4, batch_size=8)
    assert is_launch_bound(small, [small, large])
    assert not is_launch_bound(small, [small, _row("dense", 1.6, batch_size=8)])
    assert not is_launch_bound(small, [small, _row("dense", 1.1, batch_size=4)])
    assert not is_launch_bound(small, [small, _row("other", 1.1, batch_size=8)])
    (found,) = surprises([small, large])
    assert found.startswith("dense fp16 on tensorrt at batch 1 is launch-bound: ")
    assert "a larger batch or a CUDA graph can" in found
    for changes in ({"device": "cpu"}, {"settings": {"cuda_graph": True}}):
        said = surprises([replace(one, **changes) for one in (small, large)])
        assert said[0].endswith("a larger batch can.")


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
    odd = replace(slow, widths=(12,))
    assert surprises([DENSE, odd])[-1].endswith("its channel counts are misaligned.")
    assert slow.latency is not None
    bound = replace(slow, latency=replace(slow.latency, is_enqueue_bound=True))
    assert surprises([DENSE, bound])[-1].endswith("it is launch-bound.")


def test_int8_is_held_to_its_fp16_twin_too() -> None:
    rows = [DENSE, replace(_row("dense", 1.3, params=200), precision="int8")]
    assert any("slower than its FP16 twin" in one for one in observations(rows))


def test_what_compression_made_slower_or_larger_is_observed() -> None:
    found = observations(ROWS)
    assert len(found) == 2
    assert all(" is slower than " in one for one in found)
    assert found[0].startswith(f"{INT8.name} is slower than its FP32 twin: it takes 1.11 times")
    swollen = [replace(row, engine_bytes=10_000_000) if row is INT8 else row for row in ROWS]
    said = observations(swollen)
    assert "channels-50 int8 onnxruntime-cpu b1 is larger than its FP32 twin: 10.0 MB against 0.289 MB." in said
    assert "channels-50 int8 onnxruntime-cpu b1 is larger than dense: 10.0 MB against 0.316 MB." in said


def test_two_rows_are_held_side_by_side_as_the_choice_holds_them() -> None:
    """Against the anchor the one takes 1.11 times as long as the other, block for block 1.04 times."""

    def paired(first: Row, second: Row) -> Interval | None:
        return Interval(value=1.04, low=1.02, high=1.06, freedom=5) if (first, second) == (INT8, FP32) else None

    said = observations(ROWS, paired=paired)

    assert said[0].startswith(
        f"{INT8.name} is slower than its FP32 twin: it takes 1.04 times (95 % interval 1.02 to 1.06)"
    )
    assert said[1:] == observations(ROWS)[1:]


def test_a_report_of_before_is_observed_by_its_rows() -> None:
    report = read_report(Path(__file__).parent / "twenty-four-rows.json")

    assert observed(report) == observations(ROWS) != ()
    assert observed(replace(report, observations=("as the run saw it",))) == ("as the run saw it",)


def test_what_is_observed_at_one_batch_size_is_of_its_rows() -> None:
    slow = [
        replace(row, latency=replace(row.latency, ratio=9.0, ratio_ci95=(8.0, 10.0))) if row.latency else row
        for row in ROWS
    ]
    rows = tuple(slow[index] if row.precision == "int8" else row for index, row in enumerate(ROWS))
    report = replace(read_report(Path(__file__).parent / "twenty-four-rows.json"), rows=rows)
    stored = replace(
        report, observations=(*observations(rows), "channels-50 int8 on onnxruntime-cpu at batch 32 is launch-bound.")
    )

    for size in {row.batch_size for row in rows}:
        here = observed(report, batch_size=size)
        assert here == observations([row for row in rows if row.batch_size == size]) != ()
        assert observed(stored, batch_size=size)[: len(here)] == here
    assert not any("launch-bound" in text for text in observed(stored, batch_size=1))


def test_a_pruned_network_slower_than_the_dense_one_or_than_eager_is_observed() -> None:
    assert FP32.latency
    slow = replace(FP32, latency=replace(FP32.latency, p50_ms=90.0, ratio=50.0, ratio_ci95=(49.0, 51.0)))
    shown = " ".join(observations([slow if row is FP32 else row for row in ROWS]))
    assert "channels-50 fp32 onnxruntime-cpu b1 is slower than dense, though it computes less" in shown
    assert "channels-50 fp32 onnxruntime-cpu b1 is slower than PyTorch eager" in shown


def _spread(value: float) -> dict[str, float]:
    return {"min": value, "median": value, "max": value}


def test_a_quiet_machine_needs_no_advice() -> None:
    quiet = {"cpu": {"readings": 9, "throttled": {}, "load": _spread(1.0), "steal": _spread(0.0)}}
    gpu = {"gpu 0": {"readings": 9, "throttled": {}, "clock_mhz": _spread(1900), "other_processes": _spread(0)}}

    assert advice(ROWS, {**quiet, **gpu}, HOST) == ()
    assert advice(ROWS, {}, {}) == ()


@pytest.mark.parametrize(
    ("device", "figures", "words"),
    [
        ("cpu", {"steal": _spread(0.08)}, "The hypervisor gave 8.00 % of the CPU to others"),
        ("cpu", {"load": _spread(3.5)}, "Load was 3.50 on 2 cores"),
        ("gpu 1", {"throttled": {"power cap": 4}}, "gpu 1 held back for power cap in 4 of 9 readings."),
        (
            "gpu 1",
            {"clock_mhz": {"min": 1000, "median": 1500, "max": 1900}},
            "sudo nvidia-smi -i 1 -lgc <MHz>",
        ),
        (
            "gpu 1",
            {"other_processes": {"min": 0, "median": 0, "max": 2}},
            "Up to 2 other processes computed on gpu 1",
        ),
    ],
)
def test_each_disturbance_has_its_sentence(device: str, figures: dict[str, Any], words: str) -> None:
    (found,) = advice(ROWS, {device: {"readings": 9, "throttled": {}, **figures}}, HOST)

    assert words in found


def test_a_governor_that_saves_power_is_named() -> None:
    saving = {"host": {"cpu": {"logical_cores": 2, "governor": "powersave"}}}
    assert "cpupower frequency-set -g performance" in advice(ROWS, {"cpu": {"readings": 1}}, saving)[0]


def test_flagged_samples_are_counted_over_all_rows() -> None:
    assert ROWS[0].latency is not None
    flagged = replace(ROWS[0], latency=replace(ROWS[0].latency, throttled_samples=5))
    total = sum(row.latency.n for row in (flagged, *ROWS[1:]) if row.latency is not None)

    found = advice([flagged, *ROWS[1:]], {}, HOST)

    assert found == (f"5 of {total:,} samples were taken while the machine held back; they are kept.",)


def test_a_row_says_what_its_facts_say_and_each_remark_once() -> None:
    assert FP32.accuracy is not None
    exact = replace(FP32.accuracy, true_arithmetic_correct=FP32.accuracy.correct + 2)
    row = replace(
        FP32, accuracy=exact, builds_p50_ms=(1.2, 1.0, 1.9004), engine_sha256="0123456789abcdef", notes=("n",)
    )

    right = exact.true_arithmetic_correct
    kernels = f"this machine's kernels get 2 fewer than the same graph in exact arithmetic, {right} right"
    builds = "3 builds: p50 1.000 to 1.900 ms; the median one is shipped, sha256 0123456789ab"
    assert remarks(row) == ("n", kernels, builds)
    assert remarks(replace(row, notes=(kernels,))) == (kernels, builds)


def test_where_the_kernels_lose_nothing_they_are_told_innocent_of_a_drop() -> None:
    assert FP32.accuracy is not None
    same = replace(FP32.accuracy, true_arithmetic_correct=FP32.accuracy.correct, drop_pp=0.5)

    (found,) = remarks(replace(FP32, accuracy=same, notes=()))
    assert found.startswith("the kernels lost nothing")
    assert remarks(replace(FP32, accuracy=replace(same, drop_pp=0.0), notes=())) == ()
