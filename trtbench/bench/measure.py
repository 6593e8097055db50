"""Measure engine files: scored on every image, then timed in interleaved blocks over several worker processes each."""

from __future__ import annotations

import contextlib
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.accuracy import judge_of
from trtbench.bench.interleave import Budget, Timing, measure_interleaved
from trtbench.bench.load import measure_load
from trtbench.bench.processes import Workers, cores, patient_limit_s, scoring_limit_s
from trtbench.bench.records import PLAIN, Measured, Opening, Run, Way
from trtbench.disk import storing
from trtbench.engines.base import place_of
from trtbench.errors import OutOfMemoryError, RowError, WorkerError
from trtbench.rows import FidelityRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from trtbench.bench.processes import WorkerProcess
    from trtbench.bench.records import Bench, EngineFile
    from trtbench.suite import BenchConfig

_ENERGY_S = 1.0  # NVML's counter steps every 20 to 100 ms
# Numbers of the processes that are started beside the plan's: where the choice was open, and for failed rows.
_MORE, _AGAIN = 10_000, 20_000
_AT_ONCE = 2  # workers that start or score
_THROUGHPUT_SAMPLE_MS = 1.0  # a sample of the throughput mode lasts this long at least
_PARTS_SAMPLES, _PARTS_LIMIT_S = 50, 3600.0


def measure_engines(
    engines: Sequence[EngineFile], bench: Bench, *, found: list[Measured] | None = None
) -> list[Measured]:
    """Open, score and time engine files at every batch size; an engine that fails ends alone.

    One worker works at a time. The first process that is timed is the one that was scored; the others are fresh, since
    processes of one engine differ more than the blocks of one. A worker that crashes while it is timed, or runs out of
    memory beside the others, is started once more and measured by itself.

    Args:
        engines: the files, with their sidecars beside them; the first is in every group.
        bench: how, on which images, and who is told.
        found: filled as the measurement goes on, so that what an interrupted one had is not lost.
    """
    found, config = [] if found is None else found, bench.config
    found += [Measured(engine=engine, batch_size=size) for engine in engines for size in config.batch_sizes]
    for group, process, share in _turns(found, config):
        since = time.monotonic()
        with _opened(group, bench) as (workers, is_first):
            since = time.monotonic() if is_first else since
            for size in config.batch_sizes:
                rows = [one for one in group if one.batch_size == size and one.error is None]
                time_side_by_side(workers, rows, bench, batch_size=size, process=process, share=share)
                bench.seconds[process] = time.monotonic() - since
                if is_first:
                    _load_all(workers, rows, bench)
    return found


def time_again(rows: Sequence[Measured], bench: Bench, *, number: int) -> float:
    """Time rows of one batch size in one more process of each, side by side, and return the seconds it took.

    A row that fails in it stands as it was.
    """
    process, since = _MORE + number, time.monotonic()
    with _opened(rows, bench) as (workers, _):
        opened, size = [one for one in rows if one.error is None], rows[0].batch_size
        time_side_by_side(workers, opened, bench, batch_size=size, process=process, share=(0, 1))
        bench.seconds[process] = time.monotonic() - since
    for one in rows:
        if one.error is not None:
            one.error = None
            one.runs.pop(process, None)
    return bench.seconds[process]


def _turns(found: Sequence[Measured], config: BenchConfig) -> Iterator[tuple[list[Measured], int, tuple[int, int]]]:
    """Yield the rows that are measured side by side, the number of their processes, and which turn it is of how many.

    Last, by itself, comes each row that failed in the turns before and deserves another try.
    """
    together = groups(list(dict.fromkeys(one.engine.name for one in found)), alive=config.alive)
    turns = [(names, process) for names in together for process in range(config.processes)]
    for number, (names, _) in enumerate(turns):
        yield [one for one in found if one.engine.name in names], number, (number, len(turns))
    for number, one in enumerate([one for one in found if _deserves_another_try(one, is_only=len(found) == 1)]):
        one.error, one.is_alone = None, True
        one.runs.clear()
        for process in range(config.processes):
            yield [one], _AGAIN + number * config.processes + process, (process, config.processes)


