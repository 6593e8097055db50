"""What the batch size does: latency and throughput over it, the knee, and where one variant overtakes another. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.decide.ratios import dense_fp32_of, is_measured, latency_ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbench.rows import Row

_KNEE = 0.9  # share of the best throughput from which on larger batches gain little


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One engine over its batch sizes, ascending: its rows, p50 in ms of a batch, and images a second.

    `knee` is the smallest batch that reaches nine tenths of the best throughput. `breaks_even` is the smallest batch
    from which on it is provably faster than the dense FP32 network at every larger one too; None where there is none.
    """

    rows: tuple[Row, ...]
    p50_ms: tuple[float, ...]
    throughput_ips: tuple[float, ...]
    knee: int
    breaks_even: int | None

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """The batch size of each row."""
        return tuple(row.batch_size for row in self.rows)


def sweeps(rows: Sequence[Row]) -> tuple[Sweep, ...]:
    """Return the sweep of each engine that was timed at two batch sizes or more."""
    engines: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        if is_measured(row):
            engines.setdefault((row.variant, row.shown_precision, row.backend, row.device), []).append(row)
    ordered = [sorted(own, key=lambda row: row.batch_size) for own in engines.values() if len(own) > 1]
    return tuple(_sweep(own, rows) for own in ordered)


def knee(batch_sizes: Sequence[int], throughput_ips: Sequence[float]) -> int:
    """Return the smallest batch that reaches nine tenths of the best throughput."""
    best = max(throughput_ips)
    return next(size for size, rate in zip(batch_sizes, throughput_ips, strict=True) if rate >= _KNEE * best)


def _sweep(own: Sequence[Row], rows: Sequence[Row]) -> Sweep:
    sizes = tuple(row.batch_size for row in own)
    rates = tuple(row.throughput_ips or 1000 * row.batch_size / _p50(row) for row in own)
    return Sweep(
        rows=tuple(own),
        p50_ms=tuple(_p50(row) for row in own),
        throughput_ips=rates,
        knee=knee(sizes, rates),
        breaks_even=_break_even(own, rows),
    )


def _break_even(own: Sequence[Row], rows: Sequence[Row]) -> int | None:
    """Return the smallest batch from which on a row is faster than its dense FP32 counterpart beyond the interval."""
    found = None
    for row in reversed(own):
        dense = dense_fp32_of(row, rows)
        ratio = None if dense is None or dense is row else latency_ratio(dense, row)
        if ratio is None or not ratio.is_above_one:
            return found
        found = row.batch_size
    return found


def _p50(row: Row) -> float:
    assert row.latency is not None, "measured rows have a latency"
    return row.latency.p50_ms
