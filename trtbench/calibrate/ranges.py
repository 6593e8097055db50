"""From activations to clip thresholds and to means by channel, in one pass and in constant memory. Pure.

Each tensor keeps a histogram of its magnitudes on [0, 2^k). A larger value doubles the range until it fits and merges
the bins in pairs; as every edge is a dyadic fraction of a power of two, the counts are those of binning all values at
the end, whatever their order. From the ninth batch on
every few values of a large tensor are counted, each for as many as it stands for; the largest magnitude is of all.
Exact zeros (half of what a ReLU puts out) are counted apart: every threshold
represents them without error, and in the first bin they would pull the threshold down to it.

A threshold (amax) is the magnitude that int8 code 127 stands for; the scale is amax / 127.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.errors import CalibrationError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from trtbench.suite import Method


# How far a batch moves the moving average: the constant of PyTorch's MovingAverageMinMaxObserver and of ONNX Runtime.
AVERAGING = 0.01
BINS = 2048  # of which the values reach past the middle: 1,025 to 2,048 are in use
_LEVEL_BITS = 7
LEVELS = 2**_LEVEL_BITS  # int8 magnitudes 0 to 127
_FLOAT32_EXPONENT = 100  # BINS / 2^exponent is a normal float32 then
_WHOLE_BATCHES = 8  # all values of these are counted: a few hundred thousand of a tensor that is large
_COUNTED = 2**13  # values of a later batch that are counted, about, where it has more than twice as many
_PART = 2**15  # values that the CPU counts at a time: what lies between stays in its cache, on pages it already has
GUARD_RATIO = 10**0.3  # 3 dB: benign tensors lie 0.15 to 1.9 dB above the least error, those that collapse 27 to 28
# The threshold of a tensor that is 0 everywhere. Any would do; this one's scale is a normal number in FP32 and FP16.
ALL_ZERO_AMAX = 1.0


def collect_histograms(activations: Iterable[Mapping[str, Any]]) -> dict[str, Histogram]:
    """Observe each tensor of a stream of batches; nothing of it is kept but what the ranges of every method come from.

    Args:
        activations: one mapping for each batch, tensor name to a float array of any shape; all with the same names.

    Raises:
        CalibrationError: there is no batch, a batch has other tensors than the first, or a tensor is empty or holds NaN
            or infinity.
    """
    histograms: dict[str, Histogram] = {}
    for index, batch in enumerate(activations):
        if index and batch.keys() != histograms.keys():
            raise CalibrationError(
                f"calibration batch {index}",
                expected=f"the tensors of the first batch: {', '.join(histograms)}",
                got=", ".join(batch) or "none",
                cure="collect the same tensors from each batch",
            )
        for tensor, values in batch.items():
            histograms[tensor] = observe(histograms.get(tensor, Histogram()), values, tensor=tensor)
    if not histograms:
        raise CalibrationError("calibration", expected="at least one batch", got="none", cure="add images")
    return histograms


def guarded_entropy(histograms: Mapping[str, Histogram]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the thresholds of `entropy`, but of `mse` where entropy's squared error is far above; and these tensors.

    The divergence may have two minima almost as low, of which one clips most of what the layer behind reads.
    """
    given_way = tuple(
        tensor
        for tensor, histogram in histograms.items()
        if histogram.counts is not None and _excess_error(histogram) > GUARD_RATIO
    )
    entropy, mse = (thresholds(histograms, method=method) for method in ("entropy", "mse"))
    return {tensor: mse[tensor] if tensor in given_way else entropy[tensor] for tensor in histograms}, given_way


