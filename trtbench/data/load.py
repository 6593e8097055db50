"""From a suite's `data` section to a Dataset: one function, six sources; and a Dataset as a file."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.data.batches import stratified_split
from trtbench.data.folder import FEWEST_IMAGES, is_archive, load_folder, load_images, stem, unpacked
from trtbench.data.named import CIFAR_MEANS, CIFAR_STDS, DIGITS, DIGITS_MEAN, DIGITS_STD, load_cifar, load_digits
from trtbench.data.preprocess import measure_mean_std
from trtbench.errors import DataError
from trtbench.foreign import FAULTS, MISFITS, file_size, parse_json, reason
from trtbench.records import TENSOR_TYPES, AsTheyAre, Dataset, Framing, Preprocessing, Split, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from trtbench.records import Expected
    from trtbench.suite import DataConfig

_USUAL = Framing(size=32)
_MOST_BYTES = 16 * 10**9  # of tensors; all of them are held in memory
_SPLITS = ("train", "validation", "test")


def _real(path: Path) -> Path:
    """Return where a path leads; a link to itself stays, of which `Path.resolve` raises before Python 3.13."""
    return Path(os.path.realpath(path))


def load_dataset(config: DataConfig, *, expected: Expected | None = None) -> Dataset:
    """Load the images a suite names, split them, and give them their preprocessing.

    `digits` has one fixed split (717 / 180 / 900): `config.validation` and `config.seed` do not touch it. The other
    sources keep their published test split, whatever the seed, and `config.validation` of their training images is
    held out, stratified by class; a folder may have a validation split of its own.

    Mean and deviation are those of the suite; else what was noted when the weights were saved; else the source's own,
    constants of digits and CIFAR; else those that the weights were published with; else measured on the training split.

    Args:
        config: the suite's `data`.
        expected: what the weights expect, where that is known.

    Of `images` and `npz`, which have no labels, half are the test split, by `config.seed`.

    Returns:
        Images uint8 (N, 3, height, width), labels int64.

    Raises:
        ConfigError: a size that cannot be.
        DataError: images are missing, damaged or too few.
        CapabilityError: CIFAR is asked for and torchvision cannot be imported.
    """
    name, _, place = config.source.partition(":")
    framing = framing_of(config, None if name in CIFAR_MEANS else expected)
    own: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {}  # mean and deviation, by who chose them
    notes: tuple[str, ...] = ()
    validation: Split | None = None
    tensors: tuple[Tensor, ...] = ()
    test_paths: tuple[str, ...] = ()
    if name == "digits":
        own["the digits' own"] = (DIGITS_MEAN, DIGITS_STD)
        classes = DIGITS
        pool, validation, test = load_digits(size=framing.height_width)
    elif name in CIFAR_MEANS:
        own[f"{name}'s own"] = (CIFAR_MEANS[name], CIFAR_STDS[name])
        classes, pool, test = load_cifar(name, root=place, size=framing.size, download=config.download)
    elif name == "images":
        given = Path(place).expanduser()
        name, classes = f"images:{_real(given).name}", ("image",)
        images, files, notes = load_images(given, framing=framing)
        pool, test, chosen_files = _halves(images, config)
        test_paths = tuple(str(files[index]) for index in chosen_files)
    elif name == "npz":
        given = Path(place).expanduser()
        name, classes = f"npz:{_real(given).name}", ("sample",)
        tensors, samples = load_tensors(given)
        pool, test, _ = _halves(samples, config)
    else:
        given = Path(place).expanduser()
        # The name goes into manifests that are committed: it must not carry this machine's paths.
        name = f"folder:{stem(_real(given))}"
        root = unpacked(given) if is_archive(given) else given
        found = load_folder(root, framing=framing, class_map=config.classes)
        classes, pool, validation, test = found.classes, found.train, found.validation, found.test
        notes = (*found.notes, *_alone(pool, classes, is_held_out=validation is None))
    train, held = (pool, validation) if validation is not None else _held_out(pool, classes, config)
    if expected is not None:
        theirs = {expected.source: (expected.mean, expected.std)}
        own = theirs | own if expected.is_own else own | theirs
    if config.mean is not None and config.std is not None:
        own = {"": (config.mean, config.std)}
    if not own and not tensors:
        own["measured on the training images"] = measure_mean_std(train.images)
    chosen, (mean, std) = next(iter(own.items()), ("", ((), ())))
    fit = Preprocessing(mean=mean, std=std, **framing.framing)
    return Dataset(
        name=name,
        classes=classes,
        train=train,
        validation=held,
        test=test,
        preprocessing=AsTheyAre.of(tensors) if tensors else fit,
        normalisation=chosen,
        notes=notes,
        is_labelled=config.is_labelled,
        test_paths=test_paths,
    )


def load_tensors(path: Path, *, fewest: int = FEWEST_IMAGES) -> tuple[tuple[Tensor, ...], NDArray[Any]]:
    """Return the inputs that a .npz has arrays for, and its samples: records (N,) with a field for each.

    Floats of other widths become float32: a graph that takes FP16 is widened likewise.

    Raises:
        DataError: it is none, its arrays differ in how many samples they have, or hold what no network takes.
    """
    what, cure = f"data.source npz:{path}", "write it with numpy.savez(path, NAME=array, ...), a name for each input"
    try:
        file_size(path, most=_MOST_BYTES)
        with zipfile.ZipFile(path) as packed:
            if sum(one.file_size for one in packed.infolist()) > _MOST_BYTES:
                raise ValueError(f"more than {_MOST_BYTES / 1e9:g} GB once unpacked")
        with np.load(path, allow_pickle=False) as kept:
            arrays = {name: np.asarray(kept[name]) for name in kept.files}
    except (*FAULTS, *MISFITS) as error:
        expected = "a .npz of numbers, an array for each input"
        raise DataError(what, expected=expected, got=reason(error), cure=cure) from error
    arrays = {name: one.astype(np.float32) if one.dtype.kind == "f" else one for name, one in arrays.items()}
    counts = {len(one) if one.ndim else 0 for one in arrays.values()}
    if len(counts) != 1 or min(counts) < fewest:
        expected = f"arrays of as many samples along their first axis, {fewest} at least"
        got = ", ".join(f"{name} {one.shape}" for name, one in arrays.items()) or "no arrays"
        raise DataError(what, expected=expected, got=got, cure=cure)
    for name, one in arrays.items():
        if one.dtype.name not in TENSOR_TYPES or not one.size or not (one.dtype.kind != "f" or np.isfinite(one).all()):
            got = "NaN or infinity" if one.dtype.kind == "f" else f"{one.dtype.name} {one.shape}"
            raise DataError(f"{what}: {name}", expected="finite numbers", got=got, cure="mend the array")
    tensors = tuple(Tensor(name=name, dtype=one.dtype.name, shape=one.shape[1:]) for name, one in arrays.items())
    return tensors, records(arrays, AsTheyAre.of(tensors))


def records(arrays: Mapping[str, NDArray[Any]], fit: AsTheyAre) -> NDArray[Any]:
    """Return samples as records, of an array for each input, samples along its first axis.

    Raises:
        DataError: the arrays are not those of these inputs.
    """
    given = {name: np.asarray(one) for name, one in arrays.items()}
    count = max((len(one) for one in given.values() if one.ndim), default=0)
    if {name: one.shape for name, one in given.items()} != {one.name: (count, *one.shape) for one in fit.tensors}:
        got = ", ".join(f"{name} {one.dtype} {one.shape}" for name, one in given.items()) or "none"
        raise DataError("samples", expected=f"arrays {tensor_words(fit)}, each for all samples", got=got)
    samples = np.zeros(count, fit.record)
    for name, one in given.items():
        samples[name] = one
    return samples


def tensor_words(fit: AsTheyAre) -> str:
    """Say what the inputs of a network are, by name, of one sample."""
    return ", ".join(f"{one.name} {one.dtype} {one.shape}" for one in sorted(fit.tensors, key=lambda one: one.name))


def framing_of(config: DataConfig, expected: Expected | None) -> Framing:
    """Return how pictures are framed: as the suite says, and where it says no size, as the weights expect."""
    said: dict[str, Any] = {one.name: getattr(config, one.name) for one in fields(Framing)}
    usual = _USUAL if expected is None or config.size is not None else expected.framing
    return replace(usual, **{name: value for name, value in said.items() if value is not None})


def save_dataset(path: Path, dataset: Dataset) -> None:
    """Write a dataset as the one file that `read_dataset` takes: pixels, labels, and what is known of them."""
    splits = {name: getattr(dataset, name) for name in _SPLITS}
    facts = {one.name: getattr(dataset, one.name) for one in fields(dataset) if one.name not in _SPLITS}
    facts["preprocessing"] = asdict(dataset.preprocessing)
    arrays = {f"{name}.{part}": getattr(split, part) for name, split in splits.items() for part in ("images", "labels")}
    np.savez(path, facts=np.array(json.dumps(facts)), **arrays)


def read_dataset(path: Path) -> Dataset:
    """Read a dataset that `save_dataset` wrote; its splits have the sha256 they had.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as kept:
            said = parse_json(str(kept["facts"]))
            splits = {name: Split(images=kept[f"{name}.images"], labels=kept[f"{name}.labels"]) for name in _SPLITS}
        facts: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in said.items()}
        return Dataset(**facts | splits | {"preprocessing": Preprocessing.read(facts["preprocessing"])})
    except (*FAULTS, *MISFITS) as error:
        raise DataError(f"images {path}", expected="a whole file", got=repr(error), cure="pack them again") from error


def _alone(pool: Split, classes: tuple[str, ...], *, is_held_out: bool) -> tuple[str, ...]:
    """Name the classes of which no image can be held out."""
    single = [classes[label] for label in np.flatnonzero(np.bincount(pool.labels) == 1)]
    if not (single and is_held_out):
        return ()
    return (f"one training image alone, and none to validate on: {', '.join(single[:10])}",)


def _halves(images: NDArray[Any], config: DataConfig) -> tuple[Split, Split, NDArray[np.int64]]:
    """Split images without labels into those to calibrate on and those to compare on; and tell which these are."""
    labels = np.zeros(len(images), np.int64)
    halves = stratified_split(labels, classes=("image",), count=len(images) // 2, seed=config.seed)
    pool, test = (Split(images=images[half], labels=labels[half]) for half in halves)
    return pool, test, halves[1]


def _held_out(pool: Split, classes: tuple[str, ...], config: DataConfig) -> tuple[Split, Split]:
    count = round(config.validation * len(pool))
    kept, held = stratified_split(pool.labels, classes=classes, count=count, seed=config.seed)
    train, validation = (Split(images=pool.images[part], labels=pool.labels[part]) for part in (kept, held))
    return train, validation
