"""What a calibration study found: accuracy by images per class, its spread over seeds, and what balance gains. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trtbench.studies.int8_drop import Effect

BALANCED = "balanced"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPoint:
    """One calibration set, its size as images per class on average, and what its INT8 network gets right."""

    method: str
    sampling: str
    per_class: int
    seed: int
    effect: Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One method, sampling and size over all seeds: images right, and the mean signal-to-noise ratio of the logits."""

    method: str
    sampling: str
    per_class: int
    seeds: int
    mean_correct: float
    least_correct: int
    most_correct: int
    deviation: float | None
    mean_snr_db: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceEffect:
    """Images (and decibels) that class balance gains over another sampling, paired by seed.

    The interval is Student's, 95 %; None with fewer than two seeds.
    """

    method: str
    sampling: str
    per_class: int
    mean_images: float
    ci95_images: tuple[float, float] | None
    mean_db: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """INT8 accuracy in true Q/DQ arithmetic on `images` images of `split`, by calibration set.

    `leaking` of the training images stand in validation or test and were never drawn. `where` names the CPU and
    the versions.
    """

    model: str
    dataset: str
    placement: str
    split: str
    images: int
    float_correct: int
    training_images: int
    leaking: int
    points: tuple[StudyPoint, ...]
    where: Mapping[str, str]
    schema_version: int = 1


def spreads(points: Sequence[StudyPoint]) -> tuple[Spread, ...]:
    """Summarise the points of each method, sampling and size over their seeds, in the order they came."""
    return tuple(
        _spread(method, sampling, size, [point for point in points if _key(point) == (method, sampling, size)])
        for method, sampling, size in dict.fromkeys(_key(point) for point in points)
    )


def balance_effects(points: Sequence[StudyPoint]) -> tuple[BalanceEffect, ...]:
    """Compare balanced with every other sampling, seed by seed."""
    return tuple(_balance_effects(points))


def _balance_effects(points: Sequence[StudyPoint]) -> Iterator[BalanceEffect]:
    effects = {(*_key(point), point.seed): point.effect for point in points}
    for method, sampling, size in dict.fromkeys(_key(point) for point in points):
        pairs = [
            (effects[method, BALANCED, size, seed], effect)
            for (*key, seed), effect in effects.items()
            if key == [method, sampling, size] and (method, BALANCED, size, seed) in effects
        ]
        if sampling == BALANCED or not pairs:
            continue
        images = np.array([balanced.correct - other.correct for balanced, other in pairs], np.float64)
        decibels = [
            balanced.logits_snr_db - other.logits_snr_db
            for balanced, other in pairs
            if balanced.logits_snr_db is not None and other.logits_snr_db is not None
        ]
        yield BalanceEffect(
            method=method,
            sampling=sampling,
            per_class=size,
            mean_images=float(images.mean()),
            ci95_images=_interval(images),
            mean_db=float(np.mean(decibels)) if decibels else None,
        )


def _key(point: StudyPoint) -> tuple[str, str, int]:
    return (point.method, point.sampling, point.per_class)


def _spread(method: str, sampling: str, size: int, found: Sequence[StudyPoint]) -> Spread:
    correct = [point.effect.correct for point in found]
    ratios = [point.effect.logits_snr_db for point in found if point.effect.logits_snr_db is not None]
    return Spread(
        method=method,
        sampling=sampling,
        per_class=size,
        seeds=len(found),
        mean_correct=float(np.mean(correct)),
        least_correct=min(correct),
        most_correct=max(correct),
        deviation=float(np.std(correct, ddof=1)) if len(correct) > 1 else None,
        mean_snr_db=float(np.mean(ratios)) if ratios else None,
    )


def _interval(differences: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float] | None:
    """Return Student's 95 % interval of the mean; the mean itself where all differences are the same."""
    count = len(differences)
    if count < 2:  # noqa: PLR2004  a spread needs two
        return None
    mean, error = float(differences.mean()), float(scipy.stats.sem(differences))
    half = float(scipy.stats.t.ppf(0.975, count - 1)) * error
    return mean - half, mean + half
