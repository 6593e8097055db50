"""Loss and accuracy over the epochs, drawn; no global state of matplotlib is read or changed."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from trtbench.train.records import EpochRecord

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
