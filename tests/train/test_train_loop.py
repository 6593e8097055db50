"""The fit loop on real digits: it learns, repeats itself, resumes, and keeps its hands off everything else."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trtbench.errors import ConfigError, DataError, OutOfMemoryError, RowError
from trtbench.records import Split
from trtbench.suite import AugmentConfig, DistillConfig, TrainConfig
from trtbench.train import EpochRecord, FitRecord, fit, predict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trtbench.records import Dataset

_AUGMENT = AugmentConfig(crop_padding=1, flip=False, cutout=2)


def _config(**settings: Any) -> TrainConfig:
    return TrainConfig(
        **{"epochs": 4, "batch_size": 64, "lr": 0.1, "schedule": "one-cycle", "augment": _AUGMENT} | settings
    )


class _InterruptError(Exception):
    """What a test interrupts a fit with."""


def _interrupt_after(epoch: int) -> Callable[[EpochRecord], None]:
    def raise_then(record: EpochRecord) -> None:
        if record.epoch == epoch:
            raise _InterruptError

    return raise_then


def _same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def _without_seconds(record: FitRecord) -> list[EpochRecord]:
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in record.history]


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_it_learns_real_digits_and_keeps_the_best_epoch(
    digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path, amp: str
) -> None:
    model = build(width=16)
    seen: list[EpochRecord] = []

    record = fit(
        model,
        digits,
        _config(epochs=6, augment={"crop_padding": 0, "flip": False}, amp=amp),
        folder=tmp_path,
        on_epoch=seen.append,
    )

    logits = predict(model, digits.validation.images, digits.preprocessing)
    assert record.val_correct == (logits.argmax(1) == digits.validation.labels).sum()
    assert record.val_correct > 0.9 * record.val_total
    assert record.val_correct == max(epoch.val_correct for epoch in record.history)
    assert record.history[record.best_epoch - 1].val_correct == record.val_correct
    assert (record.epochs, record.resumed_from, record.notes) == (6, None, ())
    assert [epoch.epoch for epoch in record.history] == [1, 2, 3, 4, 5, 6]
    assert seen == list(record.history)
    assert record.seconds == sum(epoch.seconds for epoch in seen) > 0
    assert not model.training
    assert {file.name for file in tmp_path.iterdir()} == {
        "config.json",
        "curves.png",
        "epoch.pt",
        "history.json",
        "train.log",
    }


def test_every_training_image_is_seen_once_an_epoch(
    digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path
) -> None:
    sizes: list[int] = []
    model = build()
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])) if module.training else None)

    record = fit(model, digits, _config(epochs=1), folder=tmp_path)

    assert sum(sizes) == len(digits.train) == record.history[0].train_total
    assert len(sizes) == -(-len(digits.train) // 64)
    assert max(sizes) - min(sizes) <= 1


_KINDS: list[dict[str, Any]] = [
    {"schedule": "one-cycle"},
    {"schedule": "cosine", "optimizer": "adamw", "lr": 0.01},
    {"schedule": "multistep", "label_smoothing": 0.1},
    {"schedule": "constant", "momentum": 0.0, "distill": DistillConfig()},
]


@pytest.mark.parametrize(
    "settings",
    [pytest.param(one, id=one["schedule"], marks=() if "distill" in one else pytest.mark.slow) for one in _KINDS],
)
def test_an_interrupted_and_resumed_run_ends_with_the_same_weights(
    digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole, cut, resumed, teacher = build(), build(), build(), build(seed=9)
    config = _config(**settings)
    uninterrupted = fit(whole, digits, config, folder=tmp_path / "whole", teacher=teacher)

    with pytest.raises(_InterruptError):
        fit(cut, digits, config, folder=tmp_path / "cut", teacher=teacher, on_epoch=_interrupt_after(2))
    record = fit(resumed, digits, config, folder=tmp_path / "cut", teacher=teacher)

    assert _same(resumed, whole)
    assert _without_seconds(record) == _without_seconds(uninterrupted)
    assert record.resumed_from == 2
    assert record.notes == ()


def test_two_runs_end_with_the_same_weights_whatever_the_global_random_state(
    digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path
) -> None:
    first, second, other = build(dropout=0.5), build(dropout=0.5), build(dropout=0.5)

    for seed, model, config in ((1, first, _config()), (2, second, _config()), (2, other, _config(seed=1))):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fit(model, digits, config, folder=tmp_path / str(id(model)))

    assert _same(first, second)
    assert not _same(first, other)


def test_global_state_is_left_alone(digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path) -> None:
    def state() -> tuple[object, ...]:
        numpy_state = np.random.get_state(legacy=False)["state"]["key"].tolist()  # noqa: NPY002  it is what is guarded
        cudnn = torch.backends.cudnn
        return (
            torch.get_rng_state().tolist(),
            numpy_state,
            random.getstate(),
            torch.get_num_threads(),
            cudnn.deterministic,
            cudnn.benchmark,
        )

    before = state()
    fit(build(), digits, _config(epochs=1), folder=tmp_path)

    assert state() == before


def test_a_finished_run_is_not_run_again(digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path) -> None:
    first, again = build(), build()
    record = fit(first, digits, _config(), folder=tmp_path)

    repeated = fit(again, digits, _config(), folder=tmp_path, on_epoch=_interrupt_after(1))

    assert _same(first, again)
    assert not again.training
    assert repeated == dataclasses.replace(record, resumed_from=4)


def test_the_run_of_another_budget_is_started_afresh_and_said(
    digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path
) -> None:
    fit(build(), digits, _config(), folder=tmp_path)
    model, alone = build(), build()

    record = fit(model, digits, _config(lr=0.05), folder=tmp_path)

    fit(alone, digits, _config(lr=0.05), folder=tmp_path / "alone")
    assert _same(model, alone)
    assert record.resumed_from is None
    assert record.notes == ("epoch.pt was of another fit (config differ): this one started afresh",)


class _Untouchable:
    """A test split that nobody may look at."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(name)


