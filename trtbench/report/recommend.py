"""Which variant to ship: the answer as a record, with its sentence and why each of the others lost."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.report.pareto import undominated
from trtbench.report.race import broken_limits, drop_excess_pp, enter
from trtbench.report.ranking import rank, size_cost
from trtbench.report.ratios import latency_ratio
from trtbench.report.sensitivity import what_would_change
from trtbench.report.wording import beaten, nothing_qualifies, ship
from trtbench.suite import Objective  # noqa: TC001  the report's reader resolves it at run time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbench.records import Row
    from trtbench.report.race import Race
    from trtbench.report.ratios import PairedRatio
    from trtbench.suite import DecisionConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Loser:
    """A row that is not recommended, by name, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The answer, and the limits it was given for; rows are told by their names.

    `ratio` is the runner-up's objective over the winner's. `separable` is False where the interval of that ratio holds
    1, None where there is no runner-up or no interval. `closest` is named only where nothing qualifies. `pareto` are
    the comparable rows that no other beats in accuracy, latency and size together, latencies that cannot be told apart
    counting as equal. `what_if` says what would change the choice.
    """

    batch_size: int
    objective: Objective
    max_drop_pp: float
    max_engine_mb: float | None
    sentence: str
    winner: str | None = None
    runner_up: str | None = None
    closest: str | None = None
    separable: bool | None = None
    ratio: float | None = None
    ratio_ci95: tuple[float, float] | None = None
    pareto: tuple[str, ...] = ()
    losers: tuple[Loser, ...] = ()
    max_p99_ms: float | None = None
    max_memory_mb: float | None = None
    min_throughput: float | None = None
    what_if: tuple[str, ...] = ()


def recommend(rows: Sequence[Row], decision: DecisionConfig, *, paired: PairedRatio | None = None) -> Recommendation:
    """Choose the row to ship.

    Only candidates that are ok, real, scored and timed at the decision's batch size are compared; on a GPU wherever
    one was tried. Of those that provably keep every limit the best objective wins; among rows whose paired latency is
    not separable from the best, the one with the fewest bytes.

    Args:
        rows: every row of the report.
        decision: limits and objective.
        paired: answers the paired latency ratio of two rows from raw blocks, as (ratio, low, high), or None; without
            it the ratios to the anchor that the rows carry serve.
    """
    race = enter(rows, decision)
    return _decided(rows, race, decision, paired) if race.qualified else _undecided(rows, race, decision, paired)


def _decided(rows: Sequence[Row], race: Race, decision: DecisionConfig, paired: PairedRatio | None) -> Recommendation:
    podium = rank(race.qualified, decision, paired=paired)
    losers = tuple(
        Loser(name=row.name, reason=reason or beaten(row, podium, decision, paired=paired))
        for row, reason in zip(rows, race.reasons, strict=True)
        if row is not podium.winner
    )
    return dataclasses.replace(
        _answer(race, decision, sentence=ship(rows, podium, decision, paired=paired), losers=losers, paired=paired),
        what_if=what_would_change(race, podium, decision, paired=paired),
        winner=podium.winner.name,
        runner_up=podium.runner_up.name if podium.runner_up else None,
        separable=podium.separable,
        ratio=podium.ratio.value if podium.ratio else None,
        ratio_ci95=podium.ratio.ci95 if podium.ratio else None,
    )


def _undecided(rows: Sequence[Row], race: Race, decision: DecisionConfig, paired: PairedRatio | None) -> Recommendation:
    closest = min(
        race.entrants,
        key=lambda row: (len(broken_limits(row, decision)), drop_excess_pp(row, decision), size_cost(row)),
        default=None,
    )
    losers = tuple(Loser(name=row.name, reason=reason) for row, reason in zip(rows, race.reasons, strict=True))
    sentence = nothing_qualifies(rows, race, closest, decision)
    return dataclasses.replace(
        _answer(race, decision, sentence=sentence, losers=losers, paired=paired),
        what_if=what_would_change(race, None, decision, paired=paired),
        closest=closest.name if closest else None,
    )


def _answer(
    race: Race, decision: DecisionConfig, *, sentence: str, losers: tuple[Loser, ...], paired: PairedRatio | None
) -> Recommendation:
    entrants = race.entrants

    def compare(first: int, second: int) -> tuple[int, int, int]:
        return _respects(entrants[first], entrants[second], paired=paired)

    return Recommendation(
        batch_size=decision.batch_size,
        objective=decision.objective,
        max_drop_pp=decision.max_drop_pp,
        max_engine_mb=decision.max_engine_mb,
        max_p99_ms=decision.max_p99_ms,
        max_memory_mb=decision.max_memory_mb,
        min_throughput=decision.min_throughput,
        sentence=sentence,
        pareto=tuple(entrants[index].name for index in undominated(len(entrants), compare=compare)),
        losers=losers,
    )


def _respects(first: Row, second: Row, *, paired: PairedRatio | None) -> tuple[int, int, int]:
    """Compare two entrants in accuracy, latency and size: -1 where the first is better, 0 where none is."""
    assert first.accuracy is not None
    assert second.accuracy is not None
    ratio = latency_ratio(first, second, paired=paired)
    assert ratio is not None  # entrants are timed, at one batch size
    low, high = ratio.ci95 or (ratio.value, ratio.value)
    return (
        _sign(second.accuracy.top1 - first.accuracy.top1),
        1 if low > 1 else -1 if high < 1 else 0,
        _sign(size_cost(first) - size_cost(second)),
    )


def _sign(value: float) -> int:
    """Return the sign; two files of unknown size differ by NaN, which is none."""
    return (value > 0) - (value < 0)
