"""A run without what other tests are of: workers serve here, figures are blank, what was made once is copied."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import struct
import tempfile
import zlib
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from trtbench import errors
from trtbench.bench.processes import LIMIT_S, WORKER, WorkerProcess
from trtbench.bench.worker import Worker, serve
from trtbench.jsonable import to_jsonable
from trtbench.store import Artefact, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class WorkerHere(WorkerProcess):
    """The same commands, JSON and errors as a `WorkerProcess`, without a process, a pipe or a pinned core."""

    def __init__(self, name: str, *, log: Path, module: str = WORKER) -> None:
        assert module == WORKER, "a worker of another kind needs a process"
        self.name = name
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        self._worker = Worker()

    def ask(self, do: str, *, limit_s: float = LIMIT_S, **arguments: Any) -> dict[str, Any]:
        answers = io.StringIO()
        serve([json.dumps({"do": do, **arguments})], answers, kind=lambda: self._worker)
        found: dict[str, Any] = json.loads(answers.getvalue())
        if "error" in found:
            raise getattr(errors, found["error"], errors.EngineError)(found["reason"])
        return found

    def close(self) -> None:
        self.ask("close")

    def kill(self) -> None:
        self.close()


def worker_here(
    name: str, *, log: Path, module: str = WORKER, under: Sequence[str] = (), spin: bool = False
) -> WorkerProcess:
    """Return a worker that serves here; under an emulator only a process can be."""
    return WorkerProcess(name, log=log, under=under, spin=spin) if under else WorkerHere(name, log=log, module=module)


def confined_here(place: str, path: Path, **arguments: Any) -> Any:
    """Call what `confined` would call, with the same JSON in and out, without a process and its limits."""
    module, _, name = place.partition(":")
    value = getattr(import_module(module), name)(path, **json.loads(json.dumps(arguments)))
    return json.loads(json.dumps(value))


def save_blank(_figure: object, file: IO[bytes], *, format: str, **_: Any) -> None:
    """Write one pixel, or an empty drawing, in place of `Figure.savefig`."""
    if format == "svg":
        file.write(b'<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="72pt"/>')
        return
    assert format == "png"
    parts = {b"IHDR": struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0), b"IDAT": zlib.compress(bytes(2)), b"IEND": b""}
    file.write(b"\x89PNG\r\n\x1a\n")
    for name, data in parts.items():
        file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))


def making_once(kept: Path) -> Callable[..., Artefact[Mapping[str, Any]]]:
    """Return a `Store.make` whose makers' work is done once for all stores and processes that share the folder `kept`.

    It is told as made all the same: what a test sees of the store, its key, files, facts and events, is what it would
    see. Files are copied, since tests damage them.
    """
    make = Store.make

    def once(
        self: Store, kind: str, inputs: Mapping[str, Any], maker: Callable[[Path], Any], **more: Any
    ) -> Artefact[Mapping[str, Any]]:
        there = kept / kind / self.key(kind, inputs)

        def copied(folder: Path) -> Any:
            if any(folder.iterdir()):  # an interrupted maker goes on
                return maker(folder)
            if not there.exists():
                facts = to_jsonable(maker(folder))
                there.parent.mkdir(parents=True, exist_ok=True)
                whole = Path(tempfile.mkdtemp(dir=there.parent))
                shutil.copytree(folder, whole / "files")
                (whole / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
                with contextlib.suppress(OSError):  # another process was first
                    whole.replace(there)
                return facts
            shutil.copytree(there / "files", folder, dirs_exist_ok=True)
            return json.loads((there / "facts.json").read_text(encoding="utf-8"))

        return make(self, kind, inputs, copied, **more)

    return once