def test_the_test_split_is_never_read(digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path) -> None:
    test: Any = _Untouchable()

    record = fit(build(), dataclasses.replace(digits, test=test), _config(epochs=1), folder=tmp_path)

    assert record.val_total == len(digits.validation)


def test_no_epochs_leave_the_weights_and_give_their_accuracy(
    digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path
) -> None:
    model = build().train()

    record = fit(model, digits, _config(epochs=0), folder=tmp_path)

    logits = predict(model, digits.validation.images, digits.preprocessing)
    assert _same(model, build())
    assert not model.training
    assert record.val_correct == (logits.argmax(1) == digits.validation.labels).sum()
    assert (record.epochs, record.best_epoch, record.history, record.seconds) == (0, 0, (), 0)
    assert record.notes == ("0 epochs: the weights are those it came with",)


def test_channels_last_is_left_out_on_the_cpu_and_said(
    digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path
) -> None:
    formats: set[bool] = set()
    model = build()
    model.get_submodule("features").register_forward_pre_hook(
        lambda _, inputs: formats.add(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )

    record = fit(model, digits, _config(epochs=1, channels_last=True), folder=tmp_path / "last")

    assert formats == {False}
    assert record.notes == ("channels_last was left out: it is for CUDA; on CPUs it crashes on some pruned widths",)


@pytest.mark.gpu
def test_channels_last_changes_nothing_but_rounding_and_ends_contiguous(
    digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path
) -> None:
    model, plain = build(), build()

    record = fit(model, digits, _config(epochs=1, channels_last=True), folder=tmp_path / "last", device="cuda")

    assert all(parameter.is_contiguous() for parameter in model.parameters())
    expected = fit(plain, digits, _config(epochs=1), folder=tmp_path / "first", device="cuda").history[0]
    assert record.history[0].train_loss == pytest.approx(expected.train_loss, rel=1e-2)


def test_a_teacher_is_followed_and_left_as_it_is(
    digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path
) -> None:
    teacher = build(width=16)
    fit(teacher, digits, _config(), folder=tmp_path / "teacher")
    teacher.train()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    config = _config(distill=DistillConfig(temperature=2.0, alpha=1.0), epochs=6, augment={"crop_padding": 0})
    student = build(seed=1)
    # Labels that say nothing: whatever the student knows afterwards, the teacher told it.
    blind = Split(images=digits.train.images, labels=np.zeros_like(digits.train.labels))

    record = fit(student, dataclasses.replace(digits, train=blind), config, folder=tmp_path / "kd", teacher=teacher)

    assert record.val_correct > 0.8 * record.val_total
    assert teacher.training
    torch.testing.assert_close(dict(teacher.state_dict()), before, rtol=0, atol=0)


def test_a_teacher_without_distillation_is_ignored(
    digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path
) -> None:
    alone, taught = build(), build()

    fit(alone, digits, _config(epochs=1), folder=tmp_path / "alone")
    fit(taught, digits, _config(epochs=1), folder=tmp_path / "taught", teacher=build(seed=3))

    assert _same(alone, taught)


def test_training_that_diverges_names_the_cure(
    digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path
) -> None:
    model = build()
    with torch.no_grad():
        model.get_parameter("fc.weight").mul_(1e38)  # its logits overflow

    with pytest.raises(RowError, match=r"diverged in epoch 1: .*nan.*lower train.lr \(now 0.1\)"):
        fit(model, digits, _config(schedule="constant"), folder=tmp_path)
    assert not (tmp_path / "epoch.pt").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"amp": "fp16"}, "train.amp: fp16: .* got device cpu"),
        ({"distill": DistillConfig()}, "train.distill: expected a teacher"),
        ({"augment": AugmentConfig(crop_padding=8)}, "less than the image's 8 pixels"),
    ],
)
def test_a_budget_that_cannot_be_is_a_configuration_error(
    digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(build(), digits, _config(**settings), folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["train", "validation"])
def test_a_split_without_images_is_a_data_error(
    digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path, name: str
) -> None:
    empty = Split(images=digits.train.images[:0], labels=digits.train.labels[:0])
    splits: dict[str, Any] = {name: empty}

    with pytest.raises(DataError, match=f"the {name}.* images of digits"):
        fit(build(), dataclasses.replace(digits, **splits), _config(), folder=tmp_path)


def test_a_network_of_other_classes_is_a_configuration_error(
    digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path
) -> None:
    data = dataclasses.replace(digits, classes=digits.classes[:7])

    with pytest.raises(ConfigError, match="the logits of Network: expected 7, one per class of the data, got 10"):
        fit(build(), data, _config(), folder=tmp_path)


class _Greedy(nn.Module):
    """A network that asks for more memory than there is."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(1, 10)

    def forward(self, images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {len(images)} GiB.")


def test_a_full_device_is_an_out_of_memory_error(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(OutOfMemoryError, match=r"CUDA out of memory; lower train.batch_size \(now 64\)"):
        fit(_Greedy(), digits, _config(), folder=tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_a_gpu_learns_in_every_precision_and_resumes(
    digits: Dataset, build: Callable[..., nn.Module], tmp_path: Path, amp: str
) -> None:
    whole, cut, resumed = build(width=16), build(width=16), build(width=16)
    config = _config(epochs=6, augment={"crop_padding": 1, "flip": False}, amp=amp, channels_last=True)
    record = fit(whole, digits, config, folder=tmp_path / "whole", device="cuda")

    with pytest.raises(_InterruptError):
        fit(cut, digits, config, folder=tmp_path / "cut", device="cuda", on_epoch=_interrupt_after(2))
    fit(resumed, digits, config, folder=tmp_path / "cut", device="cuda")

    assert record.val_correct > 0.85 * record.val_total
    assert _same(resumed, whole)
