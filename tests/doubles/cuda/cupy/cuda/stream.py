"""Streams and events."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from simulated_cuda import streams
from simulated_cuda.faults import CUDARuntimeError

from .graph import Graph as _Graph

if TYPE_CHECKING:
    from types import TracebackType

_current = threading.local()


def _stack() -> list[_BaseStream]:
    if not hasattr(_current, "stack"):
        _current.stack = [Stream.null]
    stack: list[_BaseStream] = _current.stack
    return stack


class Event:
    """A mark in a stream."""

    def __init__(self, block: bool = False, disable_timing: bool = False, interprocess: bool = False) -> None:
        self._mark = streams.Mark()
        self._is_timed = not disable_timing

    def record(self, stream: _BaseStream | None = None) -> None:
        self._mark.record((get_current_stream() if stream is None else stream).ptr)

    def synchronize(self) -> None:
        streams.refuse_while_capturing("eventSynchronize")
        self._mark.reach()

    @property
    def done(self) -> bool:
        return self._mark.handle is None or self._mark.passed_ns is not None


def get_elapsed_time(start_event: Event, end_event: Event) -> float:
    if not (start_event._is_timed and end_event._is_timed):
        raise CUDARuntimeError("cudaErrorInvalidResourceHandle", "an event was made without timing")
    return end_event._mark.milliseconds_since(start_event._mark)


class _BaseStream:
    """What streams of our own and of others have in common."""

    ptr: int

    def __enter__(self) -> Self:
        _stack().append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _stack().pop()

    def use(self) -> _BaseStream:
        _stack()[-1] = self
        return self

    @property
    def done(self) -> bool:
        return streams.is_done(self.ptr)

    def synchronize(self) -> None:
        streams.synchronize(self.ptr)

    def record(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        streams.submit(self.ptr, event._mark.reach)

    def is_capturing(self) -> bool:
        return streams.is_capturing(self.ptr)

    def begin_capture(self, mode: int | None = None) -> None:
        streams.begin_capture(self.ptr, mode=streams.RELAXED if mode is None else mode)

    def end_capture(self) -> _Graph:
        return _Graph._of(streams.end_capture(self.ptr))


class Stream(_BaseStream):
    """A stream of our own."""

    null: _BaseStream

    def __init__(
        self, null: bool = False, non_blocking: bool = False, ptds: bool = False, priority: int | None = None
    ) -> None:
        self.ptr = streams.LEGACY if null else streams.create(is_blocking=not non_blocking)
        self.is_non_blocking = non_blocking

    def __del__(self) -> None:
        if getattr(self, "ptr", streams.LEGACY) != streams.LEGACY:
            streams.destroy(self.ptr)


class ExternalStream(_BaseStream):
    """A stream that somebody else made and keeps."""

    def __init__(self, ptr: int, device_id: int = -1) -> None:
        self.ptr = streams.queue_of(ptr).handle


Stream.null = Stream(null=True)


def get_current_stream(device_id: int = -1) -> _BaseStream:
    return _stack()[-1]
