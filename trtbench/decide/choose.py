"""Which variant to ship, and what would change that: the answer as data. `report.words` says it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trtbench.decide.limits import assess, looked_at
from trtbench.decide.rank import objective_cost, objective_ratio, rank, size_cost, undominated
from trtbench.decide.ratios import counterpart, dense_fp32_of, latency_ratio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trtbench.decide.limits import Assessment, LimitKey
    from trtbench.decide.rank import Ranking
    from trtbench.decide.ratios import PairedRatio, Ratio
    from trtbench.rows import Row
    from trtbench.suite import DecisionConfig, Objective

_TWICE = 2.0  # as far from a limit as a change of it is worth telling: beyond, nobody would set it
_POINT = 1.0  # pp: as far from any limit of the drop, a small one has no room of its own
_OBJECTIVES: tuple[Objective, ...] = ("p50_ms", "p99_ms", "throughput", "engine_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """A row that the winner is held against, and its time over the winner's."""

    row: Row
    ratio: Ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherLimit:
    """With this limit at `value`, a little beyond what the row has, the row would be recommended."""

    key: LimitKey
    value: float
    row: Row


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherObjective:
    """By this objective the row would be recommended."""

    objective: Objective
    row: Row


@dataclass(frozen=True, slots=True, kw_only=True)
class MoreSamples:
    """The intervals are too wide to decide between the row and the winner; more samples may."""

    row: Row


