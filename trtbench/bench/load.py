"""How an engine bears a load: several requests in flight, or requests that arrive at a rate; runs inside the worker.

The scenarios of MLPerf Inference (Reddi et al. 2020, ISCA, section 4): single stream is `streams` with one, multi
stream with several, server is `arrivals`. There a request's latency runs from when it was due, not from when it was
sent: a sender that waits for a slow answer would hide the queue behind it.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from trtbench.bench.processes import LIMIT_S, PATIENCE, cores
from trtbench.rows import LoadRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from trtbench.bench.processes import WorkerProcess
    from trtbench.suite import LoadConfig

_SPIN_NS = 200_000  # the last stretch before a request is due is spun: sleeping is not that exact
_NS_PER_MS = 1e6
_SAMPLES_FOR_P99 = 1000
_KEPT_UP = 0.95  # share of the rate asked for that must be served
_STEPS = 6  # of the bisection: to about one part in 64 of the rate that one stream reaches
_SEED = 0


class Runnable(Protocol):
    """A session that can run one inference to its end."""

    def enqueue(self) -> None:
        """Launch one inference."""
        ...

    def synchronize(self) -> None:
        """Wait for it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Served:
    """What was served: int64 (requests,) nanoseconds of each, and those from the first start to the last end."""

    latencies_ns: NDArray[np.int64]
    elapsed_ns: int


def serve_streams(sessions: Sequence[Runnable], *, duration_s: float) -> Served:
    """Keep one request in flight on each session, one thread each, for a while and for one request at least.

    What a session raises is raised here, once the others have ended: a figure of fewer streams than were asked for
    would stand under a wrong name.
    """
    found: list[list[int]] = [[] for _ in sessions]
    clock = time.perf_counter_ns
    begin = clock()
    until = begin + round(duration_s * 1e9)

    def stream(index: int) -> None:
        session, latencies = sessions[index], found[index]
        while not latencies or clock() < until:
            start = clock()
            session.enqueue()
            session.synchronize()
            latencies.append(clock() - start)

    _in_threads(stream, len(sessions))
    return Served(
        latencies_ns=np.array([one for own in found for one in own], dtype=np.int64), elapsed_ns=clock() - begin
    )


def serve_arrivals(sessions: Sequence[Runnable], due_ns: NDArray[np.int64]) -> Served:
    """Serve requests in order, each no sooner than it is due; an idle session takes the next one.

    Args:
        sessions: one thread each.
        due_ns: int64 (requests,), ascending, from the start.
    """
    clock = time.perf_counter_ns
    latencies = np.zeros(len(due_ns), dtype=np.int64)
    taken = iter(range(len(due_ns)))
    turn = threading.Lock()
    begin = clock()

    def stream(index: int) -> None:
        session = sessions[index]
        while True:
            with turn:
                request = next(taken, None)
            if request is None:
                return
            due = begin + int(due_ns[request])
            _wait_until(due, clock)
            session.enqueue()
            session.synchronize()
            latencies[request] = clock() - due

    _in_threads(stream, len(sessions))
    return Served(latencies_ns=latencies, elapsed_ns=clock() - begin)


def poisson_arrivals(*, rate: float, duration_s: float, seed: int) -> NDArray[np.int64]:
    """Return when requests are due, int64 nanoseconds from the start: independent users at `rate` a second together.

    The gaps of a Poisson process are exponential. There is at least one request.
    """
    gaps = np.random.default_rng(seed).exponential(1e9 / rate, max(1, round(rate * duration_s)))
    return np.cumsum(gaps).astype(np.int64)


def _in_threads(stream: Callable[[int], None], number: int) -> None:
    with ThreadPoolExecutor(number) as threads:
        running = [threads.submit(stream, index) for index in range(number)]
    for one in running:
        one.result()


def _wait_until(due: int, clock: Callable[[], int]) -> None:
    while (left := due - clock()) > 0:
        if left > _SPIN_NS:
            time.sleep((left - _SPIN_NS) / 1e9)


def measure_load(worker: WorkerProcess, load: LoadConfig, *, batch_size: int, threads: int) -> LoadRecord:
    """Put one load on an open engine.

    Without a rate, arrivals are tried at rates between none and what the streams reach flat out, and the highest that
    keeps the limit is told; where even the lowest does not, that one is.

    Raises:
        RowError: the worker died, or the engine failed.
    """

    def at(rate: float | None) -> LoadRecord:
        answer = worker.ask(
            "load",
            limit_s=LIMIT_S + PATIENCE * load.duration,
            batch=batch_size,
            streams=load.streams,
            duration_s=load.duration,
            cores=cores(threads * load.streams),
            rate=rate,
            seed=_SEED,
        )
        return load_record(answer, load, batch_size=batch_size, rate=rate)

    if load.scenario == "streams" or load.rate is not None:
        return at(load.rate)
    flat_out = at(None).throughput_ips / batch_size
    return highest_that_holds(at, most=flat_out)


def highest_that_holds(at: Callable[[float], LoadRecord], *, most: float) -> LoadRecord:
    """Return the record of the highest rate up to `most` that holds, by bisection; else that of the lowest tried."""
    low, high = 0.0, most
    best: LoadRecord | None = None
    lowest: LoadRecord | None = None
    for _ in range(_STEPS):
        rate = (low + high) / 2
        found = at(rate)
        if found.holds:
            best, low = found, rate
        else:
            high = rate
            lowest = found
    kept = best or lowest
    assert kept is not None, "there is at least one step"
    return kept


def load_record(answer: dict[str, Any], load: LoadConfig, *, batch_size: int, rate: float | None) -> LoadRecord:
    """Summarise what a worker served.

    A p99 of fewer than 1,000 requests is not told, but it decides whether a limit holds: it is then the largest but a
    hundredth, rounded up.
    """
    latencies = np.array(answer["ns"], dtype=np.float64) / _NS_PER_MS
    p50, p90 = (float(value) for value in np.percentile(latencies, (50, 90)))
    p99 = float(np.percentile(latencies, 99, method="higher"))
    served = len(latencies) / (answer["elapsed_ns"] / 1e9)
    holds = None
    if load.p99_ms is not None:
        holds = p99 <= load.p99_ms and (rate is None or served >= _KEPT_UP * rate)
    return LoadRecord(
        scenario="streams" if rate is None else "arrivals",
        streams=load.streams,
        rate=rate,
        throughput_ips=served * batch_size,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99 if len(latencies) >= _SAMPLES_FOR_P99 else None,
        max_ms=float(latencies.max()),
        n=len(latencies),
        p99_limit_ms=load.p99_ms,
        holds=holds,
    )
