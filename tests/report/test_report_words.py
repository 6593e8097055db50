"""The recommendation: who may win, who wins, what is said in each situation, and why the others lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.records import latency_of
from trtbench.bench.paired_drop import drop_upper_bound
from trtbench.bench.spread import Interval
from trtbench.bench.statistics import wilson_interval
from trtbench.decide import choose
from trtbench.decide.compare import BrokenGate
from trtbench.report.document import read_report
from trtbench.report.words import gate_clause, look_words, recommend
from trtbench.rows import AccuracyRecord, LatencyRecord, Row
from trtbench.suite import DecisionConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

TWENTY_FOUR = read_report(Path(__file__).parent / "twenty-four-rows.json").rows
TWO_PP = DecisionConfig(max_drop_pp=2.0)


def accuracy(*, lost: int = 0, gained: int = 0, total: int = 10_000) -> AccuracyRecord:
    correct = total * 9 // 10 - lost + gained
    return AccuracyRecord(
        correct=correct,
        total=total,
        top1=correct / total,
        top5=None,
        ci95=wilson_interval(correct, total),
        lost=lost,
        gained=gained,
        drop_pp=100 * (lost - gained) / total,
        drop_upper_pp=100 * drop_upper_bound(lost, gained, total),
    )


def latency(p50_ms: float, **changes: Any) -> LatencyRecord:
    return latency_of(p50_ms, **{"p90_ms": p50_ms * 1.1, "cov": 0.02, "n": 900, "verdict": "narrow"} | changes)


def anchored(p50_ms: float, *, low: float = 0.99, high: float = 1.01) -> LatencyRecord:
    return latency(p50_ms, ratio=p50_ms, ratio_ci95=(p50_ms * low, p50_ms * high), anchor="dense fp32")


def row(variant: str, precision: str = "fp32", **changes: Any) -> Row:
    plain = Row(
        variant=variant,
        precision=precision,
        backend="tensorrt",
        device="cuda:0",
        batch_size=1,
        params=270_000,
        macs=41_000_000,
        engine_bytes=1_100_000,
        accuracy=accuracy(),
        latency=anchored(1.0),
    )
    return replace(plain, **changes)


def reason(rows: Sequence[Row], name: str, decision: DecisionConfig = TWO_PP) -> str:
    return next(loser.reason for loser in recommend(rows, decision).losers if loser.name.startswith(name))


DENSE = row("dense")
SMALL = row("small", params=90_000, engine_bytes=400_000, accuracy=accuracy(lost=60, gained=20), latency=anchored(0.5))


def test_a_clear_winner_is_told_with_its_numbers_and_its_runner_up() -> None:
    found = recommend([DENSE, SMALL], TWO_PP)
    assert (found.winner, found.runner_up, found.separable) == (
        "small fp32 tensorrt b1",
        "dense fp32 tensorrt b1",
        True,
    )
    assert found.sentence == (
        "Ship small fp32 (tensorrt on cuda:0, batch 1): 0.500 ms, 2.00x as fast as dense fp32, 0.400 MB,"
        " top-1 89.60 % (drop at most 0.58 pp, limit 2.00)."
    )
    assert found.reasons == (
        "The runner-up, dense fp32, takes 2.00 times (95 % interval 1.97 to 2.03) as long.",
        "The bounds of the drops of all 2 engines hold together at 95 % confidence.",
    )


def test_a_tie_goes_to_fewer_bytes_and_says_why() -> None:
    large = row("large", engine_bytes=900_000, latency=anchored(0.498))
    found = recommend([DENSE, large, SMALL], TWO_PP)
    assert (found.winner, found.runner_up, found.separable) == (
        "small fp32 tensorrt b1",
        "large fp32 tensorrt b1",
        False,
    )
    assert found.ratio == pytest.approx(0.996)
    assert found.reasons[0] == (
        "The runner-up, large fp32, cannot be told apart, taking 1.00 times (95 % interval 0.98 to 1.01) as long,"
        " but has more bytes (0.900 MB against 0.400 MB)."
    )


def test_a_lower_median_that_does_not_count_is_explained() -> None:
    shifted = row("large", engine_bytes=900_000, latency=replace(anchored(0.52), p50_ms=0.45))

    found = recommend([DENSE, shifted, SMALL], TWO_PP)

    assert found.winner == SMALL.name
    assert found.reasons[1].startswith("large fp32 has the lower median alone (0.450 against 0.500 ms), which")
    assert "timed side by side it takes 1.04 times" in found.reasons[1]
    assert not any("lower median" in one for one in recommend([DENSE, SMALL], TWO_PP).reasons)


def test_a_third_row_level_with_the_winner_is_not_called_slower() -> None:
    rows = [SMALL, row("large", latency=anchored(0.502)), row("larger", engine_bytes=None, latency=anchored(0.503))]
    assert reason(rows, "larger") == (
        "takes 1.01 times (95 % interval 0.99 to 1.02) as long as small fp32, so not separable, and is not smaller"
    )


def test_where_nothing_is_proven_the_closest_is_named_and_what_it_lacks() -> None:
    strict = DecisionConfig(max_drop_pp=0.5)
    tiny = row("tiny", accuracy=accuracy(lost=200, gained=50), latency=anchored(0.2))
    found = recommend([SMALL, tiny], strict)
    assert (found.winner, found.closest) == (None, "small fp32 tensorrt b1")
    assert found.sentence == (
        "Nothing qualifies: of 2 candidates (tensorrt on cuda:0, batch 1) the closest is small fp32, which may lose"
        " 0.58 pp (limit 0.50)."
    )
    assert found.reasons == (
        (
            "small fp32: its drop is not proven: it may be 0.58 pp (95 % confidence over 2 engines) against a limit of"
            " 0.50 pp, and the smallest drop 10,000 images can show is 0.04 pp."
        ),
    )


def test_the_headline_names_one_broken_limit_and_the_reasons_all() -> None:
    found = recommend([SMALL], DecisionConfig(max_drop_pp=0.5, max_engine_mb=0.1))
    assert found.sentence.endswith(
        "closest is small fp32, which may lose 0.55 pp (limit 0.50) and breaks 1 more limit."
    )
    assert [one.partition(": ")[2][:21] for one in found.reasons] == ["its drop is not prove", "its file is too large"]
    alone = recommend([replace(SMALL, throughput_ips=5.0)], DecisionConfig(max_drop_pp=2.0, min_throughput=9))
    assert alone.sentence.endswith("closest is small fp32, with 5.00 images/s (limit 9.00).")


@pytest.mark.parametrize("device", ["cuda:0", "cpu", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H100 80GB HBM3"])
def test_a_headline_has_thirty_words_at_most(device: str) -> None:
    rows = [replace(one, device=device) for one in (DENSE, SMALL, replace(SMALL, precision="int8"))]
    limits = {"max_engine_mb": 0.1, "max_p99_ms": 0.01, "max_memory_mb": 0.1}
    slow = replace(anchored(1.0), p99_ms=1.0)
    held = [replace(one, latency=slow, device_memory_bytes=9_000_000, host_memory_bytes=9_000_000) for one in rows]
    shipped, none = recommend(rows, TWO_PP), recommend(held, DecisionConfig(max_drop_pp=0.1, **limits))
    assert shipped.winner
    assert none.closest
    assert all(len(one.sentence.split()) <= 30 for one in (shipped, none))


def test_too_few_images_are_blamed_where_no_row_could_have_qualified() -> None:
    found = recommend([row("dense", accuracy=accuracy(total=200))], DecisionConfig(max_drop_pp=1.0))
    assert "of 1 candidate (tensorrt on cuda:0, batch 1) the closest is dense fp32" in found.sentence
    assert found.reasons[0].endswith("the smallest drop 200 images can show is 1.49 pp, so score more images.")


def test_where_nothing_was_measured_the_statuses_are_counted() -> None:
    failed = [row("dense", status="failed"), row("small", status="oom"), row("tiny", status="failed")]
    found = recommend(failed, TWO_PP)
    assert found.sentence == (
        "Nothing qualifies: no candidate has a score and a rankable time at batch 1 (2 failed, 1 oom)."
    )
    assert recommend([], TWO_PP).sentence.endswith("at batch 1.")


def test_int8_slower_than_fp32_is_said_plainly() -> None:
    rows = [DENSE, SMALL, replace(SMALL, precision="int8", latency=anchored(0.7), engine_bytes=100_000)]
    assert recommend(rows, TWO_PP).reasons[1] == "INT8 is slower than FP32 here."
    assert recommend([*rows, row("near", latency=anchored(0.6))], TWO_PP).reasons[1] == (
        "INT8 is slower than FP32 here: small int8 takes 1.40 times (95 % interval 1.38 to 1.42) as long as small fp32."
    )


def test_int8_that_is_not_slower_is_not_complained_of() -> None:
    rows = [SMALL, replace(SMALL, precision="int8", latency=anchored(0.3), engine_bytes=100_000)]
    found = recommend(rows, TWO_PP)
    assert found.winner == "small int8 tensorrt b1"
    assert not any("INT8 is slower" in one for one in found.reasons)


def test_a_single_row_that_qualifies_has_no_runner_up() -> None:
    found = recommend([DENSE], TWO_PP)
    assert (found.runner_up, found.separable, found.ratio) == (None, None, None)
    assert found.reasons == ("No other candidate qualifies.",)
    assert "as fast as" not in found.sentence


@pytest.mark.parametrize("sentence_of", [[DENSE, SMALL], [], [DENSE], [row("dense", accuracy=None)]])
def test_the_recommendation_is_one_sentence(sentence_of: list[Row]) -> None:
    sentence = recommend(sentence_of, TWO_PP).sentence
    assert sentence.count(". ") == 0
    assert sentence.endswith(".")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"role": "baseline"}, "a baseline, shown for comparison"),
        ({"role": "reference"}, "the reference, shown for comparison"),
        ({"status": "oom", "reason": "2 GiB asked, 1 GiB free"}, "oom: 2 GiB asked, 1 GiB free"),
        ({"status": "skipped"}, "skipped"),
        ({"simulated": True}, "simulated under a test double, never ranked"),
        ({"batch_size": 32}, "measured at batch 32, the decision is at batch 1"),
        ({"device": "cpu"}, "a CPU row, never ranked with GPU rows"),
        ({"accuracy": None}, "not scored"),
        ({"accuracy": replace(accuracy(), drop_upper_pp=None)}, "its drop against the reference was not measured"),
        ({"latency": None}, "not timed"),
    ],
)
def test_a_row_that_may_not_win_says_why(changes: dict[str, Any], told: str) -> None:
    fastest = replace(row("other", latency=anchored(0.01)), **changes)
    assert recommend([DENSE, fastest], TWO_PP).winner == "dense fp32 tensorrt b1"
    assert reason([DENSE, fastest], "other") == told


def test_a_bound_equal_to_the_limit_proves_nothing() -> None:
    bound = 100 * drop_upper_bound(60, 20, 10_000)
    at_limit = row("small", accuracy=accuracy(lost=60, gained=20))
    assert recommend([at_limit], DecisionConfig(max_drop_pp=bound)).winner is None
    assert recommend([at_limit], DecisionConfig(max_drop_pp=bound + 0.001)).winner is not None


def test_a_file_above_the_limit_loses_and_one_of_unknown_size_cannot_be_judged() -> None:
    limit = DecisionConfig(max_drop_pp=2.0, max_engine_mb=0.4)
    rows = [replace(DENSE, latency=anchored(0.1)), SMALL, row("odd", engine_bytes=None)]
    assert recommend(rows, limit).winner == "small fp32 tensorrt b1"
    assert reason(rows, "dense", limit) == "its file is too large: 1.10 MB against a limit of 0.400 MB"
    assert reason(rows, "odd", limit) == "its file size is unknown"


def test_the_closest_breaks_fewest_limits() -> None:
    limit = DecisionConfig(max_drop_pp=0.5, max_engine_mb=0.5)
    both = row("both", accuracy=accuracy(lost=60, gained=20))
    assert recommend([both, replace(SMALL, accuracy=accuracy(lost=90))], limit).closest == "small fp32 tensorrt b1"


def test_cpu_rows_are_ranked_where_no_gpu_was_tried() -> None:
    cpu = replace(SMALL, device="cpu", backend="onnxruntime-cpu", latency=latency(0.5))
    absent = row("dense", status="unsupported", reason="no GPU here")
    found = recommend([absent, cpu], TWO_PP)
    assert found.winner == "small fp32 onnxruntime-cpu b1"
    assert "(onnxruntime-cpu, batch 1)" in found.sentence


def test_a_gpu_that_failed_is_not_replaced_by_the_cpu() -> None:
    rows = [row("dense", status="failed", reason="driver"), replace(SMALL, device="cpu")]
    assert recommend(rows, TWO_PP).winner is None


def test_paired_ratios_decide_over_medians_taken_apart() -> None:
    slow_now = replace(SMALL, latency=replace(anchored(0.5), p50_ms=9.0))
    assert recommend([DENSE, slow_now], TWO_PP).winner == "small fp32 tensorrt b1"


def test_medians_decide_where_the_rows_share_no_anchor() -> None:
    rows = [row("dense", latency=latency(1.0)), replace(SMALL, latency=latency(2.0))]
    found = recommend(rows, TWO_PP)
    assert (found.winner, found.separable, found.ratio_ci95) == ("dense fp32 tensorrt b1", None, None)
    assert "takes 2.00 times (medians, not timed side by side) as long" in found.reasons[0]


def test_raw_blocks_come_before_ratios_to_the_anchor() -> None:
    def paired(first: Row, second: Row) -> Interval | None:
        return (
            Interval(value=1.02, low=1.01, high=1.03) if (first.variant, second.variant) == ("small", "dense") else None
        )

    found = recommend([replace(DENSE, latency=anchored(0.4)), SMALL], TWO_PP, paired=paired)
    assert found.winner == "small fp32 tensorrt b1"  # by the ratios to the anchor it takes 1.25 times as long


def test_a_smaller_file_must_prove_that_it_is_as_fast_within_the_margin() -> None:
    large = row("large", engine_bytes=900_000, latency=anchored(0.49))
    noisy = replace(large, latency=anchored(0.49, low=0.95, high=1.05))

    proven = recommend([large, SMALL], TWO_PP)
    open_choice = recommend([noisy, SMALL], TWO_PP)
    strict = recommend([large, SMALL], DecisionConfig(max_drop_pp=2.0, margin=0.01))

    assert (proven.winner, proven.undecided) == (SMALL.name, ())
    assert proven.reasons[0] == (
        "The runner-up, large fp32, takes 0.98 times (95 % interval 0.97 to 0.99) as long, within the margin of 5.00 %,"
        " but has more bytes (0.900 MB against 0.400 MB)."
    )
    assert (open_choice.winner, open_choice.undecided) == (noisy.name, (SMALL.name,))
    assert open_choice.reasons[1] == (
        "Whether small fp32 is as fast within 5.00 % is open, so the fastest side by side is chosen: a larger"
        " bench.budget_s or a quieter machine may decide it."
    )
    assert strict.winner == large.name
    assert strict.undecided == (SMALL.name,)


def test_a_smaller_file_that_is_not_proven_as_fast_is_never_said_to_have_more_bytes() -> None:
    noisy = row("large", engine_bytes=900_000, latency=anchored(0.49, low=0.9, high=1.1))

    found = recommend([noisy, SMALL], TWO_PP)

    told = "has fewer bytes (0.400 MB against 0.900 MB) and is not proven to be as fast within the margin"
    assert found.winner == noisy.name
    assert found.reasons[0].endswith(f"as long, but {told}.")
    assert found.losers[0].reason.endswith(f"so not separable, and {told}")
    nearly = replace(SMALL, engine_bytes=899_999)
    assert "has 1 bytes less and is not proven" in recommend([noisy, nearly], TWO_PP).reasons[0]


def test_a_file_that_is_as_fast_as_a_lucky_best_one_alone_does_not_win() -> None:
    truly_best = row("truly", engine_bytes=950_000, latency=anchored(0.501))
    lucky = row("lucky", engine_bytes=900_000, latency=anchored(0.5))

    def paired(first: Row, second: Row) -> Interval | None:
        value = 1.2 if (first.variant, second.variant) == ("small", "truly") else 1.0
        return Interval(value=value, low=value * 0.99, high=value * 1.01)

    found = recommend([truly_best, lucky, replace(SMALL, latency=anchored(0.502))], TWO_PP, paired=paired)

    assert found.winner == lucky.name


def test_the_runner_up_is_the_nearest_by_the_ratios_that_are_told() -> None:
    """By the ratios to the anchor `near` takes longer than `far`, block for block it does not."""
    near, far = row("near", latency=anchored(0.6)), row("far", latency=anchored(0.59))

    def paired(first: Row, second: Row) -> Interval | None:
        value = {"near": 1.12, "far": 1.15, "small": 1.0}[first.variant] / (1.0 if second is SMALL else 1.1)
        return Interval(value=value, low=value * 0.98, high=value * 1.02)

    found = recommend([far, near, SMALL], TWO_PP, paired=paired)

    assert (found.winner, found.runner_up, found.ratio) == (SMALL.name, near.name, 1.12)


def test_a_smaller_file_that_is_proven_slower_leaves_nothing_open() -> None:
    found = recommend([row("large", latency=anchored(0.4)), SMALL], TWO_PP)

    assert (found.winner.split()[0] if found.winner else None, found.undecided) == ("large", ())


def test_the_smallest_file_wins_where_bytes_are_the_objective() -> None:
    by_size = DecisionConfig(max_drop_pp=2.0, objective="engine_bytes")
    rows = [DENSE, replace(SMALL, latency=anchored(3.0))]
    found = recommend(rows, by_size)
    assert (found.winner, found.ratio, found.separable) == ("small fp32 tensorrt b1", 2.75, True)
    assert found.reasons[0] == "The runner-up, dense fp32, has 2.75 times the bytes."
    assert reason(rows, "dense", by_size) == "has 2.75 times the bytes of small fp32"
    assert reason([*rows, row("odd", engine_bytes=None)], "odd", by_size) == "its file size is unknown"


def test_equal_files_go_to_the_faster_row() -> None:
    by_size = DecisionConfig(max_drop_pp=2.0, objective="engine_bytes")
    found = recommend([DENSE, row("quick", latency=anchored(0.9))], by_size)
    assert (found.winner, found.separable) == ("quick fp32 tensorrt b1", False)
    assert found.reasons[0] == "The runner-up, dense fp32, has as many bytes and is slower."


def test_ms_per_image_ranks_by_all_time_over_all_images() -> None:
    rows = [row("dense", latency=latency(1.0, ms_per_image=0.5)), row("small", latency=latency(0.9, ms_per_image=0.6))]
    by_image = DecisionConfig(max_drop_pp=2.0, objective="ms_per_image")
    assert recommend(rows, by_image).winner == "dense fp32 tensorrt b1"


def test_the_pareto_set_is_what_no_row_beats_in_accuracy_latency_and_size_together() -> None:
    worse = row("worse", accuracy=accuracy(lost=70, gained=20), engine_bytes=500_000, latency=anchored(0.6))
    unproven = row("quickest", accuracy=accuracy(lost=900), latency=anchored(0.1))
    assert recommend([DENSE, SMALL, worse, unproven], TWO_PP).pareto == (
        "dense fp32 tensorrt b1",
        "small fp32 tensorrt b1",
        "quickest fp32 tensorrt b1",
    )


def test_every_other_row_has_its_reason() -> None:
    found = recommend(TWENTY_FOUR, TWO_PP)
    assert found.winner == "channels-50 fp32 onnxruntime-cpu b1"
    assert {loser.name for loser in found.losers} == {row.name for row in TWENTY_FOUR} - {found.winner}
    assert all(loser.reason for loser in found.losers)
    assert any(one.startswith("INT8 is slower than FP32 here: channels-50 int8") for one in found.reasons)


@pytest.mark.parametrize(
    ("limit", "changes", "told"),
    [
        ({"max_p99_ms": 0.4}, {"latency": anchored(0.5)}, "its p99 is unknown: fewer than 1,000 samples"),
        (
            {"max_p99_ms": 0.4},
            {"latency": replace(anchored(0.5), p99_ms=0.6)},
            "its p99 is 0.600 ms against a limit of 0.400 ms",
        ),
        ({"max_memory_mb": 10.0}, {"host_memory_bytes": 1}, "its memory is unknown"),
        (
            {"max_memory_mb": 10.0},
            {"device_memory_bytes": 20_000_000, "host_memory_bytes": 1},
            "it takes 20.0 MB of memory against a limit of 10.0 MB",
        ),
        ({"min_throughput": 900.0}, {}, "its throughput is unknown"),
        (
            {"min_throughput": 900.0},
            {"throughput_ips": 800.0},
            "it does 800 images a second against a limit of 900",
        ),
    ],
)
def test_every_limit_is_kept_or_named(limit: dict[str, float], changes: dict[str, Any], told: str) -> None:
    decision = DecisionConfig(max_drop_pp=2.0, **limit)
    assert reason([replace(SMALL, **changes)], "small", decision) == told


def test_rows_within_every_limit_qualify() -> None:
    decision = DecisionConfig(max_drop_pp=2.0, max_p99_ms=0.7, max_memory_mb=30, min_throughput=700)
    fine = replace(
        SMALL, latency=replace(anchored(0.5), p99_ms=0.7), device_memory_bytes=30_000_000, throughput_ips=700.0
    )
    found = recommend([fine], decision)
    assert found.winner == fine.name
    assert (found.max_p99_ms, found.max_memory_mb, found.min_throughput) == (0.7, 30, 700)


def test_p99_and_throughput_can_be_the_objective() -> None:
    steady = replace(SMALL, variant="steady", latency=replace(anchored(0.6), p99_ms=0.7), throughput_ips=1500.0)
    quick = replace(SMALL, variant="quick", latency=replace(anchored(0.5), p99_ms=1.4), throughput_ips=3000.0)

    by_p99 = recommend([steady, quick], DecisionConfig(max_drop_pp=2.0, objective="p99_ms"))
    by_rate = recommend([steady, quick], DecisionConfig(max_drop_pp=2.0, objective="throughput"))

    assert by_p99.winner == steady.name
    assert by_p99.reasons[0] == "The runner-up, quick fp32, has 2.00 times the p99."
    assert by_rate.winner == quick.name
    assert by_rate.reasons[0] == "The runner-up, steady fp32, has 0.50 times the throughput."
    assert by_rate.losers[0].reason == "has 0.50 times the throughput of quick fp32"


def test_what_would_change_the_choice_is_told() -> None:
    tiny = row("tiny", accuracy=accuracy(lost=200, gained=50), engine_bytes=200_000, latency=anchored(0.2))
    large = row("large", engine_bytes=900_000, latency=anchored(0.498, low=0.9, high=1.1))

    found = recommend([DENSE, large, SMALL, tiny], DecisionConfig(max_drop_pp=1.0))

    assert found.winner == large.name
    wider, open_question = (one for one in found.what_if if "objective" not in one)
    assert wider == "With max_drop_pp 1.88 instead of 1.00, tiny fp32 would win."
    assert open_question == (
        "Whether small fp32 should win over large fp32 is open: more samples (bench.budget_s, bench.processes) may"
        " tell."
    )


def test_no_limit_is_advised_that_nobody_would_set() -> None:
    broken = row("broken", accuracy=accuracy(lost=4500, gained=0), latency=anchored(0.1))
    assert recommend([DENSE, broken], TWO_PP).what_if == ()
    strict = DecisionConfig(max_drop_pp=2.0, max_engine_mb=0.1)
    assert recommend([SMALL], strict).what_if == ()  # four times as large as was asked for
    assert recommend([SMALL], strict.model_copy(update={"max_engine_mb": 0.3})).what_if != ()
    slow = [replace(SMALL, throughput_ips=100.0)]
    assert recommend(slow, DecisionConfig(max_drop_pp=2.0, min_throughput=900)).what_if == ()


def test_a_test_split_that_was_looked_at_before_is_told_with_what_is_proven_over_all_looks() -> None:
    choice = choose([DENSE, SMALL], TWO_PP)
    tight = choose([DENSE, SMALL], DecisionConfig(max_drop_pp=0.6))

    assert look_words(choice, number=1, engines=2) == ()
    (within,), (beyond,) = look_words(choice, number=4, engines=31), look_words(tight, number=4, engines=31)
    assert within.startswith("Look 4 at this test split: 31 engines were compared on it in all, 2 in this run.")
    assert "the drop of small fp32 is 0.68 pp at most, which is within the limit of 2.00 pp" in within
    assert "is 0.68 pp at most, so it is no longer proven to be within the limit of 0.60 pp" in beyond
    assert look_words(choose([], TWO_PP), number=2, engines=3) == (
        "Look 2 at this test split: 3 engines were compared on it in all, 0 in this run.",
    )


def test_another_objective_that_would_choose_otherwise_is_named() -> None:
    small = replace(SMALL, latency=anchored(2.0))
    assert recommend([DENSE, small], TWO_PP).what_if == (
        "By the size of the file (objective engine_bytes), small fp32 would win.",
    )


def test_where_nothing_qualifies_the_limit_that_would_let_a_row_in_is_told() -> None:
    limit = DecisionConfig(max_drop_pp=2.0, min_throughput=900)
    found = recommend([replace(SMALL, throughput_ips=800.0), replace(DENSE, throughput_ips=500.0)], limit)
    assert found.what_if == ("With min_throughput 792 instead of 900, small fp32 would qualify.",)


def test_latencies_that_cannot_be_told_apart_are_equal_on_the_pareto_front() -> None:
    same_but_larger = row("large", engine_bytes=900_000, accuracy=SMALL.accuracy, latency=anchored(0.498))
    assert recommend([SMALL, same_but_larger], TWO_PP).pareto == (SMALL.name,)
    really_faster = replace(same_but_larger, latency=anchored(0.4))
    assert recommend([SMALL, really_faster], TWO_PP).pareto == (SMALL.name, really_faster.name)


def test_a_broken_gate_is_said_with_its_limit() -> None:
    gates = [
        BrokenGate(name="r", key="slower", value=1.1, limit=0.05),
        BrokenGate(name="r", key="drop_pp", value=0.6, limit=0.5),
        BrokenGate(name="r", key="inconclusive", value=1.2),
    ]
    assert [gate_clause(gate) for gate in gates] == [
        "r takes 1.10 times as long (limit 5.00 %)",
        "r lost 0.60 pp of top-1 (limit 0.500 pp)",
        "r is ambiguous",
    ]


def test_files_that_read_alike_are_told_apart_by_their_bytes() -> None:
    level = [
        row("a", engine_bytes=329_001, latency=anchored(1.0)),
        row("b", engine_bytes=329_014, latency=anchored(1.0)),
    ]
    assert "has 13 bytes more" in recommend(level, TWO_PP).reasons[0]
