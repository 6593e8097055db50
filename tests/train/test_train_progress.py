"""The file an interrupted fit goes on from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from trtbench.errors import StoreError
from trtbench.suite import TrainConfig
from trtbench.train.logbook import EpochRecord, Progress, fingerprint_of, load_progress, save_progress
from trtbench.train.optimise import make_optimizer, make_schedule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trtbench.records import Dataset

_SCHEDULES = ["cosine", "one-cycle", "multistep", "constant"]


def _progress(model: nn.Module, **settings: Any) -> Progress:
    config = TrainConfig(epochs=4, **settings)
    optimizer = make_optimizer(model, config)
    scheduler = make_schedule(optimizer, config, steps_per_epoch=2)
    scaler = torch.amp.GradScaler("cuda", enabled=False)
    return Progress(model=model, optimizer=optimizer, scheduler=scheduler, scaler=scaler)


def _epoch(number: int, *, correct: int, loss: float = 1.0) -> EpochRecord:
    return EpochRecord(
        epoch=number,
        lr=0.1,
        train_loss=1.0,
        train_correct=1,
        train_total=2,
        val_loss=loss,
        val_correct=correct,
        val_total=10,
        seconds=0.5,
    )


def _learn(progress: Progress) -> None:
    for parameter in progress.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    progress.optimizer.step()
    progress.scheduler.step()


@pytest.mark.parametrize(
    ("epochs", "best"),
    [
        ([(5, 1.0)], 1),
        ([(5, 1.0), (6, 2.0), (4, 0.1)], 2),
        ([(5, 1.0), (5, 0.9), (5, 0.95)], 2),
        ([(5, 1.0), (5, 1.0)], 1),
    ],
)
def test_the_best_epoch_has_most_right_then_the_lower_loss_then_comes_first(
    epochs: list[tuple[int, float]], best: int
) -> None:
    progress = _progress(nn.Linear(1, 1, bias=False))
    weight = next(progress.model.parameters())
    for number, (correct, loss) in enumerate(epochs, start=1):
        with torch.no_grad():
            weight.fill_(number)
        progress.note_epoch(_epoch(number, correct=correct, loss=loss))

    progress.use_best_weights()

    assert progress.best_epoch == best
    assert weight.item() == best


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("schedule", _SCHEDULES)
def test_a_restored_run_goes_on_as_if_it_had_not_stopped(
    build: Callable[..., nn.Module], tmp_path: Path, optimizer: str, schedule: str
) -> None:
    settings = {"optimizer": optimizer, "schedule": schedule}
    progress, again = (_progress(build(seed=seed), **settings) for seed in (0, 1))
    for number in (1, 2):
        _learn(progress)
        progress.note_epoch(_epoch(number, correct=number))
    save_progress(tmp_path / "epoch.pt", progress, fingerprint={"config": "a"})

    assert load_progress(tmp_path / "epoch.pt", again, fingerprint={"config": "a"}) == ""

    assert (again.history, again.best_epoch) == (progress.history, 2)
    _learn(progress)
    _learn(again)
    torch.testing.assert_close(again.model.state_dict(), progress.model.state_dict(), rtol=0, atol=0)
    assert again.best_weights is not None
    torch.testing.assert_close(again.best_weights, progress.best_weights, rtol=0, atol=0)
    assert again.optimizer.param_groups[0]["lr"] == progress.optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_said_and_not_used(build: Callable[..., nn.Module], tmp_path: Path, share: float) -> None:
    path, progress = tmp_path / "epoch.pt", _progress(build())
    progress.note_epoch(_epoch(1, correct=1))
    save_progress(path, progress, fingerprint={})
    content = path.read_bytes()
    path.write_bytes(content[: math.floor(share * len(content))])

    assert load_progress(path, _progress(build()), fingerprint={}) == "epoch.pt was damaged: the fit started afresh"


@pytest.mark.parametrize("content", [{"weights": 1}, [1, 2], {"fingerprint": 3}])
def test_a_file_of_something_else_is_said_and_not_used(
    build: Callable[..., nn.Module], tmp_path: Path, content: object
) -> None:
    path, progress = tmp_path / "epoch.pt", _progress(build())
    torch.save(content, path)

    assert "damaged" in load_progress(path, progress, fingerprint={})
    assert not progress.history


def test_a_file_that_would_run_code_is_not_read(build: Callable[..., nn.Module], tmp_path: Path) -> None:
    path = tmp_path / "epoch.pt"
    torch.save({"fingerprint": {}, "model": build()}, path)

    assert "damaged" in load_progress(path, _progress(build()), fingerprint={})


def test_a_file_of_another_fit_is_said_and_not_used(build: Callable[..., nn.Module], tmp_path: Path) -> None:
    path, progress = tmp_path / "epoch.pt", _progress(build())
    progress.note_epoch(_epoch(1, correct=1))
    save_progress(path, progress, fingerprint={"config": "a", "start weights": "b", "format": "1"})
    again = _progress(build(seed=1))

    note = load_progress(path, again, fingerprint={"config": "x", "start weights": "y", "format": "1"})

    assert note == "epoch.pt was of another fit (config, start weights differ): this one started afresh"
    assert not again.history
    torch.testing.assert_close(again.model.state_dict(), build(seed=1).state_dict(), rtol=0, atol=0)


def test_a_folder_that_cannot_be_written_is_a_store_error(build: Callable[..., nn.Module], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="cannot write"):
        save_progress(tmp_path / "file" / "epoch.pt", _progress(build()), fingerprint={})


def test_the_fingerprint_tells_what_differs(digits: Dataset, build: Callable[..., nn.Module]) -> None:
    config = TrainConfig(epochs=3)
    base = fingerprint_of(build(), digits, config, teacher=None)

    others = {
        "config": fingerprint_of(build(), digits, TrainConfig(epochs=4), teacher=None),
        "start weights": fingerprint_of(build(seed=1), digits, config, teacher=None),
        "teacher": fingerprint_of(build(), digits, config, teacher=build()),
    }

    assert fingerprint_of(build(), digits, TrainConfig(epochs=3), teacher=None) == base
    for name, other in others.items():
        assert [key for key in base if base[key] != other[key]] == [name]


def test_weights_numpy_does_not_know_have_a_fingerprint(digits: Dataset, build: Callable[..., nn.Module]) -> None:
    config = TrainConfig(epochs=1)
    single, half = (
        fingerprint_of(model, digits, config, teacher=None)["start weights"] for model in (build(), build().bfloat16())
    )

    assert single != half
