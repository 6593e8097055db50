"""How many times as long one row takes as another, and which rows it makes sense to compare."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.bench.spread import Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trtbench.rows import LatencyRecord, Row

    # What knows the raw blocks answers with trtbench.bench.summary.timed_ratio of both rows, or None.
    PairedRatio = Callable[[Row, Row], Interval | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Time of one row over time of another; `ci95` is None where both were not timed side by side.

    `freedom` are the degrees of freedom of Student's interval on the log scale.
    """

    value: float
    ci95: tuple[float, float] | None = None
    freedom: float = math.inf

    def is_proven_below(self, limit: float, *, confidence: float) -> bool:
        """Whether the one-sided upper bound is at most `limit`; never so without an interval."""
        if self.ci95 is None:
            return False
        low, high = self.ci95
        return Interval(value=self.value, low=low, high=high, freedom=self.freedom).upper(confidence) <= limit

    @property
    def is_above_one(self) -> bool:
        """Whether the first row is slower beyond the interval, or in the medians where there is none."""
        return (self.ci95[0] if self.ci95 else self.value) > 1


def is_cpu(row: Row) -> bool:
    """Whether the row ran on a CPU."""
    return row.device.lower().startswith("cpu")


def is_measured(row: Row) -> bool:
    """Whether the row has a status of ok, and a latency."""
    return row.status == "ok" and row.latency is not None


def p50_ms(row: Row) -> float:
    """Return the median of a measured row."""
    assert row.latency is not None, "measured rows have a latency"
    return row.latency.p50_ms


def latency_ratio(row: Row, base: Row, *, paired: PairedRatio | None = None) -> Ratio | None:
    """Return the time of `row` over the time of `base`, from the best evidence there is.

    First what `paired` answers from the raw blocks; then the quotient of both rows' ratios to a common anchor, its
    interval by the method of variance estimates recovery (Zou & Donner 2008, Statistics in Medicine 27:1693-1702,
    on the log scale; the anchor's own noise is in both, so it is wider than it need be); then the quotient of the
    medians, without an interval. None where one of them has no latency or they differ in batch size.
    """
    if row.latency is None or base.latency is None or row.batch_size != base.batch_size:
        return None
    if paired is not None and (answer := paired(row, base)) is not None:
        return Ratio(value=answer.value, ci95=(answer.low, answer.high), freedom=answer.freedom)
    if share_anchor((row, base)):
        return quotient(row.latency, base.latency)
    return Ratio(value=row.latency.p50_ms / base.latency.p50_ms)


def share_anchor(rows: Sequence[Row]) -> bool:
    """Whether all rows carry a paired ratio to one and the same anchor."""
    latencies = [row.latency for row in rows]
    anchors = {latency.anchor for latency in latencies if latency is not None}
    return len(anchors) == 1 and all(latency is not None and latency.ratio is not None for latency in latencies)


def dense_variant(rows: Sequence[Row]) -> str | None:
    """Return the name of the uncompressed network: the first of the variants with most parameters."""
    sized = [row for row in rows if row.params is not None]
    largest = max(sized, key=lambda row: row.params or 0, default=None)
    return largest.variant if largest else None


def counterpart(
    row: Row,
    rows: Sequence[Row],
    *,
    variant: str | None = None,
    precision: str | None = None,
    backend: str | None = None,
) -> Row | None:
    """Return the first measured row that differs from `row` in what is named only; it may be `row` itself.

    A precision that is named is meant as it is, neither sparse nor built again.
    """
    network = (variant or row.variant, precision or row.shown_precision, backend or row.backend)
    for other in rows:
        if other.engine != network or not is_measured(other):
            continue
        if (other.device, other.batch_size) == (row.device, row.batch_size):
            return other
    return None


def eager_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """Return the same variant in FP32 under PyTorch eager, on the same device at the same batch size."""
    return counterpart(row, rows, precision="fp32", backend="eager")


def dense_fp32_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """Return the dense network in FP32 on the same backend and device at the same batch size."""
    return counterpart(row, rows, variant=dense_variant(rows), precision="fp32")


def speed_up(row: Row, base: Row | None) -> float | None:
    """Return how many times as fast `row` is as `base`."""
    ratio = None if base is None else latency_ratio(row, base)
    return None if ratio is None else 1 / ratio.value


def quotient(first: LatencyRecord, second: LatencyRecord) -> Ratio:
    """Return the ratio of two rows that each carry one to the same anchor (Zou & Donner 2008, on the log scale)."""
    assert first.ratio is not None
    assert second.ratio is not None
    value = math.log(first.ratio / second.ratio)
    if first.ratio_ci95 is None or second.ratio_ci95 is None:
        return Ratio(value=math.exp(value))
    below = math.hypot(math.log(first.ratio / first.ratio_ci95[0]), math.log(second.ratio_ci95[1] / second.ratio))
    above = math.hypot(math.log(first.ratio_ci95[1] / first.ratio), math.log(second.ratio / second.ratio_ci95[0]))
    return Ratio(value=math.exp(value), ci95=(math.exp(value - below), math.exp(value + above)))
