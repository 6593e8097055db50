"""The sources that a name alone gives: scikit-learn's 1,797 digits, enlarged, which need no network, and CIFAR.

CIFAR-10 and CIFAR-100 come in torchvision's archive format; torchvision checks every file's MD5 before it unpickles.
"""

from __future__ import annotations

import warnings
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from trtbench import _optional
from trtbench.data.batches import stratified_split
from trtbench.data.decode import data_cache
from trtbench.errors import ConfigError, DataError
from trtbench.records import Split

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from trtbench.records import Size


DIGITS = tuple("0123456789")
# Measured on the training split at size 32 by `measure_mean_std`; a test measures them again. All channels are equal.
DIGITS_MEAN = (0.3058,) * 3
DIGITS_STD = (0.3242,) * 3
_NATIVE = 8  # pixels a side
_LARGEST = 256  # they are blots by then; more takes memory and shows nothing
_DEEPEST = 16  # their highest grey level
_TEST = 900  # images of 1,797: enough to prove that a drop is within 2 points over several engines
_VALIDATION = 180
_SPLIT_SEED = 0  # the split is part of this source: numbers of two runs are compared on the same test images
# The statistics of the 50,000 training images that the literature normalises with.
CIFAR_MEANS: Mapping[str, tuple[float, ...]] = {
    "cifar10": (0.4914, 0.4822, 0.4465),
    "cifar100": (0.5071, 0.4865, 0.4409),
}
CIFAR_STDS: Mapping[str, tuple[float, ...]] = {
    "cifar10": (0.2470, 0.2435, 0.2616),
    "cifar100": (0.2673, 0.2564, 0.2762),
}
_CIFAR_SIDE = 32
_CIFAR: Mapping[str, str] = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def load_digits(*, size: tuple[int, int]) -> tuple[Split, Split, Split]:
    """Return train (717), validation (180) and test (900): uint8 (N, 3, height, width), three equal channels.

    No two of the 1,797 images are equal, so none stands in two splits.

    Raises:
        ConfigError: a side is below the 8 pixels the digits have, or above what there is to see of them.
        DataError: scikit-learn is not here.
    """
    if not _NATIVE <= min(size) <= max(size) <= _LARGEST:
        is_small = min(size) < _NATIVE
        expected = f"at least {_NATIVE} for digits" if is_small else f"at most {_LARGEST} for digits"
        got = str(min(size) if is_small else max(size))
        raise ConfigError("data.size", expected=expected, got=got, cure="32 is the default")
    digits, labels = _bundled()
    images = _enlarged(digits, size)
    rest, test = stratified_split(labels, classes=DIGITS, count=_TEST, seed=_SPLIT_SEED)
    train, validation = stratified_split(labels[rest], classes=DIGITS, count=_VALIDATION, seed=_SPLIT_SEED)
    parts = (rest[train], rest[validation], test)
    train_split, validation_split, test_split = (Split(images=images[part], labels=labels[part]) for part in parts)
    return train_split, validation_split, test_split


def _bundled() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the digits (N, 8, 8) and their labels from scikit-learn's file: to import it takes a second and more."""
    found = util.find_spec("sklearn")
    place = Path((found and found.origin) or "").parent / "datasets" / "data" / "digits.csv.gz"
    try:
        table = np.loadtxt(place, delimiter=",")
    except OSError as error:
        got = error.strerror or str(error)
        raise DataError(f"digits {place}", expected="a file", got=got, cure="pip install scikit-learn") from error
    return table[:, :-1].reshape(-1, _NATIVE, _NATIVE), table[:, -1].astype(np.int64)


def _enlarged(digits: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale (N, 8, 8) levels 0..16 to uint8 (N, 3, height, width), bilinear."""
    grey = np.rint(digits * (255 / _DEEPEST)).astype(np.uint8)
    height, width = size
    enlarged = _widened(_widened(grey, width).swapaxes(1, 2), height).swapaxes(1, 2)
    return np.repeat(enlarged[:, None], len(DIGITS_MEAN), axis=1)


def _widened(images: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Scale the rows of (N, height, any) to `width`: Pillow takes rows alone and first, so one call does for all."""
    rows = images.reshape(-1, images.shape[2])
    widened = Image.fromarray(rows).resize((width, len(rows)), Image.Resampling.BILINEAR)
    return np.asarray(widened).reshape(*images.shape[:2], width)


def load_cifar(name: str, *, root: str, size: Size, download: bool) -> tuple[tuple[str, ...], Split, Split]:
    """Return the class names, the published training split and the test split, uint8 (N, 3, 32, 32).

    Args:
        name: cifar10 | cifar100.
        root: the folder that holds (or gets) the archive; empty for the cache.
        size: 32, the only size there is.
        download: let torchvision fetch what is missing.

    Raises:
        ConfigError: another size is asked for.
        CapabilityError: torchvision cannot be imported.
        DataError: files are missing, damaged, or cannot be downloaded.
    """
    if size != _CIFAR_SIDE:
        raise ConfigError(
            "data.size",
            expected=f"{_CIFAR_SIDE} for {name}",
            got=str(size),
            cure="set data.size: 32, or use folder:PATH, which resizes",
        )
    folder = Path(root).expanduser() if root else data_cache()
    train, test = (_read(name, folder, is_train=is_train, download=download) for is_train in (True, False))
    return tuple(train.classes), _as_split(train), _as_split(test)


def _read(name: str, folder: Path, *, is_train: bool, download: bool) -> Any:
    dataset = getattr(_optional.load("torchvision.datasets"), _CIFAR[name])
    try:
        with warnings.catch_warnings():
            # The published pickles hold a dtype's `align` as an integer; NumPy 2.4.0 to 2.4.4 warn of it (numpy#31177).
            warnings.filterwarnings("ignore", message=r".*align", category=np.exceptions.VisibleDeprecationWarning)
            return dataset(str(folder), train=is_train, download=download)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{name} in {folder}",
            expected="torchvision's archive, unpacked and with the right MD5",
            got=" ".join(str(error).split()),
            cure=_cure(download=download),
        ) from error


def _cure(*, download: bool) -> str:
    if download:
        return "check the network and the free space, or unpack the archive there by hand"
    return "set data.download: true, name the folder that holds it, or use `digits`, which needs no network"


def _as_split(dataset: Any) -> Split:
    images = np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2))
    return Split(images=images, labels=np.array(dataset.targets, np.int64))
