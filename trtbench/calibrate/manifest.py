"""The calibration manifest: which training images, why these, and how to see that they are still the same."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from trtbench.calibrate.leaks import Disjointness, Leak, find_leaks
from trtbench.calibrate.sampler import sample_balanced
from trtbench.data import pixel_sha256
from trtbench.errors import CalibrationError, ConfigError, StoreError
from trtbench.jsonable import sha256_of, to_jsonable

if TYPE_CHECKING:
    from collections.abc import Collection

    from trtbench.records import Dataset

SCHEMA_VERSION: Final = 1
_NAMED = 10  # short classes a note names
_REMAKE = "make it again with `trtbench calibrate`"
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationImage:
    """One calibration image: its index in the training split, its class, the sha256 of its shape and pixels."""

    index: _Count
    label: _Count
    pixel_sha256: _Sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationManifest:
    """Which training images calibrate, in order, and what was true of them when they were chosen.

    `histogram` counts the images of each class. `preprocessing` is the fingerprint. `excluded` are images the sampler
    drew and passed over, with the validation or test image each of them repeats.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    schema_version: Literal[1] = SCHEMA_VERSION
    dataset: str
    classes: tuple[str, ...]
    histogram: tuple[_Count, ...]
    seed: int
    preprocessing: _Sha256
    train_sha256: _Sha256
    validation_sha256: _Sha256
    test_sha256: _Sha256
    disjointness: Disjointness
    excluded: tuple[Leak, ...] = ()
    images: tuple[CalibrationImage, ...]

    @property
    def indices(self) -> tuple[int, ...]:
        """Indices into the training split, in the order of calibration."""
        return tuple(image.index for image in self.images)

    @property
    def sha256(self) -> str:
        """The sha256 (hex) of all fields."""
        return sha256_of(to_jsonable(self))


def make_manifest(
    dataset: Dataset,
    *,
    per_class: int | None = None,
    total: int | None = None,
    seed: int,
    allow_short: bool = False,
    but: Collection[int] = (),
) -> CalibrationManifest:
    """Sample training images, balanced by class, of which none stands in validation or test.

    An image that does (CIFAR-10 repeats photos) is passed over for the next one of its class, and recorded.

    Args:
        dataset: its training split is sampled.
        per_class: images of each class; give this or `total`.
        total: images in all.
        seed: the same seed gives the same manifest.
        allow_short: take the classes that have too few images as they are; `short_notes` names them.
        but: indices that serve for something else, and are not drawn.

    Raises:
        ConfigError: not exactly one of `per_class` and `total`.
        DataError: a class has too few images, or no image is left that does not leak.
    """
    excluded: dict[int, Leak] = {}
    is_clean: set[int] = set()
    while True:
        indices = sample_balanced(
            dataset.train.labels,
            num_classes=dataset.num_classes,
            per_class=per_class,
            total=total,
            seed=seed,
            exclude=sorted({*excluded, *but}),
            allow_short=allow_short,
        ).tolist()
        leaks = find_leaks(dataset, sorted(set(indices) - is_clean))
        if not leaks:
            break
        excluded |= {leak.index: leak for leak in reversed(leaks)}
        is_clean |= set(indices) - excluded.keys()
    return _described(dataset, indices, seed=seed, excluded=tuple(excluded[index] for index in sorted(excluded)))


def short_notes(manifest: CalibrationManifest, *, per_class: int | None = None) -> tuple[str, ...]:
    """Name the classes that gave fewer images than asked for; of a `total`, than an even share of it takes."""
    even = max(manifest.histogram) - 1  # of a balanced sample no two classes differ by more
    wanted = even if per_class is None else per_class
    short = [f"{manifest.classes[label]} {count}" for label, count in enumerate(manifest.histogram) if count < wanted]
    if not short:
        return ()
    named = ", ".join(short[:_NAMED]) + (f" and {len(short) - _NAMED} more" if len(short) > _NAMED else "")
    return (f"calibration: {len(short)} of {len(manifest.classes)} classes gave fewer than {wanted} images: {named}",)


