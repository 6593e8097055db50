"""What long work tells of its progress: events, who listens, and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["started", "progress", "cached", "done", "failed", "note"]
_MINUTE_S = 60


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
        seconds = self._working_s / worked * (self._total - self._done)
        return (
            f", about {seconds / _MINUTE_S:.0f} min left"
            if seconds > 2 * _MINUTE_S
            else f", about {seconds:.0f} s left"
        )


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
