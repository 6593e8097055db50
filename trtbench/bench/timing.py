"""Time engine files at one batch size, side by side in worker processes that are open."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trtbench.bench.latency import Budget, TimedRow, measure_interleaved
from trtbench.errors import RowError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from trtbench.bench.workers import WorkerProcess
    from trtbench.engines.base import Clock, Scope
    from trtbench.suite import BenchConfig

Mode = Literal["latency", "throughput"]
_THROUGHPUT_SAMPLE_MS = 1.0  # a sample of the throughput mode lasts this long at least
_PARTS_SAMPLES = 50


@dataclass(frozen=True, slots=True, order=True)
class Way:
    """One way to time an inference: what a sample holds, and whether several launches share one."""

    scope: Scope = "device"
    mode: Mode = "latency"


PLAIN = Way()


@dataclass(slots=True, kw_only=True)
class Run:
    """What one worker process told of one engine at one batch size, by the way it was timed."""

    timed: dict[Way, TimedRow] = field(default_factory=dict)
    launches: dict[Way, int] = field(default_factory=dict)
    clock: Clock = "wall"
    parts_ns: Mapping[str, Sequence[int]] = field(default_factory=dict)
    memory_bytes: int | None = None
    cores: tuple[int, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warm_up_ms: float = 0.0
    warm_up_inferences: int = 0
    error: RowError | None = None


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
        noise=config.noise,
        ceiling_s=max(config.duration, config.ceiling) / config.processes,
        rounds=2,
    )


def cores(threads: int) -> list[int]:
    """Return the cores a timed worker is bound to: the last ones, the first being where the system is busiest."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))[-threads:]


def time_side_by_side(
    workers: Mapping[str, WorkerProcess | None],
    *,
    batch_size: int,
    ways: Sequence[Way],
    budget: Budget,
    warm_up_ms: float,
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
        warm_up_ms: how long each is warmed up, at least.
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
                worker, runs[name], way=way, batch_size=batch_size, warm_up_ms=warm_up_ms, cores=cores(threads)
            )
    if timers:
        taken = measure_interleaved(timers, budget, seed=[process, batch_size], process=process, on_round=on_round)
        for key, result in taken.items():
            name, way = keys[key]
            if isinstance(result, TimedRow):
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

    def warm_up(self) -> float:
        answer = self._worker.ask(
            "warm_up",
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
        return float(answer["inference_ns"]) * self._launches

    def time(self, samples: int) -> NDArray[np.int64]:
        answer = self._worker.ask(
            "time", batch=self._batch_size, samples=samples, scope=self._way.scope, launches=self._launches
        )
        self._run.memory_bytes = answer["memory_bytes"]
        return np.array(answer["ns"], dtype=np.int64)


def _tell_parts_apart(worker: WorkerProcess, run: Run, batch_size: int) -> None:
    try:
        run.parts_ns = worker.ask("parts", batch=batch_size, samples=_PARTS_SAMPLES)["ns"]
    except RowError as error:
        run.error = error
