"""What long work tells of its progress: events, who listens, the time that is left, and the log of a run."""

from __future__ import annotations

import contextlib
import logging
import platform
import time
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trtbench.errors import TrtbenchError
from trtbench.jsonable import without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

RUN_LOG = "run.log"
LEVEL: ContextVar[int] = ContextVar("level", default=logging.INFO)  # of --log-level: the least that is logged
State = Literal["started", "progress", "cached", "done", "failed", "note"]
_MINUTE_S = 60
_LAST_LINES = 200  # of what a worker process wrote; the file beside the log has all of it
_GRAVITY = {"started": logging.DEBUG, "failed": logging.WARNING}
_LOG = logging.getLogger(__name__)
_LOG.propagate = False  # to the terminal, which is told of events by a listener
_LOG.setLevel(logging.DEBUG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened: `stage` is the room's work, `item` what it works on, `share` how far in [0, 1]."""

    stage: str
    item: str
    state: State
    detail: str = ""
    share: float | None = None
    seconds: float | None = None


Listener = Callable[[Event], None]


def nobody(_event: Event) -> None:
    """Listen to nothing."""


class Stages:
    """Passes events on, and sums what each stage took when it was done, now or in an earlier run, each item once.

    Args:
        tell: told of each event.
    """

    def __init__(self, tell: Listener = nobody) -> None:
        self.seconds: dict[str, float] = {}
        self._tell = tell
        self._counted: set[tuple[str, str]] = set()

    def __call__(self, event: Event) -> None:
        """Count an event and pass it on."""
        if event.seconds is not None and (event.stage, event.item) not in self._counted:
            self._counted.add((event.stage, event.item))
            self.seconds[event.stage] = self.seconds.get(event.stage, 0.0) + event.seconds
        self._tell(event)


class Countdown:
    """Tells each step of a stage with the time left; steps kept from an earlier run take none and are not averaged.

    Args:
        tell: told of each step.
        stage: what the steps are of.
        total: how many there are.
    """

    def __init__(self, tell: Listener, *, stage: str, total: int) -> None:
        self._tell = tell
        self._stage = stage
        self._total = total
        self._done = 0
        self._kept = 0
        self._begun = self._since = time.monotonic()
        self._working_s = 0.0

    def step(self, item: str, *, is_kept: bool = False) -> None:
        """Note that one more step is done."""
        now = time.monotonic()
        self._done += 1
        if is_kept:
            self._kept += 1
        else:
            self._working_s += now - self._since
        self._since = now
        detail = f"{item}, {self._done} of {self._total}{self._left()}"
        share = min(1.0, self._done / self._total)
        self._tell(Event(stage=self._stage, item="", state="progress", detail=detail, share=share))

    def end(self, item: str) -> None:
        """Tell that the stage is done, what it took and how much of it was there already."""
        detail = f"{self._kept} of {self._done} kept from an earlier run" if self._kept else ""
        seconds = time.monotonic() - self._begun
        self._tell(Event(stage=self._stage, item=item, state="done", detail=detail, seconds=seconds))

    def _left(self) -> str:
        worked = self._done - self._kept
        if not worked or self._done >= self._total:
            return ""
        return f", {time_left(self._working_s / worked * (self._total - self._done))}"


def time_left(seconds: float) -> str:
    """Say how long something takes yet."""
    return f"about {seconds / _MINUTE_S:.0f} min left" if seconds > 2 * _MINUTE_S else f"about {seconds:.0f} s left"


class Clock:
    """Passes progress on as events, and tells what a thing took when it is done."""

    def __init__(self, tell: Listener) -> None:
        self._tell = tell
        self._since = time.monotonic()

    def __call__(self, stage: str, item: str, share: float) -> None:
        """Tell that this share of a stage is done; with the last one, what it took since the one before."""
        self._tell(Event(stage=stage, item=item, state="progress", share=share))
        if share >= 1:
            now = time.monotonic()
            self._tell(
                Event(stage=stage, item="all" if stage == "score" else item, state="done", seconds=now - self._since)
            )
            self._since = now


class _LogFile(logging.FileHandler):
    """Appends records, scrubbed as command lines are. A disk that is full ends the log, not the run."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # of opening it
            super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(" ".join(without_secrets(line.split(" "))) for line in super().format(record).splitlines())

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  as logging names it
        """Write on where it can be."""


@contextlib.contextmanager
def logged(folder: Path, *, argv: Sequence[str], tell: Listener) -> Iterator[Listener]:
    """Write into run.log of a run's folder: events with their times, records of any library, warnings, last words.

    Yields a listener that passes events on to `tell`. Where nothing but the log is in the folder when an error that was
    foreseen ends the run, the log goes too.
    """

    def heard(event: Event) -> None:
        if event.state != "progress":
            took = "" if event.seconds is None else f"{event.seconds:.1f} s"
            words = " ".join(filter(None, (event.state, event.stage, event.item, took, event.detail)))
            _LOG.log(_GRAVITY.get(event.state, logging.INFO), "%s", words)
        tell(event)

    file = _LogFile(folder / RUN_LOG, encoding="utf-8", errors="backslashreplace", delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    file.setLevel(LEVEL.get())
    loggers = (logging.getLogger(), _LOG)
    for logger in loggers:
        logger.addHandler(file)
    shown, warnings.showwarning = warnings.showwarning, _log_warning  # type: ignore[assignment]  # to no other file
    try:
        _LOG.info("%s (Python %s, %s)", " ".join(argv), platform.python_version(), platform.platform())
        yield heard
    except BaseException as error:
        is_foreseen = isinstance(error, (TrtbenchError, KeyboardInterrupt))
        _LOG.error("ended by %s: %s", type(error).__name__, error, exc_info=None if is_foreseen else error)
        with contextlib.suppress(OSError):
            if is_foreseen and [path.name for path in folder.iterdir()] == [RUN_LOG]:
                (folder / RUN_LOG).unlink()
        raise
    finally:
        warnings.showwarning = shown
        _log_workers(folder)
        for logger in loggers:
            logger.removeHandler(file)
        with contextlib.suppress(OSError):
            file.close()


def _log_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    text = warnings.formatwarning(message, category, filename, lineno).strip()
    logging.getLogger("py.warnings").warning("%s", text)


def _log_workers(folder: Path) -> None:
    """Copy the end of what each worker process wrote to its standard error."""
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob("logs/*.log")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]:
                _LOG.info("worker %s: %s", path.stem, line)
