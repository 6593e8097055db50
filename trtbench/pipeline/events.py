"""What the pipeline says of its progress; cli.py shows it, a notebook may ignore it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from trtbench.train import EpochRecord

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


def follow_training(tell: Listener, *, item: str, epochs: int) -> Callable[[EpochRecord], None]:
    """Return what tells of each epoch of a training, as `fit` takes it for `on_epoch`."""

    def follow(epoch: EpochRecord) -> None:
        detail = f"epoch {epoch.epoch}/{epochs}, validation {100 * epoch.val_correct / epoch.val_total:.1f} %"
        tell(Event(stage="train", item=item, state="progress", detail=detail, share=epoch.epoch / epochs))

    return follow
