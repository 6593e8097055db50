from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trtbench.bench.paired_drop import drop_upper_bound
from trtbench.calibrate.exclusion import cheapest_exclusion, powers, signal_to_noise_db
from trtbench.studies.int8_drop import (
    DropSplit,
    Effect,
    KernelEffect,
    LayerEffect,
    effect_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


def _effect(correct: int, *, snr: float | None = 30.0, total: int = 1000, reference: int = 900) -> Effect:
    lost = max(0, reference - correct)
    return Effect(
        correct=correct,
        total=total,
        lost=lost,
        gained=max(0, correct - reference),
        agreement=0.99,
        logits_snr_db=snr,
    )


def test_an_effect_counts_lost_and_gained_images_and_the_noise_of_the_logits() -> None:
    reference = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    logits = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.float32)

    found = effect_of(logits, reference, np.array([0, 0, 0, 1]))

    assert (found.correct, found.lost, found.gained, found.total, found.agreement) == (3, 1, 1, 4, 0.5)
    assert found.drop_pp == 0
    assert found.drop_upper_pp == 100 * drop_upper_bound(1, 1, 4)
    assert found.logits_snr_db == pytest.approx(0)  # signal 4, noise 4
    assert found.noise == pytest.approx(1)


def test_powers_of_parts_add_up_and_ten_times_the_power_is_ten_decibels() -> None:
    reference, values = np.full((2, 5), 3, np.float32), np.full((2, 5), 4, np.float32)

    whole, half = powers(reference, values), powers(reference[:1], values[:1])

    assert whole == (90, 10) == tuple(2 * part for part in half)
    assert signal_to_noise_db(100, 10) == pytest.approx(10)
    assert signal_to_noise_db(1, 0) is None
    assert signal_to_noise_db(0, 1) is None
    assert _effect(900, snr=None).noise == 0
    assert _effect(900, snr=20).noise == pytest.approx(0.01)


def test_the_parts_of_a_drop_add_up_to_it() -> None:
    split = DropSplit(
        placement="tensorrt",
        achieved="int8",
        float_correct=900,
        weights=_effect(897),
        activations=_effect(901),
        both=_effect(890),
        kernels=(
            KernelEffect(
                how="as built",
                effect=_effect(885),
                true=_effect(890),
                against_true_snr_db=40.0,
                differing_predictions=9,
            ),
        ),
    )

    assert (split.weights_images, split.activations_images, split.together_images) == (3, -1, 8)
    assert split.weights_images + split.activations_images + split.together_images == 900 - 890
    assert split.kernels[0].lost_images == 5


def _layers(noises: list[float], macs: list[int]) -> list[LayerEffect]:
    return [
        LayerEffect(
            name=f"layer{index}",
            op_type="Conv",
            macs=cost,
            own_snr_db=30.0,
            accumulated_snr_db=20.0,
            only=_effect(899, snr=-10 * np.log10(noise) if noise else None),
            without=_effect(891),
        )
        for index, (noise, cost) in enumerate(zip(noises, macs, strict=True))
    ]


def _additive(costs: list[int]) -> tuple[Callable[[Collection[str]], Effect], list[tuple[str, ...]]]:
    """A network whose layers cost images each, independently of each other."""
    asked: list[tuple[str, ...]] = []

    def measure(nodes: Collection[str]) -> Effect:
        asked.append(tuple(nodes))
        return _effect(900 - sum(cost for index, cost in enumerate(costs) if f"layer{index}" not in nodes))

    return measure, asked


def test_no_layer_is_kept_where_the_drop_is_within_the_limit() -> None:
    measure, asked = _additive([1, 1, 1])

    found = cheapest_exclusion(_layers([0.1, 0.2, 0.3], [1, 1, 1]), measure, max_drop_pp=0.3)

    assert found.nodes == ()
    assert found.macs_share == 0
    assert found.effect.correct == 897
    assert asked == [()]


def test_the_one_layer_that_costs_is_found_with_few_questions() -> None:
    costs, noises = [0] * 32, [0.001] * 32
    costs[19], noises[19] = 40, 0.5
    measure, asked = _additive(costs)

    found = cheapest_exclusion(_layers(noises, [10] * 32), measure, max_drop_pp=0)

    assert found.nodes == ("layer19",)
    assert found.effect.drop_pp == 0
    assert found.macs_share == pytest.approx(1 / 32)
    assert len(asked) <= 12
    assert len(set(asked)) == len(asked)


def test_the_cheaper_of_two_sets_that_do_is_chosen() -> None:
    # The noisiest layer would do alone, but holds most of the arithmetic; the other two together are cheaper.
    measure, _ = _additive([10, 5, 5])

    found = cheapest_exclusion(_layers([0.5, 0.3, 0.3], [1000, 1, 1]), measure, max_drop_pp=1.0)

    assert found.nodes == ("layer1", "layer2")


def test_a_layer_that_is_not_needed_is_put_back() -> None:
    # By noise layer0 comes first, yet it costs no image.
    measure, _ = _additive([0, 20, 0])

    found = cheapest_exclusion(_layers([0.9, 0.5, 0.1], [5, 5, 5]), measure, max_drop_pp=0)

    assert found.nodes == ("layer1",)


def test_a_set_that_holds_is_found_for_every_cost_of_four_layers() -> None:
    for costs in itertools.product((0, 1, 7), repeat=4):
        measure, _ = _additive(list(costs))
        found = cheapest_exclusion(_layers([0.1, 0.2, 0.3, 0.4], [4, 3, 2, 1]), measure, max_drop_pp=0.2)
        assert found.effect.drop_pp <= 0.2
        assert found.effect == measure(found.nodes)
