"""What a stream recorded, to be launched again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from simulated_cuda import streams

if TYPE_CHECKING:
    from .stream import _BaseStream


class Graph:
    """Recorded work; made by `end_capture` alone."""

    _works: tuple[streams.Work, ...]

    def __init__(self, *_: object) -> None:
        raise RuntimeError("a graph comes from Stream.end_capture()")

    @classmethod
    def _of(cls, works: tuple[streams.Work, ...]) -> Self:
        made = cls.__new__(cls)
        made._works = works
        return made

    def launch(self, stream: _BaseStream | None = None) -> None:
        for work in self._works:
            streams.submit(_handle(stream), work)

    def upload(self, stream: _BaseStream | None = None) -> None:
        streams.queue_of(_handle(stream))


def _handle(stream: _BaseStream | None) -> int:
    from .stream import get_current_stream

    return (get_current_stream() if stream is None else stream).ptr
