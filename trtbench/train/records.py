"""What a fit leaves behind, epoch by epoch; nothing here computes."""

from __future__ import annotations

from dataclasses import dataclass


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
