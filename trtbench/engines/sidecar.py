"""The sidecar: a JSON file beside every engine that says what it is, from what, and for which machine."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from trtbench.disk import file_sha256, write_atomically
from trtbench.errors import SidecarError
from trtbench.foreign import MISFITS, NAME, read_json, reason
from trtbench.jsonable import to_jsonable
from trtbench.precision import PRECISIONS, read_shown, shown_precision
from trtbench.records import Output, Preprocessing
from trtbench.rows import CalibrationRecord

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCHEMA_VERSION = 1
_MAX_CLASSES = 10**6
_NAMED = ("variant", "backend")  # what paths are made of
_KINDS: Mapping[str, tuple[type, ...]] = {  # by annotation
    "str": (str,),
    "str | None": (str, type(None)),
    "bool": (bool,),
    "int": (int,),
    "int | None": (int, type(None)),
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "Mapping[str, Any]": (dict,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """Everything a stranger needs to trust an engine file, or to build it again.

    Args:
        key: the sha256 of all that decided the build; a build with the same key is not repeated.
        build: counts repeated builds of one engine, from 1.
        widths: output channels of each convolution, where the network's source is known.
        calibration: how the ranges of an INT8 graph were found, where the runtime does not find them itself.
        classes: names in the order of the logits.
        options: what the suite asked of the build, for runtimes that take options.
        settings: what the session that runs the engine needs to know.
        facts: what else the runtime says of the build: versions, flags, profiles, layer precisions.
    """

    key: str
    variant: str
    precision: str
    sparse: bool = False
    rescued: bool = False
    build: int = 1
    achieved: str
    backend: str
    backend_version: str
    device: str
    machine: str
    engine_sha256: str
    engine_bytes: int
    weight_bytes: int
    source_sha256: str
    calibration_sha256: str | None
    calibration: CalibrationRecord | None = None
    preprocessing: Preprocessing
    model: str
    num_classes: int
    build_s: float
    params: int | None = None
    macs: int | None = None
    widths: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    sparsity: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    rebuild: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def rebuilding(self) -> str:
        """The cure of an engine that is not what it should be."""
        return f"build it here: `{self.rebuild or 'trtbench build'}`"

    @property
    def shown_precision(self) -> str:
        """The precision as names show it, with what else tells two engines of it apart."""
        return shown_precision(self.precision, sparse=self.sparse, rescued=self.rescued, build=self.build)


def sidecar_path(engine: Path) -> Path:
    """Return where the sidecar of an engine file stands."""
    return engine.with_name(f"{engine.name}.json")


def write_sidecar(engine: Path, sidecar: Sidecar) -> None:
    """Write the sidecar beside its engine, atomically.

    Raises:
        StoreError: it cannot be written.
    """
    document = {**to_jsonable(sidecar), "preprocessing_fingerprint": sidecar.preprocessing.fingerprint}
    write_atomically(sidecar_path(engine), json.dumps(document, indent=1))


def read_sidecar(engine: Path) -> Sidecar:
    """Read the sidecar of an engine file, without touching the engine.

    Raises:
        SidecarError: it is absent, cut short, of another version, or its preprocessing was changed by hand.
    """
    path = sidecar_path(engine)
    cure = "build the engine again: `trtbench build`"
    try:
        document = read_json(path)
        if document["schema_version"] != SCHEMA_VERSION:
            version = str(document["schema_version"])
            raise SidecarError(f"sidecar {path}: version", expected=str(SCHEMA_VERSION), got=version, cure=cure)
        fingerprint = document["preprocessing_fingerprint"]
        known = {item.name for item in fields(Sidecar)}
        precision, sparse, build = read_shown(document["precision"])
        if precision not in PRECISIONS:
            expected = " or ".join(PRECISIONS)
            raise SidecarError(f"sidecar {path}: precision", expected=expected, got=repr(precision), cure=cure)
        written = {"sparse": sparse, "build": build, **document, "precision": precision}
        values = {name: value for name, value in written.items() if name in known}
        preprocessing = Preprocessing.read(document["preprocessing"])
        calibration = document.get("calibration")
        sidecar = Sidecar(
            **{
                **values,
                "preprocessing": preprocessing,
                "calibration": calibration and CalibrationRecord(**calibration),
                "notes": tuple(document["notes"]),
                "classes": tuple(document.get("classes", ())),
                "outputs": tuple(
                    Output(name=one["name"], shape=tuple(one["shape"])) for one in document.get("outputs", ())
                ),
                "widths": tuple(document.get("widths", document.get("channels", ()))),  # as older ones say
            }
        )
        _check(sidecar)
    except FileNotFoundError as error:
        raise SidecarError(f"engine {engine}", expected=f"its sidecar {path.name} beside it", cure=cure) from error
    except MISFITS as error:
        got = f"no {error}" if isinstance(error, KeyError) else reason(error)
        raise SidecarError(f"sidecar {path}", expected="a whole sidecar", got=got, cure=cure) from error
    if preprocessing.fingerprint != fingerprint:
        raise SidecarError(f"sidecar {path}: preprocessing", expected=f"fingerprint {fingerprint}", cure=cure)
    return sidecar


def _check(sidecar: Sidecar) -> None:
    """Refuse, by ValueError, a field of another type, a negative number, and a name that no path can be made of."""
    for item in fields(Sidecar):
        value, kinds = getattr(sidecar, item.name), _KINDS.get(str(item.type))
        if kinds is not None and type(value) not in kinds:
            raise ValueError(f"{item.name}: {value!r:.60}")
        if isinstance(value, (int, float)) and value < 0:
            raise ValueError(f"{item.name}: {value}, below 0")
        if item.name in _NAMED and NAME.fullmatch(str(value)) is None:
            raise ValueError(f"{item.name}: {value!r:.60}, which is no name: letters, digits, . _ + # and -")
    texts = (*sidecar.notes, *sidecar.classes)
    numbers = (*sidecar.widths, *(sidecar.options.get("batch_sizes") or ()), *(sidecar.options.get("profile") or ()))
    if not all(isinstance(one, str) for one in texts) or not all(type(one) is int and one > 0 for one in numbers):
        raise ValueError("notes, classes, widths, batch sizes or a profile of other types")
    if (sidecar.classes and len(sidecar.classes) != sidecar.num_classes) or not 0 < sidecar.num_classes <= _MAX_CLASSES:
        raise ValueError(f"{len(sidecar.classes)} classes of {sidecar.num_classes}")


def check_engine(engine: Path, sidecar: Sidecar, *, machine: str) -> None:
    """Refuse an engine that is not the one its sidecar describes, before any runtime reads it.

    Raises:
        SidecarError: the file is absent or has other bytes, or it was built for another machine.
    """
    cure = sidecar.rebuilding
    if not engine.is_file():
        raise SidecarError(f"engine {engine}", expected="a file", got="nothing", cure=cure)
    if (found := file_sha256(engine)) != sidecar.engine_sha256:
        raise SidecarError(f"engine {engine}: sha256", expected=sidecar.engine_sha256, got=found, cure=cure)
    if sidecar.machine != machine:
        raise SidecarError(f"engine {engine}: machine", expected=machine, got=sidecar.machine, cure=cure)
