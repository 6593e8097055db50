"""The order of the rows that qualified, what a smaller file must prove, which points no other beats; batch sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.bench.spread import Interval
from trtbench.decide.ratios import Ratio, dense_fp32_of, is_measured, latency_ratio, p50_ms, share_anchor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trtbench.decide.ratios import PairedRatio
    from trtbench.rows import Row
    from trtbench.suite import DecisionConfig


# Of shipping a smaller file that breaks the margin: 5 % over two looks, since a run samples on once where it is open
_ERROR = 0.025
_ENOUGH = 2 / 3  # of the margin: half the width of an interval that decides
_PAIRED = ("p50_ms", "ms_per_image")  # objectives whose ratio is measured side by side


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The winner, the runner-up, and `ratio`, the runner-up's objective over the winner's.

    `separable` is False where the paired interval of the ratio holds 1 (or the sizes are equal), None where there is
    no runner-up or no interval. `fastest` has the best objective as it was measured: the winner, or the row that it is
    as good as within the margin. `level` are the rows that are not separable from the winner, itself among them. Of
    those in `undecided` the intervals are too wide: that the winner is within the margin of them, or that they are of
    the fastest while they are smaller, is neither proven nor disproven.
    """

    winner: Row
    runner_up: Row | None
    ratio: Ratio | None
    separable: bool | None
    level: tuple[Row, ...]
    fastest: Row
    undecided: tuple[Row, ...] = ()


def rank(qualified: Sequence[Row], decision: DecisionConfig, *, paired: PairedRatio | None = None) -> Ranking:
    """Order at least one qualified row by the objective; the best wins, or a smaller file as good within the margin.

    As good is proven, not merely not disproven (a non-inferiority test): against every row that qualified, so that a
    best row that was only lucky does no harm, at an error that all smaller files share. Of those the smallest wins.
    """

    def ratio_of(row: Row, base: Row) -> Ratio:
        return objective_ratio(row, base, decision, paired=paired)

    ranked = sorted(qualified, key=lambda row: (objective_cost(row, qualified, decision), latency_cost(row, qualified)))
    best = ranked[0]
    smaller = [row for row in ranked if size_cost(row) < size_cost(best)] if decision.objective in _PAIRED else []
    confidence, limit = 1 - _ERROR / max(len(smaller), 1), 1 + decision.margin
    within = [
        row
        for row in smaller
        if all(ratio_of(row, one).is_proven_below(limit, confidence=confidence) for one in ranked if one is not row)
    ]
    winner = min(within, key=size_cost, default=best)
    others = [row for row in ranked if row is not winner]
    if decision.objective in _PAIRED:  # by the ratios that are told
        others.sort(key=lambda row: ratio_of(row, winner).value)
    runner_up = others[0] if others else None
    ratio = None if runner_up is None else ratio_of(runner_up, winner)
    level = [winner, *(row for row in others if _is_level(row, winner, ratio_of(row, winner), decision))]
    return Ranking(
        winner=winner,
        runner_up=runner_up,
        ratio=ratio,
        separable=None if runner_up is None else _separable(ratio, decision, is_level=is_one_of(runner_up, level)),
        level=tuple(level),
        fastest=best,
        undecided=tuple(
            row
            for row in others
            if _may_beat(ratio_of(winner, row), limit)
            or (is_one_of(row, smaller) and not is_one_of(row, within) and _may_be_within(ratio_of(row, best), limit))
        ),
    )


def processes_needed(ratio: Ratio | Interval, processes: int, *, margin: float) -> int:
    """Return of how many processes the interval of a ratio would be narrow enough to decide at this margin.

    Of as many as make half its width two thirds of the margin, on the log scale: then rows that are equally fast are
    proven to be within it in five runs of six. What the first processes say of the spread decides, not where the ratio
    lies (Stein 1945, Annals of Mathematical Statistics 16:243-258): stopping as soon as an answer comes out would find
    one too often.
    """
    low, high = (ratio.low, ratio.high) if isinstance(ratio, Interval) else (ratio.ci95 or (1.0, 1.0))
    half = math.log(high / low) / 2
    return max(processes, math.ceil(processes * (half / (_ENOUGH * math.log1p(margin))) ** 2))


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

    def compare(first: int, second: int) -> list[int]:
        return [(a > b) - (a < b) for a, b in zip(points[first], points[second], strict=True)]

    return undominated(len(points), compare=compare)


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


def _is_level(row: Row, winner: Row, ratio: Ratio, decision: DecisionConfig) -> bool:
    is_apart = ratio.ci95 is None or not ratio.ci95[0] <= 1 <= ratio.ci95[1]
    return not is_apart or (decision.objective in _PAIRED and builds_overlap(row, winner))


def _may_beat(ratio: Ratio, limit: float) -> bool:
    """Whether the winner may be slower by more than the margin, the ratio being its time over the other's."""
    return ratio.ci95 is not None and ratio.ci95[1] > limit


def _may_be_within(ratio: Ratio, limit: float) -> bool:
    return ratio.ci95 is not None and ratio.ci95[0] <= limit


def _separable(ratio: Ratio | None, decision: DecisionConfig, *, is_level: bool) -> bool | None:
    if ratio is None or (ratio.ci95 is None and decision.objective != "engine_bytes"):
        return None
    return ratio.value != 1 if decision.objective == "engine_bytes" else not is_level


_KNEE = 0.9  # share of the best throughput from which on larger batches gain little


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One engine over its batch sizes, ascending: its rows, and images a second.

    `knee` is the smallest batch that reaches nine tenths of the best throughput. `breaks_even` is the smallest batch
    from which on it is provably faster than the dense FP32 network at every larger one too; None where there is none.
    """

    rows: tuple[Row, ...]
    throughput_ips: tuple[float, ...]
    knee: int
    breaks_even: int | None

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batch size of each row."""
        return tuple(row.batch_size for row in self.rows)


def sweeps(rows: Sequence[Row]) -> tuple[Sweep, ...]:
    """Return the sweep of each engine that was timed at two batch sizes or more."""
    engines: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if is_measured(row):
            engines.setdefault((row.engine, row.device), []).append(row)
    ordered = [sorted(own, key=lambda row: row.batch_size) for own in engines.values() if len(own) > 1]
    return tuple(_sweep(own, rows) for own in ordered)


def knee(batch_sizes: Sequence[int], throughput_ips: Sequence[float]) -> int:
    """Return the smallest batch that reaches nine tenths of the best throughput."""
    best = max(throughput_ips)
    return next(size for size, rate in zip(batch_sizes, throughput_ips, strict=True) if rate >= _KNEE * best)


def _sweep(own: Sequence[Row], rows: Sequence[Row]) -> Sweep:
    sizes = tuple(row.batch_size for row in own)
    rates = tuple(row.throughput_ips or 1000 * row.batch_size / p50_ms(row) for row in own)
    return Sweep(
        rows=tuple(own),
        throughput_ips=rates,
        knee=knee(sizes, rates),
        breaks_even=_break_even(own, rows),
    )


def _break_even(own: Sequence[Row], rows: Sequence[Row]) -> int | None:
    """Return the smallest batch from which on a row is faster than its dense FP32 counterpart beyond the interval."""
    found = None
    for row in reversed(own):
        dense = dense_fp32_of(row, rows)
        ratio = None if dense is None or dense is row else latency_ratio(dense, row)
        if ratio is None or not ratio.is_above_one:
            return found
        found = row.batch_size
    return found
