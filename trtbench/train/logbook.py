"""What a fit leaves behind: records by epoch, and the files that people read beside the checkpoint."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trtbench.disk import write_atomically
from trtbench.jsonable import to_jsonable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from trtbench.suite import TrainConfig


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
    from trtbench.train.logbook import draw_curves  # matplotlib takes a third of a second to import

    write_atomically(folder / "curves.png", draw_curves(history, best_epoch=best_epoch))


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """One epoch, counted from 1.

    `lr` is the learning rate of its first step. The training figures are those of the augmented batches as they were
    learnt (with label smoothing and the teacher's term in the loss); the validation figures are plain cross-entropy and
    counts at its end.
    """

    epoch: int
    lr: float
    train_loss: float
    train_correct: int
    train_total: int
    val_loss: float
    val_correct: int
    val_total: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRecord:
    """A finished fit: which epoch's weights the model carries, and how it came to them.

    `best_epoch` is 0 when nothing was trained. `seconds` counts all epochs, those before an interruption too;
    `resumed_from` is the last epoch of the interrupted run, None if there was none.
    """

    epochs: int
    best_epoch: int
    val_correct: int
    val_total: int
    history: tuple[EpochRecord, ...]
    seconds: float
    resumed_from: int | None
    notes: tuple[str, ...]


_DPI = 120


def draw_curves(history: Sequence[EpochRecord], *, best_epoch: int) -> bytes:
    """Return a PNG of the training and validation loss, and of the accuracies, with the best epoch marked."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    _draw(losses, history, kind="loss", train=[epoch.train_loss for epoch in history], val=_val_losses(history))
    _draw(
        accuracies,
        history,
        kind="accuracy (%)",
        train=[100 * epoch.train_correct / epoch.train_total for epoch in history],
        val=[100 * epoch.val_correct / epoch.val_total for epoch in history],
    )
    for axes in (losses, accuracies):
        axes.axvline(best_epoch, color="0.6", linestyle=":", label=f"best epoch: {best_epoch}")
        axes.legend()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    return file.getvalue()


def _val_losses(history: Sequence[EpochRecord]) -> list[float]:
    return [epoch.val_loss for epoch in history]


def _draw(
    axes: Axes, history: Sequence[EpochRecord], *, kind: str, train: Sequence[float], val: Sequence[float]
) -> None:
    epochs = [epoch.epoch for epoch in history]
    axes.plot(epochs, train, marker=".", label="training (augmented)")
    axes.plot(epochs, val, marker=".", label="validation")
    axes.set_xlabel("epoch")
    axes.set_ylabel(kind)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.3)
