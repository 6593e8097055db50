"""CIFAR-10 and CIFAR-100 in torchvision's archive format; torchvision checks every file's MD5 before it unpickles."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench import _optional
from trtbench.data.decode import data_cache
from trtbench.errors import ConfigError, DataError
from trtbench.records import Split

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbench.records import Size

# The statistics of the 50,000 training images that the literature normalises with.
MEANS: Mapping[str, tuple[float, ...]] = {"cifar10": (0.4914, 0.4822, 0.4465), "cifar100": (0.5071, 0.4865, 0.4409)}
STDS: Mapping[str, tuple[float, ...]] = {"cifar10": (0.2470, 0.2435, 0.2616), "cifar100": (0.2673, 0.2564, 0.2762)}
_SIZE = 32
_DATASETS: Mapping[str, str] = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}


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
    if size != _SIZE:
        raise ConfigError(
            "data.size",
            expected=f"{_SIZE} for {name}",
            got=str(size),
            cure="set data.size: 32, or use folder:PATH, which resizes",
        )
    folder = Path(root).expanduser() if root else data_cache()
    train, test = (_read(name, folder, is_train=is_train, download=download) for is_train in (True, False))
    return tuple(train.classes), _as_split(train), _as_split(test)


def _read(name: str, folder: Path, *, is_train: bool, download: bool) -> Any:
    dataset = getattr(_optional.load("torchvision.datasets"), _DATASETS[name])
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
