"""The one fit loop: training from scratch, fine-tuning after pruning, distillation; resumable by epoch.

The data set is one tensor on the device and a batch is index maths (after Keller Jordan's airbench). The best epoch is
chosen on the validation split; the test split is never read.

On two cores of an AMD EPYC (torch 2.15, float32) an epoch of ResNet-20 over 1,077 32x32 images in batches of 64, with
its validation on 360, takes 3.1 s, as long as no other process wants the cores.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trtbench.errors import ConfigError, DataError, OutOfMemoryError, RowError
from trtbench.models.counts import evaluating
from trtbench.train.augment import Labels, augmented_batch, loss_on, mixed, penalties
from trtbench.train.evaluate import DeviceImages, as_device, logits_of, place, score
from trtbench.train.hooks import NO_HOOKS, Hooks, holding_zeros
from trtbench.train.logbook import (
    STATE_FILE,
    EpochRecord,
    FitRecord,
    Progress,
    epoch_seed,
    fingerprint_of,
    load_progress,
    save_progress,
    seeded_layers,
    write_config,
    write_curves,
    write_history,
)
from trtbench.train.optimise import Average, climbed, make_optimizer, make_schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from trtbench.records import Dataset
    from trtbench.suite import TrainConfig


_AMP_DTYPES = {"off": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}  # "off" disables autocast
# Pruned to 8, 24 and 48 channels, a ResNet-20 in channels_last with 63 images a batch kills the process in the backward
# pass of torch 2.15 on the CPU (a segmentation fault in its convolution library).
_LEFT_OUT = "channels_last was left out: it is for CUDA; on CPUs it crashes on some pruned widths"


def fit(
    model: nn.Module,
    dataset: Dataset,
    config: TrainConfig,
    *,
    folder: Path,
    teacher: nn.Module | None = None,
    hooks: Hooks = NO_HOOKS,
    device: str | torch.device = "cpu",
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> FitRecord:
    """Train a network on `dataset.train` and leave it with the weights of its best epoch on `dataset.validation`.

    What the network's masks let go stays zero. Best means most right, then the lower loss, then the earlier epoch.
    After every epoch the whole state stands in `folder/epoch.pt`; a second call with the same start weights, data and
    config goes on from there, and ends with the same weights, bit for bit, as a run that was not interrupted. Torch's
    global random state neither decides anything nor changes; the number of threads stays what it is.

    Args:
        model: trained in place, moved to `device` where it stays, returned in evaluation mode, its weights contiguous.
        dataset: its test split is not read.
        config: the budget; with 0 epochs the weights stay as they are.
        folder: gets epoch.pt, config.json, history.json, train.log and curves.png.
        teacher: used, unchanged, where `config.distill` is set.
        hooks: what a compression method does while the network learns.
        device: `cpu`, `cuda` or `cuda:N`.
        on_epoch: called after each epoch, when its state is on the disk.

    Raises:
        ConfigError: the budget does not fit the data, the device or the network.
        DataError: no training or no validation images.
        RowError: the loss is not finite.
        OutOfMemoryError: the device ran out of memory.
        StoreError: `folder` cannot be written.
    """
    target = as_device(device)
    _check_budget(dataset, config, target, teacher=teacher)
    hooks = holding_zeros(model, hooks)
    with _deterministic_convolutions(), _memory_of(target, config):
        task = _Task.prepare(model, dataset, config, target, teacher=teacher, hooks=hooks)
        _check_classes(model, task.validation, num_classes=dataset.num_classes)
        fingerprint = fingerprint_of(model, dataset, config, teacher=task.teacher, hooks=hooks)
        write_config(folder, config, fingerprint=fingerprint)
        if not config.epochs:
            return _untrained(model, task, folder=folder)
        progress = _start(model, task)
        note = load_progress(folder / STATE_FILE, progress, fingerprint=fingerprint)
        resumed_from = len(progress.history) or None
        while len(progress.history) < config.epochs:
            record = _run_epoch(task, progress)
            save_progress(folder / STATE_FILE, progress, fingerprint=fingerprint)
            write_history(folder, progress.history, epochs=config.epochs, best_epoch=progress.best_epoch)
            if on_epoch is not None:
                on_epoch(record)
    progress.use_best_weights()
    _hand_over(model)
    write_curves(folder, progress.history, best_epoch=progress.best_epoch)
    notes = (note, _LEFT_OUT if config.channels_last and target.type != "cuda" else "")
    return _record(progress, resumed_from=resumed_from, notes=tuple(filter(None, notes)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Task:
    """What does not change while a network learns."""

    config: TrainConfig
    device: torch.device
    train: DeviceImages
    validation: DeviceImages
    teacher: nn.Module | None
    hooks: Hooks

    @property
    def steps(self) -> int:
        return -(-len(self.train) // self.config.batch_size)

    @classmethod
    def prepare(
        cls,
        model: nn.Module,
        dataset: Dataset,
        config: TrainConfig,
        device: torch.device,
        *,
        teacher: nn.Module | None,
        hooks: Hooks,
    ) -> _Task:
        is_last = config.channels_last and device.type == "cuda"
        layout = torch.channels_last if is_last else torch.contiguous_format
        if config.distill is None:
            teacher = None
        if teacher is not None:
            teacher = copy.deepcopy(teacher).eval().to(device).to(memory_format=layout)
        model.to(device).to(memory_format=layout)
        train, validation = (
            place(split, dataset.preprocessing, device=device, is_channels_last=is_last)
            for split in (dataset.train, dataset.validation)
        )
        return cls(config=config, device=device, train=train, validation=validation, teacher=teacher, hooks=hooks)


def _start(model: nn.Module, task: _Task) -> Progress:
    optimizer = make_optimizer(model, task.config)
    scheduler = make_schedule(optimizer, task.config, steps_per_epoch=task.steps)
    # Half precision alone needs its gradients scaled; a disabled scaler passes everything through.
    scaler = torch.amp.GradScaler("cuda", enabled=task.config.amp == "fp16")
    return Progress(
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        scaler=scaler,
        first_best_epoch=min(task.hooks.first_best_epoch, task.config.epochs),
        average=Average.of(model, task.config),
    )


def _run_epoch(task: _Task, progress: Progress) -> EpochRecord:
    start = time.monotonic()
    epoch = len(progress.history) + 1
    lr = float(progress.optimizer.param_groups[0]["lr"])
    train_loss, train_correct = _learn(task, progress, epoch=epoch)
    if progress.average is not None:
        progress.average.after_epoch(progress.model, epoch, task.train, keeps_zeros=task.hooks is not NO_HOOKS)
    val_loss, val_correct = score(progress.scored, task.validation)
    if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
        raise _diverged(task.config, epoch=epoch, train_loss=train_loss, val_loss=val_loss)
    record = EpochRecord(
        epoch=epoch,
        lr=lr,
        train_loss=train_loss,
        train_correct=train_correct,
        train_total=len(task.train),
        val_loss=val_loss,
        val_correct=val_correct,
        val_total=len(task.validation),
        seconds=time.monotonic() - start,
    )
    progress.note_epoch(record)
    return record


def _learn(task: _Task, progress: Progress, *, epoch: int) -> tuple[float, int]:
    """Run the training half of an epoch; return the mean loss and the count of right answers."""
    config = task.config
    generator = torch.Generator().manual_seed(epoch_seed(config.seed, epoch, stream="batches"))
    loss_sum = torch.zeros((), dtype=torch.float64, device=task.device)
    correct = torch.zeros((), dtype=torch.int64, device=task.device)
    if task.hooks.before_epoch is not None:
        task.hooks.before_epoch(progress.model, epoch)
    progress.model.train()
    with seeded_layers(config.seed, epoch, device=task.device):
        order = torch.randperm(len(task.train), generator=generator)
        # Batches of nearly equal size: no small last one, whose few images would weigh more and upset BatchNorm.
        for index, indices in enumerate(torch.tensor_split(order, task.steps), start=1):
            inputs, labels = augmented_batch(task.train, indices, config=config.augment, generator=generator)
            inputs, mixture = mixed(inputs, labels, config=config.augment, generator=generator)
            loss, logits = _learn_batch(task, progress, inputs, mixture)
            if task.hooks.after_step is not None:
                task.hooks.after_step(progress.model, (epoch - 1) * task.steps + index)
            if progress.average is not None:
                progress.average.after_step(progress.model, keeps_zeros=task.hooks is not NO_HOOKS)
            loss_sum += loss * len(indices)
            correct += (logits.argmax(1) == labels).sum()
    return loss_sum.item() / len(task.train), int(correct.item())


def _untrained(model: nn.Module, task: _Task, *, folder: Path) -> FitRecord:
    _hand_over(model)
    write_history(folder, (), epochs=0, best_epoch=0)
    _, correct = score(model, task.validation)
    return FitRecord(
        epochs=0,
        best_epoch=0,
        val_correct=correct,
        val_total=len(task.validation),
        history=(),
        seconds=0.0,
        resumed_from=None,
        notes=("0 epochs: the weights are those it came with",),
    )


def _hand_over(model: nn.Module) -> None:
    """Leave the model as every later room expects it; checkpoints want contiguous weights."""
    model.eval()
    model.to(memory_format=torch.contiguous_format)


def _record(progress: Progress, *, resumed_from: int | None, notes: tuple[str, ...]) -> FitRecord:
    best = progress.history[progress.best_epoch - 1]
    return FitRecord(
        epochs=len(progress.history),
        best_epoch=best.epoch,
        val_correct=best.val_correct,
        val_total=best.val_total,
        history=tuple(progress.history),
        seconds=sum(epoch.seconds for epoch in progress.history),
        resumed_from=resumed_from,
        notes=notes,
    )


def _diverged(config: TrainConfig, *, epoch: int, train_loss: float, val_loss: float) -> RowError:
    return RowError(
        f"training diverged in epoch {epoch}",
        expected="finite losses",
        got=f"training {train_loss}, validation {val_loss}",
        cure=f"lower train.lr (now {config.lr}) or use schedule one-cycle, which warms up",
    )


@contextlib.contextmanager
def _deterministic_convolutions() -> Iterator[None]:
    """Let cuDNN choose only algorithms that repeat, so that a resumed run equals an uninterrupted one."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