Change = OtherLimit | OtherObjective | MoreSamples


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The answer, and what it rests on.

    `assessments` are of every row, in their order. `ranking` is None where nothing qualifies; then `closest` breaks
    fewest limits, None where no row can be compared. `pareto` are the comparable rows that no other beats in accuracy,
    latency and size together, latencies that cannot be told apart counting as equal. `dense` is the dense FP32
    network, where that is not the winner itself; `slower_int8` the winner's INT8 twin, where it is slower.
    """

    decision: DecisionConfig
    assessments: tuple[Assessment, ...]
    ranking: Ranking | None
    closest: Assessment | None
    pareto: tuple[Row, ...]
    changes: tuple[Change, ...]
    dense: Against | None = None
    slower_int8: Against | None = None

    @property
    def compared(self) -> tuple[Row, ...]:
        """The rows that could be compared."""
        return tuple(one.row for one in self.assessments if one.obstacle is None)

    @property
    def engines(self) -> int:
        """How many engines were looked at: their bounds hold together."""
        return looked_at(self.compared)

    @property
    def losers(self) -> tuple[Assessment, ...]:
        """Every row but the winner."""
        winner = self.ranking.winner if self.ranking else None
        return tuple(one for one in self.assessments if one.row is not winner)


def choose(rows: Sequence[Row], decision: DecisionConfig, *, paired: PairedRatio | None = None) -> Choice:
    """Choose the row to ship.

    Only candidates that are ok, real, scored and timed at the decision's batch size are compared; on a GPU wherever
    one was tried. Of those that provably keep every limit the best objective wins, or the smallest file that is proven
    to be as fast within the margin.

    Args:
        rows: every row of the report.
        decision: limits and objective.
        paired: answers the paired latency ratio of two rows from raw blocks, as (ratio, low, high), or None; without
            it the ratios to the anchor that the rows carry serve.
    """
    assessments = assess(rows, decision)
    qualified = [one.row for one in assessments if one.is_qualified]
    ranking = rank(qualified, decision, paired=paired) if qualified else None
    compared = [one.row for one in assessments if one.obstacle is None]
    return Choice(
        decision=decision,
        assessments=tuple(_with_ratio(one, ranking, decision, paired=paired) for one in assessments),
        ranking=ranking,
        closest=None if ranking else _closest(assessments),
        pareto=_pareto(compared, paired=paired),
        changes=what_would_change(assessments, ranking, decision, paired=paired),
        dense=_against(dense_fp32_of(ranking.winner, rows), ranking.winner, paired=paired) if ranking else None,
        slower_int8=slower_int8(rows, ranking.winner, paired=paired) if ranking else None,
    )


def slower_int8(rows: Sequence[Row], row: Row, *, paired: PairedRatio | None = None) -> Against | None:
    """Return the INT8 twin of an FP32 row, where it is slower; None where it is not, or was not measured."""
    twin = counterpart(row, rows, precision="int8") if row.precision == "fp32" else None
    found = _against(twin, row, paired=paired)
    return found if found is not None and found.ratio.is_above_one else None


def _against(other: Row | None, row: Row, *, paired: PairedRatio | None) -> Against | None:
    ratio = None if other is None or other is row else latency_ratio(other, row, paired=paired)
    return None if other is None or ratio is None else Against(row=other, ratio=ratio)


def _with_ratio(
    one: Assessment, ranking: Ranking | None, decision: DecisionConfig, *, paired: PairedRatio | None
) -> Assessment:
    if ranking is None or not one.is_qualified or one.row is ranking.winner:
        return one
    return replace(one, ratio=objective_ratio(one.row, ranking.winner, decision, paired=paired))


def _closest(assessments: Sequence[Assessment]) -> Assessment | None:
    """Return what breaks fewest limits, then what may have lost least, then the smallest."""
    return min(
        (one for one in assessments if one.obstacle is None),
        key=lambda one: (
            len(one.broken),
            *(one.drop_upper_pp or 0.0, one.score_drop_upper or 0.0, -(one.fidelity_low_db or 0.0)),
            size_cost(one.row),
        ),
        default=None,
    )


def _pareto(rows: Sequence[Row], *, paired: PairedRatio | None) -> tuple[Row, ...]:
    def compare(first: int, second: int) -> tuple[int, int, int]:
        return _respects(rows[first], rows[second], paired=paired)

    return tuple(rows[index] for index in undominated(len(rows), compare=compare))


def _respects(first: Row, second: Row, *, paired: PairedRatio | None) -> tuple[int, int, int]:
    """Compare two rows in accuracy, latency and size: -1 where the first is better, 0 where none is."""
    ratio = latency_ratio(first, second, paired=paired)
    assert ratio is not None  # comparable rows are timed, at one batch size
    low, high = ratio.ci95 or (ratio.value, ratio.value)
    return (
        _sign(_quality(second) - _quality(first)),
        1 if low > 1 else -1 if high < 1 else 0,
        _sign(size_cost(first) - size_cost(second)),
    )


def _quality(row: Row) -> float:
    """Return the share of images that a comparable row gets right; without labels its score, or its fidelity in dB."""
    if row.accuracy is not None:
        return row.accuracy.top1
    assert row.fidelity is not None, "a comparable row is scored"
    if row.fidelity.score is not None:
        return row.fidelity.score.mean
    return math.inf if row.fidelity.snr_db is None else row.fidelity.snr_db


def _sign(value: float) -> int:
    """Return the sign; two files of unknown size, or two exact networks, differ by NaN, which is none."""
    return (value > 0) - (value < 0)


def what_would_change(
    assessments: Sequence[Assessment],
    ranking: Ranking | None,
    decision: DecisionConfig,
    *,
    paired: PairedRatio | None = None,
) -> tuple[Change, ...]:
    """Return each change of the decision that would let another row win; without a ranking, that would let any."""
    found: list[Change] = [*_other_limits(assessments, ranking, decision)]
    if ranking is None:
        return tuple(found)
    qualified = [one.row for one in assessments if one.is_qualified]
    found += _other_objectives(qualified, ranking, decision, paired=paired)
    found += [MoreSamples(row=row) for row in ranking.undecided[:1]]
    return tuple(found)


def _other_limits(
    assessments: Sequence[Assessment], ranking: Ranking | None, decision: DecisionConfig
) -> Iterator[OtherLimit]:
    """Yield for each limit the nearest value at which a better row breaks none, as far as a user might set it."""
    compared = [one for one in assessments if one.obstacle is None]
    rows = [one.row for one in compared]
    found: dict[LimitKey, list[OtherLimit]] = {}
    for one in compared:
        if len(one.broken) == 1 and _is_better(one.row, ranking, rows, decision):
            (broken,) = one.broken
            beyond = 0.99 if broken.key.startswith("min_") else 1.01  # so that rounding does not lie
            change = OtherLimit(key=broken.key, value=broken.value * beyond, row=one.row)
            if _might_be_set(change, broken.limit):
                found.setdefault(broken.key, []).append(change)
    for key, changes in found.items():
        yield (max if key.startswith("min_") else min)(changes, key=lambda change: change.value)


def _might_be_set(change: OtherLimit, limit: float) -> bool:
    if change.key == "min_throughput":
        return change.value >= limit / _TWICE
    return change.value <= max(_TWICE * limit, limit + _POINT if change.key == "max_drop_pp" else 0.0)


def _is_better(row: Row, ranking: Ranking | None, among: Sequence[Row], decision: DecisionConfig) -> bool:
    if ranking is None:
        return True
    return objective_cost(row, among, decision) < objective_cost(ranking.winner, among, decision)


def _other_objectives(
    qualified: Sequence[Row], ranking: Ranking, decision: DecisionConfig, *, paired: PairedRatio | None
) -> Iterator[OtherObjective]:
    for objective in _OBJECTIVES:
        other = decision.model_copy(update={"objective": objective})
        if objective == decision.objective or not all(_has(row, objective) for row in qualified):
            continue
        winner = rank(qualified, other, paired=paired).winner
        if winner is not ranking.winner:
            yield OtherObjective(objective=objective, row=winner)


def _has(row: Row, objective: Objective) -> bool:
    assert row.latency is not None
    figures = {"p99_ms": row.latency.p99_ms, "throughput": row.throughput_ips, "engine_bytes": row.engine_bytes}
    return figures.get(objective, 0) is not None
