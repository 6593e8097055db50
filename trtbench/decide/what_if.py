"""What would change the choice: a limit a little wider, another objective, or more samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.decide.rank import objective_cost, rank

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trtbench.decide.limits import Assessment, LimitKey
    from trtbench.decide.rank import Ranking
    from trtbench.decide.ratios import PairedRatio
    from trtbench.rows import Row
    from trtbench.suite import DecisionConfig, Objective

_OBJECTIVES: tuple[Objective, ...] = ("p50_ms", "p99_ms", "throughput", "engine_bytes")


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
    """The row cannot be told apart from the winner; more samples may."""

    row: Row


Change = OtherLimit | OtherObjective | MoreSamples


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
    if ranking.separable is False and ranking.runner_up is not None and decision.objective != "engine_bytes":
        found.append(MoreSamples(row=ranking.runner_up))
    return tuple(found)


def _other_limits(
    assessments: Sequence[Assessment], ranking: Ranking | None, decision: DecisionConfig
) -> Iterator[OtherLimit]:
    """Yield, for each limit, the nearest value at which a better row that breaks this limit alone would qualify."""
    compared = [one for one in assessments if one.obstacle is None]
    rows = [one.row for one in compared]
    found: dict[LimitKey, list[OtherLimit]] = {}
    for one in compared:
        if len(one.broken) == 1 and _is_better(one.row, ranking, rows, decision):
            (broken,) = one.broken
            beyond = 0.99 if broken.key == "min_throughput" else 1.01  # so that rounding does not lie
            change = OtherLimit(key=broken.key, value=broken.value * beyond, row=one.row)
            found.setdefault(broken.key, []).append(change)
    for key, changes in found.items():
        yield (max if key == "min_throughput" else min)(changes, key=lambda change: change.value)


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
    """Whether the figure that an objective ranks by was measured."""
    assert row.latency is not None
    figures = {"p99_ms": row.latency.p99_ms, "throughput": row.throughput_ips, "engine_bytes": row.engine_bytes}
    return figures.get(objective, 0) is not None
