"""A session's copies on its stream, and the timed loops: operations bound beforehand, nothing of ours between two."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from trtbench.engines.base import Parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from trtbench.engines.cuda.device import Cuda, Operation

_IN_FLIGHT = 2


class Staged:
    """The way of images and logits through page-locked arrays of a session, on a stream of its own.

    Attributes:
        _host_in: float32 (batch, C, H, W); `_upload` queues its copy.
        _host_out: float32 (batch, classes); `_download` queues the copy into it.
    """

    _cuda: Cuda
    _host_in: NDArray[np.float32]
    _host_out: NDArray[np.float32]
    _upload: Operation
    _download: Operation

    def copy_in(self, images: NDArray[np.float32]) -> None:
        """Copy float32 images (batch, C, H, W) into the input buffer, when no copy of the last ones is under way."""
        with self._cuda.current():
            self._cuda.synchronize()
            np.copyto(self._host_in, images)
            self._upload()

    def synchronize(self) -> None:
        """Wait for everything launched."""
        with self._cuda.current():
            self._cuda.synchronize()

    def copy_out(self) -> NDArray[np.float32]:
        """Return a copy of the logits (batch, classes) of the last inference."""
        with self._cuda.current():
            self._download()
            self._cuda.synchronize()
        return self._host_out.copy()


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
    """Return `samples` durations in nanoseconds, each between two events on the stream: what passes on the device.

    Two are in flight, as `trtexec` has it: an event that an idle device meets is passed at once, so that the launch of
    what follows would be counted.
    """
    slots = [(cuda.event(), cuda.event()) for _ in range(_IN_FLIGHT)]
    durations = np.empty(samples, dtype=np.int64)

    def queue(slot: int, _: int) -> None:
        slots[slot][0].record()
        for operation in operations:
            operation()
        slots[slot][1].record()

    def read(slot: int, index: int) -> None:
        begin, end = slots[slot]
        end.wait()
        durations[index] = end.ns_since(begin)

    _overlapped(queue, read, samples=samples)
    return durations


def timed_in_parts(cuda: Cuda, *, upload: Operation, launch: Operation, download: Operation, samples: int) -> Parts:
    """Return how long each part of `samples` inferences took: on the device by events, on the host by the clock.

    Two are in flight here too.
    """
    clock = time.perf_counter_ns
    h2d, enqueue, compute, d2h = (np.empty(samples, dtype=np.int64) for _ in range(4))
    slots = [tuple(cuda.event() for _ in range(4)) for _ in range(_IN_FLIGHT)]

    def queue(slot: int, index: int) -> None:
        begin, copied, computed, end = slots[slot]
        begin.record()
        upload()
        copied.record()
        start = clock()
        launch()
        enqueue[index] = clock() - start
        computed.record()
        download()
        end.record()

    def read(slot: int, index: int) -> None:
        begin, copied, computed, end = slots[slot]
        end.wait()
        h2d[index] = copied.ns_since(begin)
        compute[index] = computed.ns_since(copied)
        d2h[index] = end.ns_since(computed)

    _overlapped(queue, read, samples=samples)
    return Parts(h2d=h2d, enqueue=enqueue, compute=compute, d2h=d2h)


def _overlapped(queue: Callable[[int, int], None], read: Callable[[int, int], None], *, samples: int) -> None:
    """Queue one inference more than are read, each before the one before it is waited for.

    Both are told a slot and the number of a sample. The first inference of all met an idle device and is left out: its
    number is taken by the second.
    """
    for place in range(samples + 2):
        if place <= samples:
            queue(place % _IN_FLIGHT, max(place - 1, 0))
        if place >= _IN_FLIGHT:
            read((place - 1) % _IN_FLIGHT, place - _IN_FLIGHT)
