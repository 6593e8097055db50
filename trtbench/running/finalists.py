"""Repeated builds of the finalists: TensorRT's builds of one graph differ, so one build each would rank its luck.

The winner and the runner-up are built again as often as the suite asks, all builds are measured side by side, and each
finalist is represented by its median build: that file is shipped, and the spread of all of them decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trtbench.decide import choose
from trtbench.engines.base import backend
from trtbench.errors import RowError
from trtbench.make.engines import build_engine
from trtbench.running.plan import BuiltEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trtbench.bench.interleave import Timing
    from trtbench.make.engines import EnginePlan
    from trtbench.make.makings import Makings
    from trtbench.rows import Row
    from trtbench.suite import DecisionConfig

    # measures engines at every batch size of the suite: rows and raw blocks by row name
    Measure = Callable[[Sequence[BuiltEngine]], tuple[Sequence[Row], Mapping[str, Timing]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepeatedBuilds:
    """What repeated builds showed: the rows of the finalists by name, and the raw blocks that pair them."""

    rows: Mapping[str, Row]
    blocks: Mapping[str, Timing]


def repeat_builds(
    makings: Makings, built: Sequence[BuiltEngine], rows: Sequence[Row], *, measure: Measure
) -> RepeatedBuilds | None:
    """Build the finalists again and measure all their builds; None where the suite asks for one build of each.

    Args:
        makings: of the suite.
        built: the first builds.
        rows: what they were measured at.
        measure: measures engines side by side.

    Raises:
        RowError: a finalist cannot be built again.
    """
    decision = makings.suite.decision
    chosen = finalists(rows, decision)
    wanted = [one for one in built if _row_name(one.plan, decision) in chosen and _is_rebuilt(one.plan)]
    if not wanted:
        return None
    builds = [again for one in wanted for again in (one, *_others(makings, one.plan))]
    measured, blocks = measure(builds)
    found, paired = {}, {}
    for one in wanted:
        of_plan = [plan.plan for plan in builds if replace(plan.plan, build=one.plan.build) == one.plan]
        median = median_build([_of(plan, measured, decision) for plan in of_plan])
        for row in measured:
            if row.name == replace(median, batch_size=row.batch_size).name:
                name = replace(row, build=one.plan.build).name
                found[name] = _representing(row, of_plan, measured, build=one.plan.build)
                paired[name] = blocks[row.name]
    return RepeatedBuilds(rows=found, blocks=paired)


def finalists(rows: Sequence[Row], decision: DecisionConfig) -> tuple[str, ...]:
    """Return the names of the winner and the runner-up; simulated rows count here as if they were real."""
    ranking = choose([replace(row, simulated=False) for row in rows], decision).ranking
    ahead = (ranking.winner, ranking.runner_up) if ranking else ()
    return tuple(row.name for row in ahead if row is not None)


def median_build(rows: Sequence[Row]) -> Row:
    """Return the row with the median p50; of an even number the slower of the two in the middle."""
    timed = [row for row in rows if row.latency is not None]
    if not timed:
        raise RowError("repeated builds", expected="at least one that was timed", got="none")
    return sorted(timed, key=lambda row: row.latency.p50_ms if row.latency else 0.0)[len(timed) // 2]


def _representing(row: Row, plans: Sequence[EnginePlan], measured: Sequence[Row], *, build: int) -> Row:
    """Return the row of the median build under the engine's own name, with the spread of all builds."""
    names = {replace(row, build=plan.build).name for plan in plans}
    spread = tuple(one.latency.p50_ms for one in measured if one.name in names and one.latency is not None)
    return replace(row, build=build, builds_p50_ms=spread)


def _others(makings: Makings, plan: EnginePlan) -> list[BuiltEngine]:
    """Build an engine again, as often as is asked, each time as another file."""
    found = []
    for number in range(2, plan.config.builds + 1):
        again = replace(plan, build=number)
        path, sidecar = build_engine(makings, again)
        found.append(BuiltEngine(plan=again, status="ok", path=path, sidecar=sidecar))
    return found


def _is_rebuilt(plan: EnginePlan) -> bool:
    return plan.config.builds > 1 and backend(plan.backend).takes_options


def _row_name(plan: EnginePlan, decision: DecisionConfig) -> str:
    return f"{plan.name} b{decision.batch_size}"


def _of(plan: EnginePlan, rows: Sequence[Row], decision: DecisionConfig) -> Row:
    return next(row for row in rows if row.name == _row_name(plan, decision))
