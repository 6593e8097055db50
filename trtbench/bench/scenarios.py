"""Put the loads of a suite on a worker, and search the highest rate that keeps a limit of the p99."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.timing import cores
from trtbench.rows import LoadRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbench.bench.workers import WorkerProcess
    from trtbench.suite import LoadConfig

_NS_PER_MS = 1e6
_SAMPLES_FOR_P99 = 1000
_KEPT_UP = 0.95  # share of the rate asked for that must be served
_STEPS = 6  # of the bisection: to about one part in 64 of the rate that one stream reaches
_SEED = 0


def bear(worker: WorkerProcess, load: LoadConfig, *, batch_size: int, threads: int) -> LoadRecord:
    """Put one load on an open engine.

    Without a rate, arrivals are tried at rates between none and what the streams reach flat out, and the highest that
    keeps the limit is told; where even the lowest does not, that one is.

    Raises:
        RowError: the worker died, or the engine failed.
    """

    def at(rate: float | None) -> LoadRecord:
        answer = worker.ask(
            "load",
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
