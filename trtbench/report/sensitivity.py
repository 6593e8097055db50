"""What would change the choice: a limit a little wider, another objective, or more samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbench.report.race import broken_by_key, drop_excess_pp
from trtbench.report.ranking import objective_cost, rank
from trtbench.report.units import BYTES_PER_MB, fixed, significant
from trtbench.report.wording import short_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbench.records import Row
    from trtbench.report.race import Race
    from trtbench.report.ranking import Podium
    from trtbench.report.ratios import PairedRatio
    from trtbench.suite import DecisionConfig, Objective

_OTHERS: dict[Objective, str] = {
    "p50_ms": "the median latency",
    "p99_ms": "the p99",
    "throughput": "the throughput",
    "engine_bytes": "the size of the file",
}


def what_would_change(
    race: Race, podium: Podium | None, decision: DecisionConfig, *, paired: PairedRatio | None = None
) -> tuple[str, ...]:
    """Return a sentence for each change of the decision that would make another row win; `podium` None: nothing won."""
    told = list(_wider_limits(race, podium, decision))
    if podium is None:
        return tuple(told)
    told += _other_objectives(race, podium, decision, paired=paired)
    if podium.separable is False and podium.runner_up is not None and decision.objective != "engine_bytes":
        told.append(
            f"Whether {short_name(podium.runner_up)} is faster than {short_name(podium.winner)} is open: more samples"
            " (bench.duration, bench.processes) may tell."
        )
    return tuple(told)


def _wider_limits(race: Race, podium: Podium | None, decision: DecisionConfig) -> Sequence[str]:
    """Name, for each limit, the nearest value at which a better row that breaks this limit alone would qualify."""
    found: dict[str, list[tuple[float, Row]]] = {}
    for row in race.entrants:
        broken = broken_by_key(row, decision)
        if len(broken) == 1 and _is_better(row, podium, race, decision):
            found.setdefault(broken[0][0], []).append((_needed(row, broken[0][0], decision), row))
    told = []
    for key, rows in found.items():
        value, row = (max if key == "min_throughput" else min)(rows, key=lambda item: item[0])
        verb = "qualify" if podium is None else "win"
        told.append(
            f"With {key} {significant(value)} instead of {_limit(decision, key)}, {short_name(row)} would {verb}."
        )
    return told


def _is_better(row: Row, podium: Podium | None, race: Race, decision: DecisionConfig) -> bool:
    if podium is None:
        return True
    cost = objective_cost(row, race.entrants, decision)
    return cost < objective_cost(podium.winner, race.entrants, decision)


def _needed(row: Row, key: str, decision: DecisionConfig) -> float:
    """Return the limit at which a row would qualify, a little beyond what it has, so that rounding does not lie."""
    assert row.latency is not None
    has = {
        "max_drop_pp": drop_excess_pp(row, decision) + decision.max_drop_pp,
        "max_engine_mb": (row.engine_bytes or 0) / BYTES_PER_MB,
        "max_p99_ms": row.latency.p99_ms or 0.0,
        "max_memory_mb": (row.memory_bytes or 0) / BYTES_PER_MB,
        "min_throughput": row.throughput_ips or 0.0,
    }[key]
    return has * (0.99 if key == "min_throughput" else 1.01)


def _limit(decision: DecisionConfig, key: str) -> str:
    return significant(getattr(decision, key)) if key != "max_drop_pp" else fixed(decision.max_drop_pp)


def _other_objectives(
    race: Race, podium: Podium, decision: DecisionConfig, *, paired: PairedRatio | None
) -> Sequence[str]:
    told = []
    for objective, words in _OTHERS.items():
        other = decision.model_copy(update={"objective": objective})
        if objective == decision.objective or not all(_has(row, objective) for row in race.qualified):
            continue
        winner = rank(race.qualified, other, paired=paired).winner
        if winner is not podium.winner:
            told.append(f"By {words} (objective {objective}), {short_name(winner)} would win.")
    return told


def _has(row: Row, objective: Objective) -> bool:
    """Whether the figure that an objective ranks by was measured."""
    assert row.latency is not None
    figures = {"p99_ms": row.latency.p99_ms, "throughput": row.throughput_ips, "engine_bytes": row.engine_bytes}
    return figures.get(objective, 0) is not None
