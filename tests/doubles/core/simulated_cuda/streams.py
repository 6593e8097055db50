"""Streams: what is given to one waits there until something synchronises, then runs in order."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from .faults import CUDARuntimeError

Work = Callable[[], None]
GLOBAL, THREAD_LOCAL, RELAXED = 0, 1, 2
LEGACY = 0


@dataclass(slots=True, kw_only=True)
class Capture:
    """What is recorded between begin and end, by whom and how strictly."""

    mode: int
    thread: int
    works: list[Work] = field(default_factory=list)
    is_invalid: bool = False


@dataclass(slots=True, kw_only=True)
class Queue:
    """One stream; a blocking one waits for the legacy default stream and makes that wait for it."""

    handle: int
    is_blocking: bool
    pending: deque[Work] = field(default_factory=deque)
    capture: Capture | None = None


_lock = threading.RLock()
_handles = itertools.count(0x5EED000, 0x40)
_queues: dict[int, Queue] = {}


def forget_all() -> None:
    """Leave but the legacy default stream, with nothing to do; a handle is not given twice."""
    with _lock:
        _queues.clear()
        _queues[LEGACY] = Queue(handle=LEGACY, is_blocking=True)


forget_all()


def create(*, is_blocking: bool) -> int:
    """Make a stream and give its handle."""
    with _lock:
        handle = next(_handles)
        _queues[handle] = Queue(handle=handle, is_blocking=is_blocking)
        return handle


def destroy(handle: int) -> None:
    """Forget a stream; as with CUDA, its work is still done."""
    with _lock:
        queue = _queues.pop(handle, None)
        if queue is not None:
            _run(queue)


def queue_of(handle: int) -> Queue:
    """Look a stream up.

    Raises:
        CUDARuntimeError: cudaErrorInvalidResourceHandle.
    """
    if handle not in _queues:
        raise CUDARuntimeError("cudaErrorInvalidResourceHandle", f"there is no stream {handle:#x}")
    return _queues[handle]


def submit(handle: int, work: Work) -> None:
    """Give a stream something to do, or record it where the stream captures.

    Raises:
        CUDARuntimeError: where a capture elsewhere forbids it.
    """
    with _lock:
        queue = queue_of(handle)
        if queue.capture is not None:
            queue.capture.works.append(work)
            return
        _refuse_beside_a_capture(handle)
        if handle == LEGACY:
            for other in list(_queues.values()):
                if other.is_blocking and other is not queue:
                    _run(other)
        elif queue.is_blocking:
            _run(_queues[LEGACY])
        queue.pending.append(work)


def synchronize(handle: int) -> None:
    """Do all that waits in a stream.

    Raises:
        CUDARuntimeError: when it captures, which also spoils the capture.
    """
    with _lock:
        queue = queue_of(handle)
        if queue.capture is not None:
            queue.capture.is_invalid = True
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported")
        if handle == LEGACY:
            for other in list(_queues.values()):
                if other.is_blocking:
                    _run(other)
        _run(queue)


def synchronize_device() -> None:
    """Do all that waits anywhere.

    Raises:
        CUDARuntimeError: while a capture that forbids it is under way.
    """
    with _lock:
        refuse_while_capturing("deviceSynchronize")
        for queue in list(_queues.values()):
            _run(queue)


def is_done(handle: int) -> bool:
    """Say whether a stream has nothing left; each question lets one piece of work pass, so that polling ends."""
    with _lock:
        queue = queue_of(handle)
        if queue.pending:
            queue.pending.popleft()()
        return not queue.pending


def is_capturing(handle: int) -> bool:
    """Say whether a stream records."""
    return queue_of(handle).capture is not None


def begin_capture(handle: int, *, mode: int) -> None:
    """Record from now on what a stream is given.

    Raises:
        CUDARuntimeError: on the legacy default stream, or when it records already.
    """
    with _lock:
        queue = queue_of(handle)
        if handle == LEGACY:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported", "the legacy default stream cannot be captured")
        if queue.capture is not None:
            raise CUDARuntimeError("cudaErrorIllegalState", "the stream captures already")
        queue.capture = Capture(mode=mode, thread=threading.get_ident())


def end_capture(handle: int) -> tuple[Work, ...]:
    """Give what was recorded.

    Raises:
        CUDARuntimeError: when nothing records, or something spoiled the capture.
    """
    with _lock:
        queue = queue_of(handle)
        capture, queue.capture = queue.capture, None
        if capture is None:
            raise CUDARuntimeError("cudaErrorIllegalState", "the stream does not capture")
        if capture.is_invalid:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
        return tuple(capture.works)


def spoil_capture(handle: int) -> None:
    """Mark a capture as failed: ending it raises."""
    capture = queue_of(handle).capture
    if capture is not None:
        capture.is_invalid = True


def refuse_while_capturing(call: str) -> None:
    """Refuse a call that CUDA holds for unsafe during a capture: from any thread, from this thread, or not at all.

    Raises:
        CUDARuntimeError: and the capture is spoilt.
    """
    with _lock:
        for capture in _captures():
            here = capture.thread == threading.get_ident()
            if capture.mode == GLOBAL or (capture.mode == THREAD_LOCAL and here):
                capture.is_invalid = True
                raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported", call)


def _captures() -> list[Capture]:
    return [queue.capture for queue in _queues.values() if queue.capture is not None]


def _refuse_beside_a_capture(handle: int) -> None:
    for capture in _captures():
        other_thread = capture.thread != threading.get_ident()
        if capture.mode == GLOBAL and (handle == LEGACY or other_thread):
            capture.is_invalid = True
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported", "another stream captures in global mode")


def _run(queue: Queue) -> None:
    while queue.pending:
        queue.pending.popleft()()


@dataclass(slots=True, eq=False)
class Mark:
    """A point in a stream: when it was passed, in nanoseconds of the host's clock."""

    handle: int | None = None
    passed_ns: int | None = None
    record_number: int = 0

    def record(self, handle: int) -> None:
        """Put the mark at the present end of a stream."""
        self.handle, self.passed_ns = handle, None
        self.record_number += 1
        number = self.record_number

        def passed() -> None:
            if number == self.record_number:
                self.passed_ns = time.perf_counter_ns()

        submit(handle, passed)

    def reach(self) -> None:
        """Let the stream run until the mark is passed; a mark never recorded counts as passed."""
        with _lock:
            if self.handle is None:
                return
            queue = queue_of(self.handle)
            while self.passed_ns is None and queue.pending:
                queue.pending.popleft()()

    def milliseconds_since(self, start: Mark) -> float:
        """Measure between two marks that were passed.

        Raises:
            CUDARuntimeError: cudaErrorInvalidResourceHandle if one was never recorded, cudaErrorNotReady if not passed.
        """
        if self.handle is None or start.handle is None:
            raise CUDARuntimeError("cudaErrorInvalidResourceHandle", "an event was never recorded")
        if self.passed_ns is None or start.passed_ns is None:
            raise CUDARuntimeError("cudaErrorNotReady", "synchronise on the event first")
        return (self.passed_ns - start.passed_ns) / 1e6
