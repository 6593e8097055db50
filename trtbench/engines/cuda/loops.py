"""The timed loops: operations bound beforehand, and nothing of ours between two of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from trtbench.engines.base import Parts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trtbench.engines.cuda.device import Cuda, Operation


def timed_by_clock(cuda: Cuda, operations: tuple[Operation, ...], *, samples: int) -> NDArray[np.int64]:
    """Return `samples` durations in nanoseconds, each from before the first operation to the end of the wait.

    This is what a caller waits, the way to the device and back included.
    """
    clock, synchronize = time.perf_counter_ns, cuda.synchronize
    durations = np.empty(samples, dtype=np.int64)
    for index in range(samples):
        start = clock()
        for operation in operations:
            operation()
        synchronize()
        durations[index] = clock() - start
    return durations


def timed_by_events(cuda: Cuda, operations: tuple[Operation, ...], *, samples: int) -> NDArray[np.int64]:
    """Return `samples` durations in nanoseconds, each between two events on the stream: what passes on the device."""
    begin, end, synchronize = cuda.event(), cuda.event(), cuda.synchronize
    durations = np.empty(samples, dtype=np.int64)
    for index in range(samples):
        begin.record()
        for operation in operations:
            operation()
        end.record()
        synchronize()
        durations[index] = end.ns_since(begin)
    return durations


def timed_in_parts(cuda: Cuda, *, upload: Operation, launch: Operation, download: Operation, samples: int) -> Parts:
    """Return how long each part of `samples` inferences took: on the device by events, on the host by the clock."""
    clock = time.perf_counter_ns
    h2d, enqueue, compute, d2h = (np.empty(samples, dtype=np.int64) for _ in range(4))
    begin, copied, computed, end = (cuda.event() for _ in range(4))
    for index in range(samples):
        begin.record()
        upload()
        copied.record()
        start = clock()
        launch()
        enqueue[index] = clock() - start
        computed.record()
        download()
        end.record()
        cuda.synchronize()
        h2d[index] = copied.ns_since(begin)
        compute[index] = computed.ns_since(copied)
        d2h[index] = end.ns_since(computed)
    return Parts(h2d=h2d, enqueue=enqueue, compute=compute, d2h=d2h)
