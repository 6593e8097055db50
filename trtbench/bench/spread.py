"""Intervals of times from a few processes: processes differ, so their number decides, not that of the samples.

Pure, on logarithms, so that no interval reaches below zero. Student's t on the two degrees of freedom of three
processes is right and 4.3 standard errors wide. Rows of one runtime that ran side by side tell more: how much processes
of the one differ says how much those of the others do. Their variances are moderated (Smyth 2004, Statistical
Applications in Genetics and Molecular Biology 3:3): each is pulled to what all have in common, the more the more alike
they are. What all rows of a process share, such as a machine that was slower just then, is no difference between
processes of one row; it cancels in ratios, and counts in full in the time of a row.
tests/benchmarks/latency_coverage.py shows how often the intervals hold the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import scipy

from trtbench.errors import InconclusiveError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_MOST_TRUST = 6.0  # degrees of freedom: rows are few, and no two runtimes' processes differ quite alike
_LEAST_VARIANCE = 1e-10  # of the log of a time: a hundred-thousandth is below what clocks tell
_SOME = 0.1  # degrees of freedom below which a row says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure and its 95 % interval, on the log scale Student's with so many degrees of freedom."""

    value: float
    low: float
    high: float
    freedom: float = math.inf

    def upper(self, confidence: float) -> float:
        """Return the one-sided upper bound at another confidence."""
        widths = float(scipy.stats.t.ppf(confidence, self.freedom) / scipy.stats.t.ppf(0.975, self.freedom))
        return self.value * math.exp(widths * math.log(self.high / self.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """How much a figure varies from process to process: the variance of its log, and the degrees of freedom of that."""

    variance: float = 0.0
    freedom: float = 0.0

    def moderate(self, variance: float, freedom: float) -> Prior:
        """Return the variance that was seen, with so many degrees of freedom, pulled to this one."""
        both = self.freedom + freedom
        return Prior(variance=(self.freedom * self.variance + freedom * variance) / both, freedom=both)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What rows that ran side by side say together of how processes differ.

    `prior` is what they have in common, `rows` the moderated variance of each that ran in several processes, and
    `shared` by how much the log times of all of them lay higher in each process.
    """

    prior: Prior = Prior()
    rows: Mapping[str, Prior] = field(default_factory=dict)
    shared: Mapping[int, float] = field(default_factory=dict)


NO_POOL = Pool()


def pool_of(times: Mapping[str, Mapping[int, float]]) -> Pool:
    """Fit log times as the sum of a row's and a process's, and pool what is left over.

    Args:
        times: of each row its log time in each of its processes.
    """
    names, numbers = list(times), sorted({number for of_row in times.values() for number in of_row})
    cells = [(row, numbers.index(number)) for row, name in enumerate(names) for number in times[name]]
    if len(names) < 2 or len(numbers) < 2:  # noqa: PLR2004  one row cannot tell its process from the machine
        return NO_POOL
    design = np.zeros((len(cells), len(names) + len(numbers)))
    for index, (row, column) in enumerate(cells):
        design[index, [row, len(names) + column]] = 1.0
    observed = np.array([value for of_row in times.values() for value in of_row.values()])
    inverse = np.linalg.pinv(design)
    fitted = inverse @ observed
    free = 1 - np.einsum("ij,ji->i", design, inverse)  # the share of each cell that the fit leaves free
    squares = (observed - design @ fitted) ** 2
    owner = np.array([row for row, _ in cells])
    freedom = np.bincount(owner, weights=free, minlength=len(names)).astype(np.float64)
    told = freedom > _SOME
    if not told.any():
        return NO_POOL
    variance = (np.bincount(owner, weights=squares, minlength=len(names)) / np.maximum(freedom, _SOME))[told]
    # What one row knows by itself is not lent to it once more: of two rows, each the other's mirror, nothing is.
    lent = float(freedom.sum()) * (len(names) - 2) / (len(names) - 1)
    prior = _prior(variance, freedom[told], most=min(_MOST_TRUST, lent))
    moderated = (prior.moderate(*pair) for pair in zip(variance.tolist(), freedom[told].tolist(), strict=True))
    return Pool(
        prior=prior,
        rows=dict(zip(np.array(names)[told].tolist(), moderated, strict=True)),
        shared=dict(zip(numbers, fitted[len(names) :].tolist(), strict=True)),
    )


def time_interval(times: Mapping[int, float], pool: Pool = NO_POOL, *, name: str = "") -> Interval:
    """Return the time of a row, with its interval, from its log time in each of at least two processes.

    Args:
        times: by process.
        pool: of the rows that ran beside it, this one among them under `name`.
        name: of the row.
    """
    values = list(times.values())
    own = pool.rows.get(name)
    if own is None:
        return _student(values, Prior(variance=float(np.var(values, ddof=1)), freedom=len(values) - 1))
    seen = float(np.var([pool.shared[number] for number in times], ddof=1))  # with the rows' own share of it
    shared = Prior(variance=max(0.0, seen - pool.prior.variance / len(pool.rows)), freedom=len(values) - 1)
    return _student(values, own, shared)


def ratio_interval(log_ratios: NDArray[np.float64], processes: NDArray[np.int64], prior: Prior = Prior()) -> Interval:
    """Return the ratio of two engines timed side by side in at least two process pairs.

    The ratio is the median of the block pairs of each process pair, averaged over the process pairs, on the log scale:
    every process counts alike.

    Args:
        log_ratios: float64 (pairs,): log of a_i / b_i.
        processes: int64 (pairs,): the process pair of each.
        prior: how much such ratios vary from one process pair to another.

    Raises:
        InconclusiveError: fewer than two process pairs.
    """
    medians = [float(np.median(log_ratios[processes == process])) for process in np.unique(processes)]
    if len(medians) < 2:  # noqa: PLR2004  a spread needs two
        raise InconclusiveError("process pairs", expected="at least 2", got=str(len(medians)), cure="time more of them")
    return _student(medians, prior.moderate(float(np.var(medians, ddof=1)), len(medians) - 1))


def of_ratio(first: Pool, second: Pool) -> Prior:
    """Return how much the ratio of two rows of these pools varies from process to process."""
    return Prior(
        variance=first.prior.variance + second.prior.variance, freedom=min(first.prior.freedom, second.prior.freedom)
    )


def relative_noise(block_medians: Sequence[float]) -> float:
    """Return half the width of the 95 % interval of the median of these blocks, as a share of it.

    Between order statistics, with no assumption on the distribution (Conover 1999, 3.2); infinite below six blocks,
    which have no such interval.
    """
    ranks = median_ranks(len(block_medians))
    if ranks is None:
        return math.inf
    ordered = np.sort(block_medians)
    return float((ordered[ranks[1]] - ordered[ranks[0]]) / 2 / np.median(ordered))


@cache
def median_ranks(size: int) -> tuple[int, int] | None:
    """Return which of so many values in ascending order, counted from 0, hold the median at 95 %."""
    if not size:
        return None
    low, high = scipy.stats.quantile_test(range(size), p=0.5).confidence_interval(0.95)
    return None if math.isnan(low) or math.isnan(high) else (int(low), int(high))


def _student(values: Sequence[float], *spreads: Prior) -> Interval:
    """Return the mean of logs with Student's interval; of several sources of spread the widths add in squares.

    The method of variance estimates recovery (Zou & Donner 2008, Statistics in Medicine 27:1693-1702): approximate
    degrees of freedom of the sum (Satterthwaite's) make it too narrow where the source with fewest is the larger one.
    """
    centre = float(np.mean(values))
    squares = [float(scipy.stats.t.ppf(0.975, one.freedom)) ** 2 * one.variance / len(values) for one in spreads]
    half, freedom = math.sqrt(sum(squares)), spreads[0].freedom
    return Interval(value=math.exp(centre), low=math.exp(centre - half), high=math.exp(centre + half), freedom=freedom)


def _prior(variances: NDArray[np.float64], freedoms: NDArray[np.float64], *, most: float) -> Prior:
    """Return what variances have in common (Smyth 2004, 6.2): the more they differ, the less it weighs, `most` at most.

    Where they differ no more than chance explains, it is their mean, and weighs as much as it may.
    """
    variances = np.maximum(variances, _LEAST_VARIANCE)
    if variances.size == 1 or most <= 0:
        return Prior()
    logs = np.log(variances) - scipy.special.digamma(freedoms / 2) + np.log(freedoms / 2)
    excess = float(logs.var(ddof=1) - scipy.special.polygamma(1, freedoms / 2).mean())

    def lack(freedom: float) -> float:
        return float(scipy.special.polygamma(1, freedom / 2)) - excess

    if lack(_MOST_TRUST) >= 0:
        return Prior(variance=float(np.average(variances, weights=freedoms)), freedom=most)
    freedom = float(scipy.optimize.brentq(lack, 1e-3, _MOST_TRUST))
    return Prior(
        variance=math.exp(float(logs.mean()) + scipy.special.digamma(freedom / 2) - math.log(freedom / 2)),
        freedom=min(freedom, most),
    )
