"""More processes where the intervals are too wide to decide, as long as the suite's budget of timing lasts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from trtbench.bench.measure import time_again
from trtbench.decide import choose
from trtbench.decide.rank import objective_ratio, processes_needed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbench.bench.records import Bench, Measured
    from trtbench.decide.rank import Ranking
    from trtbench.decide.ratios import PairedRatio
    from trtbench.rows import Row
    from trtbench.suite import DecisionConfig

_HALF_AGAIN = 0.5  # of what the plan took, where the suite has no budget of its own


def sample_on(
    found: Sequence[Measured], rows: Sequence[Row], bench: Bench, decision: DecisionConfig, *, paired: PairedRatio
) -> bool:
    """Time more processes of the winner and of the rows that the choice is open against; say whether any were.

    How many is settled once, by the spread that was seen (`processes_needed`). Simulated rows count as if they were
    real.

    Args:
        found: what was measured; the new processes are added to it.
        rows: the rows of it.
        bench: of the measurement so far, whose seconds the budget is held against.
        decision: of the suite.
        paired: the ratios of rows.
    """
    ranking = choose([replace(row, simulated=False) for row in rows], decision, paired=paired).ranking
    if ranking is None or not ranking.undecided:
        return False
    undecided = _undecided(found, ranking)
    spent, number = sum(bench.seconds.values()), 0
    budget = bench.config.budget_s or (1 + _HALF_AGAIN) * spent
    wanted = _processes(ranking, decision, bench.config.processes, paired=paired)
    # What one more takes is as much of what the last one took as there are rows in it.
    last = list(bench.seconds.values())[-1] * len(undecided) / len(found)
    while number < wanted - bench.config.processes and spent + last <= budget:
        last = time_again(undecided, bench, number=number)
        spent, number = spent + last, number + 1
    return number > 0


def _undecided(found: Sequence[Measured], ranking: Ranking) -> list[Measured]:
    """Return what is undecided; the anchor runs beside it, so that ratios to it tell the same."""
    names = {row.name for row in (ranking.winner, *ranking.undecided)}
    anchor = found[0].engine.name
    return [
        one
        for one in found
        if one.batch_size == ranking.winner.batch_size
        and one.error is None
        and (one.engine.name == anchor or f"{one.engine.name} b{one.batch_size}" in names)
    ]


def _processes(ranking: Ranking, decision: DecisionConfig, processes: int, *, paired: PairedRatio) -> int:
    ratios = (objective_ratio(row, ranking.winner, decision, paired=paired) for row in ranking.undecided)
    return max(processes_needed(ratio, processes, margin=decision.margin) for ratio in ratios)
