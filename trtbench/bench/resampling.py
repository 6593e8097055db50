"""Intervals by resampling blocks within processes: samples of one process are correlated, and processes differ.

Pure: the seed is an argument. A bootstrap of single samples would take the correlation for certainty; drawing first
the processes and then whole blocks of each keeps it (Davison & Hinkley 1997, Bootstrap Methods and their Application,
3.8 on hierarchical data and 8.2.3 on blocks; Kalibera & Jones 2013, ISMM, 6, for benchmarks). Drawn with replacement,
n processes vary by a factor of (n - 1) / n too little, which few processes feel: the intervals are stretched by the
root of its inverse (Rao & Wu 1988, JASA 83:231-241, 2.2).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from trtbench.errors import InconclusiveError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RESAMPLES = 1000
_CELLS = 4_000_000  # of a table of resamples by samples: 32 MB


def median_interval(
    blocks: Sequence[NDArray[np.int64]] | Sequence[NDArray[np.float64]],
    processes: Sequence[int],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Return an interval of the median of all samples, in their unit.

    The percentile interval over resamples of processes and of blocks within them, stretched around the median. Where
    three processes differ far more than their blocks do, it still holds the truth less often than it says: three draws
    show little of a distribution.

    Args:
        blocks: the samples of each block, at least two blocks.
        processes: the process each block comes from.
        seed: of the resampling.
        resamples: how many.
        confidence: two-sided.

    Raises:
        InconclusiveError: fewer than two blocks.
    """
    counts = block_counts(processes, seed=seed, resamples=resamples)
    values = np.concatenate([np.asarray(block, dtype=np.float64) for block in blocks])
    owner = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    order = np.argsort(values, kind="stable")
    medians = _weighted_medians(values[order], owner[order], counts)
    return _stretched(medians, float(np.median(values)), processes=len(set(processes)), confidence=confidence)


def ratio_interval(
    log_ratios: NDArray[np.float64],
    processes: NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """Return the ratio of two engines timed side by side, and its interval: (ratio, low, high).

    The ratio is the median of the block pairs of each process pair, averaged over the process pairs, on the log scale:
    every process counts alike. The interval draws process pairs, then block pairs within each.

    Args:
        log_ratios: float64 (pairs,): log of a_i / b_i.
        processes: int64 (pairs,): the process pair of each.
        seed: of the resampling.
        resamples: how many.
        confidence: two-sided.

    Raises:
        InconclusiveError: fewer than two pairs.
    """
    if log_ratios.size < 2:  # noqa: PLR2004  a spread needs two
        raise InconclusiveError("paired blocks", expected="at least 2", got=str(log_ratios.size), cure="time longer")
    random = np.random.default_rng(seed)
    groups = [log_ratios[processes == process] for process in np.unique(processes)]
    centre = float(np.mean([np.median(group) for group in groups]))
    drawn = np.stack([_resampled_medians(group, resamples * len(groups), random) for group in groups])
    # Draw, for each resample, as many process pairs as there are; every draw takes a fresh resample of its blocks.
    which = random.integers(0, len(groups), (resamples, len(groups)))
    chosen = drawn[which, np.arange(resamples * len(groups)).reshape(resamples, len(groups))]
    low, high = _stretched(chosen.mean(axis=1), centre, processes=len(groups), confidence=confidence)
    return math.exp(centre), math.exp(low), math.exp(high)


def block_counts(processes: Sequence[int], *, seed: int, resamples: int) -> NDArray[np.int64]:
    """Return how often each block is drawn: int64 (resamples, blocks).

    As many processes are drawn as there are, each time with as many of its blocks as it has; several draws of one
    process are draws from the same blocks, so their counts add up to one multinomial.

    Raises:
        InconclusiveError: fewer than two blocks.
    """
    if len(processes) < 2:  # noqa: PLR2004  a spread needs two
        raise InconclusiveError("latency blocks", expected="at least 2", got=str(len(processes)), cure="time longer")
    random = np.random.default_rng(seed)
    numbers = np.asarray(processes)
    distinct = np.unique(numbers)
    drawn = random.multinomial(len(distinct), np.full(len(distinct), 1 / len(distinct)), size=resamples)
    counts = np.zeros((resamples, len(numbers)), dtype=np.int64)
    for index, process in enumerate(distinct):
        own = np.flatnonzero(numbers == process)
        counts[:, own] = random.multinomial(drawn[:, index] * len(own), np.full(len(own), 1 / len(own)))
    return counts


def relative_noise(block_medians: Sequence[float]) -> float:
    """Return half the width of the 95 % interval of the median of these blocks, as a share of it.

    Between order statistics, with no assumption on the distribution (Conover 1999, 3.2); infinite below six blocks,
    which have no such interval.
    """
    low, high = (
        stats.quantile_test(block_medians, p=0.5).confidence_interval(0.95) if block_medians else (math.nan,) * 2
    )
    return math.inf if math.isnan(low) or math.isnan(high) else (high - low) / 2 / float(np.median(block_medians))


def _stretched(
    resampled: NDArray[np.float64], centre: float, *, processes: int, confidence: float
) -> tuple[float, float]:
    """Return the percentile interval, stretched around the centre, which it always holds."""
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    factor = math.sqrt(processes / (processes - 1)) if processes > 1 else 1.0
    return centre - factor * max(0.0, centre - float(low)), centre + factor * max(0.0, float(high) - centre)


def _resampled_medians(values: NDArray[np.float64], times: int, random: np.random.Generator) -> NDArray[np.float64]:
    medians: NDArray[np.float64] = np.median(random.choice(values, (times, values.size)), axis=1)
    return medians


def _weighted_medians(
    ordered: NDArray[np.float64], owner: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the median of each resample of the ordered samples, of which sample i is drawn with its block."""
    medians = np.empty(len(counts))
    step = max(1, _CELLS // ordered.size)
    for start in range(0, len(counts), step):
        reached = np.cumsum(counts[start : start + step][:, owner], axis=1)
        half = reached[:, -1:] / 2
        lower = (reached < half).sum(axis=1)
        upper = (reached <= half).sum(axis=1)
        medians[start : start + step] = (ordered[lower] + ordered[np.minimum(upper, ordered.size - 1)]) / 2
    return medians
