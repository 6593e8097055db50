"""`trtbench recommend`: the decision of a run made again, from its report and the raw samples beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbench.bench.summary import timed_ratio
from trtbench.report.document import read_report
from trtbench.report.raw import read_blocks
from trtbench.report.words import recommend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from trtbench.bench.latency import TimedRow
    from trtbench.decide.ratios import PairedRatio
    from trtbench.report.document import Recommendation
    from trtbench.rows import Row
    from trtbench.suite import DecisionConfig


def decide_again(run: Path, changed: Callable[[Mapping[str, Any]], DecisionConfig]) -> Recommendation:
    """Decide a run under other limits.

    Args:
        run: a run's folder, or its report.json; without the raw samples the ratios in the report serve.
        changed: given the limits the run was decided under, returns those to use now.

    Raises:
        ConfigError: there is no report, or a limit cannot be.
    """
    report = read_report(run)
    folder = run if run.is_dir() else run.parent
    blocks = {row.name: read_blocks(folder, row) for row in report.rows if row.latency is not None}
    return recommend(report.rows, changed(report.suite.get("decision", {})), paired=paired_from(blocks))


def paired_from(
    blocks: Mapping[str, TimedRow | None], *, finals: Mapping[str, TimedRow | None] | None = None
) -> PairedRatio:
    """Answer paired ratios from the raw blocks of a run, by row name.

    Rows of the finals, which were measured side by side once more, pair with one another only.
    """
    again = finals or {}

    def ratio(first: Row, second: Row) -> tuple[float, float, float] | None:
        if (first.name in again) != (second.name in again):
            return None
        taken = again if first.name in again else blocks
        return timed_ratio(taken.get(first.name), taken.get(second.name))

    return ratio
