"""A folder of images that comes packed: unpacked once into the cache, and nothing in it is trusted."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from trtbench.data.cache import data_cache
from trtbench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

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