def save_manifest(path: Path, manifest: CalibrationManifest) -> None:
    """Write a manifest as JSON, one image a line; equal manifests are equal bytes, and no reader sees half a file.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".manifest-") as folder:
            unnamed = Path(folder) / path.name
            unnamed.write_text(_rendered(manifest), encoding="utf-8")
            unnamed.replace(path)
    except OSError as error:
        raise StoreError(
            f"manifest {path}",
            expected="a place to write",
            got=str(error.strerror),
            cure="check the folder and its space",
        ) from error


def load_manifest(path: Path) -> CalibrationManifest:
    """Read a manifest, and refuse one that is not exactly what `save_manifest` wrote.

    Raises:
        ConfigError: no such file, no JSON (truncated), another version, a field of the wrong type, or an edit.
    """
    try:
        text = path.read_text(encoding="utf-8")
        fields = json.loads(text)
        written_sha256 = fields.pop("sha256", None) if isinstance(fields, dict) else None
        manifest = TypeAdapter(CalibrationManifest).validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        raise _refused(path, _first_fault(error)) from error
    except (OSError, ValueError) as error:
        raise _refused(path, getattr(error, "strerror", None) or f"no complete JSON: {error}") from error
    if manifest.sha256 != written_sha256:
        raise _refused(path, "a sha256 that does not fit the other fields: the file was edited")
    return manifest


def verify_manifest(manifest: CalibrationManifest, dataset: Dataset) -> None:
    """Prove that the dataset still holds, at the manifest's indices, the images the manifest was made of.

    Whether these stand in the dataset's validation or test set is another question: `leaks.check_leak` answers it.

    Raises:
        CalibrationError: a class, a preprocessing or an image is another.
    """
    if manifest.classes != dataset.classes:
        raise _other(manifest, dataset, expected=f"classes {manifest.classes}", got=str(dataset.classes))
    if manifest.preprocessing != dataset.preprocessing.fingerprint:
        raise _other(
            manifest,
            dataset,
            expected=f"preprocessing {manifest.preprocessing[:12]}",
            got=f"{dataset.preprocessing.fingerprint[:12]} (data.mean, std or size differ)",
        )
    if beyond := [index for index in manifest.indices if index >= len(dataset.train)]:
        raise _other(
            manifest, dataset, expected=f"image train[{beyond[0]}]", got=f"{len(dataset.train)} training images"
        )
    found = pixel_sha256(dataset.train.images[list(manifest.indices)])
    labels = dataset.train.labels[list(manifest.indices)].tolist()
    for image, sha256, label in zip(manifest.images, found, labels, strict=True):
        if (image.pixel_sha256, image.label) != (sha256, label):
            raise _other(
                manifest,
                dataset,
                expected=f"train[{image.index}] of class {image.label} with pixels {image.pixel_sha256[:12]}",
                got=f"class {label}, pixels {sha256[:12]}",
            )


def _described(dataset: Dataset, indices: list[int], *, seed: int, excluded: tuple[Leak, ...]) -> CalibrationManifest:
    labels = dataset.train.labels[indices].tolist()
    counts = Counter(labels)
    rows = zip(indices, labels, pixel_sha256(dataset.train.images[indices]), strict=True)
    return CalibrationManifest(
        dataset=dataset.name,
        classes=dataset.classes,
        histogram=tuple(counts[label] for label in range(dataset.num_classes)),
        seed=seed,
        preprocessing=dataset.preprocessing.fingerprint,
        train_sha256=dataset.train.sha256,
        validation_sha256=dataset.validation.sha256,
        test_sha256=dataset.test.sha256,
        disjointness=Disjointness(images=len(indices), validation=len(dataset.validation), test=len(dataset.test)),
        excluded=excluded,
        images=tuple(CalibrationImage(index=i, label=label, pixel_sha256=sha256) for i, label, sha256 in rows),
    )


def _rendered(manifest: CalibrationManifest) -> str:
    """Write one field a line, and one image a line, so that a diff shows which images changed."""
    fields = {**to_jsonable(manifest), "sha256": manifest.sha256}
    return "{\n" + ",\n".join(f'  "{name}": {_value(value)}' for name, value in fields.items()) + "\n}\n"


def _value(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(f"    {json.dumps(row)}" for row in value) + "\n  ]"
    return json.dumps(value)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, fault['loc'])) or 'the whole file'}: {fault['msg']}"


def _refused(path: Path, got: str) -> ConfigError:
    expected = f"a calibration manifest of version {SCHEMA_VERSION}, as trtbench wrote it"
    return ConfigError(f"manifest {path}", expected=expected, got=got, cure=_REMAKE)


def _other(manifest: CalibrationManifest, dataset: Dataset, *, expected: str, got: str) -> CalibrationError:
    return CalibrationError(
        f"calibration manifest of {manifest.dataset} on {dataset.name}",
        expected=expected,
        got=got,
        cure=f"use the data, size and seed it was made with, or {_REMAKE}",
    )
