"""Accuracy is counts on every image, and a drop is what the paired counts prove."""

from __future__ import annotations

import numpy as np
import pytest

from trtbench.bench.accuracy import fidelity, score
from trtbench.errors import EngineError
from trtbench.records import Output


def _one_hot(classes: list[int], *, total: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.eye(total, dtype=np.float32)[classes]


def test_counts_and_paired_figures_match_a_case_worked_by_hand() -> None:
    labels = np.array([0, 1, 2, 2, 1, 0])
    reference = _one_hot([0, 1, 2, 2, 0, 1], total=3)  # 4 right
    logits = _one_hot([0, 1, 1, 1, 1, 1], total=3)  # 3 right: lost images 2 and 3, gained image 4

    found = score(logits, labels, reference=reference)

    assert (found.correct, found.total, found.top1) == (3, 6, 0.5)
    assert found.per_class == (1, 2, 0)
    assert found.drop_pp == pytest.approx(100 / 6)
    assert found.drop_upper_pp is not None
    assert found.drop_pp is not None
    assert found.drop_upper_pp > found.drop_pp
    assert found.mcnemar_p == pytest.approx(1.0)  # two lost, one gained
    assert found.agreement == pytest.approx(3 / 6)
    assert found.top5 is None


def test_without_a_reference_there_is_no_drop() -> None:
    found = score(_one_hot([0, 1], total=2), np.array([0, 1]))

    assert (found.drop_pp, found.drop_upper_pp, found.mcnemar_p, found.agreement) == (None, None, None, None)


def test_top5_counts_images_whose_label_is_among_the_five_best() -> None:
    logits = np.tile(np.arange(10, dtype=np.float32), (3, 1))  # best first: 9 8 7 6 5

    found = score(logits, np.array([9, 5, 4]))

    assert found.top5 == pytest.approx(2 / 3)


def test_logits_that_are_not_finite_are_an_error_with_their_number() -> None:
    logits = _one_hot([0, 1, 1], total=2)
    logits[1, 0] = np.nan

    with pytest.raises(EngineError, match="NaN or infinity on 1 of 3 images"):
        score(logits, np.array([0, 1, 1]))


def test_a_missing_row_of_logits_is_an_error() -> None:
    with pytest.raises(EngineError, match="one row for each of 3 images"):
        score(_one_hot([0, 1], total=2), np.array([0, 1, 1]))


def test_the_class_that_lost_most_of_its_own_images_is_named() -> None:
    labels = np.array([0] * 10 + [1] * 2 + [2] * 4)
    right = _one_hot(labels.tolist(), total=3)
    wrong = right.copy()
    wrong[[0, 1]] = [0, 1, 0]  # two of ten zeros
    wrong[10] = [1, 0, 0]  # one of two ones

    found = score(wrong, labels, reference=right, names=("cat", "dog", "owl"))

    assert found.class_totals == (10, 2, 4)
    assert found.class_drops_pp == pytest.approx((20, 50, 0))
    assert found.worst_class == "dog"
    assert score(wrong, labels, reference=right).worst_class == "1"
    assert score(right, labels, reference=right).worst_class is None


def test_an_engine_that_guesses_is_counted_and_said_to_guess() -> None:
    labels = np.tile(np.arange(4), 25)
    right = _one_hot(labels.tolist(), total=4)
    always_zero = _one_hot([0] * 100, total=4)

    found = score(always_zero, labels, reference=right)
    assert (found.correct, found.lost, found.is_chance) == (25, 75, True)  # the choice refuses it
    assert score(always_zero, labels, reference=always_zero).is_chance
    assert not score(right, labels).is_chance


def test_the_loss_and_the_calibration_error_of_logits_are_those_of_their_softmax() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]], dtype=np.float32))

    found = score(logits, np.array([0, 1, 0]))

    assert found.loss == pytest.approx(-np.log([0.9, 0.1, 0.6]).mean(), rel=1e-6)
    assert found.ece == pytest.approx((abs(0.9 + 0.9 - 1) + abs(0.6 - 1)) / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((6, 50), 1), ((50, 6), 2), ((6, 8, 8), 1), ((8, 8, 6), 3), ((3, 8, 8, 6), 4)],
    ids=str,
)
def test_channels_of_each_scale_are_judged_by_themselves(shape: tuple[int, ...], axis: int) -> None:
    random = np.random.default_rng(0)
    scales = np.array([300, 200, 300, 1, 0.5, 1]).reshape([6 if one == axis else 1 for one in range(len(shape) + 1)])
    reference = (random.uniform(0, scales, (4, *shape))).astype(np.float32)
    found = reference + random.normal(0, 0.5, reference.shape).astype(np.float32)

    record = fidelity(found.reshape(4, -1), reference.reshape(4, -1), [Output(name="head", shape=shape)])

    (head,) = record.outputs
    assert head.snr_db is not None
    assert head.snr_db > 45
    assert head.channels == "3-5"
    small = np.moveaxis(reference, axis, 1)[:, 3:].astype(np.float64)
    noise = np.moveaxis(found, axis, 1)[:, 3:] - small
    assert record.snr_db == head.channels_snr_db == pytest.approx(10 * np.log10((small**2).sum() / (noise**2).sum()))
    assert record.worst == "channels 3-5 of head"


def test_a_channel_that_tells_nothing_does_not_decide() -> None:
    random = np.random.default_rng(0)
    reference = random.uniform(0, 1, (4, 200, 16, 16)).astype(np.float32)
    reference[:, 7] = 0  # never fires
    reference[:, 8] *= 1e-4  # one in two hundred, which hardly does
    reference[:, 9:20] *= 1e-8  # what float32 rounds away
    found = reference + random.normal(0, 1e-3, reference.shape).astype(np.float32)

    record = fidelity(found.reshape(4, -1), reference.reshape(4, -1), [Output(name="map", shape=(200, 16, 16))])

    assert record.snr_db == pytest.approx(55, abs=1)
    assert record.worst == "map"
    assert fidelity(reference.reshape(4, -1), reference.reshape(4, -1), [Output(name="map", shape=(200, 16, 16))]).worst


def test_a_loud_channel_that_is_too_few_to_decide_hides_no_others() -> None:
    random = np.random.default_rng(0)
    scales = np.array([10_000] + 299 * [1])[:, None, None]
    reference = (random.uniform(0.5, 1, (4, 300, 4, 4)) * scales).astype(np.float32)
    found = reference + random.normal(0, 0.3, reference.shape).astype(np.float32)

    record = fidelity(found.reshape(4, -1), reference.reshape(4, -1), [Output(name="head", shape=(300, 4, 4))])

    assert record.worst == "channels 1-299 of head"
    assert record.snr_db == pytest.approx(8, abs=1)


def test_an_output_whose_noise_is_of_channels_that_are_not_judged_is_named_as_a_whole() -> None:
    random = np.random.default_rng(0)
    scales = np.array([10_000] + 10 * [100] + 289 * [1])[:, None, None]
    reference = (random.uniform(0.5, 1, (4, 300, 4, 4)) * scales).astype(np.float32)
    noise = random.normal(0, 1e-3, reference.shape).astype(np.float32)
    noise[:, 0] *= 1e6  # of one channel in three hundred, alone in its scale

    record = fidelity(
        (reference + noise).reshape(4, -1), reference.reshape(4, -1), [Output(name="head", shape=(300, 4, 4))]
    )

    (head,) = record.outputs
    assert head.channels == "11-299"
    assert record.snr_db == head.snr_db
    assert record.worst == "head"
