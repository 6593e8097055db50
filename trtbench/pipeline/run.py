"""`trtbench run`: measure a suite and write its report; `runs/latest` points at the newest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from trtbench.environment import collect_environment
from trtbench.pipeline.bench import bench_suite
from trtbench.pipeline.decide import paired_from
from trtbench.pipeline.events import Event, Listener, nobody
from trtbench.records import to_jsonable
from trtbench.report.document import Report
from trtbench.report.recommend import recommend
from trtbench.report.write import write_report
from trtbench.store import storing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from trtbench.pipeline.keeper import Places
    from trtbench.suite import Suite


def run_suite(
    suite: Suite,
    places: Places,
    *,
    argv: Sequence[str],
    now: datetime,
    stages: Mapping[str, float] | None = None,
    tell: Listener = nobody,
) -> tuple[Report, Path]:
    """Build, score and time a suite, decide, and write the report.

    Args:
        suite: the validated suite.
        places: folders.
        argv: the command, for the record.
        now: when the run began; names its folder.
        stages: seconds by stage, read when all is measured.
        tell: told of progress.

    Returns:
        The report and the folder it stands in.
    """
    run_id = f"{now:%Y%m%d-%H%M%S}-{suite.name}"
    folder = places.runs / run_id
    environment = collect_environment()
    rows, blocks = bench_suite(suite, places, folder=folder, tell=tell)
    report = Report(
        run_id=run_id,
        created=now.isoformat(timespec="seconds"),
        argv=tuple(argv),
        git=to_jsonable(environment.git) or {},
        environment=to_jsonable(environment),
        suite=suite.as_written(),
        rows=rows,
        decision=recommend(rows, suite.decision, paired=paired_from(blocks)),
        stages=dict(stages or {}),
    )
    write_report(report, folder)
    _point_latest(places.runs, folder)
    tell(Event(stage="report", item=folder.name, state="done"))
    return report, folder


def _point_latest(runs: Path, folder: Path) -> None:
    """Let runs/latest point at the folder, never at nothing."""
    with storing(runs):
        partial = runs / f".latest.{os.getpid()}"
        partial.unlink(missing_ok=True)
        partial.symlink_to(folder.name, target_is_directory=True)
        partial.replace(runs / "latest")
