"""Measure engine files: scored on every image, then timed in interleaved blocks over several worker processes each."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.accuracy import compared
from trtbench.bench.interleave import Budget, Timing, measure_interleaved
from trtbench.bench.load import measure_load
from trtbench.bench.processes import Workers, cores, patient_limit_s, scoring_limit_s
from trtbench.bench.records import PLAIN, Measured, Opening, Run, Way
from trtbench.disk import storing
from trtbench.engines.base import place_of
from trtbench.errors import OutOfMemoryError, RowError, WorkerError
from trtbench.rows import FidelityRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

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
    together = groups([engine.name for engine in engines], alive=config.alive)
    for index, names in enumerate(together):
        group = [one for one in found if one.engine.name in names]
        for process in range(config.processes):
            share = (index * config.processes + process, len(together) * config.processes)
            _measure_process(group, bench, process=index * config.processes + process, share=share)
    for number, one in enumerate([one for one in found if _deserves_another_try(one, is_only=len(found) == 1)]):
        one.error, one.is_alone = None, True
        one.runs.clear()
        for process in range(config.processes):
            share = (process, config.processes)
            _measure_process([one], bench, process=_AGAIN + number * config.processes + process, share=share)
    return found


def time_again(rows: Sequence[Measured], bench: Bench, *, number: int) -> float:
    """Time rows that were measured in one more process of each, side by side, and return the seconds it took.

    A row that fails in it stands as it was.
    """
    process = _MORE + number
    _measure_process(rows, bench, process=process, share=(0, 1))
    for one in rows:
        if one.error is not None:
            one.error = None
            one.runs.pop(process, None)
    return bench.seconds[process]


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


def _measure_process(group: Sequence[Measured], bench: Bench, *, process: int, share: tuple[int, int]) -> None:
    """Start a fresh process of each engine that has not failed, score the first of each, time all of them."""
    waiting, config = [one for one in group if one.error is None], bench.config
    since = time.monotonic()
    with Workers(spin=bench.config.spin) as workers:
        unscored = [one for one in waiting if not one.is_scored]
        is_first = bool(unscored)
        for own, worker in start_all(workers, waiting, bench):
            if worker is not None:
                open_engine(workers, worker, own, bench)
        for done, own in score_all(workers, unscored, bench):
            bench.progress("score", own[0].engine.name, done)
            since = time.monotonic()
        for size in config.batch_sizes:
            at_size = [one for one in waiting if one.batch_size == size and one.error is None]
            runs = time_side_by_side(
                {one.engine.name: workers.alive(one.engine.name) for one in at_size},
                batch_size=size,
                ways=ways(config),
                budget=budget_of(config),
                threads=config.threads,
                process=process,
                on_round=functools.partial(_tell_round, bench, size, share),
            )
            for one in at_size:
                one.runs[process] = run = runs[one.engine.name]
                if run.error is not None:
                    workers.drop(one.engine.name)
                    one.error = run.error
            bench.seconds[process] = time.monotonic() - since
            if is_first:
                _load_all(workers, at_size, bench)


def _tell_round(bench: Bench, size: int, share: tuple[int, int], part: float) -> None:
    done, total = share
    bench.progress("time", f"batch {size}", (done + part) / total)


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


def start_all(
    workers: Workers, group: Sequence[Measured], bench: Bench
) -> Iterator[tuple[list[Measured], WorkerProcess | None]]:
    """Start a worker for each engine, some at once, since importing a runtime is not timed; yield them one by one.

    Yields:
        The rows of an engine, and its worker; None where it did not start, as its rows then say.
    """
    engines = _by_engine(group)
    with _some_at_once() as pool:
        started = [pool.submit(_start, workers, own, bench) for own in engines]
        for own, future in zip(engines, started, strict=True):
            yield own, future.result()


def score_all(workers: Workers, group: Sequence[Measured], bench: Bench) -> Iterator[tuple[float, list[Measured]]]:
    """Score the engines that were opened at each batch size, some at once, since it is not timed.

    Yields:
        The share that an engine ends, and its rows.
    """
    engines = _by_engine(group)
    with _some_at_once() as pool:
        scored = [pool.submit(score_engine, workers, own, bench) for own in engines]
        for index, (own, future) in enumerate(zip(engines, scored, strict=True)):
            future.result()
            yield (index + 1) / len(engines), own


def score_engine(workers: Workers, group: Sequence[Measured], bench: Bench) -> None:
    """Score an engine at each batch size, unless it failed."""
    worker, images, smallest = workers.alive(group[0].engine.name), bench.images, min(bench.config.batch_sizes)
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
                found = compared(logits, images)
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
    workers: Mapping[str, WorkerProcess | None],
    *,
    batch_size: int,
    ways: Sequence[Way],
    budget: Budget,
    threads: int,
    process: int,
    on_round: Callable[[float], None] | None = None,
) -> dict[str, Run]:
    """Time open workers in interleaved blocks, each in every way asked for.

    Args:
        workers: by engine name; None for one that crashed before.
        batch_size: images of one inference.
        ways: what is timed; the first decides how a worker is warmed up.
        budget: how long each way of each worker is timed.
        threads: cores each worker is bound to.
        process: the number of these processes; with the batch size it seeds the order within the rounds.
        on_round: told the share done.
    """
    runs = {name: Run() for name in workers}
    timers: dict[str, _Timer] = {}
    keys: dict[str, tuple[str, Way]] = {}
    for name, worker in workers.items():
        if worker is None:
            runs[name].error = WorkerError(f"worker of {name}", got="a crash at another batch size")
            continue
        for way in ways:
            key = f"{name} {way.scope} {way.mode}"
            keys[key] = (name, way)
            timers[key] = _Timer(
                worker, runs[name], way=way, batch_size=batch_size, warm_up_ms=budget.warm_up_ms, cores=cores(threads)
            )
    if timers:
        taken = measure_interleaved(timers, budget, seed=[process, batch_size], process=process, on_round=on_round)
        for key, result in taken.items():
            name, way = keys[key]
            if isinstance(result, Timing):
                runs[name].timed[way] = result
            else:
                runs[name].error = result
    for name, worker in workers.items():
        if worker is not None and runs[name].error is None:
            _tell_parts_apart(worker, runs[name], batch_size)
    return runs


class _Timer:
    """A worker at one batch size, timed in one way, for `measure_interleaved`."""

    def __init__(
        self, worker: WorkerProcess, run: Run, *, way: Way, batch_size: int, warm_up_ms: float, cores: list[int]
    ) -> None:
        self._worker = worker
        self._run = run
        self._way = way
        self._batch_size = batch_size
        self._warm_up_ms = warm_up_ms
        self._cores = cores
        self._launches = 1
        self._sample_ns = 0.0

    def warm_up(self) -> float:
        answer = self._worker.ask(
            "warm_up",
            limit_s=patient_limit_s(self._warm_up_ms / 1e3),
            batch=self._batch_size,
            warm_up_ms=self._warm_up_ms,
            cores=self._cores,
            scope=self._way.scope,
            min_sample_ms=_THROUGHPUT_SAMPLE_MS if self._way.mode == "throughput" else 0.0,
        )
        self._launches = self._run.launches[self._way] = answer["launches"]
        self._run.clock = answer["clock"]
        self._run.cores = tuple(answer["cores"])
        self._run.settings, self._run.notes = answer["settings"], tuple(answer["notes"])
        self._run.warm_up_ms, self._run.warm_up_inferences = answer["warm_up_ms"], answer["n"]
        self._sample_ns = float(answer["inference_ns"]) * self._launches
        return self._sample_ns

    def time(self, samples: int) -> NDArray[np.int64]:
        answer = self._worker.ask(
            "time",
            limit_s=patient_limit_s((samples + 1) * self._sample_ns / 1e9),
            batch=self._batch_size,
            samples=samples,
            scope=self._way.scope,
            launches=self._launches,
        )
        self._run.device_memory_bytes = answer["device_memory_bytes"]
        self._run.host_memory_bytes = answer["host_memory_bytes"]
        return np.array(answer["ns"], dtype=np.int64)


def _tell_parts_apart(worker: WorkerProcess, run: Run, batch_size: int) -> None:
    try:
        run.parts_ns = worker.ask("parts", limit_s=_PARTS_LIMIT_S, batch=batch_size, samples=_PARTS_SAMPLES)["ns"]
    except RowError as error:
        run.error = error
