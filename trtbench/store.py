"""Content-keyed artefacts on disk: made once, verified when reused, whole or absent.

An artefact is a folder `<root>/<kind>/<key>/` with an `artefact.json` that lists the sha256 of its files. The key is
the sha256 of what it was made from; its own sha256 covers its content files only, so that logs and timings beside
them do not change what is made from it. Artefacts that came from another machine stand in for those that would be made
here, where they are alike but for their circumstances: package versions, and on what they were made.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from trtbench.disk import Lease, file_sha256, locked, require_file, storing, write_atomically
from trtbench.errors import StoreError
from trtbench.foreign import MISFITS, is_inside, parse_json, read_file, read_json
from trtbench.jsonable import sha256_of, to_jsonable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

_FORMAT = 1  # of artefact.json; part of every key
LISTING = "artefact.json"

Facts_co = TypeVar("Facts_co", covariant=True)


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
        user: the suite that uses it, for which `prune` keeps what its last run used.
        brought: the folder of artefacts that came from another machine; nothing is written there.
    """

    def __init__(self, root: Path, *, user: str = "", brought: Path | None = None) -> None:
        self.root = root
        self._brought = brought
        self._user = user
        self._lease: Lease | None = None
        self.held: set[str] = set()

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

    def hold(self, kind: str, key: str) -> None:
        """Let `prune` leave what stands, or is about to stand, under a key: as long as this store is there, at least.

        Raises:
            StoreError: it cannot be noted.
        """
        name = f"{kind}/{key}"
        if name in self.held:
            return
        with self._lock("leases"):
            if self._lease is None:
                path = self.root / ".leases" / f"{self._user}.{os.getpid()}.{time.time_ns()}"
                self._lease = Lease(path)
            self._lease.note(name)
        self.held.add(name)

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
                self.use(folder)
                return found
            with storing(folder):
                self._clear_damaged(folder)
                if any(path.is_symlink() for path in (partial, *partial.rglob("*"))):
                    _remove(partial)
                partial.mkdir(parents=True, exist_ok=True)
            start = time.monotonic()
            try:
                with storing(partial, only_full=True):
                    facts = to_jsonable(maker(partial))
            except StoreError:
                for name in content:  # half of it, perhaps; what a maker goes on from stays
                    (partial / name).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    partial.rmdir()
                raise
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
            self.note_made(kind, key, seconds=seconds, label=label)
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
            with contextlib.suppress(*MISFITS):
                if but(read_json(listing)["inputs"], circumstances) == wanted:
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
                if partial.exists() or partial.is_symlink():
                    _remove(partial)
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
            with contextlib.suppress(*MISFITS):
                before = read_json(path)
                if before["label"] == label:
                    names = {*before["inputs"], *wanted}
                    return tuple(sorted(name for name in names if before["inputs"].get(name) != wanted.get(name)))
        return ()

    def artefacts(self) -> Iterator[Artefact[Mapping[str, Any]]]:
        """Yield every whole artefact, by kind and key."""
        for listing in sorted(self.root.glob(f"*/*/{LISTING}")):
            if (found := self._read(listing.parent)) is not None:
                yield found

    def expected_seconds(self, kind: str, *, label: str = "") -> float | None:
        """Return the median seconds that artefacts of this kind took here before: of this label, else all; or None."""
        made = [
            (entry.get("label"), float(entry["seconds"]))
            for entry in self.journal()
            if (entry.get("event"), entry.get("kind")) == ("made", kind)
            and isinstance(entry.get("seconds"), (int, float))
        ]
        own = sorted(seconds for whose, seconds in made if label and whose == label)
        took = own or sorted(seconds for _, seconds in made)
        return took[len(took) // 2] if took else None

    def note_made(self, kind: str, key: str, *, seconds: float, label: str = "") -> None:
        """Note what making something took, in the store or beside it, for `expected_seconds`."""
        self._note(event="made", kind=kind, key=key, seconds=round(seconds, 3), label=label)

    def journal(self) -> list[dict[str, Any]]:
        """Return what happened in this store, oldest first; a line cut short by a kill is passed over."""
        path = self.root / "journal.jsonl"
        entries = []
        with contextlib.suppress(OSError, ValueError):  # it serves forecasts, and nothing may fail by it
            for line in read_file(path).decode(errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    entries.append(parse_json(line))
        return [entry for entry in entries if isinstance(entry, dict)]

    def prune(self, *, older_than_days: float = 0.0, keep: Collection[str] = (), keep_last: bool = True) -> int:
        """Remove artefacts, whole or partial, last used before that many days ago; return the bytes freed.

        What another run uses or makes just now stays, whatever is asked; a link is removed, and not followed.

        Args:
            older_than_days: the days.
            keep: what else stays, as `held` names it.
            keep_last: whether what the last run of each suite used stays, so that it goes on where it stopped.
        """
        limit = time.time() - older_than_days * 86400
        freed = 0
        with self._lock("leases"):
            kept = {*keep, *self._leased(keep_last=keep_last)}
            for folder in sorted(self.root.glob("*/*")):
                name = f"{folder.parent.name}/{folder.name.removesuffix('.partial')}"
                if folder.parent.name.startswith(".") or folder.parent.is_symlink() or name in kept:
                    continue
                if folder.lstat().st_mtime <= limit and (folder.is_dir() or folder.is_symlink()):
                    freed += self._removed(folder, lock=name.replace("/", "-"))
        self._note(event="pruned", bytes=freed)
        return freed

    def _removed(self, folder: Path, *, lock: str) -> int:
        """Remove an artefact that nobody makes just now, and return its bytes."""
        with contextlib.suppress(TimeoutError), self._lock(lock, blocking=False), storing(folder):
            is_link = folder.is_symlink()
            freed = 0 if is_link else sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())
            _remove(folder)
            return freed
        return 0

    def _leased(self, *, keep_last: bool) -> set[str]:
        """Return what runs that go on use, and the last of each suite; leases of others are removed."""
        used, users = set[str](), set[str]()
        with storing(self.root):
            paths = sorted(self.root.glob(".leases/*"), key=lambda path: path.stat().st_mtime, reverse=True)
            for path in paths:
                user = path.name.rsplit(".", maxsplit=2)[0]
                lease = Lease(path)
                is_last = keep_last and user not in users
                users.add(user)
                if is_last or not lease.alone():
                    used |= set(path.read_text(encoding="utf-8").splitlines())
                else:
                    path.unlink()
                lease.close()
        return used

    def _read(self, folder: Path) -> Artefact[Mapping[str, Any]] | None:
        try:
            listing = read_json(folder / LISTING)
            files, seconds = listing["files"], listing["seconds"]
            if not isinstance(seconds, (int, float)) or folder.parent.is_symlink() or folder.is_symlink():
                return None
            if not all(
                is_inside(folder / name, folder) and file_sha256(folder / name) == files[name] for name in files
            ):
                return None
            return Artefact(
                kind=folder.parent.name,
                key=folder.name,
                folder=folder,
                sha256=sha256_of(files),
                facts=listing["facts"],
                seconds=seconds,
                is_cached=True,
            )
        except MISFITS:
            return None

    def _clear_damaged(self, folder: Path) -> None:
        if folder.parent.is_symlink():
            cure = "remove the link, or choose another folder with --out"
            raise StoreError(f"{folder.parent}", expected="a folder of the store", got="a link out of it", cure=cure)
        if folder.exists() or folder.is_symlink():
            _remove(folder)
            self._note(event="damaged", kind=folder.parent.name, key=folder.name)

    def use(self, folder: Path) -> None:
        """Note that the artefact in a folder is used: `prune` counts its age from now."""
        with contextlib.suppress(OSError):
            os.utime(folder)

    def _lock(self, name: str, *, blocking: bool = True) -> contextlib.AbstractContextManager[None]:
        return locked(self.root / ".locks" / name, blocking=blocking)

    def _note(self, **entry: Any) -> None:
        with storing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            require_file(self.root / "journal.jsonl")
            with (self.root / "journal.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"time": time.time(), **entry}) + "\n")


def but(inputs: Mapping[str, Any], circumstances: Collection[str]) -> dict[str, Any]:
    """Return the inputs of an artefact, as JSON has them, without its circumstances."""
    return {name: value for name, value in to_jsonable(inputs).items() if name not in circumstances}


def _remove(folder: Path) -> None:
    """Remove a folder with all below it; of a link, only the link."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)
