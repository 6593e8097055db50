"""The files a person reads beside the checkpoint: config.json, history.json, train.log and curves.png."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from trtbench.jsonable import to_jsonable
from trtbench.store import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from trtbench.suite import TrainConfig
    from trtbench.train.records import EpochRecord


def write_config(folder: Path, config: TrainConfig, *, fingerprint: Mapping[str, str]) -> None:
    """Write config.json: every setting of the budget, and the hashes of what it ran on."""
    content = {"config": config.model_dump(mode="json"), "fingerprint": dict(fingerprint)}
    write_atomically(folder / "config.json", json.dumps(content, indent=2) + "\n")


def write_history(folder: Path, history: Sequence[EpochRecord], *, epochs: int, best_epoch: int) -> None:
    """Write history.json and train.log; both hold all epochs so far, those before an interruption too."""
    content = {"epochs": epochs, "best_epoch": best_epoch, "history": to_jsonable(list(history))}
    write_atomically(folder / "history.json", json.dumps(content, indent=2) + "\n")
    lines = [log_line(epoch, epochs=epochs, is_best=epoch.epoch == best_epoch) for epoch in history]
    write_atomically(folder / "train.log", "".join(line + "\n" for line in lines))


def log_line(epoch: EpochRecord, *, epochs: int, is_best: bool) -> str:
    """Say one epoch in one line."""
    line = (
        f"epoch {epoch.epoch}/{epochs}  lr {epoch.lr:.3g}  train loss {epoch.train_loss:.4f} "
        f"{epoch.train_correct}/{epoch.train_total}  val loss {epoch.val_loss:.4f} "
        f"{epoch.val_correct}/{epoch.val_total}  {epoch.seconds:.1f} s"
    )
    return line + "  best" if is_best else line


def write_curves(folder: Path, history: Sequence[EpochRecord], *, best_epoch: int) -> None:
    """Write curves.png."""
    from trtbench.train.curves import draw_curves  # matplotlib takes a third of a second to import

    write_atomically(folder / "curves.png", draw_curves(history, best_epoch=best_epoch))
