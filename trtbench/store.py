"""Content-keyed artefacts on disk: made once, verified when reused, whole or absent.

An artefact is a folder `<root>/<kind>/<key>/` with an `artefact.json` that lists the sha256 of its files. The key is
the sha256 of what it was made from; its own sha256 covers its content files only, so that logs and timings beside
them do not change what is made from it. Artefacts that came from another machine stand in for those that would be made
here, where they are alike but for their circumstances: package versions, and on what they were made.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import filelock

from trtbench.errors import StoreError
from trtbench.jsonable import sha256_of, to_jsonable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

_FORMAT = 1  # of artefact.json; part of every key
LISTING = "artefact.json"

Facts_co = TypeVar("Facts_co", covariant=True)


def file_sha256(path: Path) -> str:
    """Return the sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader, or a killed run, finds the old bytes or the new ones, never a part.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with partial.open("wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Map the operating system's refusals to store below `path` to StoreError."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "free some space (`trtbench store prune`) and run again: it goes on where it stopped"
        raise StoreError(
            f"cannot write {path}",
            got=error.strerror or str(error),
            cure=cure if full else "choose a folder that can be written, with --out or --engines",
        ) from error


class Lease:
    """A hold on a file that runs share: who wants to replace or remove what it stands for looks whether it is held.

    The system ends it with the process (flock(2)), however that ends; `close` does before.
    """

    def __init__(self, path: Path) -> None:
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact(Generic[Facts_co]):
    """A finished artefact: its folder, what it was made from, and facts its maker noted."""

    kind: str
    key: str
    folder: Path
    sha256: str
    facts: Facts_co
    seconds: float
    is_cached: bool

    def path(self, name: str) -> Path:
        """Return the path of one of its files."""
        return self.folder / name

    @property
    def size_bytes(self) -> int:
        """The bytes of all its files."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())


class Store:
    """The artefacts below one folder.

    Args:
        root: the folder; it is made when the first artefact is.
        brought: the folder of artefacts that came from another machine; nothing is written there.
    """

    def __init__(self, root: Path, *, brought: Path | None = None) -> None:
        self.root = root
        self._brought = brought

    def key(self, kind: str, inputs: Mapping[str, Any]) -> str:
        """Return the key of the artefact of this kind made from these inputs."""
        return sha256_of({"format": _FORMAT, "kind": kind, "inputs": to_jsonable(inputs)})[:24]

    def find(
        self, kind: str, inputs: Mapping[str, Any], *, circumstances: Collection[str] = ()
    ) -> Artefact[Mapping[str, Any]] | None:
        """Return the artefact if it is there and whole, else one that was brought and stands in for it, else None.

        Args:
            kind: the folder it stands in.
            inputs: everything that decides what is made.
            circumstances: the names among the inputs that may differ in what was brought.
        """
        found = self._read(self.root / kind / self.key(kind, inputs))
        return self._stand_in(kind, inputs, circumstances) if found is None and self._brought else found

    def read(self, kind: str, key: str) -> Artefact[Mapping[str, Any]] | None:
        """Return the artefact of a key if it is there and whole, else None."""
        return self._read(self.root / kind / key)

    def use(self, artefact: Artefact[Any]) -> None:
        """Note that an artefact is used, so that `prune` counts its age from now."""
        self._touch(artefact.folder)

    def make(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        maker: Callable[[Path], Any],
        *,
        content: tuple[str, ...],
        label: str = "",
        circumstances: Collection[str] = (),  # noqa: ARG002  of stores that know other machines
    ) -> Artefact[Mapping[str, Any]]:
        """Return the artefact, making it first if it is absent or damaged.

        Args:
            kind: the folder it stands in.
            inputs: everything that decides what is made, as JSON-able values.
            label: what people call it; `changed_inputs` finds an earlier one of the same label.
            maker: fills the folder it is given and returns facts to keep. What an interrupted maker left in that
                folder is still there when it is called again.
            content: the names of the files that are the artefact; others in the folder are kept, but not hashed.
            circumstances: as `find` has them.

        Raises:
            StoreError: the disk is full or cannot be written.
        """
        key = self.key(kind, inputs)
        folder = self.root / kind / key
        partial = folder.with_name(f"{key}.partial")
        with self._lock(f"{kind}-{key}"):
            if (found := self._read(folder)) is not None:
                self._touch(folder)
                return found
            with storing(folder):
                self._clear_damaged(folder)
                partial.mkdir(parents=True, exist_ok=True)
            start = time.monotonic()
            facts = to_jsonable(maker(partial))
            seconds = time.monotonic() - start
            with storing(folder):
                for leftover in partial.glob(".*.partial"):  # of a maker that was killed while it wrote
                    leftover.unlink()
                files = {name: file_sha256(partial / name) for name in content}
                listing = {
                    "kind": kind,
                    "label": label,
                    "inputs": to_jsonable(inputs),
                    "files": files,
                    "facts": facts,
                    "seconds": seconds,
                }
                write_atomically(partial / LISTING, json.dumps(listing, indent=1))
                partial.replace(folder)
            self._note(event="made", kind=kind, key=key, seconds=round(seconds, 3))
        made = self._read(folder)
        assert made is not None, "an artefact just written is whole"
        return Artefact(
            kind=kind, key=key, folder=folder, sha256=made.sha256, facts=made.facts, seconds=seconds, is_cached=False
        )

    def _stand_in(
        self, kind: str, inputs: Mapping[str, Any], circumstances: Collection[str]
    ) -> Artefact[Mapping[str, Any]] | None:
        assert self._brought is not None
        wanted = but(inputs, circumstances)
        for listing in sorted((self._brought / kind).glob(f"*/{LISTING}")):
            with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
                if but(json.loads(listing.read_bytes())["inputs"], circumstances) == wanted:
                    return self._read(listing.parent)
        return None

    def adopt(self, kind: str, key: str, files: Mapping[str, bytes]) -> Artefact[Mapping[str, Any]]:
        """Keep the files of an artefact that was made elsewhere, unless it is here; the listing is among them.

        Raises:
            StoreError: it cannot be written, or is not whole.
        """
        folder = self.root / kind / key
        partial = folder.with_name(f"{key}.partial")
        with self._lock(f"{kind}-{key}"):
            if (found := self._read(folder)) is not None:
                return found
            with storing(folder):
                self._clear_damaged(folder)
                shutil.rmtree(partial, ignore_errors=True)
                for name, content in files.items():
                    (partial / name).parent.mkdir(parents=True, exist_ok=True)
                    (partial / name).write_bytes(content)
                partial.replace(folder)
            self._note(event="adopted", kind=kind, key=key)
        if (adopted := self._read(folder)) is None:
            raise StoreError(f"artefact {folder}", expected="the files that its listing names", got="others")
        return adopted

    def changed_inputs(self, kind: str, inputs: Mapping[str, Any], *, label: str) -> tuple[str, ...]:
        """Return which inputs differ from those of the newest artefact of this label; empty if there is none."""
        listings = sorted((self.root / kind).glob(f"*/{LISTING}"), key=lambda path: path.stat().st_mtime, reverse=True)
        wanted = to_jsonable(inputs)
        for path in listings:
            with contextlib.suppress(OSError, ValueError, KeyError):
                before = json.loads(path.read_bytes())
                if before["label"] == label:
                    names = {*before["inputs"], *wanted}
                    return tuple(sorted(name for name in names if before["inputs"].get(name) != wanted.get(name)))
        return ()

    def artefacts(self) -> Iterator[Artefact[Mapping[str, Any]]]:
        """Yield every whole artefact, by kind and key."""
        for listing in sorted(self.root.glob(f"*/*/{LISTING}")):
            if (found := self._read(listing.parent)) is not None:
                yield found

    def expected_seconds(self, kind: str) -> float | None:
        """Return the median seconds that artefacts of this kind took here before, or None."""
        took = sorted(
            entry["seconds"] for entry in self.journal() if entry.get("event") == "made" and entry.get("kind") == kind
        )
        return took[len(took) // 2] if took else None

    def journal(self) -> list[dict[str, Any]]:
        """Return what happened in this store, oldest first; a line cut short by a kill is passed over."""
        path = self.root / "journal.jsonl"
        entries = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            with contextlib.suppress(json.JSONDecodeError):
                entries.append(json.loads(line))
        return entries

    def prune(self, *, older_than_days: float = 0.0) -> int:
        """Remove artefacts, whole or partial, last used before that many days ago; return the bytes freed.

        What another run is making just now stays.
        """
        limit = time.time() - older_than_days * 86400
        freed = 0
        for folder in sorted(self.root.glob("*/*")):
            if not folder.is_dir() or folder.stat().st_mtime > limit:
                continue
            with contextlib.suppress(filelock.Timeout), self._lock(_lock_name(folder), blocking=False):
                freed += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                with storing(folder):
                    shutil.rmtree(folder)
        self._note(event="pruned", bytes=freed)
        return freed

    def _read(self, folder: Path) -> Artefact[Mapping[str, Any]] | None:
        try:
            listing = json.loads((folder / LISTING).read_bytes())
            whole = all(file_sha256(folder / name) == digest for name, digest in listing["files"].items())
            if not whole:
                return None
            return Artefact(
                kind=listing["kind"],
                key=folder.name,
                folder=folder,
                sha256=sha256_of(listing["files"]),
                facts=listing["facts"],
                seconds=listing["seconds"],
                is_cached=True,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _clear_damaged(self, folder: Path) -> None:
        if folder.exists():
            shutil.rmtree(folder)
            self._note(event="damaged", kind=folder.parent.name, key=folder.name)

    def _touch(self, folder: Path) -> None:
        """Note that an artefact is used: prune goes by the last use."""
        with contextlib.suppress(OSError):
            os.utime(folder)

    @contextlib.contextmanager
    def _lock(self, name: str, *, blocking: bool = True) -> Iterator[None]:
        locks = self.root / ".locks"
        with storing(locks):
            locks.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(locks / name, blocking=blocking):
            yield

    def _note(self, **entry: Any) -> None:
        with storing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / "journal.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"time": time.time(), **entry}) + "\n")


def but(inputs: Mapping[str, Any], circumstances: Collection[str]) -> dict[str, Any]:
    """Return the inputs of an artefact, as JSON has them, without its circumstances."""
    return {name: value for name, value in to_jsonable(inputs).items() if name not in circumstances}


def _lock_name(folder: Path) -> str:
    return f"{folder.parent.name}-{folder.name.removesuffix('.partial')}"
