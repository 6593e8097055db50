"""How processes end: by a signal that is heeded once, and never while what was measured is written; with their parent.

Python's own handler of SIGINT raises again at each Ctrl-C, in the middle of the cleaning up after the one before; as
the first process of a container a program without a handler of SIGTERM does not hear of it at all.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_HEEDING_S = 10.0  # while one is heeded, more of them change nothing; after that something holds it up
_heeded = [float("-inf")]


class Stopped(KeyboardInterrupt):
    """A signal asks this process to end; the exit code is the one that shells expect."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def heed_signals() -> None:
    """Let SIGINT and SIGTERM raise Stopped, once; a signal that this process was started to ignore stays ignored."""
    _heeded[0] = float("-inf")
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(number: int, _frame: FrameType | None) -> None:
    now = time.monotonic()
    if now - _heeded[0] < _HEEDING_S:
        return
    _heeded[0] = now
    raise Stopped(number)


@contextlib.contextmanager
def unstoppable() -> Iterator[None]:
    """Let signals wait until the block is done.

    Raises:
        Stopped: one came meanwhile.
    """
    came: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():  # no other thread is ever interrupted
        for number in SIGNALS:
            if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                before[number] = handler
                signal.signal(number, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise Stopped(came[0])


def commands(pipe: IO[str]) -> Iterator[str]:
    """Yield the lines that a parent sends; where it closes the pipe or dies, end this process at once.

    A thread reads them, which runs while a native call does: the parent need not wait for its end, nor outlive it.
    """
    lines = queue.SimpleQueue[str]()

    def read() -> None:
        for line in pipe:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield lines.get()
