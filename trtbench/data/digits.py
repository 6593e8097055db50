"""The 1,797 handwritten digits bundled with scikit-learn, enlarged: the offline source."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from trtbench.data.batches import stratified_split
from trtbench.errors import ConfigError, DataError
from trtbench.records import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = tuple("0123456789")
# Measured on the training split at size 32 by `measure_mean_std`; a test measures them again. All channels are equal.
MEAN = (0.3058,) * 3
STD = (0.3242,) * 3
_NATIVE = 8  # pixels a side
_LARGEST = 256  # they are blots by then; more takes memory and shows nothing
_DEEPEST = 16  # their highest grey level
_TEST = 900  # images of 1,797: enough to prove that a drop is within 2 points over several engines
_VALIDATION = 180
_SPLIT_SEED = 0  # the split is part of this source: numbers of two runs are compared on the same test images


def load_splits(*, size: tuple[int, int]) -> tuple[Split, Split, Split]:
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
    rest, test = stratified_split(labels, classes=CLASSES, count=_TEST, seed=_SPLIT_SEED)
    train, validation = stratified_split(labels[rest], classes=CLASSES, count=_VALIDATION, seed=_SPLIT_SEED)
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
    enlarged = [Image.fromarray(digit).resize(size[::-1], Image.Resampling.BILINEAR) for digit in grey]
    return np.repeat(np.stack([np.asarray(digit) for digit in enlarged])[:, None], len(MEAN), axis=1)
