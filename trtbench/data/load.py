"""From a suite's `data` section to a Dataset: one function, four sources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trtbench.data import cifar, digits
from trtbench.data.folder import is_archive, load_folder, stem, unpacked
from trtbench.data.preprocess import measure_mean_std
from trtbench.data.split import stratified_split
from trtbench.records import Dataset, Preprocessing, Split

if TYPE_CHECKING:
    from trtbench.suite import DataConfig


class _Source(NamedTuple):
    """What a source brings; without a mean and deviation of its own they are measured."""

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None


def load_dataset(config: DataConfig) -> Dataset:
    """Load the images a suite names, split them, and give them their preprocessing.

    `digits` has one fixed split (1,077 / 360 / 360): `config.validation` and `config.seed` do not touch it. The other
    sources keep their published test split, whatever the seed, and `config.validation` of their training images is
    held out, stratified by class.

    Mean and deviation are the source's own unless the suite gives them: constants for digits and CIFAR, measured on
    the training split for folders.

    Returns:
        Images uint8 (N, 3, size, size), labels int64.

    Raises:
        ConfigError: a size that cannot be.
        DataError: images are missing, damaged or too few.
        CapabilityError: CIFAR is asked for and torchvision cannot be imported.
    """
    source = _read(config)
    if config.mean is not None and config.std is not None:
        mean, std = config.mean, config.std
    else:
        mean, std = source.mean_std or measure_mean_std(source.train.images)
    return Dataset(
        name=source.name,
        classes=source.classes,
        train=source.train,
        validation=source.validation,
        test=source.test,
        preprocessing=Preprocessing(mean=mean, std=std, size=config.size),
    )


def _read(config: DataConfig) -> _Source:
    kind, _, place = config.source.partition(":")
    if config.source == "digits":
        return _Source("digits", digits.CLASSES, *digits.load_splits(size=config.size), (digits.MEAN, digits.STD))
    if kind in cifar.MEANS:
        classes, pool, test = cifar.load_cifar(kind, root=place, size=config.size, download=config.download)
        return _Source(kind, classes, *_held_out(pool, classes, config), test, (cifar.MEANS[kind], cifar.STDS[kind]))
    given = Path(place).expanduser()
    root = unpacked(given) if is_archive(given) else given
    classes, pool, test = load_folder(root, size=config.size)
    # The name goes into manifests that are committed: it must not carry this machine's paths.
    return _Source(f"folder:{stem(given.resolve())}", classes, *_held_out(pool, classes, config), test, None)


def _held_out(pool: Split, classes: tuple[str, ...], config: DataConfig) -> tuple[Split, Split]:
    """Split the training images of a source into train and validation."""
    count = round(config.validation * len(pool))
    kept, held = stratified_split(pool.labels, classes=classes, count=count, seed=config.seed)
    train, validation = (Split(images=pool.images[part], labels=pool.labels[part]) for part in (kept, held))
    return train, validation
