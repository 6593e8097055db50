"""`trtbench run`: measure a suite and write its report; `runs/latest` points at the newest.

Beside the report stands where it was made: its suite with this machine's paths, and its folders. Beside the runs stands
how often a test split was looked at: a suite run again and again until something passes has chosen among them all.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import logging
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench.bench.measure import measure_engines
from trtbench.bench.processes import mapped
from trtbench.decide import choose
from trtbench.decide.limits import held_against
from trtbench.disk import storing, write_atomically
from trtbench.ending import unstoppable
from trtbench.environment import collect_environment, using_gpu
from trtbench.errors import ConfigError, StoreError
from trtbench.foreign import MISFITS, read_json
from trtbench.jsonable import to_jsonable
from trtbench.make.makings import Makings, Places
from trtbench.progress import Event, Listener, Stages, logged, nobody
from trtbench.report.disk import write_report
from trtbench.report.document import Report, read_report
from trtbench.report.remarks import advice, observations
from trtbench.report.words import in_words, look_words
from trtbench.running.again import paired_from
from trtbench.running.bench import Session, engine_files
from trtbench.running.plan import built_engines
from trtbench.store import LISTING
from trtbench.suite import Suite, options

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from datetime import datetime

    from trtbench.environment.facts import Environment
    from trtbench.train import EpochRecord

_LOG = logging.getLogger(__name__)
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP}  # symlink(2), of exFAT and some shares
LOOKS, _ORIGIN = ".looks.json", "origin.json"  # beside the runs: it is of what was decided, not of what was made


def remember_look(runs: Path, test_sha256: str, engines: Collection[str]) -> tuple[int, int]:
    """Write down that a decision looked at these engines on this test split; one at no new engine is no new look.

    A file that cannot be read is begun anew: it serves a warning, and a run must not fail by it, nor by a full disk.

    Args:
        runs: the folder of the runs.
        test_sha256: of the images and labels.
        engines: sha256 of each file.

    Returns:
        The number of the look, and how many engines all looks so far were at; equal files are one.
    """
    path = runs / LOOKS
    seen = _seen(path)
    looks: list[list[str]] = seen.setdefault(test_sha256, [])
    new = set(engines).difference(*looks)
    if new:
        looks.append(sorted(new))
        with contextlib.suppress(StoreError):
            write_atomically(path, json.dumps(seen, indent=1) + "\n")
    return len(looks), sum(map(len, looks))


def _seen(path: Path) -> dict[str, Any]:
    """Return by test split which engines each look was the first at."""
    try:
        with storing(path):
            found = read_json(path) if path.exists() else {}
    except ValueError:
        return {}
    is_whole = isinstance(found, dict) and all(isinstance(look, list) for looks in found.values() for look in looks)
    return found if is_whole else {}


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
    with (
        _run_folder(places.runs, run_name(suite, now, kind)) as folder,
        logged(folder, argv=argv, tell=tell) as listener,
    ):
        stages = Stages(listener)
        with using_gpu(suite.device), Makings(suite, places, tell=stages) as makings:
            environment = collect_environment()
            built = list(built_engines(makings))
            with mapped(makings.dataset.test.images, folder) as images:
                session = Session(makings, built, folder, images=images)
                try:
                    with session.watch:
                        measure_engines(engine_files(built, suite), session.bench, found=session.found)
                    session.score_exactly()
                    session.sample_on(*session.rows(built, session.found))
                    session.build_again(session.rows(built, session.found)[0])
                except (KeyboardInterrupt, StoreError) as error:
                    session.stopped = error
            with unstoppable():
                report = _report(makings, session, environment)
                created = now.isoformat(timespec="seconds")
                report = replace(report, run_id=folder.name, created=created, argv=tuple(argv), stages=stages.seconds)
                with _kept_elsewhere(report):
                    write_report(report, folder)
                write_origin(folder, suite, places, artefacts=makings.book.store.held)
                point_latest(places.runs, folder)
                listener(Event(stage="report", item=folder.name, state="done"))
        if session.stopped is not None:
            raise session.stopped
    return report, folder


def run_name(suite: Suite, now: datetime, kind: str = "") -> str:
    """Return the name of a run that began now, on a kind of device of a fleet."""
    return "-".join(filter(None, (f"{now:%Y%m%d-%H%M%S}", suite.name, kind)))


@contextlib.contextmanager
def _run_folder(runs: Path, name: str) -> Iterator[Path]:
    """Make a folder that is this run's alone; one that is left empty goes away again.

    StoreError where runs/latest is no link: it could not point at the report.
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


