"""The order of the rows that qualified, what may not be told apart, and which points no other beats."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.decide.ratios import Ratio, latency_ratio, share_anchor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trtbench.decide.ratios import PairedRatio
    from trtbench.rows import Row
    from trtbench.suite import DecisionConfig


_PAIRED = ("p50_ms", "ms_per_image")  # objectives whose ratio is measured side by side


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The winner, the runner-up, and `ratio`, the runner-up's objective over the winner's.

    `separable` is False where the paired interval of the ratio holds 1 (or the sizes are equal), None where there is
    no runner-up or no interval. `level` are the rows that are not separable from the best, the winner among them.
    """

    winner: Row
    runner_up: Row | None
    ratio: Ratio | None
    separable: bool | None
    level: tuple[Row, ...]


def rank(qualified: Sequence[Row], decision: DecisionConfig, *, paired: PairedRatio | None = None) -> Ranking:
    """Order at least one qualified row by the objective; among those level with the best, fewest bytes win."""
    ranked = sorted(qualified, key=lambda row: (objective_cost(row, qualified, decision), latency_cost(row, qualified)))
    best = ranked[0]
    level = [
        row
        for row in ranked
        if row is best
        or _is_level(objective_ratio(row, best, decision, paired=paired))
        or (decision.objective in _PAIRED and builds_overlap(row, best))
    ]
    winner = min(level, key=size_cost)
    runner_up = next((row for row in ranked if row is not winner), None)
    ratio = None if runner_up is None else objective_ratio(runner_up, winner, decision, paired=paired)
    return Ranking(
        winner=winner,
        runner_up=runner_up,
        ratio=ratio,
        separable=None if runner_up is None else _separable(ratio, decision, is_level=is_one_of(runner_up, level)),
        level=tuple(level),
    )


def objective_ratio(row: Row, base: Row, decision: DecisionConfig, *, paired: PairedRatio | None = None) -> Ratio:
    """Return the objective of one ranked row over that of another; a ratio of file sizes is exact.

    Of the latency objectives only the median, and all time over all images, are measured in pairs.
    """
    if decision.objective not in _PAIRED:
        among = (row, base)
        return Ratio(value=objective_cost(row, among, decision) / objective_cost(base, among, decision))
    ratio = latency_ratio(row, base, paired=paired)
    assert ratio is not None  # comparable rows are timed, at one batch size
    return ratio


def objective_cost(row: Row, among: Sequence[Row], decision: DecisionConfig) -> float:
    """Return what the objective minimises, comparable among these rows only."""
    if decision.objective == "engine_bytes":
        return size_cost(row)
    if decision.objective == "ms_per_image":
        assert row.latency is not None
        return row.latency.ms_per_image
    if decision.objective == "p99_ms":
        assert row.latency is not None
        assert row.latency.p99_ms is not None
        return row.latency.p99_ms
    if decision.objective == "throughput":
        assert row.throughput_ips is not None
        return 1 / row.throughput_ips
    return latency_cost(row, among)


def latency_cost(row: Row, among: Sequence[Row]) -> float:
    """Return the ratio to the anchor that all of `among` share, else the median in ms.

    Ratios of interleaved blocks are free of the drift that lies between medians taken minutes apart.
    """
    assert row.latency is not None
    return row.latency.ratio if row.latency.ratio is not None and share_anchor(among) else row.latency.p50_ms


def size_cost(row: Row) -> float:
    """Return the engine's bytes; a file of unknown size never wins by its size."""
    return math.inf if row.engine_bytes is None else row.engine_bytes


def is_one_of(row: Row, rows: Sequence[Row]) -> bool:
    """Whether this very row is among `rows`; equal rows are not the same."""
    return any(row is other for other in rows)


def builds_overlap(row: Row, other: Row) -> bool:
    """Whether repeated builds of two engines are as fast as each other somewhere within their spreads."""
    mine, others = row.builds_p50_ms, other.builds_p50_ms
    return bool(mine and others) and min(mine) <= max(others) and min(others) <= max(mine)


def pareto_front(points: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """Return the indices, in order, of the points that none dominates; less is better in every coordinate.

    A point dominates another when it is nowhere worse and somewhere better, so equal points stay together.
    """
    return tuple(index for index, point in enumerate(points) if not any(_dominates(other, point) for other in points))


def undominated(count: int, *, compare: Callable[[int, int], Sequence[int]]) -> tuple[int, ...]:
    """Return the indices, in order, of the items that none provably dominates.

    Args:
        count: how many items there are.
        compare: answers, for each respect, -1 where the first item is better than the second, 1 where it is worse, and
            0 where the two cannot be told apart.
    """

    def beats(other: int, one: int) -> bool:
        signs = compare(other, one)
        return max(signs) <= 0 and min(signs) < 0

    everyone = range(count)
    return tuple(one for one in everyone if not any(beats(other, one) for other in everyone if other != one))


def _is_level(ratio: Ratio) -> bool:
    return ratio.ci95 is not None and ratio.ci95[0] <= 1


def _separable(ratio: Ratio | None, decision: DecisionConfig, *, is_level: bool) -> bool | None:
    if ratio is None or (ratio.ci95 is None and decision.objective != "engine_bytes"):
        return None
    return ratio.value != 1 if decision.objective == "engine_bytes" else not is_level


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
