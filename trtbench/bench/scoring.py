"""Start workers, open their engines, and score each on every image, before anything is timed."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.accuracy import score
from trtbench.bench.measured import Opening
from trtbench.engines.base import place_of
from trtbench.errors import RowError
from trtbench.store import storing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from trtbench.bench.measured import Bench, EngineFile, Measured
    from trtbench.bench.workers import WorkerProcess, Workers

_STARTING_AT_ONCE = 2


def start_all(
    workers: Workers, rows: Sequence[Measured], bench: Bench
) -> Iterator[tuple[float, list[Measured], WorkerProcess | None]]:
    """Start a worker for each engine, some at once, since importing a runtime is not timed; yield them one by one.

    Yields:
        The share that this engine ends, its rows, and its worker; None where it did not start, as its rows then say.
    """
    by_engine: dict[str, list[Measured]] = {}
    for one in rows:
        by_engine.setdefault(one.engine.name, []).append(one)
    pool = ThreadPoolExecutor(max_workers=_STARTING_AT_ONCE)
    try:
        started = [pool.submit(_start, workers, own, bench) for own in by_engine.values()]
        for index, (own, future) in enumerate(zip(by_engine.values(), started, strict=True)):
            yield (index + 1) / len(by_engine), own, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def score_engine(workers: Workers, worker: WorkerProcess, rows: Sequence[Measured], bench: Bench) -> None:
    """Open an engine and score it at each batch size."""
    images = bench.images
    try:
        opening = Opening(**_open(worker, rows[0].engine, bench))
        for one in rows:
            one.opening = opening
            logits = _logits(worker, one.batch_size)
            one.accuracy = score(logits, images.labels, reference=images.reference, names=images.classes)
            one.predictions = logits.argmax(axis=1).tolist()
    except RowError as error:
        _give_up(workers, rows, error)


def open_engine(workers: Workers, worker: WorkerProcess, rows: Sequence[Measured], bench: Bench) -> None:
    """Open an engine that was scored in another process."""
    try:
        _open(worker, rows[0].engine, bench)
    except RowError as error:
        _give_up(workers, rows, error)


def _start(workers: Workers, rows: Sequence[Measured], bench: Bench) -> WorkerProcess | None:
    engine = rows[0].engine
    log = bench.folder / "logs" / f"{engine.name.replace(' ', '_')}.log"
    try:
        place, images = place_of(engine.backend), str(bench.images.path)
        preparing = {"backend": place, "engine": str(engine.path), "images": images}
        return workers.start(engine.name, log=log, preparing=preparing)
    except RowError as error:
        for one in rows:
            one.error = error
        return None


def _open(worker: WorkerProcess, engine: EngineFile, bench: Bench) -> dict[str, Any]:
    settings = {**engine.settings, "threads": bench.config.threads, "spin": bench.config.spin}
    return worker.ask("open", settings=settings, batch=min(bench.config.batch_sizes))


def _give_up(workers: Workers, rows: Sequence[Measured], error: RowError) -> None:
    workers.drop(rows[0].engine.name)
    for one in rows:
        one.error = error


def _logits(worker: WorkerProcess, batch_size: int) -> NDArray[np.float32]:
    """Score every image at a batch size; the logits travel by a file outside the run's folder, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="trtbench-", ignore_cleanup_errors=True) as scratch:
        path = Path(scratch) / "logits.npy"
        worker.ask("score", batch=batch_size, logits=str(path))
        with storing(path):
            logits: NDArray[np.float32] = np.load(path)
        return logits
