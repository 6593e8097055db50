from __future__ import annotations

import numpy as np
import pytest

from trtbench.calibrate.exclusion import Judgement, judge, judge_outputs, nearest

_LOGITS = np.array([[3, 1, 2], [0, 5, 1], [1, 1, 4], [9, 0, 0]], np.float32)


def _judgement(snr_db: float | None, right: int) -> Judgement:
    return Judgement(snr_db=snr_db, agreement=right / 100, images=100)


def test_what_all_classes_gain_alike_is_no_noise() -> None:
    shifted = _LOGITS + np.array([[2], [-1], [0], [7]], np.float32)

    assert judge(shifted, _LOGITS) == Judgement(snr_db=None, agreement=1.0, images=4)


def test_the_ratio_is_of_powers_and_the_agreement_of_classes() -> None:
    other = _LOGITS.copy()
    other[1, 0] = 6
    centred = _LOGITS - _LOGITS.mean(axis=1, keepdims=True)
    noise = 6**2 * (1 - 1 / 3)  # one logit moved by 6, less its share of the mean

    found = judge(other, _LOGITS)

    assert found.agreement == 0.75
    assert found.snr_db == pytest.approx(10 * np.log10((centred**2).sum() / noise), abs=1e-4)


def test_the_least_noise_is_nearest_among_those_that_agree_on_all_images_but_one() -> None:
    assert nearest({"a": _judgement(30, 99), "b": _judgement(40, 98), "c": _judgement(20, 99)}) == "b"
    assert nearest({"a": _judgement(30, 99), "b": _judgement(40, 97)}) == "a"
    assert nearest({"a": _judgement(30, 99), "b": _judgement(None, 99)}) == "b"


def test_of_packed_outputs_the_quiet_channels_judge_a_calibration_too() -> None:
    random = np.random.default_rng(0)
    packed = (random.uniform(0, 1, (8, 2, 64)) * np.array([[300], [1]])).astype(np.float32)
    other, noise = packed[:, 1], random.normal(0, 1, packed.shape).astype(np.float32)
    scales = {"spares boxes": [[0.5], [0.5]], "spares scores": [[3.0], [0.01]]}

    found = {
        name: judge_outputs([packed + noise * np.array(scale, np.float32), other], [packed, other])
        for name, scale in scales.items()
    }

    assert nearest(found) == "spares scores"
    assert found["spares scores"].snr_db == pytest.approx(35, abs=1)
    assert found["spares scores"].agreement is None
    assert judge_outputs([packed, other], [packed, other]).snr_db is None
