"""How an engine bears a load: several requests in flight, or requests that arrive at a rate; runs inside the worker.

The scenarios of MLPerf Inference (Reddi et al. 2020, ISCA, section 4): single stream is `streams` with one, multi
stream with several, server is `arrivals`. There a request's latency runs from when it was due, not from when it was
sent: a sender that waits for a slow answer would hide the queue behind it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_SPIN_NS = 200_000  # the last stretch before a request is due is spun: sleeping is not that exact


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
    """Keep one request in flight on each session, one thread each, for a while and for one request at least."""
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
    threads = [threading.Thread(target=stream, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _wait_until(due: int, clock: Callable[[], int]) -> None:
    while (left := due - clock()) > 0:
        if left > _SPIN_NS:
            time.sleep((left - _SPIN_NS) / 1e9)
