"""A folder of images as PATH/train/CLASS/* and PATH/test/CLASS/*, plain or packed: what is listed, and what is refused.

An archive is unpacked once into the cache, and nothing in it is trusted.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import numpy as np

from trtbench.data.decode import data_cache, decode
from trtbench.errors import DataError
from trtbench.records import Split

if TYPE_CHECKING:
    from collections.abc import Iterator

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


SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")
_LARGEST_BYTES = 64 * 10**9  # unpacked; ImageNet's validation set has 6.7 GB


def is_archive(path: Path) -> bool:
    """Whether the path names an archive by its suffix."""
    return path.name.lower().endswith(SUFFIXES)


def stem(path: Path) -> str:
    """Return the file's name without the suffix of an archive; another name stays as it is."""
    return next((path.name[: -len(suffix)] for suffix in SUFFIXES if path.name.lower().endswith(suffix)), path.name)


def unpacked(path: Path) -> Path:
    """Unpack an archive into the cache, once for each state of the file, and return the folder that holds train/.

    Links, devices, absolute names and names that leave the folder are refused.

    Raises:
        DataError: it is absent, damaged, hostile, too large, or the disk is full.
    """
    try:
        state = path.stat()
        key = hashlib.sha256(f"{path.resolve()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:16]
        target = data_cache() / f"{stem(path)}-{key}"
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(target.with_name(f".{target.name}.lock")):
            if not target.exists():
                with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpack-") as folder:
                    _extract(path, Path(folder) / "content")
                    (Path(folder) / "content").replace(target)
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, ValueError) as error:
        raise DataError(
            f"archive {path}",
            expected="a whole archive of train/CLASS/* and test/CLASS/*, without links or names that leave it",
            got=getattr(error, "strerror", None) or str(error),
            cure="fetch or pack it again, or unpack it yourself and name the folder",
        ) from error
    return next(_roots(target), target)


def _roots(target: Path) -> Iterator[Path]:
    """Yield the folder with train/ in it: the top, or the one folder at the top."""
    for folder in (target, *sorted(entry for entry in target.iterdir() if entry.is_dir())):
        if (folder / "train").is_dir():
            yield folder


def _extract(path: Path, folder: Path) -> None:
    folder.mkdir()
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as zipped:
            _check_size(info.file_size for info in zipped.infolist())
            zipped.extractall(folder)  # noqa: S202  it drops drive letters, leading slashes and ".."
        return
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        _check_size(member.size for member in members)
        if odd := next((member.name for member in members if not (member.isfile() or member.isdir())), None):
            raise ValueError(f"{odd!r}, which is neither a file nor a folder")
        tar.extractall(folder, members=members, filter="data")


def _check_size(sizes: Iterator[int]) -> None:
    if (total := sum(sizes)) > _LARGEST_BYTES:
        raise ValueError(f"{total / 1e9:.0f} GB unpacked, above {_LARGEST_BYTES / 1e9:.0f}")
    free = shutil.disk_usage(data_cache()).free
    if total > free:
        raise ValueError(f"{total / 1e9:.1f} GB unpacked, but {free / 1e9:.1f} GB free in {data_cache()}")
