"""A bundle: one engine with all that running it takes, sealed by checksums; here it is described, sealed and read."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping  # noqa: TC003  pydantic resolves the fields at run time
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from trtbench.decide.compare import Matched
from trtbench.decide.ratios import is_measured
from trtbench.disk import file_sha256, storing, write_atomically
from trtbench.errors import ConfigError
from trtbench.foreign import MISFITS, first_fault, is_inside, read_json, reason
from trtbench.jsonable import sha256_of, to_jsonable
from trtbench.records import AsTheyAre, Output, Preprocessing  # noqa: TC001  pydantic resolves the fields at run time
from trtbench.rows import FidelityRecord, LatencyRecord  # noqa: TC001  likewise
from trtbench.shipping.triton import Served  # noqa: TC001  likewise

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.report.document import Report

BUNDLE = "bundle.json"
_SCHEMA_VERSION = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file knows
_CURE = "ship it again: `trtbench ship RUN --output DIR`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a fresh process found with the bundle alone, on the whole test split.

    `flips` are images whose first class is not the one that the run noted, each between two logits that differ by at
    most `margin` of the image's range of logits; None where the run noted none. Of a network that is no classifier
    `fidelity` is found in place of a count. `why_not` says what was not proven.
    """

    correct: int | None = None
    total: int | None = None
    flips: int | None = None
    margin: float | None = None
    fidelity: FidelityRecord | None = None
    why_not: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What bundle.json says of its engine.

    `batch_sizes` are those that were measured, `profile` the smallest, usual and largest batch of a dynamic engine.
    `versions` are of the packages that the engine runs on. `correct` of `total` test images is what the run counted,
    `drop_upper_pp` its bound of the drop; of a network that is no classifier `fidelity` stands in their place, and
    `outputs` in that of `classes`. `limits` are those it was chosen under; `is_chosen` says that it is the row
    that the run recommends. `served` is what a Triton server made of it, if one was asked. `files` has the sha256 of
    every other file.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    engine: str
    row: str
    variant: str
    precision: str
    achieved: str
    backend: str
    backend_version: str
    versions: Mapping[str, str]
    device: str
    machine: str
    model: str
    batch_size: int
    batch_sizes: tuple[int, ...]
    profile: tuple[int, int, int] | None
    is_version_compatible: bool = False
    settings: Mapping[str, Any]
    preprocessing: AsTheyAre | Preprocessing
    resample: str = "bilinear"
    colour: str = "RGB"
    classes: tuple[str, ...]
    is_run: bool
    is_chosen: bool
    correct: int | None
    total: int | None
    drop_upper_pp: float | None
    outputs: tuple[Output, ...] = ()
    fidelity: FidelityRecord | None = None
    latency: LatencyRecord | None
    limits: Mapping[str, Any]
    run_id: str
    suite_sha256: str
    manifest_sha256: str | None
    source_sha256: str
    rebuild: str
    licence: str | None = None
    proof: Proof | None = None
    served: Served | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = _SCHEMA_VERSION

    def takes(self, batch: int) -> bool:
        """Whether the engine runs at this batch size as it was measured."""
        if self.profile is not None:
            return self.profile[0] <= batch <= self.profile[2]
        return batch in self.batch_sizes


def seal(folder: Path, bundle: Mapping[str, Any]) -> None:
    """Write bundle.json: the fields of a bundle, the sha256 of every other file of the folder, and its own.

    Raises:
        StoreError: it cannot be written.
    """
    with storing(folder):
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != BUNDLE)
        files = {path.relative_to(folder).as_posix(): file_sha256(path) for path in paths}
    document = to_jsonable({**bundle, "files": files})
    write_atomically(folder / BUNDLE, json.dumps({**document, "sha256": sha256_of(document)}, indent=1) + "\n")


def read_bundle(folder: Path) -> Bundle:
    """Return what a bundle says of itself, once it and all its files are found to be those that were shipped.

    Raises:
        ConfigError: there is none, or a file was changed; the message names it.
    """
    path = folder / BUNDLE
    try:
        document = read_json(path)
        said = document.pop("sha256")
    except MISFITS as error:
        got = f"no {error}" if isinstance(error, KeyError) else reason(error)
        raise ConfigError(f"bundle {folder}: {BUNDLE}", expected="a whole one", got=got, cure=_CURE) from error
    if sha256_of(document) != said:
        raise ConfigError(f"bundle {folder}: {BUNDLE}", expected=f"sha256 {said}", got="a changed file", cure=_CURE)
    try:
        bundle = _adapter().validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        got = first_fault(error)
        what = f"bundle {folder}: {BUNDLE}"
        raise ConfigError(what, expected=f"version {_SCHEMA_VERSION}", got=got, cure=_CURE) from error
    for name, digest in {bundle.engine: "", **bundle.files}.items():
        file = folder / name
        if not (file.is_file() and is_inside(file, folder) and name in bundle.files and file_sha256(file) == digest):
            got = "a changed file" if file.is_file() else "nothing"
            raise ConfigError(f"bundle {folder}: {name}", expected=f"sha256 {digest}", got=got, cure=_CURE)
    return bundle


def zipped(folder: Path) -> Path:
    """Write a bundle as one file beside its folder; equal bundles are equal bytes.

    Raises:
        StoreError: it cannot be written.
    """
    target = folder.with_name(f"{folder.name}.zip")
    partial = target.with_name(f".{target.name}.partial")
    with storing(target):
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
            for path in sorted(one for one in folder.rglob("*") if one.is_file()):
                entry = zipfile.ZipInfo(f"{folder.name}/{path.relative_to(folder).as_posix()}", _EPOCH)
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                file.writestr(entry, path.read_bytes())
        partial.replace(target)
    return target


@cache
def _adapter() -> TypeAdapter[Bundle]:
    return TypeAdapter(Bundle)


def beside(folder: Path, shipped: Report, run: Report) -> Matched:
    """Return the pairs of rows to compare of a bundle in production and a new run: of its name, and the recommended.

    Args:
        folder: of the bundle.
        shipped: the report in it.
        run: of the new run.

    Raises:
        ConfigError: a file of the bundle was changed.
    """
    bundle = read_bundle(folder)
    before = next((row for row in shipped.rows if row.name == bundle.row and is_measured(row)), None)
    wanted = dict.fromkeys((bundle.row, run.decision.winner))
    after = {row.name: row for row in run.rows if is_measured(row) and row.batch_size == bundle.batch_size}
    pairs = [(before, after[name]) for name in wanted if before is not None and name in after]
    return Matched(pairs=tuple(pairs), only_first=(), only_second=())