def groups(names: Sequence[str], *, alive: int | None) -> list[list[str]]:
    """Split engines into the fewest groups of at most `alive`, as even as can be, each led by the first engine."""
    if alive is None or len(names) <= alive:
        return [list(names)] if names else []
    anchor, others = names[0], names[1:]
    number = -(-len(others) // (alive - 1))
    return [[anchor, *others[index::number]] for index in range(number)]


def _deserves_another_try(one: Measured, *, is_only: bool) -> bool:
    """Whether a row failed by a crash, or by memory that it would have had alone."""
    if isinstance(one.error, OutOfMemoryError):
        return not is_only
    return isinstance(one.error, WorkerError) and one.is_scored


@contextlib.contextmanager
def _opened(group: Sequence[Measured], bench: Bench) -> Iterator[tuple[Workers, bool]]:
    """Open each engine that has not failed in a fresh process, and score those that were not.

    Importing a runtime and scoring are not timed, so that some do at once. It yields the workers, and whether there was
    something to score.
    """
    waiting = [one for one in group if one.error is None]
    engines, unscored = _by_engine(waiting), _by_engine([one for one in waiting if not one.is_scored])
    with Workers(spin=bench.config.spin) as workers:
        with _some_at_once() as pool:
            for own, worker in zip(engines, pool.map(_start, repeat(workers), engines, repeat(bench)), strict=True):
                if worker is not None:
                    open_engine(workers, worker, own, bench)
            scored = pool.map(score_engine, repeat(workers), unscored, repeat(bench))
            for number, (own, _) in enumerate(zip(unscored, scored, strict=True), start=1):
                bench.progress("score", own[0].engine.name, number / len(unscored))
        yield workers, bool(unscored)


def _load_all(workers: Workers, group: Sequence[Measured], bench: Bench) -> None:
    """Put the loads of the suite on each row in turn, and count its energy, once it was timed."""
    for index, one in enumerate(group):
        worker = workers.alive(one.engine.name)
        if worker is None or one.error is not None:
            continue
        try:
            _count_energy(worker, one, bench)
            one.loads = tuple(
                measure_load(worker, load, batch_size=one.batch_size, threads=bench.config.threads)
                for load in bench.config.load
            )
        except RowError as error:
            workers.drop(one.engine.name)
            one.error = error
        if bench.config.load:
            bench.progress("load", f"batch {one.batch_size}", (index + 1) / len(group))


def _count_energy(worker: WorkerProcess, one: Measured, bench: Bench) -> None:
    """Run an engine for a second by itself, and divide the joules its device took by the images."""
    assert one.opening is not None, "what was timed was opened"
    timed = one.timed
    before = bench.energy_j(one.opening.device)
    if before is None or timed is None:
        return
    samples = max(1, round(_ENERGY_S * 1e9 / float(timed.block_medians_ns.mean())))
    worker.ask("time", batch=one.batch_size, samples=samples, scope="device")
    after = bench.energy_j(one.opening.device)
    one.energy_j = None if after is None else (after - before) / ((samples + 1) * one.batch_size)


def score_engine(workers: Workers, group: Sequence[Measured], bench: Bench) -> None:
    """Score an engine at each batch size, unless it failed."""
    worker, images, smallest = workers.alive(group[0].engine.name), bench.images, min(bench.config.batch_sizes)
    judge = judge_of(images)
    if worker is None or group[0].error is not None:
        return
    try:
        # The logits travel by files outside the run's folder, gone afterwards.
        with tempfile.TemporaryDirectory(prefix="trtbench-", ignore_cleanup_errors=True) as scratch:
            for one in group:
                path = Path(scratch) / f"{one.batch_size}.npy"
                assert one.opening is not None, "what is scored was opened"
                limit_s = scoring_limit_s(one.opening.first_inference_ms, -(-len(images.labels) // smallest))
                worker.ask("score", limit_s=limit_s, batch=one.batch_size, logits=str(path))
                with storing(path):
                    logits = np.load(path)
                found = judge(logits)
                if isinstance(found, FidelityRecord):
                    one.fidelity = found
                else:
                    one.accuracy, one.predictions = found, logits.argmax(axis=1).tolist()
    except RowError as error:
        _give_up(workers, group, error)


def open_engine(workers: Workers, worker: WorkerProcess, group: Sequence[Measured], bench: Bench) -> None:
    """Open an engine; how it started is told of its first process."""
    try:
        opening = Opening(**_open(worker, group[0].engine, bench))
    except RowError as error:
        _give_up(workers, group, error)
        return
    for one in group:
        one.opening = one.opening or opening


def _by_engine(group: Sequence[Measured]) -> list[list[Measured]]:
    found: dict[str, list[Measured]] = {}
    for one in group:
        found.setdefault(one.engine.name, []).append(one)
    return list(found.values())


@contextlib.contextmanager
def _some_at_once() -> Iterator[ThreadPoolExecutor]:
    """Lend threads that wait for workers; an interruption does not wait for them."""
    pool = ThreadPoolExecutor(max_workers=_AT_ONCE)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _start(workers: Workers, group: Sequence[Measured], bench: Bench) -> WorkerProcess | None:
    engine = group[0].engine
    log = bench.folder / "logs" / f"{engine.name.replace(' ', '_')}.log"
    try:
        place, images = place_of(engine.backend), str(bench.images.path)
        preparing = {"backend": place, "engine": str(engine.path), "images": images}
        preparing |= {"sha256": engine.sha256, "code": engine.code}
        return workers.start(engine.name, log=log, preparing=preparing)
    except RowError as error:
        for one in group:
            one.error = error
        return None


def _open(worker: WorkerProcess, engine: EngineFile, bench: Bench) -> dict[str, Any]:
    settings = {**engine.settings, "threads": bench.config.threads, "spin": bench.config.spin}
    return worker.ask("open", settings=settings, batch=min(bench.config.batch_sizes))


def _give_up(workers: Workers, group: Sequence[Measured], error: RowError) -> None:
    workers.drop(group[0].engine.name)
    for one in group:
        one.error = error


def ways(config: BenchConfig) -> tuple[Way, ...]:
    """Return the ways a suite wants its rows timed, the plain one first."""
    extra = [Way(scope=scope) for scope in config.scopes if scope != PLAIN.scope]
    return (PLAIN, *extra, *([Way(mode="throughput")] if config.throughput else []))


def budget_of(config: BenchConfig) -> Budget:
    """Return what each of the processes of an engine is timed for, so that their sum is what the suite asks for."""
    return Budget(
        block_ms=config.block_ms,
        duration_s=config.duration / config.processes,
        iterations=-(-config.iterations // config.processes),
        warm_up_ms=config.warm_up,
        noise=config.noise,
        ceiling_s=max(config.duration, config.ceiling) / config.processes,
        rounds=2,
    )


def time_side_by_side(
    workers: Workers, rows: Sequence[Measured], bench: Bench, *, batch_size: int, process: int, share: tuple[int, int]
) -> None:
    """Time rows of one batch size in interleaved blocks, each in every way that the suite asks for.

    Args:
        workers: their open engines; one may have crashed at another batch size.
        rows: what is timed; each gets the run of this process.
        bench: how.
        batch_size: of all of them.
        process: the number of these processes; with the batch size it seeds the order within the rounds.
        share: which turn this is, and of how many.
    """
    runs = {one.engine.name: Run() for one in rows}
    timers: dict[tuple[str, Way], Timer] = {}
    budget, pinned = budget_of(bench.config), cores(bench.config.threads)
    for name, run in runs.items():
        if (worker := workers.alive(name)) is None:
            run.error = WorkerError(f"worker of {name}", got="a crash at another batch size")
            continue
        for way in ways(bench.config):
            timers[name, way] = Timer(
                worker=worker, batch_size=batch_size, warm_up_ms=budget.warm_up_ms, cores=pinned, way=way, run=run
            )

    def tell(part: float) -> None:
        bench.progress("time", f"batch {batch_size}", (share[0] + part) / share[1])

    seed = [process, batch_size]
    taken = measure_interleaved(timers, budget, seed=seed, process=process, on_round=tell) if timers else {}
    for (name, way), result in taken.items():
        if isinstance(result, Timing):
            runs[name].timed[way] = result
        else:
            runs[name].error = result
    for one in rows:
        worker, run = workers.alive(one.engine.name), runs[one.engine.name]
        if worker is not None and run.error is None:
            _tell_parts_apart(worker, run, batch_size)
        if run.error is not None:
            workers.drop(one.engine.name)
            one.error = run.error
        one.runs[process] = run


@dataclass(slots=True, kw_only=True)
class Timer:
    """A worker at one batch size, timed in one way, for `measure_interleaved`; what it tells besides goes to `run`."""

    worker: WorkerProcess
    batch_size: int
    warm_up_ms: float
    cores: list[int]
    way: Way = PLAIN
    run: Run = field(default_factory=Run)
    sample_ns: float = field(default=0.0, init=False)

    def warm_up(self) -> float:
        """Warm up; return the expected nanoseconds of one sample."""
        answer = self.worker.ask(
            "warm_up",
            limit_s=patient_limit_s(self.warm_up_ms / 1e3),
            batch=self.batch_size,
            warm_up_ms=self.warm_up_ms,
            cores=self.cores,
            scope=self.way.scope,
            min_sample_ms=_THROUGHPUT_SAMPLE_MS if self.way.mode == "throughput" else 0.0,
        )
        self.run.launches[self.way] = answer["launches"]
        self.run.clock = answer["clock"]
        self.run.cores = tuple(answer["cores"])
        self.run.settings, self.run.notes = answer["settings"], tuple(answer["notes"])
        self.run.warm_up_ms, self.run.warm_up_inferences = answer["warm_up_ms"], answer["n"]
        self.sample_ns = float(answer["inference_ns"]) * answer["launches"]
        return self.sample_ns

    def time(self, samples: int) -> NDArray[np.int64]:
        """Return that many durations in nanoseconds."""
        answer = self.worker.ask(
            "time",
            limit_s=patient_limit_s((samples + 1) * self.sample_ns / 1e9),
            batch=self.batch_size,
            samples=samples,
            scope=self.way.scope,
            launches=self.run.launches[self.way],
        )
        self.run.device_memory_bytes = answer["device_memory_bytes"]
        self.run.host_memory_bytes = answer["host_memory_bytes"]
        return np.array(answer["ns"], dtype=np.int64)


def _tell_parts_apart(worker: WorkerProcess, run: Run, batch_size: int) -> None:
    try:
        run.parts_ns = worker.ask("parts", limit_s=_PARTS_LIMIT_S, batch=batch_size, samples=_PARTS_SAMPLES)["ns"]
    except RowError as error:
        run.error = error
