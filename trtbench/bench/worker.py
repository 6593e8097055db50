"""The worker process of one engine: one command a line, one JSON line in answer, and no torch of its own.

Commands come on standard input; a parent that dies closes it, and the worker ends, whatever it is doing. What a runtime
prints goes to standard error, which the parent keeps as the row's log.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import sys
import time
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from trtbench.bench.load import poisson_arrivals, serve_arrivals, serve_streams
from trtbench.data.batches import batches
from trtbench.data.pixels import framed
from trtbench.data.preprocess import normalise
from trtbench.disk import storing
from trtbench.ending import commands
from trtbench.engines.base import load_backend
from trtbench.engines.sidecar import check_engine, read_sidecar
from trtbench.errors import EngineError, OutOfMemoryError, SidecarError, TrtbenchError, WorkerError
from trtbench.records import AsTheyAre

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from trtbench.engines.base import Engine, Session
    from trtbench.records import Preprocessing
    from trtbench.suite.suite import Scope

_MIN_WARM_UP_INFERENCES = 3
# A GPU that waits lowers its clocks step by step within some tenths of a second, and raises them in some hundredths.
_IDLE_NS, _RISE_NS = 100_000_000, 20_000_000
_STAND_IN_IMAGES = 64  # at least one batch's worth; what they show has no bearing on how long a dense kernel takes


class Worker:
    """The state between commands: one open engine and its sessions by batch size."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._sessions: dict[int, Session] = {}
        self._files: dict[int, Sequence[bytes]] = {}
        self._images: NDArray[np.uint8] = np.zeros((0, 3, 1, 1), dtype=np.uint8)
        self._last_ns = 0
        self._code = ""

    @property
    def commands(self) -> Mapping[str, Callable[..., dict[str, Any]]]:
        """What the parent may ask, by name."""
        asked = (self.prepare, self.open, self.score, self.warm_up, self.time, self.parts, self.load, self.close)
        return {command.__name__: command for command in asked}

    def prepare(
        self, *, backend: str, engine: str, images: str | None, sha256: str = "", code: str = ""
    ) -> dict[str, Any]:
        """Import the runtime, check the engine against its sidecar and map the images: all that is not timed.

        `backend` says where the runtime stands, as `module:NAME`: the parent alone knows the runtimes by their names.
        `sha256` is the engine's when it was built: another run may have replaced it since, its sidecar with it.
        Of all code only `code` is imported to build a network: a sidecar names none.
        Without images, seeded noise stands in for them: enough to be timed, never to be scored.
        """
        self._path, self._code = Path(engine), code
        self._runtime = load_backend(backend)
        self._sidecar = read_sidecar(self._path)
        if sha256 not in ("", self._sidecar.engine_sha256):
            expected, got = f"the one of sha256 {sha256[:12]} that was to be measured", self._sidecar.engine_sha256[:12]
            cure = "let one run at a time build it, or give another --engines"
            raise SidecarError(f"engine {engine}", expected=expected, got=got, cure=cure)
        check_engine(self._path, self._sidecar, machine=self._runtime.facts(self._sidecar.options).machine)
        self._images = _noise(self._sidecar.preprocessing) if images is None else _mapped(images)
        return {}

    def open(self, *, settings: dict[str, Any], batch: int = 1) -> dict[str, Any]:
        """Load the engine and run one batch.

        Answer its load time, the time to the first logits, its device, the settings in force and what there is to note.
        """
        start = time.perf_counter_ns()
        self._engine = self._runtime.open(self._path, self._sidecar, {**settings, "code": self._code})
        loaded = time.perf_counter_ns()
        session = self._session(batch)
        session.copy_in(next(self._batches(batch)))
        session.enqueue()
        session.copy_out()
        first = time.perf_counter_ns()
        return {
            "load_ms": (loaded - start) / 1e6,
            "first_inference_ms": (first - loaded) / 1e6,
            "device": self._engine.device,
            "settings": dict(session.describe().settings),
            "notes": list(session.describe().notes),
        }

    def score(self, *, batch: int, logits: str) -> dict[str, Any]:
        """Run every image, the last batch padded, and write the float32 logits (images, classes) as .npy."""
        session = self._session(batch)
        found = []
        for images in self._batches(batch):
            session.copy_in(images)
            session.enqueue()
            session.synchronize()
            found.append(session.copy_out())
        scores = np.concatenate(found)[: len(self._images)]
        with storing(Path(logits)), Path(logits).open("wb") as file:
            np.save(file, scores)
        return {"images": len(scores), "is_finite": bool(np.isfinite(scores).all())}

    def warm_up(
        self, *, batch: int, warm_up_ms: float, cores: list[int], scope: Scope = "device", min_sample_ms: float = 0.0
    ) -> dict[str, Any]:
        """Pin the process, fill the input with real images and run for a while.

        Answer the median inference in ns, how many there were and how long they took, how many launches a sample of
        at least `min_sample_ms` needs, what clock takes the times, the cores, and what the session says of itself.
        """
        pinned = _pin(cores)
        _forget_peak_memory()
        session = self._session(batch)
        session.copy_in(next(self._batches(batch)))
        timed = self._timer(batch, scope, launches=1)
        durations = [int(one) for one in timed(_MIN_WARM_UP_INFERENCES)]
        total = sum(durations)
        while total < warm_up_ms * 1e6:
            durations.append(int(timed(1)[0]))
            total += durations[-1]
        inference_ns = float(np.median(durations[len(durations) // 2 :]))
        facts = session.describe()
        return {
            "inference_ns": inference_ns,
            "n": len(durations),
            "warm_up_ms": total / 1e6,
            "clock": facts.clock,
            "launches": max(1, math.ceil(min_sample_ms * 1e6 / inference_ns)),
            "cores": pinned,
            # A runtime may learn only now what it can do: TensorRT falls back where no CUDA graph can be captured.
            "settings": dict(facts.settings),
            "notes": list(facts.notes),
        }

    def time(self, *, batch: int, samples: int, scope: Scope, launches: int = 1) -> dict[str, Any]:
        """Answer that many durations in nanoseconds, each of so many launches.

        Before several short ones stands one that is not counted: the engines timed in between have filled the caches.
        A GPU that had time to slow its clocks, while engines on the CPU were timed, is given some to raise them.
        Beside them stands the memory it takes: of the device where the session tells, and the most this process held.
        """
        timed = self._timer(batch, scope, launches=launches)
        if samples > 1:
            spent = int(timed(1)[0])
            while self._was_idle() and spent < _RISE_NS:
                spent += int(timed(1)[0])
        found = timed(samples)
        self._last_ns = time.monotonic_ns()
        return {
            "ns": found.tolist(),
            "device_memory_bytes": self._session(batch).describe().memory_bytes,
            "host_memory_bytes": _peak_memory_bytes(),
        }

    def _was_idle(self) -> bool:
        """Whether a GPU had time to slow its clocks since this engine was last timed on it."""
        is_on_gpu = self._engine is not None and not self._engine.device.lower().startswith("cpu")
        return is_on_gpu and time.monotonic_ns() - self._last_ns > _IDLE_NS

    def parts(self, *, batch: int, samples: int) -> dict[str, Any]:
        """Answer the nanoseconds of each part of an inference by its name, where the runtime can tell them apart."""
        parts = self._session(batch).time_parts(samples)
        if parts is None:
            return {"ns": {}}
        return {"ns": {part.name: getattr(parts, part.name).tolist() for part in fields(parts)}}

    def load(
        self, *, batch: int, streams: int, duration_s: float, cores: list[int], rate: float | None, seed: int
    ) -> dict[str, Any]:
        """Serve requests on so many sessions at once: as they end, or at `rate` a second.

        All are warm before the first thread starts: what is recorded as a CUDA graph is recorded alone.

        Answer the nanoseconds of each, and from the first start to the last end.
        """
        if self._engine is None:
            raise WorkerError("worker", expected="the command `open` first")
        sessions = [self._engine.session(batch) for _ in range(streams)]
        try:
            for session in sessions:
                session.copy_in(next(self._batches(batch)))
                session.time(1, launches_per_sample=1, scope="device")
            _pin(cores)
            if rate is None:
                served = serve_streams(sessions, duration_s=duration_s)
            else:
                served = serve_arrivals(sessions, poisson_arrivals(rate=rate, duration_s=duration_s, seed=seed))
        finally:
            for session in sessions:
                session.close()
        return {"ns": served.latencies_ns.tolist(), "elapsed_ns": served.elapsed_ns}

    def close(self) -> dict[str, Any]:
        """Free every session, then the engine."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        return {}

    def _timer(self, batch: int, scope: Scope, *, launches: int) -> Callable[[int], NDArray[np.int64]]:
        """Return what takes that many durations in nanoseconds, each of so many launches."""
        session = self._session(batch)
        if scope != "end-to-end":
            return partial(session.time, launches_per_sample=launches, scope=scope)
        if batch not in self._files:
            self._files[batch] = encoded(np.resize(self._images[:batch], (batch, *self._images.shape[1:])))
        return partial(time_end_to_end, session, self._files[batch], self._sidecar.preprocessing, launches=launches)

    def _session(self, batch: int) -> Session:
        if self._engine is None:
            raise WorkerError("worker", expected="the command `open` first")
        if batch not in self._sessions:
            self._sessions[batch] = self._engine.session(batch)
        return self._sessions[batch]

    def _batches(self, size: int) -> Iterator[NDArray[np.float32]]:
        return batches(self._images, self._sidecar.preprocessing, size=size, pads=True)


def _mapped(images: str) -> NDArray[np.uint8]:
    mapped: NDArray[np.uint8] = np.load(images, mmap_mode="r")
    return mapped


def _noise(fit: Preprocessing) -> NDArray[np.uint8]:
    if isinstance(fit, AsTheyAre):
        return np.zeros(_STAND_IN_IMAGES, fit.record)
    return np.random.default_rng(0).integers(0, 256, (_STAND_IN_IMAGES, *fit.input_shape), dtype=np.uint8)


def _pin(cores: list[int]) -> list[int]:
    """Bind every thread of this process to the cores; where the system has no such call, go on unbound.

    Returns the cores it is bound to.
    """
    if not cores or not hasattr(os, "sched_setaffinity"):
        return []
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # a thread that has ended meanwhile
            os.sched_setaffinity(int(thread.name), cores)
    return sorted(os.sched_getaffinity(0))


def _forget_peak_memory() -> None:
    """Let the kernel count the peak afresh (proc(5), clear_refs 5), so that each batch size has its own."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_memory_bytes() -> int | None:
    """Return the peak resident memory since it was last forgotten, where the system tells.

    Not getrusage: its peak is inherited from the parent across fork and exec.
    """
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
        return int(found.group(1)) * 1024 if found else None
    return None


def serve(commands: Iterable[str], answers: IO[str], *, kind: Callable[[], Worker] = Worker) -> None:
    """Write the answer of a worker of this kind to each command line until the input ends."""
    known = kind().commands
    for line in commands:
        command = json.loads(line)
        do = command.pop("do")
        try:
            if do not in known:
                raise WorkerError("worker", expected=f"a command out of {', '.join(known)}", got=repr(do))
            answer = known[do](**command)
        except TrtbenchError as error:
            answer = {"error": type(error).__name__, "reason": str(error)}
        except MemoryError:
            answer = {"error": OutOfMemoryError.__name__, "reason": "the host ran out of memory"}
        except OSError as error:
            answer = {"error": EngineError.__name__, "reason": f"the worker cannot read or write: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def own_output() -> IO[str]:
    """Return where standard output was; what anything else prints there goes to standard error from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def encoded(images: NDArray[np.uint8]) -> tuple[bytes, ...]:
    """Return images, uint8 (N, C, H, W), as the bytes of PNG files of their size."""
    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, "PNG")
        files.append(file.getvalue())
    return tuple(files)


def time_end_to_end(
    session: Session, files: Sequence[bytes], preprocessing: Preprocessing, samples: int, *, launches: int
) -> NDArray[np.int64]:
    """Return `samples` durations in nanoseconds, each of `launches` times a whole batch of image files.

    Each is decoded, resampled where its size is not the network's, normalised, copied in, run, and its logits copied
    out; one thread does it all.
    """
    durations = np.empty(samples, np.int64)
    for index in range(samples):
        start = time.perf_counter_ns()
        for _ in range(launches):
            infer(session, files, preprocessing)
        durations[index] = time.perf_counter_ns() - start
    return durations


def infer(session: Session, files: Sequence[bytes], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return the logits of the image files of one batch."""
    pixels = []
    for file in files:
        with Image.open(io.BytesIO(file)) as image:
            pixels.append(framed(image, **preprocessing.framing).transpose(2, 0, 1))
    session.copy_in(normalise(np.stack(pixels), preprocessing))
    session.enqueue()
    session.synchronize()
    return session.copy_out()


if __name__ == "__main__":
    serve(commands(sys.stdin), own_output())
