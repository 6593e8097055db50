"""A job: a suite as one file, with its images, manifest and all that can be made of it before a machine is chosen.

The machine that runs it trains, exports and calibrates nothing that is in it: it builds, scores and times.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trtbench.data import save_dataset
from trtbench.data.folder import extract
from trtbench.decide.compare import machine_facts, runtime_versions
from trtbench.disk import file_sha256, locked, storing, write_atomically
from trtbench.environment import collect_environment
from trtbench.errors import ConfigError, DataError, RowError
from trtbench.foreign import FAULTS, MISFITS, read_json, reason
from trtbench.graph.given import load_onnx
from trtbench.jsonable import to_jsonable
from trtbench.make.calibration import manifest
from trtbench.make.makings import JOB, JOB_IMAGES, JOB_STORE, Makings, Places
from trtbench.progress import Listener, nobody
from trtbench.running.plan import prepare_suite
from trtbench.shipping.bundle import zipped
from trtbench.suite import load_suite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trtbench.suite import Suite

AnyPlaces = TypeVar("AnyPlaces", bound=Places)
_FORMAT = 1
_SUITE = "suite.yaml"
PIXELS = "images"  # the kind of artefacts that are cut out of the images, which a job holds once
_CURE = "pack it again: `trtbench pack-job SUITE --output job.zip`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A job as it was written: how many artefacts it holds, and why a variant has no network, by its name."""

    output: str
    bytes: int
    artefacts: int
    lost: dict[str, str]


def pack_job(suite: Suite, places: Places, output: Path, *, tell: Listener = nobody) -> Packed:
    """Train, export and calibrate what a suite asks for, and write it as a job.

    Raises:
        ConfigError: the suite's data or checkpoint cannot be used.
        StoreError: it cannot be written.
    """
    makings = Makings(suite, places, tell=tell)
    lost = prepare_suite(makings)
    kept = [one for one in makings.book.at_hand if one.kind != PIXELS]
    content = write_job(makings, output, artefacts=[one.folder for one in kept], lost=lost)
    return Packed(output=str(output), bytes=content.stat().st_size, artefacts=len(kept), lost=lost)


def write_job(
    makings: Makings, output: Path, *, artefacts: Sequence[Path], lost: Mapping[str, str], made: str = ""
) -> Path:
    """Write a job of these artefacts; equal ones are equal bytes.

    Args:
        makings: of its suite.
        output: the file.
        artefacts: their folders.
        lost: why a variant has no network, by its name.
        made: says on what and with what they were made, where that was not this machine.

    Raises:
        StoreError: it cannot be written.
    """
    with storing(output), tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "job"
        (folder / "files").mkdir(parents=True)
        suite = _with_files(makings.suite, folder)
        write_atomically(folder / _SUITE, json.dumps(suite, indent=1))
        save_dataset(folder / JOB_IMAGES, makings.dataset)
        with contextlib.suppress(DataError, RowError):  # so say the rows that calibrate
            committed = folder / "calib" / f"{makings.suite.name}.json"
            write_atomically(committed, manifest(makings).path("manifest.json").read_bytes())
        for artefact in artefacts:
            shutil.copytree(artefact, folder / JOB_STORE / artefact.parent.name / artefact.name)
        files = {path.relative_to(folder).as_posix(): file_sha256(path) for path in _files(folder)}
        document = {"format": _FORMAT, "made": made or described(), "lost": dict(lost), "files": files}
        write_atomically(folder / JOB, json.dumps(document, indent=1))
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(zipped(folder), output)
    return output


def opened(source: str, places: Places) -> tuple[Suite, Places]:
    """Return the suite that a file, a name or a job stands for, and where its things stand.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    return open_job(Path(source), places) if source.endswith(".zip") else (load_suite(source), places)


def open_job(path: Path, places: AnyPlaces) -> tuple[Suite, AnyPlaces]:
    """Unpack a job below the folder of runs, once, and return its suite and where its things stand.

    Nothing of it is trusted: no file leaves its folder, sizes are bounded, and every file is as its listing has it.

    Raises:
        ConfigError: it is absent, damaged or no job, or a folder of manifests is given beside the one it brings.
        StoreError: it cannot be written.
    """
    if places.calib is not None:
        cure = "leave --calib out"
        raise ConfigError("--calib", expected="none beside a job, which brings its manifest", cure=cure)
    try:
        folder = places.runs / ".jobs" / file_sha256(path)[:16]
        with locked(folder.with_name(f".{folder.name}.lock")):
            if not folder.is_dir():
                with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpack-") as scratch:
                    extract(path, Path(scratch) / "content")
                    _check(Path(scratch) / "content" / "job")
                    (Path(scratch) / "content" / "job").replace(folder)
    except (*FAULTS, *MISFITS) as error:
        got = reason(error)
        raise ConfigError(f"job {path}", expected="a whole job", got=got, cure=_CURE) from error
    return load_suite(folder / _SUITE), replace(places, calib=folder / "calib", job=folder)


def _check(folder: Path) -> None:
    document = read_json(folder / JOB)
    if document["format"] != _FORMAT:
        raise ValueError(f"format {document['format']}, not {_FORMAT}")
    listed = document["files"]
    found = {path.relative_to(folder).as_posix(): path for path in _files(folder) if path.name != JOB}
    for name in sorted({*listed, *found}):
        if name not in found or name not in listed or file_sha256(found[name]) != listed[name]:
            raise ValueError(f"{name}, which is not as the job lists it")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _with_files(suite: Suite, folder: Path) -> dict[str, Any]:
    """Copy the files that a suite names, and return it with their places in the job; of images the name is kept."""
    written, model = suite.as_written(), suite.model
    kind, _, place = suite.data.source.partition(":")
    if kind == "folder":
        written["data"]["source"] = f"folder:{Path(place).name}"
    for part, key, source in (
        ("data", "classes", suite.data.classes),
        ("model", "checkpoint", model.checkpoint),
        ("calibration", "manifest", suite.calibration.manifest),
    ):
        if source is not None and source.is_file():
            written[part][key] = f"files/{key}-{source.name}"
            shutil.copy(source, folder / written[part][key])
    if model.name.startswith("onnx:"):
        written["model"]["name"] = "onnx:files/model.onnx"
        graph = load_onnx(Path(model.name.removeprefix("onnx:")))  # with the weights that may stand beside it
        write_atomically(folder / "files" / "model.onnx", graph.SerializeToString(deterministic=True))
    return written


def described() -> str:
    """Say what this machine is, and which versions it has."""
    environment = to_jsonable(collect_environment())
    model, cores, gpus = machine_facts(environment)
    versions = ", ".join(f"{name} {version}" for name, version in sorted(runtime_versions(environment).items()))
    return f"{gpus or model or 'another machine'} ({cores} CPU cores) with {versions}"
