"""A folder of images as PATH/train/CLASS/* and PATH/test/CLASS/*: what is listed, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbench.data.decode import decode
from trtbench.errors import DataError
from trtbench.records import Split

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_LAYOUT = "PATH/train/CLASS/* and PATH/test/CLASS/*"
_FEWEST_CLASSES = 2  # a classifier tells at least two things apart
_NO_IMAGES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # what desktops leave behind; hidden files go too


def load_folder(root: Path, *, size: int) -> tuple[tuple[str, ...], Split, Split]:
    """Return the class names (sorted), the training split and the test split, uint8 (N, 3, size, size).

    Images come class by class, by name within a class. All become RGB, and size x size if they are not.

    Raises:
        DataError: a folder is missing or empty, train and test name different classes, or files are no images.
    """
    train, test = (_classes(root, part) for part in ("train", "test"))
    _check_classes(root, train, test)
    train_files, test_files = ([_images(folder) for folder in part.values()] for part in (train, test))
    images = decode([path for files in train_files + test_files for path in files], root=root, size=size)
    train_labels, test_labels = (_labels(part) for part in (train_files, test_files))
    boundary = len(train_labels)
    return (
        tuple(train),
        Split(images=images[:boundary], labels=train_labels),
        Split(images=images[boundary:], labels=test_labels),
    )


def _classes(root: Path, part: str) -> dict[str, Path]:
    """Return the class folders of one part by name, sorted."""
    try:
        entries = sorted((root / part).iterdir())
    except OSError as error:
        raise DataError(
            f"data.source folder:{root}",
            expected=_LAYOUT,
            got=f"{root / part}: {error.strerror}",
            cure="mend the path, or move a share of each class there",
        ) from error
    return {entry.name: entry for entry in entries if entry.is_dir() and not _is_ignored(entry)}


def _check_classes(root: Path, train: dict[str, Path], test: dict[str, Path]) -> None:
    if len(train) < _FEWEST_CLASSES:
        raise DataError(
            f"class folders of {root / 'train'}",
            expected=f"at least {_FEWEST_CLASSES}, as in {_LAYOUT}",
            got=str(len(train)),
            cure="put the images of each class in a folder of its own",
        )
    if differing := sorted(set(train) ^ set(test)):
        raise DataError(
            f"classes of {root}",
            expected="the same class folders in train and test",
            got=f"{', '.join(map(repr, differing[:10]))} in one of them only",
            cure="rename or remove them",
        )


def _images(folder: Path) -> list[Path]:
    paths = sorted(entry for entry in folder.iterdir() if not _is_ignored(entry))
    if not paths:
        raise DataError(
            f"class folder {folder}",
            expected="images",
            got="none",
            cure="add images, or remove the class from train and test",
        )
    return paths


def _labels(files: list[list[Path]]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(files), dtype=np.int64), [len(paths) for paths in files])


def _is_ignored(entry: Path) -> bool:
    return entry.name.startswith(".") or entry.name.casefold() in _NO_IMAGES
