"""The recommendation in words: one plain sentence, and one clause for each row that lost."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from trtbench.report.race import broken_limits
from trtbench.report.ranking import is_one_of, objective_ratio
from trtbench.report.ratios import counterpart, dense_fp32_of, device_words, latency_ratio
from trtbench.report.units import fixed, megabytes, percent, significant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbench.records import Row
    from trtbench.report.race import Race
    from trtbench.report.ranking import Podium
    from trtbench.report.ratios import PairedRatio
    from trtbench.suite import DecisionConfig


# objectives that are not told as "takes 1.2 times as long"
_OBJECTIVES = {"engine_bytes": "the bytes", "p99_ms": "the p99", "throughput": "the throughput"}


def short_name(row: Row) -> str:
    """Return the row's name within one backend, device and batch size."""
    return f"{row.variant} {row.precision}"


def told(row: Row) -> str:
    """Return a row's name and its two main figures on one line."""
    facts = []
    if row.latency is not None:
        facts.append(f"p50 {significant(row.latency.p50_ms)} ms, p90 {significant(row.latency.p90_ms)} ms")
    if row.accuracy is not None:
        low, high = row.accuracy.ci95
        facts.append(f"top-1 {percent(row.accuracy.top1)} % ({percent(low)} to {percent(high)})")
    return f"{row.name}: {', '.join(facts) or row.status}"


def ship(rows: Sequence[Row], podium: Podium, decision: DecisionConfig, *, paired: PairedRatio | None) -> str:
    """Say which row to ship, which is the runner-up, and why."""
    winner = podium.winner
    clauses = [_merits(rows, winner, decision, paired=paired), _against_runner_up(podium, decision)]
    clauses += [clause for clause in [int8_is_slower(rows, winner, paired=paired)] if clause]
    return f"Ship {short_name(winner)} ({_place(winner)}): {'; '.join(clauses)}."


def nothing_qualifies(rows: Sequence[Row], race: Race, closest: Row | None, decision: DecisionConfig) -> str:
    """Say that nothing may be shipped, and what came closest."""
    if closest is None:
        statuses = Counter(row.status for row in rows if row.role == "candidate" and row.status != "ok")
        counts = ", ".join(f"{number} {status}" for status, number in sorted(statuses.items()))
        told = f" ({counts})" if counts else ""
        return f"Nothing qualifies: no candidate has a score and a rankable time at batch {decision.batch_size}{told}."
    one = len(race.entrants) == 1
    broken = " and ".join(broken_limits(closest, decision))
    return (
        f"Nothing qualifies: {'the only candidate' if one else f'none of {len(race.entrants)} candidates'}"
        f" ({_place(closest)}) {'does not keep' if one else 'keeps'} every limit;"
        f" the closest is {short_name(closest)}, but {broken}."
    )


def beaten(row: Row, podium: Podium, decision: DecisionConfig, *, paired: PairedRatio | None) -> str:
    """Return why a row that qualified is not the winner."""
    winner = podium.winner
    ratio = objective_ratio(row, winner, decision, paired=paired)
    if decision.objective in _OBJECTIVES:
        return f"{_behind(ratio.value, decision)} of {short_name(winner)}"
    if is_one_of(row, podium.level):
        return f"takes {ratio.words} as long as {short_name(winner)}, so not separable, and {_sizes(row, winner)}"
    return f"takes {ratio.words} as long as {short_name(winner)}"


def int8_is_slower(rows: Sequence[Row], row: Row, *, paired: PairedRatio | None = None) -> str:
    """Return a clause where INT8 does not pay for an FP32 row; empty where it does, or was not measured."""
    twin = counterpart(row, rows, precision="int8") if row.precision == "fp32" else None
    ratio = None if twin is None else latency_ratio(twin, row, paired=paired)
    if twin is None or ratio is None or not ratio.is_above_one:
        return ""
    return f"INT8 is slower than FP32 here: {short_name(twin)} takes {ratio.words} as long as {short_name(row)}"


def _behind(ratio: float, decision: DecisionConfig) -> str:
    """Say how far behind a row is; a throughput is the inverse of what the objective minimises."""
    value = 1 / ratio if decision.objective == "throughput" else ratio
    return f"has {fixed(value)} times {_OBJECTIVES[decision.objective]}"


def _place(row: Row) -> str:
    return f"{row.backend} on {device_words(row)}, batch {row.batch_size}"


def _merits(rows: Sequence[Row], row: Row, decision: DecisionConfig, *, paired: PairedRatio | None) -> str:
    assert row.latency is not None
    assert row.accuracy is not None
    dense = dense_fp32_of(row, rows)
    gain = None if dense is None or dense is row else latency_ratio(dense, row, paired=paired)
    facts = [f"{significant(row.latency.p50_ms)} ms median"]
    facts += (
        [f"{fixed(gain.value)} times as fast as {short_name(dense)}"] if gain is not None and dense is not None else []
    )
    facts += [f"{megabytes(row.engine_bytes)} MB"] if row.engine_bytes is not None else []
    drop = f"{fixed(row.accuracy.drop_upper_pp)} pp at most (95 % confidence, limit {fixed(decision.max_drop_pp)} pp)"
    return f"{', '.join(facts)}, top-1 {percent(row.accuracy.top1)} % with a drop of {drop}"


def _against_runner_up(podium: Podium, decision: DecisionConfig) -> str:
    winner, runner_up, ratio = podium.winner, podium.runner_up, podium.ratio
    if runner_up is None or ratio is None:
        return "no other candidate qualifies"
    name = f"the runner-up {short_name(runner_up)}"
    if decision.objective == "engine_bytes" and not podium.separable:
        return f"{name} has as many bytes and is slower"
    if decision.objective in _OBJECTIVES:
        return f"{name} {_behind(ratio.value, decision)}"
    if podium.separable is False:
        return f"{name} is not separable from it, taking {ratio.words} as long, but {_sizes(runner_up, winner)}"
    return f"{name} takes {ratio.words} as long"


def _sizes(loser: Row, winner: Row) -> str:
    if loser.engine_bytes is None or loser.engine_bytes == winner.engine_bytes:
        return "is not smaller"
    return f"has more bytes ({megabytes(loser.engine_bytes)} MB against {megabytes(winner.engine_bytes)} MB)"
