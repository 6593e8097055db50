"""Rows as tables: accuracy and size per engine, latency per row, and one compact table for a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tabulate import tabulate

from trtbench.decide.ratios import dense_fp32_of, eager_of, is_cpu, speed_up
from trtbench.report.footnotes import Footnotes, footnotes
from trtbench.report.units import ABSENT, fixed, megabytes, millions, significant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbench.rows import AccuracyRecord, LatencyRecord, Row


_TERMINAL_LEGEND = (
    "Top-1 with its 95 % interval; drop at most this many percentage points (95 % confidence); eager, dense: times as"
    " fast as PyTorch eager and as the dense FP32 network; MB = 10^6 bytes"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells of text; the first `left` columns are words and align left, all others are numbers and align right.

    `notes` explains the marks of the last column, one line each, where the table carries its own.
    """

    headers: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    left: int
    notes: tuple[str, ...] = ()


def sections(rows: Sequence[Row]) -> tuple[tuple[str, tuple[Row, ...]], ...]:
    """Split rows by device: (title, rows) of each GPU, then of the CPU."""
    devices = sorted(dict.fromkeys(row.device for row in rows), key=lambda device: device.lower().startswith("cpu"))
    told = []
    for device in devices:
        here = tuple(row for row in rows if row.device == device)
        title = "CPU rows, never ranked with GPU rows" if is_cpu(here[0]) else f"GPU rows on {device}"
        told.append((title, here))
    return tuple(told)


def engine_table(rows: Sequence[Row], marks: Footnotes) -> Table:
    """Return accuracy and size, one line per engine; rows of several batch sizes share a line where they agree."""
    engines = _engines([row for row in rows if row.status == "ok"])
    names = [(group[0].variant, group[0].precision, group[0].backend) for group in engines]
    has_batch = len(set(names)) < len(names)
    headers = ["Variant", "Precision", "Backend", "Top-1 %", "Drop pp", "MB", "Params", "MACs", "Note"]
    cells = [list(_engine_cells(group, marks)) for group in engines]
    if has_batch:
        headers.insert(3, "Batch")
        for line, group in zip(cells, engines, strict=True):
            line.insert(3, ", ".join(str(row.batch_size) for row in group))
    return Table(headers=tuple(headers), cells=tuple(tuple(line) for line in cells), left=3 + has_batch)


def latency_table(rows: Sequence[Row], marks: Footnotes) -> Table:
    """Return latency in ms, one line per row, by batch size; `rows` are those of one device."""
    measured = sorted((row for row in rows if row.status == "ok"), key=lambda row: row.batch_size)
    headers = ("Variant", "Precision", "Backend", "Batch", "p50", "p90", "ms/image", "eager", "dense", "Note")
    cells = tuple((*_names(row), str(row.batch_size), *_times(row, rows), marks.marks(row)) for row in measured)
    return Table(headers=headers, cells=cells, left=3)


def failure_table(rows: Sequence[Row]) -> Table:
    """Return the rows that have no result, with status and reason."""
    failed = [row for row in rows if row.status != "ok"]
    cells = tuple((*_names(row), str(row.batch_size), row.status, row.reason or ABSENT) for row in failed)
    return Table(headers=("Variant", "Precision", "Backend", "Batch", "Status", "Reason"), cells=cells, left=6)


def rows_for_terminal(rows: Sequence[Row]) -> Table:
    """Return one table of every row that fits 120 columns, GPU rows first; a failed row shows its status."""
    marks = footnotes(rows)
    ordered = [row for _, here in sections(rows) for row in sorted(here, key=lambda row: row.batch_size)]
    headers = ("Variant", "Prec.", "Backend", "Batch", "Top-1 %", "Drop pp", "p50 ms", "eager", "dense", "MB", "#")
    cells = tuple((*_terminal_cells(row, rows), marks.marks(row)) for row in ordered)
    return Table(headers=headers, cells=cells, left=3, notes=(_TERMINAL_LEGEND, *marks.lines()))


def to_markdown(table: Table) -> str:
    """Write a table in GitHub's Markdown, aligned so that it reads as plain text too."""
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in table.cells]
    aligns = ["left"] * table.left + ["right"] * (len(table.headers) - table.left)
    return tabulate(cells, table.headers, tablefmt="github", disable_numparse=True, colalign=aligns if cells else None)


def _names(row: Row) -> tuple[str, str, str]:
    return (row.variant, row.precision, row.backend)


def _engines(rows: Sequence[Row]) -> list[tuple[Row, ...]]:
    """Group the rows that are one engine: same file, same score."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((*_names(row), row.accuracy, row.engine_bytes, row.params, row.macs), []).append(row)
    return [tuple(group) for group in groups.values()]


def _engine_cells(group: tuple[Row, ...], marks: Footnotes) -> tuple[str, ...]:
    row = group[0]
    sizes = (megabytes(row.engine_bytes), millions(row.params), millions(row.macs))
    return (*_names(row), top1_text(row.accuracy, decimals=2), drop_text(row.accuracy), *sizes, marks.marks(*group))


def top1_text(accuracy: AccuracyRecord | None, *, decimals: int) -> str:
    """Write top-1 in percent with its interval."""
    if accuracy is None:
        return ABSENT
    low, high = accuracy.ci95
    return f"{100 * accuracy.top1:.{decimals}f} ({100 * low:.1f}-{100 * high:.1f})"


def drop_text(accuracy: AccuracyRecord | None) -> str:
    """Write the drop in percentage points, and the bound below which it lies."""
    if accuracy is None or accuracy.drop_pp is None:
        return ABSENT
    bound = "" if accuracy.drop_upper_pp is None else f" <={fixed(accuracy.drop_upper_pp)}"
    return f"{fixed(accuracy.drop_pp)}{bound}"


def _times(row: Row, rows: Sequence[Row]) -> tuple[str, ...]:
    latency: LatencyRecord | None = row.latency
    if latency is None:
        return (ABSENT,) * 5
    times = (significant(latency.p50_ms), significant(latency.p90_ms), significant(latency.ms_per_image))
    return (*times, *_speed_ups(row, rows))


def _speed_ups(row: Row, rows: Sequence[Row]) -> tuple[str, str]:
    gains = (speed_up(row, eager_of(row, rows)), speed_up(row, dense_fp32_of(row, rows)))
    eager, dense = (ABSENT if gain is None else f"{fixed(gain)}x" for gain in gains)
    return eager, dense


def _terminal_cells(row: Row, rows: Sequence[Row]) -> tuple[str, ...]:
    backend = f"{row.backend} (CPU)" if is_cpu(row) and "cpu" not in row.backend else row.backend
    head = (row.variant, row.precision, backend, str(row.batch_size))
    if row.status != "ok":
        return (*head, row.status, *(ABSENT,) * 5)
    p50 = ABSENT if row.latency is None else significant(row.latency.p50_ms)
    drop = drop_text(row.accuracy).rpartition(" ")[-1]  # the bound decides, and there is no room for both
    return (*head, top1_text(row.accuracy, decimals=1), drop, p50, *_speed_ups(row, rows), megabytes(row.engine_bytes))