@contextlib.contextmanager
def _memory_of(device: torch.device, config: TrainConfig) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"training on {device}",
            got=str(error).split(". ", maxsplit=1)[0],
            cure=f"lower train.batch_size (now {config.batch_size})",
        ) from error


def _learn_batch(task: _Task, progress: Progress, inputs: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
    scaler, radius = progress.scaler, task.config.sam
    progress.optimizer.zero_grad()
    loss, logits = _pass(task, progress, inputs, labels)
    if radius:
        with climbed(progress.model, radius=radius):
            progress.optimizer.zero_grad()
            _pass(task, progress, inputs, labels)
    scale = scaler.get_scale()
    scaler.step(progress.optimizer)
    scaler.update()
    if scaler.get_scale() >= scale:  # else the gradients overflowed and nothing was learnt
        progress.scheduler.step()
    return loss, logits


def _pass(task: _Task, progress: Progress, inputs: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
    """Run a batch forward and backward; return its loss and logits, detached."""
    config, model, hook = task.config, progress.model, task.hooks.penalty
    with torch.autocast(task.device.type, dtype=_AMP_DTYPES[config.amp], enabled=config.amp != "off"):
        logits = logits_of(model, inputs)
        opinion = _opinion(task.teacher, inputs)
    loss = loss_on(logits, labels, config, teacher_logits=opinion)
    for penalty in (penalties(model, config), None if hook is None else hook(model)):
        loss = loss if penalty is None else loss + penalty
    torch.autograd.backward(progress.scaler.scale(loss))
    return loss.detach(), logits.detach()


def _opinion(teacher: nn.Module | None, inputs: Tensor) -> Tensor | None:
    if teacher is None:
        return None
    with torch.no_grad():
        return logits_of(teacher, inputs)


def _check_budget(dataset: Dataset, config: TrainConfig, device: torch.device, *, teacher: nn.Module | None) -> None:
    """Raise where a fit could not start or would not do what the budget says."""
    for name, split in (("training", dataset.train), ("validation", dataset.validation)):
        if not len(split):
            raise DataError(
                f"the {name} images of {dataset.name}", expected="at least one", got="none", cure="add images"
            )
    if config.amp == "fp16" and device.type != "cuda":
        raise ConfigError(
            "train.amp: fp16",
            expected="a CUDA device, whose loss is scaled",
            got=f"device {device}",
            cure="set train.amp to bf16 or off, or train on a GPU",
        )
    if config.distill is not None and teacher is None:
        raise ConfigError(
            "train.distill", expected="a teacher", got="none", cure="distil from the dense network, or remove the key"
        )
    if config.augment.crop_padding >= (size := min(dataset.train.images.shape[2:])):
        raise ConfigError(
            "train.augment.crop_padding",
            expected=f"less than the image's {size} pixels, which are reflected",
            got=str(config.augment.crop_padding),
            cure="lower it; 0 is off",
        )


def _check_classes(model: nn.Module, images: DeviceImages, *, num_classes: int) -> None:
    """Run one image; a label without a logit would stop a GPU for good, with no word of the cause."""
    with evaluating(model), torch.no_grad():
        count = logits_of(model, images.normalised(images.pixels[:1])).shape[1]
    if count != num_classes:
        raise ConfigError(
            f"the logits of {type(model).__name__}",
            expected=f"{num_classes}, one per class of the data",
            got=str(count),
            cure="build the network with the classes of the data",
        )
