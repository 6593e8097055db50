"""What training can do beyond one optimizer and one network: mixed images, averages, sharpness, hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trtbench.suite import AugmentConfig, TrainConfig
from trtbench.train import Hooks, fit
from trtbench.train.augment import mixed
from trtbench.train.optimise import Average, climbed, make_optimizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trtbench.records import Dataset

    Build = Callable[..., nn.Module]


def _budget(**settings: Any) -> TrainConfig:
    augment = AugmentConfig(crop_padding=0, flip=False)
    return TrainConfig(**{"epochs": 3, "batch_size": 200, "lr": 0.05, "augment": augment, **settings})


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_without_mixing_images_and_labels_are_untouched() -> None:
    images, labels = torch.rand(4, 3, 8, 8), torch.arange(4)

    found, mixture = mixed(images, labels, config=AugmentConfig(), generator=_generator())

    assert found is images
    assert mixture.first is labels
    assert mixture.second is None


def _of_two_colours(**settings: float) -> tuple[Tensor, Any]:
    """Mix images of which number n has the value n everywhere, so that the pixels tell where they come from."""
    labels = torch.arange(8)
    images = labels.float()[:, None, None, None].expand(8, 3, 6, 6)
    return mixed(images, labels, config=AugmentConfig(**settings), generator=_generator())


def test_mixup_blends_by_the_share_it_tells() -> None:
    images, mixture = _of_two_colours(mixup=1.0)

    expected = mixture.share * mixture.first + (1 - mixture.share) * mixture.second
    assert torch.allclose(images[:, 0, 0, 0], expected)
    assert torch.equal(images.amin((1, 2, 3)), images.amax((1, 2, 3)))
    assert 0 < mixture.share < 1


def test_cutmix_pastes_one_box_of_the_area_it_tells() -> None:
    images, mixture = _of_two_colours(cutmix=1.0)

    for image, first, second in zip(images, mixture.first, mixture.second, strict=True):
        if first == second:
            continue
        pasted = image[0] == second
        assert int(pasted.sum()) == round((1 - mixture.share) * 36)
        rows, columns = pasted.any(1).sum(), pasted.any(0).sum()
        assert int(rows * columns) == int(pasted.sum())
        assert (image[0][~pasted] == first).all()


def test_the_share_of_mixup_follows_its_beta_distribution() -> None:
    generator = _generator()
    config = AugmentConfig(mixup=0.4)
    shares = [
        mixed(torch.zeros(2, 3, 2, 2), torch.zeros(2), config=config, generator=generator)[1].share for _ in range(2000)
    ]

    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.01)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", torch.optim.SGD),
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
        ("rmsprop", torch.optim.RMSprop),
        ("adagrad", torch.optim.Adagrad),
        ("nadam", torch.optim.NAdam),
        ("adadelta", torch.optim.Adadelta),
    ],
)
def test_each_optimizer_is_torchs_and_learns(
    name: str, kind: type, digits: Dataset, build: Build, tmp_path: Path
) -> None:
    lr = {"sgd": 0.05, "adadelta": 1.0}.get(name, 0.003)
    config = _budget(optimizer=name, lr=lr, schedule="constant")

    assert type(make_optimizer(build(), config)) is kind
    record = fit(build(), digits, config, folder=tmp_path)
    assert record.history[-1].train_loss < record.history[0].train_loss


@pytest.mark.parametrize(
    "extra",
    [
        {"ema": 0.9},
        {"swa": 0.3},
        {"sam": 0.05},
        {"loss": "mse"},
        {"l1": 1e-4},
        {"norm_l1": 1e-3},
        {"augment": AugmentConfig(crop_padding=0, flip=False, mixup=0.2, cutmix=1.0)},
    ],
)
def test_each_extra_learns_repeats_bit_for_bit_and_resumes_where_it_stopped(
    extra: dict[str, Any], digits: Dataset, build: Build, tmp_path: Path
) -> None:
    config = _budget(**extra)

    class Stop(Exception):  # noqa: N818  it is no error
        pass

    def stop(epoch: Any) -> None:
        if epoch.epoch == 2:
            raise Stop

    whole, cut = build(), build()
    first = fit(whole, digits, config, folder=tmp_path / "whole")
    with pytest.raises(Stop):
        fit(build(), digits, config, folder=tmp_path / "cut", on_epoch=stop)
    second = fit(cut, digits, config, folder=tmp_path / "cut")

    assert second.resumed_from == 2
    assert first.val_correct == second.val_correct
    assert first.val_correct > first.val_total / 7  # a guess gets a tenth
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, cut.state_dict()[name])


def test_the_moving_average_is_that_of_torch_and_is_what_is_kept(build: Build) -> None:
    model: Any = build()
    average = Average.of(model, _budget(ema=0.5))
    expected: Any = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert average is not None
    assert average.network is None

    for _ in range(3):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        average.after_step(model, keeps_zeros=False)
        expected.update_parameters(model)

    found: Any = average.network
    assert torch.allclose(found.fc.weight, expected.module.fc.weight)
    assert not torch.allclose(found.fc.weight, model.fc.weight)


def test_what_is_pruned_on_the_way_does_not_live_on_in_the_average(build: Build) -> None:
    model: Any = build()
    average = Average.of(model, _budget(ema=0.9))
    assert average is not None
    average.after_step(model, keeps_zeros=True)
    model.fc.weight.data[:, ::2] = 0

    average.after_step(model, keeps_zeros=True)

    found: Any = average.network
    assert torch.equal(found.fc.weight == 0, model.fc.weight == 0)


def test_epochs_are_averaged_only_after_their_share(digits: Dataset, build: Build, tmp_path: Path) -> None:
    weights: list[Tensor] = []
    model: Any = build(dropout=0.0)
    hooks = Hooks(key="watch", before_epoch=lambda network, _: weights.append(_fc(network)))

    fit(model, digits, _budget(epochs=4, swa=0.5, lr=0.2, schedule="constant"), folder=tmp_path, hooks=hooks)

    assert len(weights) == 4
    state = torch.load(tmp_path / "epoch.pt", weights_only=True)
    last = state["model"]["fc.weight"]
    averaged = state["average"]["module.fc.weight"]
    assert int(state["average"]["n_averaged"]) == 2
    assert torch.allclose(averaged, (weights[3] + last) / 2, atol=1e-6)


def _fc(network: Any) -> Tensor:
    found: Tensor = network.fc.weight.detach().clone()
    return found


def test_ema_with_swa_and_sam_with_fp16_are_refused() -> None:
    with pytest.raises(ValidationError, match="not both"):
        TrainConfig(ema=0.9, swa=0.5)
    with pytest.raises(ValidationError, match="fp16"):
        TrainConfig(sam=0.1, amp="fp16")


def test_sharpness_climbs_by_the_radius_along_the_gradient_and_comes_back() -> None:
    model: Any = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1))
    weight: Any = model[0].weight
    weight.data = torch.tensor([[3.0, 4.0]])
    weight.grad = torch.tensor([[0.6, 0.8]])

    with climbed(model, radius=0.5):
        assert torch.allclose(weight, torch.tensor([[3.3, 4.4]]))
        before = model[1].running_mean.clone()
        model(torch.rand(4, 2))
        assert torch.equal(model[1].running_mean, before)

    assert torch.equal(weight, torch.tensor([[3.0, 4.0]]))
    model(torch.rand(4, 2))
    assert not torch.equal(model[1].running_mean, before)


def test_hooks_see_every_epoch_and_step_and_add_their_penalty(digits: Dataset, build: Build, tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    def penalty(model: nn.Module) -> Tensor:
        return 100 * sum((one.square().sum() for one in model.parameters()), torch.zeros(()))

    hooks = Hooks(
        key="all",
        before_epoch=lambda _, epoch: seen.append(("epoch", epoch)),
        after_step=lambda _, step: seen.append(("step", step)),
        penalty=penalty,
        first_best_epoch=2,
    )

    record = fit(build(), digits, _budget(epochs=2, lr=1e-5, batch_size=600), folder=tmp_path, hooks=hooks)

    assert seen == [("epoch", 1), ("step", 1), ("step", 2), ("epoch", 2), ("step", 3), ("step", 4)]
    assert record.history[0].train_loss > 100
    assert record.best_epoch == 2
