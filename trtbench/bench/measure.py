"""Measure engine files: scored on every image, then timed in interleaved blocks over several worker processes each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbench.bench.measured import Bench, EngineFile, Images, Joules, Measured, Progress
from trtbench.bench.scenarios import bear
from trtbench.bench.scoring import open_engine, score_engine, start_all
from trtbench.bench.settling import is_settled
from trtbench.bench.timing import PLAIN, budget_of, time_side_by_side, ways
from trtbench.bench.workers import Workers
from trtbench.errors import OutOfMemoryError, RowError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trtbench.bench.workers import WorkerProcess
    from trtbench.suite import BenchConfig

_ENERGY_S = 1.0  # NVML's counter steps every 20 to 100 ms
# Numbers of the processes that are started beside the plan's: for rows that did not settle, and for failed ones.
_SETTLING, _AGAIN = 10_000, 20_000


def _unknown(_device: str) -> None:
    """Count no energy."""


def measure_engines(
    engines: Sequence[EngineFile],
    images: Images,
    config: BenchConfig,
    *,
    folder: Path,
    progress: Progress,
    found: list[Measured] | None = None,
    energy_j: Joules = _unknown,
) -> list[Measured]:
    """Open, score and time engine files at every batch size; an engine that fails ends alone.

    One worker works at a time. The first process that is timed is the one that was scored; the others are fresh, since
    processes of one engine differ more than the blocks of one. A worker that crashes while it is timed, or runs out of
    memory beside the others, is started once more and measured by itself.

    Args:
        engines: the files, with their sidecars beside them; the first is in every group.
        images: what they are scored on; the first images are those they are timed on.
        config: batch sizes and the timing budget.
        folder: the run's folder, for logs and logits.
        progress: told stage, engine and share done.
        found: filled as the measurement goes on, so that what an interrupted one had is not lost.
        energy_j: tells the joules a device took so far, where something counts them.
    """
    found = [] if found is None else found
    found += [Measured(engine=engine, batch_size=size) for engine in engines for size in config.batch_sizes]
    bench = Bench(images=images, config=config, folder=folder, progress=progress, energy_j=energy_j)
    together = groups([engine.name for engine in engines], alive=config.alive)
    for index, names in enumerate(together):
        rows = [one for one in found if one.engine.name in names]
        for process in range(config.processes):
            share = (index * config.processes + process, len(together) * config.processes)
            _measure_process(rows, bench, process=index * config.processes + process, share=share)
        _settle([one for one in rows if one.engine.name != names[0] or not index], rows, bench, number=index)
    for number, one in enumerate([one for one in found if _deserves_another_try(one, is_only=len(found) == 1)]):
        one.error, one.is_alone = None, True
        one.runs.clear()
        for process in range(config.processes):
            share = (process, config.processes)
            _measure_process([one], bench, process=_AGAIN + number * config.processes + process, share=share)
    return found


def groups(names: Sequence[str], *, alive: int | None) -> list[list[str]]:
    """Split engines into the fewest groups of at most `alive`, as even as can be, each led by the first engine."""
    if alive is None or len(names) <= alive:
        return [list(names)] if names else []
    anchor, others = names[0], names[1:]
    number = -(-len(others) // (alive - 1))
    return [[anchor, *others[index::number]] for index in range(number)]


def _deserves_another_try(row: Measured, *, is_only: bool) -> bool:
    """Whether a row failed by a crash, or by memory that it would have had alone."""
    if isinstance(row.error, OutOfMemoryError):
        return not is_only
    return isinstance(row.error, WorkerError) and row.opening is not None


def _measure_process(rows: Sequence[Measured], bench: Bench, *, process: int, share: tuple[int, int]) -> None:
    """Start a fresh process of each engine that has not failed, score the first of each, time all of them."""
    waiting = [one for one in rows if one.error is None]
    with Workers() as workers:
        is_first = any(one.opening is None for one in waiting)
        for done, engine_rows, worker in start_all(workers, waiting, bench):
            if worker is not None and engine_rows[0].opening is None:
                score_engine(workers, worker, engine_rows, bench)
            elif worker is not None:
                open_engine(workers, worker, engine_rows, bench)
            if is_first:
                bench.progress("score", engine_rows[0].engine.name, done)
        for size in bench.config.batch_sizes:
            at_size = [one for one in waiting if one.batch_size == size and one.error is None]
            _time_all(workers, at_size, bench, process=process, share=share)
            if is_first:
                _load_all(workers, at_size, bench)


def _time_all(
    workers: Workers, rows: Sequence[Measured], bench: Bench, *, process: int, share: tuple[int, int]
) -> None:
    if not rows:
        return
    config, size = bench.config, rows[0].batch_size
    done, total = share
    runs = time_side_by_side(
        {one.engine.name: workers.alive(one.engine.name) for one in rows},
        batch_size=size,
        ways=ways(config),
        budget=budget_of(config),
        warm_up_ms=config.warm_up,
        threads=config.threads,
        process=process,
        on_round=lambda part: bench.progress("time", f"batch {size}", (done + part) / total),
    )
    for one in rows:
        one.runs[process] = run = runs[one.engine.name]
        if run.error is not None:
            workers.drop(one.engine.name)
            one.error = run.error


def _load_all(workers: Workers, rows: Sequence[Measured], bench: Bench) -> None:
    """Put the loads of the suite on each row in turn, and count its energy, once it was timed."""
    for index, one in enumerate(rows):
        worker = workers.alive(one.engine.name)
        if worker is None or one.error is not None:
            continue
        try:
            _count_energy(worker, one, bench)
            one.loads = tuple(
                bear(worker, load, batch_size=one.batch_size, threads=bench.config.threads)
                for load in bench.config.load
            )
        except RowError as error:
            workers.drop(one.engine.name)
            one.error = error
        if bench.config.load:
            bench.progress("load", f"batch {one.batch_size}", (index + 1) / len(rows))


def _count_energy(worker: WorkerProcess, row: Measured, bench: Bench) -> None:
    """Run an engine for a second by itself, and divide the joules its device took by the images."""
    assert row.opening is not None, "rows that were timed were opened"
    timed = row.timed
    before = bench.energy_j(row.opening.device)
    if before is None or timed is None:
        return
    samples = max(1, round(_ENERGY_S * 1e9 / float(timed.block_medians_ns.mean())))
    worker.ask("time", batch=row.batch_size, samples=samples, scope="device")
    after = bench.energy_j(row.opening.device)
    row.energy_j = None if after is None else (after - before) / ((samples + 1) * row.batch_size)


def _settle(candidates: Sequence[Measured], rows: Sequence[Measured], bench: Bench, *, number: int) -> None:
    """Time once more, in a fresh process, the rows of a device of their own that a process left unsettled.

    The anchor runs beside them, so that ratios still pair. On CPUs, which others use too, nothing is gained by it.
    """
    unsettled = [one for one in candidates if one.error is None and not _is_on_cpu(one) and _unsettled_in(one)]
    if not unsettled:
        return
    anchors = [one for one in rows if one.engine.name == rows[0].engine.name and one.error is None]
    sizes = {one.batch_size for one in unsettled}
    beside = [one for one in anchors if one.batch_size in sizes and one not in unsettled]
    process = _SETTLING + number
    _measure_process([*beside, *unsettled], bench, process=process, share=(0, 1))
    for one in unsettled:
        one.was_unsettled = True
        if one.error is None and is_settled(one.runs[process].timed[PLAIN].samples_ns):
            for bad in _unsettled_in(one):
                del one.runs[bad]


def _is_on_cpu(row: Measured) -> bool:
    return row.opening is None or row.opening.device.lower().startswith("cpu")


def _unsettled_in(row: Measured) -> list[int]:
    return [number for number, run in row.runs.items() if not is_settled(run.timed[PLAIN].samples_ns)]