def thresholds(histograms: Mapping[str, Histogram], *, method: Method, percentile: float = 99.99) -> dict[str, float]:
    """Return the clip threshold of each tensor from what was observed of it so far.

    Args:
        histograms: by tensor.
        method: `minmax` takes the largest magnitude; `moving-average` the exponential average of the batches' largest
            ones, the first batch's to start with, so that order and batches matter; `percentile` the magnitude that
            this share of all values, zeros included, does not exceed; `entropy` the threshold whose int8 distribution
            has the least Kullback-Leibler divergence from the true one (Migacz, "8-bit Inference with TensorRT", GTC
            2017); `mse` the one with the least mean squared error.
        percentile: for `percentile`, in (0, 100].

    Returns:
        amax > 0 by tensor, at most its largest magnitude; ALL_ZERO_AMAX for a tensor that is 0 everywhere.

    Raises:
        ConfigError: the method or the percentile cannot be.
    """
    search = _search(method, percentile=percentile)
    found = {name: one for name, one in histograms.items() if one.counts is not None}
    amax = {name: min(search(one) * one.bin_width, one.largest) for name, one in found.items()}
    return {name: amax.get(name, ALL_ZERO_AMAX) for name in histograms}


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """The magnitudes of one tensor so far: BINS equal bins on [0, 2^exponent), without exact zeros."""

    counts: Any = None  # int64 (BINS,); None while all values were 0
    exponent: int = 0
    zeros: int = 0
    batches: int = 0
    largest: float = 0.0
    average: float | None = None  # of the batches' largest magnitudes; None before the first batch

    @property
    def bin_width(self) -> float:
        """The width of a bin; exact, a power of two."""
        return math.ldexp(1.0, self.exponent) / BINS

    @property
    def used(self) -> int:
        """How many bins reach up to the largest magnitude."""
        return int(self.largest / self.bin_width) + 1


def observe(histogram: Histogram, values: Any, *, tensor: str) -> Histogram:
    """Return the histogram with these values added.

    Raises:
        CalibrationError: the values are empty, or NaN or infinity is among them.
    """
    flat = values.ravel()
    lowest, highest = (float(flat.min()), float(flat.max())) if flat.size else (math.nan, math.nan)
    largest = max(highest, -lowest)
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        got = "NaN or infinity" if flat.size else "no values"
        raise CalibrationError(
            f"activations of tensor {tensor!r}",
            expected="finite values",
            got=got,
            cure="check the checkpoint and the preprocessing: the float network itself computes them",
        )
    average = _averaged(histogram.average, largest)
    flat, weight = _sampled(flat, seen=histogram.batches)
    zeros = weight * (int(flat.size) - int(np.count_nonzero(flat != 0)))
    if largest == 0:
        return replace(histogram, zeros=histogram.zeros + zeros, batches=histogram.batches + 1, average=average)
    counts, exponent = _grown(histogram, math.frexp(largest)[1])
    counts = counts + weight * _counted(flat, exponent, has_negative=lowest < 0)
    counts[0] -= zeros
    return Histogram(
        counts=counts,
        exponent=exponent,
        zeros=histogram.zeros + zeros,
        batches=histogram.batches + 1,
        largest=max(largest, histogram.largest),
        average=average,
    )


def _sampled(flat: Any, *, seen: int) -> tuple[Any, int]:
    """Return the values of a batch to count, and for how many each stands; each batch starts elsewhere.

    The step is odd, so that it meets every row and column of images whose sides are even.
    """
    step = int(flat.size) // _COUNTED | 1
    return (flat, 1) if seen < _WHOLE_BATCHES or step == 1 else (flat[seen % step :: step], step)


def _averaged(average: float | None, largest: float) -> float:
    return largest if average is None else average + AVERAGING * (largest - average)


def _counted(flat: Any, exponent: int, *, has_negative: bool) -> Any:
    """Count magnitudes below 2^exponent in BINS equal bins, zeros in the first.

    The bin of a value is its magnitude times a power of two, cut to an integer: in float32 this is exact wherever the
    factor is a normal number, and three times as fast as comparing with edges.
    """
    is_exact = flat.dtype == np.float32 and abs(exponent) <= _FLOAT32_EXPONENT
    counts = np.zeros(BINS, dtype=np.int64)
    for start in range(0, int(flat.size), _PART):
        magnitudes = flat[start : start + _PART]
        magnitudes = magnitudes if is_exact else magnitudes.astype(np.float64)
        magnitudes = np.abs(magnitudes) if has_negative else magnitudes
        bins = (magnitudes * math.ldexp(BINS, -exponent)).astype(np.int32)
        counts += np.bincount(bins, minlength=BINS)
    return counts


