"""What the pipeline says of its progress; cli.py shows it, a notebook may ignore it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["started", "progress", "cached", "done", "failed", "note"]


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
