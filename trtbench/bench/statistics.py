"""What counts and raw samples prove: intervals on accuracy, on a paired drop and on a paired latency ratio.

Pure: no clock, no randomness, no files. Counts of images go in, proportions come out; nanoseconds go in, milliseconds
come out; nothing is rounded.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from trtbench.errors import ConfigError, DataError, InconclusiveError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_NS_PER_MS = 1e6
_SAMPLES_FOR_P99 = 1000  # fewer than ten samples would lie beyond the percentile
_CHANCE = 0.01  # above this a score is taken for guessing
_CALIBRATION_BINS = 15


def wilson_interval(correct: int, total: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the two-sided score interval of a proportion (Wilson 1927, JASA 22:209-212).

    Raises:
        DataError: the counts are no counts, or there is no image.
        ConfigError: `confidence` is not a confidence.
    """
    check_counts(correct, total - correct, total=total)
    interval = scipy.stats.binomtest(correct, total).proportion_ci(check_confidence(confidence), method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar_exact(lost: int, gained: int) -> float:
    """Return the exact two-sided p-value that losses and gains are equally likely (McNemar 1947; Agresti 2013, 11.1.1).

    `lost` images only the reference classifies correctly, `gained` only the candidate. Without either, p is 1.

    Raises:
        DataError: a count is negative.
    """
    discordant = lost + gained
    check_counts(lost, gained, total=max(discordant, 1))
    return float(scipy.stats.binomtest(lost, discordant).pvalue) if discordant else 1.0


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p-values adjusted for a family of tests, in their order (Holm 1979, Scand. J. Statist. 6:65-70).

    The smallest of m is multiplied by m, the next by m - 1, and so on; none is less than a smaller one's, or above 1.
    Rejecting where the adjusted value is at most 0.05 is wrong about any test of the family 5 times in 100 at most.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * factors))
    return tuple(float(value) for value in adjusted)


def is_chance_level(correct: int, total: int, *, classes: int) -> bool:
    """Say whether guessing among `classes` gets so many right at least once in a hundred tries (binomial test)."""
    check_counts(correct, total - correct, total=total)
    return float(scipy.stats.binomtest(correct, total, 1 / classes, alternative="greater").pvalue) > _CHANCE


def expected_calibration_error(confidence: NDArray[np.float64], is_right: NDArray[np.bool_]) -> float:
    """Return the mean gap of confidence and accuracy over 15 bins of confidence, each weighted by its images.

    Naeini, Cooper & Hauskrecht 2015 (AAAI); 15 equal bins as in Guo et al. 2017 (ICML), section 2.

    Args:
        confidence: float64 (images,), the largest softmax probability of each image.
        is_right: bool (images,), whether that class was the label.
    """
    bins = np.minimum((confidence * _CALIBRATION_BINS).astype(np.int64), _CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - is_right, minlength=_CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / confidence.size)


def latency_summary(samples_ns: NDArray[np.int64], *, batch_size: int, launches: int = 1) -> dict[str, Any]:
    """Return the fields of a `LatencyRecord` that samples (n,) of nanoseconds tell, of whatever process.

    Each sample is of `launches` inferences of `batch_size` images.

    Every figure is of one inference; of several launches in a sample only their mean is known, so there is no p99.

    Percentiles interpolate linearly between order statistics (Hyndman & Fan 1996, type 7); `p99_ms` is None below
    1,000 samples. `cov` is the sample deviation over the mean. `ms_per_image` is all time over all images.

    Raises:
        InconclusiveError: fewer than two samples, or one that is not positive.
    """
    samples_ms = _checked_samples(samples_ns) / _NS_PER_MS / launches
    p90, p95, p99 = (float(value) for value in np.percentile(samples_ms, (90, 95, 99)))
    mean = float(samples_ms.mean())
    return {
        "p90_ms": p90,
        "p95_ms": p95,
        "p99_ms": p99 if samples_ms.size >= _SAMPLES_FOR_P99 and launches == 1 else None,
        "min_ms": float(samples_ms.min()),
        "max_ms": float(samples_ms.max()),
        "mean_ms": mean,
        "cov": float(samples_ms.std(ddof=1)) / mean,
        "ms_per_image": mean / batch_size,
        "n": int(samples_ms.size),
    }


def paired_ratio(
    block_medians_a: Sequence[float] | NDArray[np.float64],
    block_medians_b: Sequence[float] | NDArray[np.float64],
    *,
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """Return how many times as long `a` takes as `b`, with a confidence interval: (ratio, low, high).

    Block i of `a` ran beside block i of `b`, so what slows the machine for longer than a block cancels in a_i / b_i.
    The ratio is the median of these on the log scale, so ratio(a, b) is 1 / ratio(b, a) (Fleming & Wallace 1986, CACM
    29:218-221). Its interval lies between order statistics (the sign test inverted: Conover 1999, 3.2): it assumes
    independent blocks and no distribution. Why not Student's interval around the mean: with a tenth of 60 blocks
    disturbed on one side that covers the truth 59 times in 100, this one 93 times, and it is a quarter as wide.

    Fewer than six blocks have no such interval at 95 %; then it is Student's on the log ratios, wide on purpose.

    Raises:
        InconclusiveError: fewer than two blocks, unequal numbers of blocks, or a median that is not positive.
        ConfigError: `confidence` is not a confidence.
    """
    a, b = np.asarray(block_medians_a, dtype=np.float64), np.asarray(block_medians_b, dtype=np.float64)
    if a.shape != b.shape:
        raise InconclusiveError(
            "paired blocks", expected=f"{a.size} of each engine", got=str(b.size), cure="time both side by side"
        )
    logs = np.log(_checked_samples(a) / _checked_samples(b))
    low, high = scipy.stats.quantile_test(logs, p=0.5).confidence_interval(check_confidence(confidence))
    if math.isnan(low) or math.isnan(high):
        half_width = float(scipy.stats.t.ppf((1 + confidence) / 2, logs.size - 1) * scipy.stats.sem(logs))
        low, high = logs.mean() - half_width, logs.mean() + half_width
        return math.exp(logs.mean()), math.exp(low), math.exp(high)
    return math.exp(np.median(logs)), math.exp(low), math.exp(high)


def check_counts(first: int, second: int, *, total: int) -> None:
    """Refuse counts of images that cannot be.

    Raises:
        DataError: there are negative ones, no image at all, or parts above the whole.
    """
    if total < 1:
        raise DataError(
            "images scored", expected="at least 1", got=str(total), cure="score a test split that has images"
        )
    if first < 0 or second < 0 or first + second > total:
        raise DataError(
            "counts of images",
            expected=f"none negative, together at most {total}",
            got=f"{first} and {second}",
            cure="count both over the same images",
        )


def check_confidence(confidence: float) -> float:
    """Return a confidence.

    Raises:
        ConfigError: it is not above one half and below one.
    """
    if not 0.5 < confidence < 1:  # noqa: PLR2004  below one half an upper bound lies under the estimate
        raise ConfigError(
            "confidence", expected="more than 0.5 and less than 1", got=repr(confidence), cure="0.95 is usual"
        )
    return confidence


def _checked_samples(samples: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1 or values.size < 2 or not (np.isfinite(values) & (values > 0)).all():  # noqa: PLR2004  a spread needs two
        raise InconclusiveError(
            "latency samples",
            expected="at least 2, every one a positive time",
            got=f"{values.size} with minimum {values.min()}" if values.size else "none",
            cure="raise bench.iterations or bench.duration",
        )
    return values
