"""`trtbench run`: measure a suite and write its report; `runs/latest` points at the newest."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trtbench.decide import choose
from trtbench.decide.limits import held_against
from trtbench.disk import storing
from trtbench.ending import unstoppable
from trtbench.environment import collect_environment, using_gpu
from trtbench.errors import StoreError
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

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from trtbench.environment.facts import Environment
    from trtbench.make.makings import Places
    from trtbench.running.bench import Results
    from trtbench.suite import Suite


def run_suite(
    suite: Suite,
    places: Places,
    *,
    argv: Sequence[str],
    now: datetime,
    tell: Listener = nobody,
    kind: str = "",
) -> tuple[Report, Path]:
    """Build, score and time a suite, decide, and write the report; one that is interrupted leaves what it had.

    Args:
        suite: the validated suite.
        places: folders.
        argv: the command, for the record.
        now: when the run began; names its folder.
        tell: told of progress.
        kind: of device, where the suite runs on several; the folder's name ends in it.

    Returns:
        The report and the folder it stands in.

    Raises:
        CapabilityError: the suite names a GPU that is not here.
        StoreError: something cannot be written; what was measured before is reported all the same.
        KeyboardInterrupt: someone stopped it; the report is written, and says so.
    """
    stages = Stages(tell)
    with _run_folder(places.runs, run_name(suite, now, kind)) as folder:
        with using_gpu(suite.device):
            environment = collect_environment()
            results = bench_suite(suite, places, folder=folder, tell=stages)
        with unstoppable():
            report = _report(suite, places, results, environment)
            created = now.isoformat(timespec="seconds")
            report = replace(report, run_id=folder.name, created=created, argv=tuple(argv), stages=stages.seconds)
            _keep(report, folder)
            write_origin(folder, suite, places, artefacts=results.artefacts)
            point_latest(places.runs, folder)
            tell(Event(stage="report", item=folder.name, state="done"))
    if results.stopped is not None:
        raise results.stopped
    return report, folder


def run_name(suite: Suite, now: datetime, kind: str = "") -> str:
    """Return the name of a run that began now, on a kind of device of a fleet."""
    return "-".join(filter(None, (f"{now:%Y%m%d-%H%M%S}", suite.name, kind)))


@contextlib.contextmanager
def _run_folder(runs: Path, name: str) -> Iterator[Path]:
    """Make a folder that is this run's alone; one that is left empty goes away again.

    Raises:
        StoreError: it cannot be made, or runs/latest is no link, so that it could not point at the report.
    """
    latest = runs / "latest"
    if latest.exists() and not latest.is_symlink():
        cure = "move it away, or choose another folder with --out"
        raise StoreError(str(latest), expected="a link to the newest run", got="a file or folder", cure=cure)
    folder = runs / name
    with storing(folder):
        runs.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(2):
            try:
                folder.mkdir()
                break
            except FileExistsError:
                folder = runs / f"{name}-{number}"
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # it holds something
            folder.rmdir()


def _report(suite: Suite, places: Places, results: Results, environment: Environment) -> Report:
    """Decide, and say all that is known, but for when it was, by which command, and what took how long."""
    rows = tuple(held_against(row, suite.decision) for row in results.rows)
    facts = to_jsonable(environment)
    choice = choose(rows, suite.decision, paired=paired_from(rows, results.blocks, repeated=results.repeated))
    engines = {row.engine_sha256 for row in choice.compared if row.engine_sha256}
    looks = remember_look(places.runs, results.test_sha256, engines)
    looked = look_words(choice, number=looks.number, engines=looks.engines)
    return Report(
        run_id="",
        created="",
        argv=(),
        git=to_jsonable(environment.git) or {},
        environment=facts,
        suite=suite.as_written(),
        rows=rows,
        decision=in_words(rows, choice),
        notes=(*_stopped_words(results), *looked, *results.notes, *texts(advice(rows, results.telemetry, facts))),
        telemetry=results.telemetry,
    )


def _stopped_words(results: Results) -> Iterator[str]:
    if results.stopped is not None:
        why = f" ({results.stopped})" if isinstance(results.stopped, StoreError) else ""
        yield f"The run was interrupted{why}: rows that were not reached are skipped."


def _keep(report: Report, folder: Path) -> None:
    """Write the report; where the folder cannot hold it, elsewhere, so that what was measured is not lost.

    Raises:
        StoreError: the folder cannot hold it.
    """
    try:
        write_report(report, folder)
    except StoreError as error:
        with storing(Path(tempfile.gettempdir()) / "report.json"):
            elsewhere = Path(tempfile.mkdtemp(prefix=f"trtbench-{report.run_id}-"))
        write_report(report, elsewhere)
        cure = f"what was measured is kept in {elsewhere}; {error.cure}"
        raise StoreError(error.what, got=error.got, cure=cure) from error


def point_latest(runs: Path, folder: Path) -> None:
    """Let runs/latest point at the folder, never at nothing."""
    with storing(runs):
        partial = runs / f".latest.{os.getpid()}"
        partial.unlink(missing_ok=True)
        partial.symlink_to(folder.name, target_is_directory=True)
        partial.replace(runs / "latest")
