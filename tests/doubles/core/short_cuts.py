"""A run without processes and painting, for tests of neither: workers that serve here, and figures that are blank."""

from __future__ import annotations

import io
import json
import struct
import zlib
from typing import IO, TYPE_CHECKING, Any

from trtbench import errors
from trtbench.bench.processes import LIMIT_S, WORKER, WorkerProcess
from trtbench.bench.worker import Worker, serve

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


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
