"""From a suite's `data` section to a Dataset: one function, four sources."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trtbench.data import cifar, digits
from trtbench.data.batches import stratified_split
from trtbench.data.folder import is_archive, load_folder, stem, unpacked
from trtbench.data.preprocess import measure_mean_std
from trtbench.records import Dataset, Preprocessing, Split

if TYPE_CHECKING:
    from trtbench.suite import DataConfig


def load_dataset(config: DataConfig) -> Dataset:
    """Load the images a suite names, split them, and give them their preprocessing.

    `digits` has one fixed split (717 / 180 / 900): `config.validation` and `config.seed` do not touch it. The other
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
    name, _, place = config.source.partition(":")
    usual: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    if name == "digits":
        classes, usual = digits.CLASSES, (digits.MEAN, digits.STD)
        train, validation, test = digits.load_splits(size=config.size)
    elif name in cifar.MEANS:
        usual = (cifar.MEANS[name], cifar.STDS[name])
        classes, pool, test = cifar.load_cifar(name, root=place, size=config.size, download=config.download)
        train, validation = _held_out(pool, classes, config)
    else:
        given = Path(place).expanduser()
        # The name goes into manifests that are committed: it must not carry this machine's paths.
        name = f"folder:{stem(given.resolve())}"
        classes, pool, test = load_folder(unpacked(given) if is_archive(given) else given, size=config.size)
        train, validation = _held_out(pool, classes, config)
    if config.mean is not None and config.std is not None:
        usual = (config.mean, config.std)
    mean, std = usual or measure_mean_std(train.images)
    fit = Preprocessing(mean=mean, std=std, size=config.size)
    return Dataset(name=name, classes=classes, train=train, validation=validation, test=test, preprocessing=fit)


def _held_out(pool: Split, classes: tuple[str, ...], config: DataConfig) -> tuple[Split, Split]:
    """Split the training images of a source into train and validation."""
    count = round(config.validation * len(pool))
    kept, held = stratified_split(pool.labels, classes=classes, count=count, seed=config.seed)
    train, validation = (Split(images=pool.images[part], labels=pool.labels[part]) for part in (kept, held))
    return train, validation
