from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from trtbench.studies.calibration_run import StudyPoint, balance_effects, spreads
from trtbench.studies.int8_drop import Effect


def _point(sampling: str, seed: int, correct: int, *, snr: float | None = 20.0, size: int = 5) -> StudyPoint:
    effect = Effect(correct=correct, total=100, lost=0, gained=0, agreement=1.0, logits_snr_db=snr)
    return StudyPoint(method="mse", sampling=sampling, per_class=size, seed=seed, effect=effect)


_POINTS = [
    *(_point("balanced", seed, correct, snr=21.0) for seed, correct in enumerate((90, 92, 94))),
    *(_point("uniform", seed, correct) for seed, correct in enumerate((89, 90, 90))),
]


def test_a_spread_is_mean_extremes_and_deviation_over_seeds() -> None:
    balanced, uniform = spreads(_POINTS)

    assert (balanced.mean_correct, balanced.least_correct, balanced.most_correct) == (92, 90, 94)
    assert balanced.deviation == 2
    assert balanced.mean_snr_db == 21
    assert (uniform.sampling, uniform.seeds, uniform.per_class) == ("uniform", 3, 5)


def test_balance_is_compared_seed_by_seed() -> None:
    (effect,) = balance_effects(_POINTS)
    expected = stats.ttest_rel([90, 92, 94], [89, 90, 90]).confidence_interval()

    assert effect.mean_images == pytest.approx(np.mean([1, 2, 4]))
    assert effect.ci95_images == pytest.approx((expected.low, expected.high))
    assert effect.mean_db == pytest.approx(1)


def test_one_seed_has_no_spread_and_no_interval() -> None:
    points = [_point("balanced", 0, 90), _point("uniform", 0, 91, snr=None)]

    assert [one.deviation for one in spreads(points)] == [None, None]
    assert spreads(points)[1].mean_snr_db is None
    (effect,) = balance_effects(points)
    assert (effect.mean_images, effect.ci95_images, effect.mean_db) == (-1, None, None)


def test_a_sampling_without_a_balanced_partner_is_not_compared() -> None:
    assert balance_effects([_point("uniform", 0, 91), _point("balanced", 1, 90)]) == ()
