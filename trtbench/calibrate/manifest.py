"""The calibration manifest: which training images, how they were drawn, and how to see that they are the same."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, get_args

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from trtbench.calibrate.leaks import Disjointness, Leak, find_leaks
from trtbench.data import pixel_sha256
from trtbench.data.batches import balanced
from trtbench.disk import write_atomically
from trtbench.errors import CalibrationError, ConfigError, DataError, listed
from trtbench.foreign import first_fault, read_json
from trtbench.jsonable import sha256_of, to_jsonable

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.records import Dataset


def sample_balanced(
    labels: NDArray[np.int64],
    *,
    num_classes: int,
    per_class: int | None = None,
    total: int | None = None,
    seed: int,
    exclude: Sequence[int] = (),
    allow_short: bool = False,
) -> NDArray[np.int64]:
    """Draw distinct images as `balanced` does, of every class as many as were asked for.

    Args:
        labels: int64 (N,), each in [0, num_classes).
        num_classes: how many classes there are; one that no label names is asked for nothing.
        per_class: images of each class; give this or `total`.
        total: images in all; where it is no multiple of `num_classes`, some classes give one more.
        seed: the same seed gives the same sample.
        exclude: indices that are not drawn.
        allow_short: take a class that has too few images as it is, and go on with the others; of a `total` they give
            the rest, as far as they have it.

    Returns:
        int64 indices into `labels`, in the order of drawing.

    Raises:
        ConfigError: not exactly one of `per_class` and `total`, or below 1.
        DataError: a label is out of range, a class has too few images, or none has any.
    """
    _check_range(labels, num_classes)
    is_there = np.bincount(labels, minlength=num_classes) > 0
    if not is_there.any():
        raise _none()
    count = _count(int(is_there.sum()), per_class=per_class, total=total)
    is_free = np.ones(len(labels), np.bool_)
    is_free[np.asarray(exclude, np.int64)] = False
    sizes = np.bincount(labels[is_free], minlength=num_classes)
    if allow_short:
        count = min(count, int((sizes if per_class is None else np.minimum(sizes, per_class)).sum()))
        if not count:
            raise _none()
    else:
        wanted = f"per_class = {per_class}" if total is None else f"total = {total}"
        _check_sizes(sizes, np.flatnonzero(is_there), count, wanted=wanted)
    return balanced(labels, count=count, seed=seed, exclude=exclude)


def _none() -> DataError:
    return DataError("calibration images", expected="at least one", got="none", cure="add images to any class")


def _count(num_classes: int, *, per_class: int | None, total: int | None) -> int:
    given = [size for size in (per_class, total) if size is not None]
    if len(given) != 1 or given[0] < 1:
        raise ConfigError(
            "size of the calibration set",
            expected="exactly one of per_class and total, at least 1",
            got=f"per_class = {per_class}, total = {total}",
            cure="set calibration.per_class, for example to 50",
        )
    return given[0] if per_class is None else per_class * num_classes


def _check_range(labels: NDArray[np.int64], num_classes: int) -> None:
    strangers = labels[(labels < 0) | (labels >= num_classes)]
    if len(strangers):
        raise DataError(
            "labels",
            expected=f"0 to {num_classes - 1}, for {num_classes} classes",
            got=str(strangers[0]),
            cure="count the classes again or mend the labels",
        )


def _check_sizes(sizes: NDArray[np.int64], classes: NDArray[np.int64], count: int, *, wanted: str) -> None:
    """Refuse classes below the whole rounds, or too few classes for the last, partial one."""
    sizes = sizes[classes]
    rounds, rest = divmod(count, len(sizes))
    is_short = sizes < rounds
    if not is_short.any() and np.count_nonzero(sizes > rounds) < rest:
        is_short, rounds = sizes <= rounds, rounds + 1
    if is_short.any():
        small = int(np.flatnonzero(is_short)[0])
        need = wanted if wanted.startswith("per_class") else f"the {rounds} that {wanted} takes of each class"
        raise DataError(
            f"class {classes[small]} has {sizes[small]} images, fewer than {need}",
            cure="lower it, add images or allow short classes (allow_short)",
        )


Sampling = Literal["uniform", "long-tailed", "class-missing"]
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)

# The largest class of a long tail to its smallest: the usual CIFAR-LT (Cui et al. 2019, "Class-Balanced Loss", 5.1).
IMBALANCE = 100.0


def sample_unbalanced(
    labels: NDArray[np.int64],
    *,
    sampling: Sampling,
    num_classes: int,
    total: int,
    seed: int,
    exclude: Sequence[int] = (),
) -> NDArray[np.int64]:
    """Draw distinct images with the class shares of a sampling; every prefix is such a sample too.

    `uniform` gives each image the same chance; in `long-tailed` the chances of the classes, in a random order, fall
    geometrically from IMBALANCE to 1; `class-missing` leaves out one class, by the seed. An image has the share of its
    class divided by the images of that class; the draw without replacement is that of Efraimidis & Spirakis (2006,
    "Weighted random sampling with a reservoir"): the largest u^(1/w).

    Returns:
        int64 (total,) indices into `labels`, in the order of drawing.

    Raises:
        ConfigError: the sampling is unknown.
        DataError: there are fewer images than `total`.
    """
    random = np.random.default_rng(seed)
    shares = _class_shares(sampling, num_classes=num_classes, labels=labels, random=random)
    is_free = np.ones(len(labels), np.bool_)
    is_free[np.asarray(exclude, np.int64)] = False
    weights = np.where(is_free, (shares / np.maximum(np.bincount(labels, minlength=num_classes), 1))[labels], 0.0)
    drawable = np.flatnonzero(weights)
    if len(drawable) < total:
        raise DataError(
            f"{sampling} sample", expected=f"{total} images", got=f"{len(drawable)}", cure="lower --per-class"
        )
    keys = np.log(random.random(len(labels))[drawable]) / weights[drawable]
    return drawable[np.argsort(-keys, kind="stable")[:total]].astype(np.int64)


def _class_shares(
    sampling: str, *, num_classes: int, labels: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.float64]:
    order = random.permutation(num_classes)
    if sampling == "uniform":
        return np.bincount(labels, minlength=num_classes).astype(np.float64)
    if sampling == "long-tailed":
        return np.asarray(IMBALANCE ** (-order / max(1, num_classes - 1)), np.float64)
    if sampling == "class-missing":
        return np.where(order == 0, 0.0, np.bincount(labels, minlength=num_classes)).astype(np.float64)
    raise ConfigError("sampling", expected=" | ".join(SAMPLINGS), got=repr(sampling), cure="choose one of these")


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


def short_notes(
    manifest: CalibrationManifest, *, per_class: int | None = None, labels: NDArray[np.int64] | None = None
) -> tuple[str, ...]:
    """Name the classes that gave fewer images than asked for; of a `total`, than an even share of it takes.

    Of `labels`, those of the training images, a class that none bears was asked for nothing.
    """
    asked = range(len(manifest.classes)) if labels is None else np.unique(labels).tolist()
    even = max(manifest.histogram) - 1  # of a balanced sample no two classes differ by more
    wanted = even if per_class is None else per_class
    counts = [(manifest.classes[label], manifest.histogram[label]) for label in asked]
    short = [f"{name} {count}" for name, count in counts if count < wanted]
    if not short:
        return ()
    named = listed(short, _NAMED)
    return (f"calibration: {len(short)} of {len(counts)} classes gave fewer than {wanted} images: {named}",)


def save_manifest(path: Path, manifest: CalibrationManifest) -> None:
    """Write a manifest as JSON, one image a line; equal manifests are equal bytes, and no reader sees half a file.

    Raises:
        StoreError: the file cannot be written.
    """
    write_atomically(path, _rendered(manifest))


@cache
def _adapter() -> TypeAdapter[CalibrationManifest]:
    """Return what reads a manifest: made once, since that takes longer than the reading of it."""
    return TypeAdapter(CalibrationManifest)


def load_manifest(path: Path) -> CalibrationManifest:
    """Read a manifest, and refuse one that is not exactly what `save_manifest` wrote.

    Raises:
        ConfigError: no such file, no JSON (truncated), another version, a field of the wrong type, or an edit.
    """
    try:
        fields = read_json(path)
        written_sha256 = fields.pop("sha256", None) if isinstance(fields, dict) else None
        manifest = _adapter().validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        raise _refused(path, first_fault(error)) from error
    except (OSError, ValueError) as error:
        raise _refused(path, getattr(error, "strerror", None) or f"no complete JSON: {error}") from error
    _check_sense(path, manifest)
    if manifest.sha256 != written_sha256:
        raise _refused(path, "a sha256 that does not fit the other fields: the file was edited")
    return manifest


def _check_sense(path: Path, manifest: CalibrationManifest) -> None:
    """Refuse what `make_manifest` never writes, signed or not: an image twice, a histogram of other images."""
    counted = Counter(image.label for image in manifest.images)
    if not manifest.images:
        raise _refused(path, "no images")
    if len(set(manifest.indices)) < len(manifest.images):
        raise _refused(path, "an image that stands twice")
    if tuple(counted[label] for label in range(len(manifest.classes))) != manifest.histogram:
        raise _refused(path, "a histogram that does not count its images")
    if manifest.disjointness.images != len(manifest.images):
        raise _refused(path, "a proof of disjointness of other images")


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
