"""The choice as data: what keeps a row out, what it breaks, and what would change the answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trtbench.decide.choose import MoreSamples, OtherLimit, OtherObjective, choose
from trtbench.decide.limits import HeldLimit, assess, held_against, shown_bound_pp
from trtbench.report.document import read_report
from trtbench.report.words import in_words
from trtbench.suite import DecisionConfig

if TYPE_CHECKING:
    from trtbench.rows import LatencyRecord, Row

ROWS = read_report(Path(__file__).parent.parent / "report" / "twenty-four-rows.json").rows
NAMED = {row.name: row for row in ROWS}
FP32 = NAMED["channels-50 fp32 onnxruntime-cpu b1"]
DENSE = NAMED["dense fp32 onnxruntime-cpu b1"]
assert FP32.accuracy is not None
assert FP32.latency is not None


def test_every_broken_limit_has_what_the_row_has_in_the_unit_of_the_limit() -> None:
    assert FP32.accuracy is not None
    assert FP32.latency is not None
    row = replace(
        FP32, engine_bytes=2_500_000, host_memory_bytes=30_000_000, throughput_ips=10.0,
        accuracy=replace(FP32.accuracy, drop_upper_pp=1.5), latency=replace(FP32.latency, p99_ms=4.0),
    )  # fmt: skip
    decision = DecisionConfig(max_drop_pp=1.5, max_engine_mb=2, max_p99_ms=3, max_memory_mb=20, min_throughput=11)

    (found,) = assess([row], decision)

    assert found.broken == (
        HeldLimit(key="max_drop_pp", value=1.5, limit=1.5),
        HeldLimit(key="max_engine_mb", value=2.5, limit=2.0),
        HeldLimit(key="max_p99_ms", value=4.0, limit=3.0),
        HeldLimit(key="max_memory_mb", value=30.0, limit=20.0),
        HeldLimit(key="min_throughput", value=10.0, limit=11.0),
    )
    assert not found.is_qualified


def test_a_row_that_cannot_be_compared_breaks_no_limit() -> None:
    (found,) = assess([replace(FP32, accuracy=None)], DecisionConfig(max_engine_mb=0.001))

    assert (found.obstacle, found.broken) == ("not_scored", ())


def test_only_rows_that_qualified_and_lost_have_a_ratio_to_the_winner() -> None:
    choice = choose(ROWS, DecisionConfig(max_drop_pp=2.0))

    assert choice.ranking is not None
    assert choice.ranking.winner is FP32
    ratios = {one.row.name: one.ratio for one in choice.assessments if one.ratio is not None}
    assert FP32.name not in ratios
    assert ratios[DENSE.name].value == pytest.approx(choice.dense.ratio.value if choice.dense else 0)
    assert len(choice.losers) == len(ROWS) - 1


def test_changes_are_told_as_data() -> None:
    assert DENSE.accuracy is not None
    assert FP32.latency is not None
    unproven = replace(
        FP32,
        variant="unproven",
        engine_sha256="unproven",
        accuracy=replace(DENSE.accuracy, drop_upper_pp=3.0),
        latency=replace(FP32.latency, p50_ms=0.01, ratio=0.01, ratio_ci95=(0.009, 0.011)),
    )
    assert FP32.latency.ratio is not None
    noisy = replace(FP32.latency, ratio_ci95=(0.8 * FP32.latency.ratio, 1.2 * FP32.latency.ratio))
    level = replace(
        FP32, variant="level", engine_sha256="level", engine_bytes=(FP32.engine_bytes or 0) + 1, latency=noisy
    )
    smaller = replace(DENSE, variant="smaller", engine_sha256="smaller", engine_bytes=1)

    choice = choose([FP32, unproven, level, smaller], DecisionConfig(max_drop_pp=2.0))

    assert choice.changes == (
        OtherLimit(key="max_drop_pp", value=3.0 * 1.01, row=unproven),
        OtherObjective(objective="engine_bytes", row=smaller),
        MoreSamples(row=level),
    )


def test_where_nothing_qualifies_the_closest_is_the_row_that_breaks_least() -> None:
    choice = choose([DENSE, FP32], DecisionConfig(max_drop_pp=0.0))

    assert choice.ranking is None
    assert choice.closest is not None
    assert choice.closest.row is DENSE
    assert choice.compared == (DENSE, FP32)
    assert choose([], DecisionConfig()).closest is None


def scored(name: str, *, lost: int, gained: int = 0, sha256: str | None = None) -> Row:
    assert FP32.accuracy is not None
    accuracy = replace(FP32.accuracy, lost=lost, gained=gained, total=360, agreement=0.9)
    return replace(FP32, variant=name, accuracy=accuracy, engine_sha256=sha256 or name)


def test_the_bounds_of_all_engines_looked_at_hold_together() -> None:
    alone = assess([scored("a", lost=1)], DecisionConfig(max_drop_pp=2.0))
    among = assess([scored(f"v{index}", lost=1) for index in range(24)], DecisionConfig(max_drop_pp=2.0))

    assert alone[0].drop_upper_pp == pytest.approx(1.31, abs=0.01)
    assert alone[0].is_qualified
    assert among[0].drop_upper_pp == pytest.approx(2.31, abs=0.01)
    assert not any(one.is_qualified for one in among)


def test_the_bound_that_a_table_shows_is_the_one_that_decides() -> None:
    decision = DecisionConfig(max_drop_pp=2.0)
    other_batch = replace(scored("v0", lost=1), batch_size=32)
    rows = held_against([*(scored(f"v{index}", lost=1) for index in range(24)), other_batch], decision)

    shown = [shown_bound_pp(row, rows) for row in rows]

    assert shown[0] == assess(rows, decision)[0].drop_upper_pp
    assert set(shown) == {shown[0]}
    assert shown[0] == pytest.approx(2.31, abs=0.01)


def test_two_rows_of_one_file_are_one_look_and_never_ranked_against_each_other() -> None:
    first = scored("a", lost=1, sha256="x")
    faster = replace(scored("b", lost=1, sha256="x"), latency=replace(_timed(FP32), p50_ms=0.001, ratio=0.001))

    choice = choose([first, faster], DecisionConfig(max_drop_pp=2.0))

    assert [one.obstacle for one in choice.assessments] == [None, "same_file"]
    assert choice.assessments[0].drop_upper_pp == pytest.approx(1.31, abs=0.01)
    assert choice.ranking is not None
    assert choice.ranking.winner is first
    assert choice.ranking.runner_up is None
    assert choice.pareto == (first,)
    (loser,) = in_words([first, faster], choice).losers
    assert loser.reason == "the same file as a fp32: what differs between the two is noise"


def _timed(row: Row) -> LatencyRecord:
    assert row.latency is not None
    return row.latency


def test_the_reference_has_nothing_to_lose_against_itself() -> None:
    assert DENSE.accuracy is not None
    itself = replace(DENSE, accuracy=replace(DENSE.accuracy, lost=0, gained=0, agreement=1.0))
    rounded = replace(itself, precision="int8")

    found = assess([itself, rounded], DecisionConfig(max_drop_pp=0.1))

    assert next(one.drop_upper_pp for one in found) == 0
    assert [one.is_qualified for one in found] == [True, False]


def test_what_was_asked_for_in_int8_and_computes_in_float_is_never_recommended() -> None:
    floats = scored("a", lost=0)
    fast = replace(floats, precision="int8", engine_sha256="b", latency=replace(_timed(FP32), p50_ms=0.01, ratio=0.01))
    limits = DecisionConfig(max_drop_pp=2.0)

    quantized = choose([floats, replace(fast, achieved="int8 in 1 of 64 convolutions")], limits)
    nothing = choose([floats, replace(fast, achieved="fp32: int8 in 0 of 64 convolutions")], limits)

    assert quantized.ranking is not None
    assert nothing.ranking is not None
    assert (quantized.ranking.winner.precision, nothing.ranking.winner.precision) == ("int8", "fp32")
    assert nothing.assessments[1].obstacle == "not_int8"
    (loser,) = in_words([assessment.row for assessment in nothing.assessments], nothing).losers
    assert loser.reason == "asked for in INT8, it computes in float: ship FP32, which loses nothing"
