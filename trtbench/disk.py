"""Files on disk: written whole or not at all, refused in four facts, locked, and held by those who use them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
import tempfile
import weakref
from typing import TYPE_CHECKING

import filelock

from trtbench.errors import CapabilityError, StoreError
from trtbench.foreign import file_size

try:
    import fcntl
except ModuleNotFoundError as missing:
    raise CapabilityError(
        "this system", expected="flock(2), as on Linux", got=sys.platform, cure="on Windows run trtbench in WSL 2"
    ) from missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CUT_SHORT = " requested and "  # "... 7664 written": NumPy's words, which have no number


def file_sha256(path: Path) -> str:
    """Return the sha256 (hex) of a regular file's bytes; another kind may never end.

    Raises:
        OSError: it cannot be read, or is of another kind.
    """
    try:
        file_size(path, most=sys.maxsize)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from error
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader, or a killed run, finds the old bytes or the new ones, never a part.

    Raises:
        StoreError: the disk is full, the folder cannot be written, or what stands there is no file.
    """
    with storing(path):
        require_file(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            nameless = getattr(os, "O_TMPFILE", None)  # Linux's, and not of every file system
            try:
                _write(partial, data, nameless=nameless)
            except OSError as error:
                if error.errno in _FULL or nameless is None:
                    raise
                _write(partial, data, nameless=None)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def require_file(path: Path) -> None:
    """Refuse to write to what is no file: a pipe waits for a reader for ever.

    Raises:
        StoreError: a folder, a device, a pipe or a socket stands there.
    """
    if path.exists() and not path.is_file():
        got = "a folder" if path.is_dir() else "a device, pipe or socket"
        raise StoreError(f"cannot write {path}", expected="a file or nothing there", got=got, cure="name another")


def _write(partial: Path, data: bytes | str, *, nameless: int | None) -> None:
    """Write a file, which has no name before it is whole: what a killed process wrote is gone with it (open(2))."""
    flags, place = (os.O_CREAT | os.O_TRUNC, partial) if nameless is None else (nameless, partial.parent)
    with os.fdopen(os.open(place, flags | os.O_WRONLY | os.O_CLOEXEC, 0o666), "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
        if nameless is not None:
            partial.unlink(missing_ok=True)
            os.link(f"/proc/self/fd/{file.fileno()}", partial, follow_symlinks=True)


@contextlib.contextmanager
def storing(path: Path, *, only_full: bool = False) -> Iterator[None]:
    """Map the operating system's refusals to store below `path` to StoreError, or `only_full` disks."""
    try:
        yield
    except OSError as error:
        is_full = error.errno in _FULL or _CUT_SHORT in str(error)
        if isinstance(error, filelock.Timeout) or (only_full and not is_full):
            raise
        cure = "free some space there (`trtbench store prune`) and run again: it goes on where it stopped"
        raise StoreError(
            f"cannot write {path}",
            got=f"{error.strerror or error}" + (f" in {path.parent}" if is_full else ""),
            cure=cure if is_full else "choose a folder that can be written, with --out or --engines",
        ) from error


def require_room(folder: Path, size: int) -> None:
    """Tell a full disk from other reasons why a library that says neither could not write so many bytes.

    Raises:
        StoreError: they do not fit.
    """
    with storing(folder / "a file"), tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # macOS has none, and keeps the library's own words
            os.posix_fallocate(file.fileno(), 0, size)


class Lease:
    """A hold on a file that runs share: who wants to replace or remove what it stands for looks whether it is held.

    The system ends it with the process (flock(2)), however that ends; `close` does before.
    """

    def __init__(self, path: Path) -> None:
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        self._path = path
        self.close = weakref.finalize(self, os.close, self._file)
        self.share()

    def share(self) -> None:
        """Hold it beside others; waits for one that holds it alone."""
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def alone(self) -> bool:
        """Hold it alone, and say whether that is so: where another holds it, this one no longer does."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def note(self, line: str) -> None:
        """Add a line to the file, which outlives the hold."""
        with storing(self._path):
            os.write(self._file, f"{line}\n".encode())


@contextlib.contextmanager
def locked(path: Path, *, blocking: bool = True) -> Iterator[None]:
    """Let one at a time, of all processes, be in the block.

    Raises:
        StoreError: the lock cannot be made.
        TimeoutError: another is, and this one is not to wait.
    """
    lock = filelock.FileLock(path)
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=blocking)
    try:
        yield
    finally:
        lock.release()
