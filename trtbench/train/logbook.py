"""What a fit leaves behind: records by epoch, files that people read beside the checkpoint, and where it goes on.

That is its whole state after an epoch, in one file that is whole or absent. Random numbers depend on (seed, epoch)
alone, so that an epoch is the same whether or not the run was cut.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trtbench.disk import write_atomically
from trtbench.foreign import FAULTS, MISFITS
from trtbench.jsonable import sha256_of, to_jsonable
from trtbench.train.hooks import NO_HOOKS, Hooks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from torch import Tensor, nn
    from torch.optim import lr_scheduler

    from trtbench.records import Dataset
    from trtbench.suite import TrainConfig
    from trtbench.train.optimise import Average

_DPI = 120
STATE_FILE = "epoch.pt"
_FORMAT = 2  # of epoch.pt; part of the fingerprint


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


def draw_curves(history: Sequence[EpochRecord], *, best_epoch: int) -> bytes:
    """Return a PNG of the training and validation loss, and of the accuracies, with the best epoch marked."""
    figure = Figure(figsize=(10, 4))  # placed by hand: a layout engine draws it twice
    losses, accuracies = figure.subplots(
        1, 2, gridspec_kw={"left": 0.08, "right": 0.98, "bottom": 0.13, "top": 0.9, "wspace": 0.2}
    )
    train, val = [epoch.train_loss for epoch in history], [epoch.val_loss for epoch in history]
    _draw(losses, history, kind="loss", train=train, val=val)
    _draw(
        accuracies,
        history,
        kind="accuracy (%)",
        train=[100 * epoch.train_correct / epoch.train_total for epoch in history],
        val=[100 * epoch.val_correct / epoch.val_total for epoch in history],
    )
    for axes in (losses, accuracies):
        axes.axvline(best_epoch, color="0.6", linestyle=":", label=f"best epoch: {best_epoch}")
    figure.legend(handles=[*losses.lines], loc="upper center", ncols=3, frameon=False)  # no search for an empty corner
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    return file.getvalue()


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


@dataclass(slots=True, kw_only=True)
class Progress:
    """Everything that changes while a network learns, after `len(history)` epochs.

    `best_weights` is the state_dict after epoch `best_epoch`, None before the first; epochs before `first_best_epoch`
    are kept only until that one is over.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    history: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: dict[str, Tensor] | None = None
    first_best_epoch: int = 1
    average: Average | None = None

    @property
    def scored(self) -> nn.Module:
        """The network that is scored and kept: the average where there is one."""
        averaged = None if self.average is None else self.average.network
        return self.model if averaged is None else averaged

    def note_epoch(self, record: EpochRecord) -> None:
        """Append an epoch; keep its weights if it has more right, then a lower loss, than all before."""
        self.history.append(record)
        best = self.history[self.best_epoch - 1] if self.best_epoch else None
        if best is not None and self._rank(record) <= self._rank(best):
            return
        self.best_epoch = record.epoch
        self.best_weights = {name: tensor.detach().clone() for name, tensor in self.scored.state_dict().items()}

    def _rank(self, record: EpochRecord) -> tuple[bool, int, float]:
        return (record.epoch >= self.first_best_epoch, record.val_correct, -record.val_loss)

    def use_best_weights(self) -> None:
        """Put the best epoch's weights into the model."""
        assert self.best_weights is not None, "the first epoch is always the best so far"
        self.model.load_state_dict(self.best_weights)


def fingerprint_of(
    model: nn.Module, dataset: Dataset, config: TrainConfig, *, teacher: nn.Module | None, hooks: Hooks = NO_HOOKS
) -> dict[str, str]:
    """Return, by name, the sha256 (hex) of everything that decides how a fit runs; the test split is not read."""
    return {
        "format": str(_FORMAT),
        "config": sha256_of(config.model_dump(mode="json")),
        "training images": dataset.train.sha256,
        "validation images": dataset.validation.sha256,
        "preprocessing": dataset.preprocessing.fingerprint,
        "start weights": _weights_sha256(model),
        "teacher": _weights_sha256(teacher) if teacher is not None else "none",
        "hooks": hooks.key,
    }


def _weights_sha256(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        # As bytes: NumPy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_progress(path: Path, progress: Progress, *, fingerprint: Mapping[str, str]) -> None:
    """Write the state as a file that `torch.load(weights_only=True)` reads.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    state = {
        "fingerprint": dict(fingerprint),
        "model": progress.model.state_dict(),
        "optimizer": progress.optimizer.state_dict(),
        "scheduler": progress.scheduler.state_dict(),
        "scaler": progress.scaler.state_dict(),
        "history": to_jsonable(progress.history),
        "best_epoch": progress.best_epoch,
        "best_weights": progress.best_weights,
        "average": None if progress.average is None else progress.average.state(),
    }
    file = io.BytesIO()
    torch.save(state, file)
    write_atomically(path, file.getvalue())


def load_progress(path: Path, progress: Progress, *, fingerprint: Mapping[str, str]) -> str:
    """Restore the state of an interrupted run of the same fit, if there is one.

    Returns:
        An empty string, or why the file that is there is of no use: nothing was restored.
    """
    if not path.exists():
        return ""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        written = dict(state["fingerprint"])
    except (*FAULTS, *MISFITS):
        return f"{path.name} was damaged: the fit started afresh"
    different = [name for name, value in fingerprint.items() if written.get(name) != value]
    if different:
        return f"{path.name} was of another fit ({', '.join(different)} differ): this one started afresh"
    _restore(progress, state)
    return ""


def _restore(progress: Progress, state: Mapping[str, Any]) -> None:
    progress.model.load_state_dict(state["model"])
    progress.optimizer.load_state_dict(state["optimizer"])
    progress.scheduler.load_state_dict(state["scheduler"])
    progress.scaler.load_state_dict(state["scaler"])
    progress.history = [EpochRecord(**epoch) for epoch in state["history"]]
    progress.best_epoch = state["best_epoch"]
    progress.best_weights = state["best_weights"]
    if progress.average is not None:
        progress.average.restore(state["average"])


@contextlib.contextmanager
def seeded_layers(seed: int, epoch: int, *, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators for one epoch, and leave them as they were afterwards.

    Dropout and stochastic depth draw from nowhere else.
    """
    is_cuda = device.type == "cuda"
    value = epoch_seed(seed, epoch, stream="layers")
    with torch.random.fork_rng(devices=[device] if is_cuda else []):
        # Not torch.manual_seed: it would reach every CUDA device, and fork_rng only gives one back.
        torch.default_generator.manual_seed(value)
        if is_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(value)
        yield


def epoch_seed(seed: int, epoch: int, *, stream: str) -> int:
    """Return the seed of one epoch; streams of different names are independent."""
    digest = hashlib.sha256(f"{stream} {seed} {epoch}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1  # torch takes 63 bits everywhere
