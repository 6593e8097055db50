"""What counts prove of a paired drop: exact p-values and bounds, also in the tails that many candidates push them to.

Pure. `lost` images only the reference classifies correctly, `gained` only the candidate; the true drop is the
probability of a loss less that of a gain. Nothing here leans on a normal limit: at 0 of 360 the score interval of Tango
(1998) says 0.75 percentage points where the truth may be 0.83, and it errs more the smaller the error that is allowed.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from trtbench.bench.statistics import check_confidence, check_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NUISANCES = 64  # chances of a gain at which the null is tried; the p-value is smooth between them
_IMPLAUSIBLE = 1e-3  # share of the allowed error that goes to chances of a gain which the counts speak against
_NEGLIGIBLE = 1e-10  # probability of the numbers of gains that are not summed over
_TIE = 1e-9
_LARGEST_DROP = 1 - 1e-9
_PRECISION = 1e-7  # of a bound, a proportion
_RESAMPLES, _RESAMPLED = 30_000, 100  # of the bootstrap, and how many are in memory at a time


@functools.lru_cache(maxsize=65536)
def drop_p_value(lost: int, gained: int, total: int, *, drop: float, error: float = 0.05) -> float:
    """Return the p-value of the hypothesis that the true drop is at least `drop`, a proportion.

    The exact unconditional test of two paired proportions (Sidik 2003, Statistics in Medicine 22:265-278): the largest
    probability, over all chances of a gain, of counts that speak at least as much against the hypothesis. What speaks
    more is ordered by the signed root of the likelihood ratio, which needs fewer images in the tails than the score
    statistic. The chances of a gain are those of its exact interval at a thousandth of `error`, which is added
    (Berger & Boos 1994, JASA 89:1012-1016).

    Args:
        lost: images that the reference classifies correctly and the candidate does not.
        gained: images that the candidate classifies correctly and the reference does not.
        total: images both were scored on.
        drop: in (-1, 1).
        error: the level the p-value will be held against.

    Raises:
        DataError: the counts are no counts, or there is no image.
    """
    check_counts(lost, gained, total=total)
    unlikely = error * _IMPLAUSIBLE
    low, high = _plausible_gains(gained, total, error=unlikely)
    low, high = (min(max(gain, -drop, 0.0), (1 - drop) / 2) for gain in (low, high))
    gains = np.linspace(low, high, _NUISANCES)[:, None]
    counted = _likely_counts(low, high, total)
    most_lost = _most_lost(counted, float(_signed_root(lost, gained, total, drop)), total, drop)
    losses = np.clip((gains + drop) / np.maximum(1 - gains, _TIE), 0.0, 1.0)  # of the images that are not gained
    chance = _binomial(counted, total, gains)
    is_heard = (chance > _NEGLIGIBLE / total) & (most_lost >= 0)
    rest, lost_at_most, loss = np.broadcast_arrays(total - counted, most_lost, losses)
    chance[~is_heard] = 0.0
    chance[is_heard] *= _at_most(lost_at_most[is_heard], rest[is_heard], loss[is_heard])
    return min(1.0, float(chance.sum(axis=1).max()) + unlikely + 3 * _NEGLIGIBLE)


@functools.lru_cache(maxsize=65536)
def drop_upper_bound(lost: int, gained: int, total: int, *, confidence: float = 0.95) -> float:
    """Return the one-sided upper bound of the paired drop (lost - gained) / total, a proportion in [-1, 1].

    The smallest drop that `drop_p_value` rejects at 1 - `confidence`. Without losses and gains it is
    1 - (1 - confidence)^(1 / total), but for the thousandth that goes to implausible gains.

    Args:
        lost: images that the reference classifies correctly and the candidate does not.
        gained: images that the candidate classifies correctly and the reference does not.
        total: images both were scored on.
        confidence: one-sided; greater than 0.5. Of m candidates all bounds hold together at 1 - (1 - c) / m each.

    Raises:
        DataError: the counts are no counts, or there is no image.
        ConfigError: `confidence` is not a confidence.
    """
    check_counts(lost, gained, total=total)
    error = 1 - check_confidence(confidence)
    if lost == total:
        return 1.0

    def excess(drop: float) -> float:
        return drop_p_value(lost, gained, total, drop=drop, error=error) - error

    estimate = (lost - gained) / total
    step, least = 1 / total, max(estimate, -_LARGEST_DROP) + _PRECISION
    while least + step < _LARGEST_DROP and excess(least + step) > 0:
        step *= 2
    return float(scipy.optimize.brentq(excess, least, min(least + step, _LARGEST_DROP), xtol=_PRECISION))


def smallest_provable_drop(total: int, *, confidence: float = 0.95) -> float:
    """Return the limit, a proportion, that `total` images prove when no image is lost or gained.

    No limit at or below it can be proven without gains; it is `drop_upper_bound(0, 0, total)`.
    """
    return drop_upper_bound(0, 0, total, confidence=confidence)


def _plausible_gains(gained: int, total: int, *, error: float) -> tuple[float, float]:
    """Return the exact interval of the chance of a gain (Clopper & Pearson 1934)."""
    low = scipy.special.betaincinv(gained, total - gained + 1, error / 2) if gained else 0.0
    high = scipy.special.betaincinv(gained + 1, total - gained, 1 - error / 2) if gained < total else 1.0
    return float(low), float(high)


def _likely_counts(low: float, high: float, total: int) -> NDArray[np.float64]:
    """Return the numbers of gains beyond which less than `_NEGLIGIBLE` lies at any chance (Bernstein's inequality)."""
    share = -math.log(_NEGLIGIBLE) / 3
    below, above = (share + math.sqrt(share**2 + 6 * share * total * gain * (1 - gain)) for gain in (low, high))
    return np.arange(max(0, math.floor(total * low - below)), min(total, math.ceil(total * high + above)) + 1.0)


def _binomial(count: NDArray[np.float64], total: int, chance: NDArray[np.float64]) -> NDArray[np.float64]:
    ways = (
        scipy.special.gammaln(total + 1) - scipy.special.gammaln(count + 1) - scipy.special.gammaln(total - count + 1)
    )
    return np.asarray(np.exp(ways + scipy.special.xlogy(count, chance) + scipy.special.xlog1py(total - count, -chance)))


def _at_most(
    count: NDArray[np.float64], total: NDArray[np.float64], chance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the probability of at most `count` of `total`, by the incomplete beta function."""
    some = scipy.special.betainc(np.maximum(total - count, 1.0), count + 1, 1 - chance)
    return np.asarray(np.where(count >= total, 1.0, some))


def _most_lost(gained: NDArray[np.float64], bar: float, total: int, drop: float) -> NDArray[np.float64]:
    """Return, for each number of gains, the most losses that speak as much against `drop` as `bar`; -1 for none."""
    low, high = np.full(gained.shape, -1.0), total - gained
    while (low < high).any():
        middle = np.ceil((low + high) / 2)
        speaks = _signed_root(middle, gained, total, drop) <= bar + _TIE
        low, high = np.where(speaks, middle, low), np.where(speaks, high, middle - 1)
    return low


def _signed_root(
    lost: NDArray[np.float64] | int, gained: NDArray[np.float64] | int, total: int, drop: float
) -> NDArray[np.float64]:
    """Return the signed root of the likelihood ratio of this drop; the larger, the more likely a larger drop is."""
    b = -lost - gained + (2 * total - lost + gained) * drop
    root = np.sqrt(np.maximum(b * b + 8 * total * gained * drop * (1 - drop), 0.0))
    gain = np.clip((root - b) / (4 * total), max(0.0, -drop), (1 - drop) / 2)  # Tango (1998), eq. 6 to 8
    same = total - lost - gained
    parts = (
        _term(lost, lost / total, gain + drop)
        + _term(gained, gained / total, gain)
        + _term(same, same / total, 1 - 2 * gain - drop)
    )
    return np.asarray(np.sign(lost - gained - total * drop) * np.sqrt(2 * np.maximum(parts, 0.0)))


def _term(count: NDArray[np.float64] | int, free: NDArray[np.float64] | float, held: NDArray[np.float64]) -> Any:
    return scipy.special.xlogy(count, free) - scipy.special.xlogy(count, np.maximum(held, np.finfo(np.float64).tiny))


def bootstrap_uppers(drops: NDArray[np.float64], *, engines: int) -> tuple[float, ...]:
    """Return one-sided upper bounds of a mean drop of any score: those of 1, 2, ... engines that hold together at 95 %.

    The bias-corrected and accelerated bootstrap of the mean of paired differences (Efron 1987, JASA 82:171-185), with
    the error shared out among the engines (Bonferroni). Seeded: the same differences have the same bounds. What no
    image shows no resample does: a few images that all agree prove little.

    Args:
        drops: a difference for each image, float64 (images,).
        engines: for how many to tell a bound.
    """
    count, mean = len(drops), float(drops.mean())
    centred = drops - mean
    spread = float(np.square(centred).sum())
    if spread <= _TIE**2 * count:
        return (mean,) * engines
    random = np.random.default_rng(0)
    parts = [
        drops[random.integers(0, count, (_RESAMPLED, count))].mean(axis=1) for _ in range(_RESAMPLES // _RESAMPLED)
    ]
    means = np.concatenate(parts)
    below = float((means < mean).mean() + (means == mean).mean() / 2)
    bias = scipy.special.ndtri(np.clip(below, 1 / _RESAMPLES, 1 - 1 / _RESAMPLES))
    acceleration = float((centred**3).sum() / (6 * spread**1.5))
    reached = bias + scipy.special.ndtri(1 - 0.05 / np.arange(1, engines + 1))
    shares = scipy.special.ndtr(bias + reached / np.maximum(1 - acceleration * reached, _TIE))
    return tuple(np.maximum.accumulate(np.quantile(means, shares)).tolist())