def _grown(histogram: Histogram, exponent: int) -> tuple[Any, int]:
    """Return the counts on a range that holds values below 2^exponent, and that range's exponent."""
    if histogram.counts is None:
        return np.zeros(BINS, dtype=np.int64), exponent
    counts = histogram.counts
    for _ in range(exponent - histogram.exponent):
        counts = np.concatenate([counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, dtype=np.int64)])
    return counts, max(exponent, histogram.exponent)


def _search(method: Method, *, percentile: float) -> Callable[[Histogram], float]:
    """Return the function that finds a threshold, in bins."""
    if not 0 < percentile <= 100:  # noqa: PLR2004  per cent
        raise ConfigError(
            "percentile", expected="above 0 and at most 100", got=f"{percentile:g}", cure="99.99 is common"
        )
    searches: dict[str, Callable[[Histogram], float]] = {
        "minmax": lambda histogram: float(histogram.used),
        "moving-average": lambda histogram: (histogram.average or 0.0) / histogram.bin_width,
        "percentile": lambda histogram: _percentile(histogram, percentile),
        "entropy": _entropy,
        "mse": _mean_squared_error,
    }
    if method not in searches:
        raise ConfigError(
            "calibration method", expected=" | ".join(searches), got=repr(method), cure="choose one of these"
        )
    return searches[method]


def _percentile(histogram: Histogram, percentile: float) -> float:
    """Return the upper edge of the first bin up to which the share of values is reached."""
    running = np.cumsum(histogram.counts) + histogram.zeros
    # 99.9 % of 50,000 comes out a trifle above 49,950, which must not ask for one value more.
    wanted = math.ceil(int(running[-1]) * percentile / 100 * (1 - 1e-12))
    return float(np.searchsorted(running, np.asarray([wanted]))[0]) + 1


def _entropy(histogram: Histogram) -> float:
    """Return the threshold of the least KL divergence between the clipped distribution P and its int8 form Q.

    For each candidate i in [LEVELS, used]: P is bins [0, i) with all that lies beyond added to the last; Q spreads the
    mass of each of LEVELS equal groups of these bins, without the clipped mass, evenly over the group's non-empty bins
    (Migacz 2017, "Entropy Calibration - pseudocode"). With running sums of h, h log h and [h > 0] a group is a
    difference of two numbers, so all candidates are one (candidates, LEVELS) expression; KL(P || Q) is expanded as
    (sum P log P - sum P log Q) / total - log(total) + log(mass of Q).
    """
    counts = histogram.counts[: histogram.used].astype(np.float64)
    running = tuple(_running(part) for part in (counts, counts > 0, _x_log_x(counts)))
    candidates = np.arange(LEVELS, histogram.used + 1)
    parts = [candidates[start : start + LEVELS] for start in range(0, len(candidates), LEVELS)]
    divergence = np.concatenate([_divergence(part, counts, running) for part in parts])
    return float(candidates[_last_least(divergence)])


