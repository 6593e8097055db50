"""`trtbench run`: measure a suite and write its report; `runs/latest` points at the newest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from trtbench.decide import choose
from trtbench.decide.limits import held_against
from trtbench.environment import collect_environment, using_gpu
from trtbench.jsonable import to_jsonable
from trtbench.progress import Event, Listener, Stages, nobody
from trtbench.report.disk import write_report
from trtbench.report.document import Report
from trtbench.report.remarks import advice, texts
from trtbench.report.words import in_words, look_words
from trtbench.running.again import paired_from
from trtbench.running.bench import bench_suite
from trtbench.running.looks import remember_look
from trtbench.running.origin import write_origin
from trtbench.store import storing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from trtbench.make.makings import Places
    from trtbench.suite import Suite


def run_suite(
    suite: Suite,
    places: Places,
    *,
    argv: Sequence[str],
    now: datetime,
    tell: Listener = nobody,
) -> tuple[Report, Path]:
    """Build, score and time a suite, decide, and write the report; one that is interrupted leaves what it had.

    Args:
        suite: the validated suite.
        places: folders.
        argv: the command, for the record.
        now: when the run began; names its folder.
        tell: told of progress.

    Returns:
        The report and the folder it stands in.

    Raises:
        CapabilityError: the suite names a GPU that is not here.
        KeyboardInterrupt: someone stopped it; the report is written, and says so.
    """
    run_id = f"{now:%Y%m%d-%H%M%S}-{suite.name}"
    folder = places.runs / run_id
    stages = Stages(tell)
    with using_gpu(suite.device):
        environment = collect_environment()
        results = bench_suite(suite, places, folder=folder, tell=stages)
    rows = tuple(held_against(row, suite.decision) for row in results.rows)
    facts = to_jsonable(environment)
    paired = paired_from(rows, results.blocks, repeated=results.repeated)
    choice = choose(rows, suite.decision, paired=paired)
    engines = {row.engine_sha256 for row in choice.compared if row.engine_sha256}
    looks = remember_look(places.runs, results.test_sha256, engines)
    looked = look_words(choice, number=looks.number, engines=looks.engines)
    interrupted = ("The run was interrupted: rows that were not reached are skipped.",) * results.is_interrupted
    report = Report(
        run_id=run_id,
        created=now.isoformat(timespec="seconds"),
        argv=tuple(argv),
        git=to_jsonable(environment.git) or {},
        environment=facts,
        suite=suite.as_written(),
        rows=rows,
        decision=in_words(rows, choice),
        stages=stages.seconds,
        notes=(*interrupted, *looked, *results.notes, *texts(advice(rows, results.telemetry, facts))),
        telemetry=results.telemetry,
    )
    write_report(report, folder)
    write_origin(folder, suite, places)
    _point_latest(places.runs, folder)
    tell(Event(stage="report", item=folder.name, state="done"))
    if results.is_interrupted:
        raise KeyboardInterrupt
    return report, folder


def _point_latest(runs: Path, folder: Path) -> None:
    """Let runs/latest point at the folder, never at nothing."""
    with storing(runs):
        partial = runs / f".latest.{os.getpid()}"
        partial.unlink(missing_ok=True)
        partial.symlink_to(folder.name, target_is_directory=True)
        partial.replace(runs / "latest")
