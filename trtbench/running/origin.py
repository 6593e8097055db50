"""Where a run was made: its suite with this machine's paths, and its folders, kept beside the report but not in it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trtbench.disk import write_atomically
from trtbench.errors import ConfigError
from trtbench.foreign import read_json
from trtbench.make.makings import Places
from trtbench.report.document import read_report
from trtbench.suite import Suite, options

if TYPE_CHECKING:
    from collections.abc import Collection

    from trtbench.report.document import Report

_FILE = "origin.json"


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
    write_atomically(run / _FILE, json.dumps(kept, indent=1))


def read_origin(run: Path) -> Origin:
    """Return what a run was made of; of one that kept nothing, what its report says, read from this folder.

    Raises:
        ConfigError: there is no report, or what was kept is damaged.
    """
    folder = run if run.is_dir() else run.parent
    try:
        kept = read_json(folder / _FILE)
        calib, job = (kept.get(key) and Path(kept[key]) for key in ("calib", "job"))
        places = Places(runs=Path(kept["runs"]), engines=Path(kept["engines"]), calib=calib, job=job)
        return Origin(suite=options(Suite, **kept["suite"]), places=places, folder=Path(kept["folder"]))
    except FileNotFoundError:
        return _from_here(read_report(run), folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        cure = "run the suite again"
        raise ConfigError(f"{folder / _FILE}", expected="a whole file", got=repr(error), cure=cure) from error


def artefacts_of_reports(runs: Path) -> set[str]:
    """Return the names of the artefacts that the runs below a folder used."""
    found = set[str]()
    for origin in runs.glob(f"*/{_FILE}"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found |= set(read_json(origin)["artefacts"])
    return found


def _from_here(report: Report, folder: Path) -> Origin:
    return Origin(
        suite=options(Suite, **report.suite),
        places=Places(runs=folder.resolve().parent),
        folder=Path.cwd(),
    )