def _divergence(candidates: Any, counts: Any, running: tuple[Any, Any, Any]) -> Any:
    """Return KL(P || Q) of some candidates; `running` are the sums of h, [h > 0] and h log h."""
    mass, bins, weighted = running
    total = mass[-1]
    # Group k starts at ceil(k i / LEVELS); a shift is several times as fast as a division.
    edges = (candidates[:, None] * np.arange(LEVELS + 1)[None, :] + LEVELS - 1) >> _LEVEL_BITS
    reached_mass, reached_bins = mass[edges], bins[edges]
    group_mass, group_bins = (reached[:, 1:] - reached[:, :-1] for reached in (reached_mass, reached_bins))
    logs = _log(group_mass / np.maximum(group_bins, 1))
    last, clipped, kept = counts[candidates - 1], total - mass[candidates], mass[candidates]
    p_log_p = weighted[candidates - 1] + _x_log_x(last + clipped)
    p_log_q = (group_mass * logs).sum(axis=1) + clipped * logs[:, -1]
    divergence = (p_log_p - p_log_q) / total - _log(total) + _log(kept)
    # Where Q has no mass under P's last bin the divergence is infinite.
    return np.where((clipped > 0) & (last == 0), np.inf, divergence)


def _mean_squared_error(histogram: Histogram) -> float:
    """Return the threshold with the least squared error of rounding to steps of threshold / 127 and clipping."""
    return float(LEVELS + _last_least(_squared_errors(histogram)))


def _excess_error(histogram: Histogram) -> float:
    """Return the squared error of entropy's threshold over the least one."""
    errors = _squared_errors(histogram)
    return float(errors[int(_entropy(histogram)) - LEVELS] / errors.min())


def _squared_errors(histogram: Histogram) -> Any:
    """Return the squared error of each threshold of LEVELS, LEVELS + 1, ... bins up to those in use.

    Bin j stands for its centre, j + 1/2. For candidate i the step is s = i / 127; code k takes the centres in
    [(k - 1/2) s, (k + 1/2) s), and the last code all beyond. With running sums of h, h x and h x^2 the error of a code
    is sum h x^2 - 2 k s sum h x + (k s)^2 sum h.
    """
    counts = histogram.counts[: histogram.used].astype(np.float64)
    centres = np.arange(histogram.used) + 0.5
    candidates = np.arange(LEVELS, histogram.used + 1)
    zeroth, first = _running(counts), _running(counts * centres)
    codes = np.arange(LEVELS)
    values = candidates[:, None] / (LEVELS - 1) * codes[None, :]
    starts = np.ceil(candidates[:, None] / (LEVELS - 1) * (codes[None, :] - 0.5) - 0.5).astype(np.int64)
    starts = np.clip(starts, 0, histogram.used)
    ends = np.concatenate([starts[:, 1:], np.full((len(candidates), 1), histogram.used)], axis=1)
    moved = (values * (values * (zeroth[ends] - zeroth[starts]) - 2 * (first[ends] - first[starts]))).sum(axis=1)
    return moved + (counts * centres**2).sum()


def _running(values: Any) -> Any:
    """Return the sums of the first 0, 1, ..., n values."""
    return np.concatenate([np.zeros(1), np.cumsum(values.astype(np.float64))])


def _log(values: Any) -> Any:
    """Return log(x) of counts and their means, at least 1, and 0 where x is 0: such terms carry no mass."""
    return np.log(np.maximum(values, 1.0))


def _x_log_x(values: Any) -> Any:
    return values * _log(values)


def _last_least(values: Any) -> int:
    """Return the index of the least value; of equals the last, which clips least."""
    return len(values) - 1 - int(values[::-1].argmin())


def mean_by_channel(
    batches: Iterable[Mapping[str, NDArray[np.float32]]], *, names: Mapping[str, str]
) -> dict[str, NDArray[np.float64]]:
    """Return the mean of each channel over images and positions, float64 (channels,).

    Args:
        batches: tensors by name, (N, C, ...) with the channels second.
        names: the key of each result, and the tensor it is the mean of.
    """
    sums: dict[str, NDArray[np.float64]] = {}
    counts = dict.fromkeys(names, 0)
    for batch in batches:
        for key, tensor in names.items():
            values = batch[tensor].reshape(*batch[tensor].shape[:2], -1)
            sums[key] = sums.get(key, np.float64(0)) + values.sum(axis=(0, 2), dtype=np.float64)
            counts[key] += values.shape[0] * values.shape[2]
    return {key: total / counts[key] for key, total in sums.items()}