def _report(makings: Makings, session: Session, environment: Environment) -> Report:
    """Decide, and say all that is known, but for when it was, by which command, and what took how long."""
    suite, facts, telemetry = makings.suite, to_jsonable(environment), session.watch.summary()
    found, blocks, repeated = session.final()
    rows = held_against(found, suite.decision)
    paired = paired_from(rows, blocks, repeated=repeated)
    choice = choose(rows, suite.decision, paired=paired)
    engines = {row.engine_sha256 for row in choice.compared if row.engine_sha256}
    number, all_engines = remember_look(makings.places.runs, makings.dataset.test.sha256, engines)
    looked = look_words(choice, number=number, engines=all_engines)
    why = f" ({session.stopped})" if isinstance(session.stopped, StoreError) else ""
    stopped = [f"The run was interrupted{why}: rows that were not reached are skipped."] if session.stopped else []
    return Report(
        run_id="",
        created="",
        argv=(),
        git=to_jsonable(environment.git) or {},
        environment=facts,
        suite=suite.as_written(),
        rows=rows,
        decision=in_words(rows, choice),
        notes=(*stopped, *looked, *session.notes, *advice(rows, telemetry, facts)),
        telemetry=telemetry,
        observations=observations(rows, paired=paired),
    )


@contextlib.contextmanager
def _kept_elsewhere(report: Report) -> Iterator[None]:
    """Write a report that its folder cannot hold to another, so that what was measured is not lost, and say so."""
    try:
        yield
    except StoreError as error:
        with storing(Path(tempfile.gettempdir()) / "report.json"):
            elsewhere = Path(tempfile.mkdtemp(prefix=f"trtbench-{report.run_id}-"))
        write_report(report, elsewhere)
        cure = f"what was measured is kept in {elsewhere}; {error.cure}"
        raise StoreError(error.what, got=error.got, cure=cure) from error


def point_latest(runs: Path, folder: Path) -> None:
    """Let runs/latest point at the folder, never at nothing; where the file system has no such links, it is logged."""
    with storing(runs):
        partial = runs / f".latest.{os.getpid()}"
        partial.unlink(missing_ok=True)
        try:
            partial.symlink_to(folder.name, target_is_directory=True)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _LOG.warning("%s cannot point at %s: its file system has no symbolic links", runs / "latest", folder)
            return
        partial.replace(runs / "latest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a run was made of: `folder` is where it was started, from which its rows name their engines."""

    suite: Suite
    places: Places
    folder: Path


def write_origin(run: Path, suite: Suite, places: Places, *, artefacts: Collection[str] = ()) -> None:
    """Keep what a run is made of in its folder, and the names of the artefacts it used.

    Raises:
        StoreError: it cannot be written.
    """
    kept = {
        "folder": str(Path.cwd()),
        "runs": str(places.runs.absolute()),
        "engines": str(places.engines.absolute()),
        "calib": None if places.calib is None else str(places.calib.absolute()),
        "job": None if places.job is None else str(places.job.absolute()),
        "suite": suite.model_dump(mode="json"),
        "artefacts": sorted(artefacts),
    }
    write_atomically(run / _ORIGIN, json.dumps(kept, indent=1))


def read_origin(run: Path) -> Origin:
    """Return what a run was made of; of one that kept nothing, what its report says, read from this folder.

    Raises:
        ConfigError: there is no report, or what was kept is damaged.
    """
    folder = run if run.is_dir() else run.parent
    try:
        kept = read_json(folder / _ORIGIN)
        calib, job = (kept.get(key) and Path(kept[key]) for key in ("calib", "job"))
        places = Places(runs=Path(kept["runs"]), engines=Path(kept["engines"]), calib=calib, job=job)
        return Origin(suite=options(Suite, **kept["suite"]), places=places, folder=Path(kept["folder"]))
    except FileNotFoundError:
        suite = options(Suite, **read_report(run).suite)
        return Origin(suite=suite, places=Places(runs=folder.resolve().parent), folder=Path.cwd())
    except MISFITS as error:
        cure = "run the suite again"
        raise ConfigError(f"{folder / _ORIGIN}", expected="a whole file", got=repr(error), cure=cure) from error


def artefacts_of_reports(runs: Path) -> set[str]:
    """Return the names of the artefacts that the runs below a folder used."""
    found = set[str]()
    for origin in runs.glob(f"*/{_ORIGIN}"):
        with contextlib.suppress(*MISFITS):
            found |= set(read_json(origin)["artefacts"])
    return found


def training_curves(run: Path) -> dict[str, tuple[EpochRecord, ...]]:
    """Return the epochs of each network that a run, or an earlier one for it, trained, by the name of its variant."""
    from trtbench.train import EpochRecord

    found: dict[str, tuple[EpochRecord, ...]] = {}
    with contextlib.suppress(*MISFITS):
        kept = read_json(run / _ORIGIN)
        store = Places(runs=Path(kept["runs"])).store
        for name in sorted(kept["artefacts"]):
            history = store / name / "history.json"
            if name.partition("/")[0] in {"dense", "variant"} and history.exists():
                epochs = tuple(EpochRecord(**one) for one in read_json(history)["history"])
                label = read_json(store / name / LISTING)["label"].rpartition("/")[2]
                found |= {label: epochs} if epochs else {}
    return found
