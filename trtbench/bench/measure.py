"""Measure engine files: one worker process each, scored on every image, then timed in interleaved blocks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.accuracy import score
from trtbench.bench.latency import TimedRow, measure_interleaved
from trtbench.bench.workers import Workers
from trtbench.errors import RowError, WorkerError
from trtbench.store import storing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from trtbench.bench.workers import WorkerProcess
    from trtbench.records import AccuracyRecord
    from trtbench.suite import BenchConfig

Progress = Callable[[str, str, float], None]  # told stage, item and share done in [0, 1]
_STARTING_AT_ONCE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFile:
    """An engine to measure; `name` is unique."""

    name: str
    backend: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How an engine started: milliseconds to load it and to the first logits, where it runs, the settings in force."""

    load_ms: float
    first_inference_ms: float
    device: str
    settings: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Measured:
    """What was learnt of one engine at one batch size before something failed, if anything did.

    `is_alone` says that it was timed by itself, after its worker had crashed: its blocks pair with no other's.
    """

    engine: EngineFile
    batch_size: int
    opening: Opening | None = None
    accuracy: AccuracyRecord | None = None
    timed: TimedRow | None = None
    memory_bytes: int | None = None
    cores: tuple[int, ...] = ()
    predictions: list[int] = field(default_factory=list)
    error: RowError | None = None
    is_alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The labelled images to score on: a .npy of uint8 (N, C, H, W), int64 labels (N,), the reference's logits."""

    path: Path
    labels: NDArray[np.int64]
    reference: NDArray[np.float32] | None = None


def measure_engines(
    engines: Sequence[EngineFile],
    images: Images,
    config: BenchConfig,
    *,
    folder: Path,
    progress: Progress,
) -> list[Measured]:
    """Open, score and time engine files at every batch size; an engine that fails ends alone.

    One worker works at a time. The engine that is timed is the process that was scored. A worker that crashes while it
    is timed is started once more and measured by itself.

    Args:
        engines: the files, with their sidecars beside them.
        images: what they are scored on; the first images are those they are timed on.
        config: batch sizes and the timing budget.
        folder: the run's folder, for logs and logits.
        progress: told stage, engine and share done.
    """
    found = [Measured(engine=engine, batch_size=size) for engine in engines for size in config.batch_sizes]
    with Workers() as workers:
        _score_all(workers, found, images, config, folder=folder, progress=progress)
        for size in config.batch_sizes:
            _time_all(workers, [one for one in found if one.batch_size == size], config, progress=progress)
    crashed = [one for one in found if isinstance(one.error, WorkerError) and one.opening is not None]
    for one in crashed:
        _measure_again(one, images, config, folder=folder, progress=progress)
    return found


def cores(threads: int) -> list[int]:
    """Return the cores a timed worker is bound to: the last ones, the first being where the system is busiest."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))[-threads:]


def _score_all(
    workers: Workers,
    found: Sequence[Measured],
    images: Images,
    config: BenchConfig,
    *,
    folder: Path,
    progress: Progress,
) -> None:
    """Start all workers, some at once, since importing a runtime is not timed; then open and score one by one."""
    engines = {one.engine.name: one.engine for one in found}
    rows = {name: [one for one in found if one.engine.name == name] for name in engines}
    pool = ThreadPoolExecutor(max_workers=_STARTING_AT_ONCE)
    try:
        started = [
            pool.submit(_start, workers, engine, images, folder=folder, rows=rows[name])
            for name, engine in engines.items()
        ]
        for index, (name, future) in enumerate(zip(engines, started, strict=True)):
            if (worker := future.result()) is not None:
                _score_engine(workers, worker, rows[name], images, config)
            progress("score", name, (index + 1) / len(engines))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _start(
    workers: Workers, engine: EngineFile, images: Images, *, folder: Path, rows: Sequence[Measured]
) -> WorkerProcess | None:
    preparing = {"backend_name": engine.backend, "engine": str(engine.path), "images": str(images.path)}
    try:
        return workers.start(engine.name, log=folder / "logs" / f"{_slug(engine)}.log", preparing=preparing)
    except RowError as error:
        for one in rows:
            one.error = error
        return None


def _score_engine(
    workers: Workers,
    worker: WorkerProcess,
    rows: Sequence[Measured],
    images: Images,
    config: BenchConfig,
) -> None:
    engine = rows[0].engine
    try:
        opening = Opening(**worker.ask("open", settings={"threads": config.threads, "spin": config.spin}))
        for one in rows:
            one.opening = opening
            logits = _logits(worker, one.batch_size)
            one.accuracy = score(logits, images.labels, reference=images.reference)
            one.predictions = logits.argmax(axis=1).tolist()
    except RowError as error:
        workers.drop(engine.name)
        for one in rows:
            one.error = error


def _slug(engine: EngineFile) -> str:
    return engine.name.replace(" ", "_")


def _logits(worker: WorkerProcess, batch_size: int) -> NDArray[np.float32]:
    """Score every image at a batch size; the logits travel by a file outside the run's folder, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="trtbench-", ignore_cleanup_errors=True) as scratch:
        path = Path(scratch) / "logits.npy"
        worker.ask("score", batch=batch_size, logits=str(path))
        with storing(path):
            logits: NDArray[np.float32] = np.load(path)
        return logits


class _TimedWorker:
    """A worker at one batch size, for `measure_interleaved`."""

    def __init__(self, worker: WorkerProcess, row: Measured, config: BenchConfig) -> None:
        self._worker = worker
        self._row = row
        self._config = config

    def warm_up(self) -> float:
        answer = self._worker.ask(
            "warm_up", batch=self._row.batch_size, warm_up_ms=self._config.warm_up, cores=cores(self._config.threads)
        )
        self._row.cores = tuple(answer["cores"])
        return float(answer["inference_ns"])

    def time(self, samples: int) -> NDArray[np.int64]:
        answer = self._worker.ask("time", batch=self._row.batch_size, samples=samples, scope="device")
        self._row.memory_bytes = answer["peak_memory_bytes"]
        return np.array(answer["ns"], dtype=np.int64)


def _time_all(
    workers: Workers,
    rows: Sequence[Measured],
    config: BenchConfig,
    *,
    progress: Progress,
) -> None:
    waiting = [one for one in rows if one.error is None]
    timers = {}
    for one in waiting:
        if (worker := workers.alive(one.engine.name)) is not None:
            timers[one.engine.name] = _TimedWorker(worker, one, config)
        else:
            one.error = WorkerError(f"worker of {one.engine.name}", got="a crash at another batch size")
    if not timers:
        return
    size = rows[0].batch_size
    taken = measure_interleaved(
        timers,
        block_ms=config.block_ms,
        duration_s=config.duration,
        iterations=config.iterations,
        seed=size,
        on_round=lambda share: progress("time", f"batch {size}", share),
    )
    for one in waiting:
        result = taken.get(one.engine.name)
        if isinstance(result, TimedRow):
            one.timed = result
        elif result is not None:
            workers.drop(one.engine.name)
            one.error = result


def _measure_again(row: Measured, images: Images, config: BenchConfig, *, folder: Path, progress: Progress) -> None:
    """Measure one row once more in a process of its own, after its worker crashed."""
    row.error, row.is_alone = None, True
    with Workers() as workers:
        if (worker := _start(workers, row.engine, images, folder=folder, rows=[row])) is not None:
            _score_engine(workers, worker, [row], images, config)
        _time_all(workers, [row], config, progress=progress)
