"""Notes that explain a surprise: why a row is no faster than its arithmetic promises, and what speaks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbench.decide.ratios import counterpart, dense_variant, is_cpu, is_measured, latency_ratio
from trtbench.precision import PRECISIONS
from trtbench.report.units import fixed, significant
from trtbench.report.words import short_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbench.rows import Row

_LAUNCH_BOUND = 1.5  # a batch at least 8 times as large that takes at most this many times as long
_LARGER_BATCH = 8
_PROMISED = 0.8  # share of the MACs at or below which a row should be faster
_KEPT_PROMISE = 0.5  # share of the promised gain below which the rest is worth a note


def surprises(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return a sentence for each cause that can be seen in the rows, in the order of the rows."""
    measured = [row for row in rows if is_measured(row) and row.role == "candidate"]
    dense = dense_variant(rows)
    told = [note for row in measured for note in (*_misaligned(row), *_launch_bound(row, measured))]
    told += [note for row in measured for note in _broken_promise(row, measured, dense=dense)]
    return tuple(dict.fromkeys(told))


def misaligned_channels(row: Row) -> tuple[int, ...]:
    """Return the distinct channel counts that are no multiple of what the precision computes at once."""
    step = PRECISIONS[row.precision].channel_step
    return tuple(sorted({count for count in row.channels if count % step}))


def is_launch_bound(row: Row, measured: Sequence[Row]) -> bool:
    """Whether launching takes the time, not computing: the runtime says so, or a far larger batch costs little more."""
    assert row.latency is not None, "measured rows have a latency"
    if row.latency.is_enqueue_bound is not None:
        return row.latency.is_enqueue_bound
    return any(
        other.latency is not None and other.latency.p50_ms <= _LAUNCH_BOUND * row.latency.p50_ms
        for other in measured
        if _is_same_engine(row, other) and other.batch_size >= _LARGER_BATCH * row.batch_size
    )


def _misaligned(row: Row) -> tuple[str, ...]:
    counts = misaligned_channels(row)
    if not counts:
        return ()
    step = PRECISIONS[row.precision].channel_step
    shown = ", ".join(str(count) for count in counts[:6]) + (" ..." if len(counts) > 6 else "")  # noqa: PLR2004  a line
    unit = "vector units" if is_cpu(row) else "matrix units"
    told = f"{short_name(row)} has channel counts that are no multiple of {step} ({shown})"
    return (f"{told}: {unit} compute them padded, so round_to: {step} costs no time.",)


def _launch_bound(row: Row, measured: Sequence[Row]) -> tuple[str, ...]:
    if not is_launch_bound(row, measured):
        return ()
    place = f"{short_name(row)} on {row.backend} at batch {row.batch_size}"
    return (f"{place} is launch-bound: fewer MACs cannot make it faster there; a larger batch or a CUDA graph can.",)


def _broken_promise(row: Row, measured: Sequence[Row], *, dense: str | None) -> tuple[str, ...]:
    """Explain a pruned row that is not as much faster as its MACs promise."""
    base = counterpart(row, measured, variant=dense)
    if base is None or base is row or not row.macs or not base.macs or row.macs > _PROMISED * base.macs:
        return ()
    ratio = latency_ratio(row, base)
    assert ratio is not None  # both are measured, at one batch size
    promised, took = row.macs / base.macs, ratio.value
    if 1 - took >= _KEPT_PROMISE * (1 - promised):
        return ()
    told = (
        f"{row.name} computes {fixed(promised)} of the MACs of {short_name(base)} and takes {fixed(took)} of its time"
    )
    return (f"{told}: {_cause(row, base, measured)}.",)


def _cause(row: Row, base: Row, measured: Sequence[Row]) -> str:
    """Return the likeliest of the known causes, with what speaks for it."""
    if is_launch_bound(row, measured):
        return "it is launch-bound"
    if misaligned_channels(row) and not misaligned_channels(base):
        return "its channel counts are misaligned"
    return (
        f"it reaches {significant(_rate(row))} GMAC/s where {short_name(base)} reaches {significant(_rate(base))}, as a"
        " network does that is bound by memory or by the overhead of its layers, not by arithmetic"
    )


def _rate(row: Row) -> float:
    """Return the GMAC a second of a row."""
    assert row.latency is not None, "measured rows have a latency"
    return (row.macs or 0) * row.batch_size / row.latency.p50_ms / 1e6


def _is_same_engine(row: Row, other: Row) -> bool:
    return (row.variant, row.shown_precision, row.backend, row.device) == (
        other.variant,
        other.shown_precision,
        other.backend,
        other.device,
    )
