"""Optimizers and schedules against the formulas of their papers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from trtbench.suite import TrainConfig
from trtbench.train.optimise import make_optimizer, make_schedule, parameter_groups

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


def _rates(build: Callable[..., nn.Module], *, steps_per_epoch: int, **settings: Any) -> list[float]:
    """Return the learning rate of every step of a budget."""
    config = TrainConfig(**settings)
    optimizer = make_optimizer(build(), config)
    schedule = make_schedule(optimizer, config, steps_per_epoch=steps_per_epoch)
    rates = []
    for _ in range(config.epochs * steps_per_epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_only_weights_of_layers_decay(build: Callable[..., nn.Module]) -> None:
    model = build()
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    decayed, kept = parameter_groups(model, weight_decay=0.1)

    assert {names[id(one)] for one in decayed["params"]} == {"features.0.weight", "features.4.weight", "fc.weight"}
    assert len(decayed["params"]) + len(kept["params"]) == len(names)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)


def test_frozen_parameters_are_left_out(build: Callable[..., nn.Module]) -> None:
    model = build()
    model.get_submodule("features").requires_grad_(False)

    assert [len(group["params"]) for group in parameter_groups(model, weight_decay=0.1)] == [1, 1]


def test_sgd_takes_the_settings_of_the_budget(build: Callable[..., nn.Module]) -> None:
    optimizer = make_optimizer(build(), TrainConfig(lr=0.3, momentum=0.8, weight_decay=0.01))

    assert isinstance(optimizer, torch.optim.SGD)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.3, 0.8, 0.01, True)


def test_nesterov_without_momentum_is_plain_descent(build: Callable[..., nn.Module]) -> None:
    optimizer = make_optimizer(build(), TrainConfig(momentum=0.0, nesterov=True))

    assert optimizer.param_groups[0]["nesterov"] is False


def test_adamw_takes_momentum_as_its_first_beta(build: Callable[..., nn.Module]) -> None:
    optimizer = make_optimizer(build(), TrainConfig(optimizer="adamw", momentum=0.85))

    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["betas"] == (0.85, 0.999)


def test_cosine_goes_from_the_rate_to_zero_by_batches(build: Callable[..., nn.Module]) -> None:
    rates = _rates(build, steps_per_epoch=5, epochs=4, lr=0.2, schedule="cosine")

    assert rates == pytest.approx([0.1 * (1 + math.cos(math.pi * step / 20)) for step in range(20)])


def test_one_cycle_warms_up_over_three_tenths(build: Callable[..., nn.Module]) -> None:
    rates = _rates(build, steps_per_epoch=10, epochs=10, lr=0.5, schedule="one-cycle", momentum=0.0)

    assert rates[0] == pytest.approx(0.5 / 25)
    assert max(rates) == rates[29] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.5 / 25 / 1e4)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10])
@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "multistep", "constant"])
def test_the_shortest_budgets_have_a_rate(build: Callable[..., nn.Module], schedule: str, steps: int) -> None:
    rates = _rates(build, steps_per_epoch=steps, epochs=1, lr=0.1, schedule=schedule)

    assert len(rates) == steps
    assert all(0 < rate <= 0.1 for rate in rates)


def test_multistep_shrinks_the_rate_at_shares_of_the_budget(build: Callable[..., nn.Module]) -> None:
    rates = _rates(build, steps_per_epoch=2, epochs=4, lr=1.0, schedule="multistep", milestones=(0.75, 0.5), gamma=0.1)

    assert rates == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_constant_rate_stays(build: Callable[..., nn.Module]) -> None:
    assert set(_rates(build, steps_per_epoch=3, epochs=3, lr=0.07, schedule="constant")) == {0.07}
