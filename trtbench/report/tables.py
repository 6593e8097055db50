"""Tables as selections of columns, each with what it answers and its legend; and those that have batch sizes across."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from tabulate import tabulate

from trtbench.decide.ratios import is_cpu
from trtbench.report.columns import COLUMN, COLUMNS, Line
from trtbench.report.remarks import footnotes
from trtbench.report.units import ABSENT, fixed, significant
from trtbench.report.words import short_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from trtbench.decide.compare import Comparison
    from trtbench.decide.rank import Sweep
    from trtbench.report.charts import Samples
    from trtbench.report.columns import Align, Column, Medium, Value
    from trtbench.report.remarks import Footnotes
    from trtbench.rows import Row


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_FORMULA = ("=", "+", "-", "@", "\t")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells of text below headers; `notes` explains the marks in it, one line each, where it carries its own."""

    headers: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    aligns: tuple[Align, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        headers: Sequence[str],
        cells: Iterable[Sequence[str]],
        *,
        left: int,
        notes: tuple[str, ...] = (),
    ) -> Self:
        """Return a table whose first `left` columns are words and align left, all others numbers."""
        aligns: list[Align] = ["left" if index < left else "right" for index in range(len(headers))]
        return cls(headers=tuple(headers), cells=tuple(map(tuple, cells)), aligns=tuple(aligns), notes=notes)

    @classmethod
    def by(cls, lines: Iterable[Any], *columns: tuple[str, Callable[[Any], str]], left: int) -> Self:
        """Return a table of a line for each of several things, by its columns: a header, and the text of a thing."""
        headers = [header for header, _ in columns]
        return cls.of(headers, [[text(one) for _, text in columns] for one in lines], left=left)

    @property
    def left(self) -> int:
        """How many columns of words come first."""
        return next((index for index, align in enumerate(self.aligns) if align == "right"), len(self.aligns))


def sections(rows: Sequence[Row]) -> tuple[tuple[str, tuple[Row, ...]], ...]:
    """Split rows by device: (title, rows) of each GPU, then of the CPU."""
    devices = sorted(dict.fromkeys(row.device for row in rows), key=lambda device: device.lower().startswith("cpu"))
    found = []
    for device in devices:
        here = tuple(row for row in rows if row.device == device)
        title = "CPU rows, never ranked with GPU rows" if is_cpu(here[0]) else f"GPU rows on {device}"
        found.append((title, here))
    return tuple(found)


def columns_of(keys: Sequence[str], lines: Sequence[Line], medium: Medium) -> tuple[Column, ...]:
    """Return the columns of these keys that are shown there; what no line has is left out."""
    shown = (COLUMN[key] for key in keys if medium in COLUMN[key].shown_in)
    return tuple(one for one in shown if not lines or any(one.has(line) for line in lines))


def legend(columns: Sequence[Column]) -> str:
    """Say what these columns are, where their titles do not."""
    shown = {column.key for column in columns}
    return "; ".join(dict.fromkeys(words for key, words in _LEGEND.items() if key in shown))


def select(keys: Sequence[str], lines: Iterable[Line], medium: Medium, *, notes: tuple[str, ...] = ()) -> Table:
    """Return a table of the columns of these keys."""
    lines = list(lines)
    columns = columns_of(keys, lines, medium)
    return Table(
        headers=tuple(column.title for column in columns),
        cells=tuple(tuple(column.cell(line) for column in columns) for line in lines),
        aligns=tuple(column.align for column in columns),
        notes=notes,
    )


def row_lines(rows: Sequence[Row], *, marks: Footnotes | None = None) -> list[Line]:
    """Return a line for each row, about its plain latency."""
    return [
        Line(row=row, rows=rows, latency=row.latency, marks="" if marks is None else marks.marks(row)) for row in rows
    ]


def engine_lines(rows: Sequence[Row], has_answer: Callable[[Row], object]) -> list[Line]:
    """Return a line for the first row of each engine that has an answer."""
    firsts: dict[tuple[str, ...], Line] = {}
    for line in row_lines(rows):
        if has_answer(line.row):
            firsts.setdefault(line.row.engine, line)
    return list(firsts.values())


def engine_table(rows: Sequence[Row], marks: Footnotes) -> Table:
    """Return accuracy and size, one line per engine; rows of several batch sizes share a line where they read alike."""
    shown = [COLUMN[key] for key in ENGINES if key not in {"batch_size", "marks"}]
    engines: dict[tuple[str, ...], list[Row]] = {}
    for line in row_lines([row for row in rows if row.status == "ok"]):
        engines.setdefault(tuple(column.cell(line) for column in shown), []).append(line.row)
    lines = [Line(row=own[0], rows=rows, alike=tuple(own), marks=marks.marks(*own)) for own in engines.values()]
    is_split = len({line.row.engine for line in lines}) < len(lines)
    return select(ENGINES if is_split else [key for key in ENGINES if key != "batch_size"], lines, "md")


def latency_table(rows: Sequence[Row], marks: Footnotes) -> Table:
    """Return latency, one line per row, by batch size; `rows` are those of one device."""
    return select(LATENCIES, row_lines(_by_batch(row for row in rows if row.status == "ok"), marks=marks), "md")


def failure_table(rows: Sequence[Row]) -> Table:
    """Return the rows that have no result, with status and reason."""
    return select(FAILURES, row_lines([row for row in rows if row.status not in {"ok", "built"}]), "md")


def built_table(rows: Sequence[Row]) -> Table:
    """Return the engines that were built for a GPU that is not here, one line each."""
    return select(BUILT, engine_lines([row for row in rows if row.status == "built"], lambda _: True), "md")


def rows_for_terminal(rows: Sequence[Row], *, winner: str | None = None) -> Table:
    """Return one table of every row that fits 120 columns, GPU rows first; a failed row shows its status.

    The row named `winner` has a star before its variant; a baseline has its backend before its precision, so that it is
    told from an engine where there is no room for a column of backends.
    """
    marks = footnotes(rows)
    ordered = [row for _, here in sections(rows) for row in _by_batch(here)]
    have_failed = any(row.status != "ok" for row in rows)
    keys = [key for key in TERMINAL if have_failed or key != "status"]
    lines = row_lines(ordered, marks=marks)
    told = legend(columns_of(keys, lines, "terminal"))
    table = select(keys, lines, "terminal", notes=(*filter(None, (told,)), *marks.lines()))
    cells = tuple(
        (
            f"* {variant}" if row.name == winner else variant,
            f"{row.backend} {precision}" if row.role == "baseline" else precision,
            *others,
        )
        for row, (variant, precision, *others) in zip(ordered, table.cells, strict=True)
    )
    is_among = any(row.name == winner for row in ordered)
    return replace(table, cells=cells, notes=("* recommended", *table.notes) if is_among else table.notes)


def scatter_table(rows: Sequence[Row]) -> Table:
    """Return the points of the plot of accuracy against latency."""
    return select(SCATTER, row_lines([row for row in rows if row.latency and row.accuracy]), "html")


def size_table(rows: Sequence[Row]) -> Table:
    """Return what fills each engine's file."""
    return select(SIZES, engine_lines(rows, lambda row: row.engine_bytes is not None), "html")


def sweep_table(found: Sequence[Sweep]) -> Table:
    """Return images a second by batch size, with the knee and the break-even batch."""
    sizes = sorted({size for one in found for size in one.batch_sizes})
    rate = COLUMN["throughput_ips"]
    headers = ("Engine", *(f"b{size} {rate.title}" for size in sizes), "Knee", "Faster than dense from")
    cells = []
    for one in found:
        name = f"{short_name(one.rows[0])} {one.rows[0].backend}"
        rates = dict(zip(one.batch_sizes, one.throughput_ips, strict=True))
        shown = [significant(rates.get(size)) for size in sizes]
        cells.append((name, *shown, f"b{one.knee}", f"b{one.breaks_even}" if one.breaks_even else ABSENT))
    return Table.of(headers, cells, left=1)


def batch_table(rows: Sequence[Row]) -> Table:
    """Return latency by batch size, a line an engine."""
    sizes = sorted({row.batch_size for row in rows if row.latency is not None})
    columns = (COLUMN["p50_ms"], COLUMN["p90_ms"])
    engines: dict[tuple[str, ...], dict[int, list[str]]] = {}
    for line in row_lines(rows):
        if line.latency is not None:
            engines.setdefault(line.row.engine, {})[line.row.batch_size] = [one.cell(line) for one in columns]
    headers = (*_titles(ENGINE), *(f"b{size} {column.title}" for size in sizes for column in columns))
    cells = [
        (*name, *(cell for size in sizes for cell in found.get(size, [ABSENT] * len(columns))))
        for name, found in engines.items()
    ]
    return Table.of(headers, cells, left=len(ENGINE))


def samples_table(rows: Sequence[Row], samples: Samples) -> Table:
    """Return each row's median, and other quantiles of its raw samples, in ms."""
    cells = []
    for row in rows:
        found = samples.get(row.name)
        if found is not None and len(found) and row.latency is not None:
            low, *above = np.quantile(found, _SHARES)
            figures = (found.min(), low, row.latency.p50_ms, *above, found.max())
            cells.append((row.name, str(len(found)), *(significant(float(one)) for one in figures)))
    return Table.of(("Row", "Samples", "min", "p25", "p50", "p75", "p90", "p99", "max"), cells, left=1)


def class_drops_table(rows: Sequence[Row]) -> Table:
    """Return the points each engine lost of each class, and in all."""
    lines = engine_lines(rows, _has_class_drops)
    drops = [line.row.accuracy.class_drops_pp if line.row.accuracy else () for line in lines]
    headers = (*_titles((*ENGINE, "drop_pp")), *(str(number) for number in range(max(map(len, drops), default=0))))
    cells = [
        (*(COLUMN[key].cell(line) for key in (*ENGINE, "drop_pp")), *map(fixed, own))
        for line, own in zip(lines, drops, strict=True)
    ]
    return Table.of(headers, cells, left=len(ENGINE))


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Return the verdict of each row that two reports have."""
    return Table.by(
        comparisons,
        ("Row", lambda one: one.name),
        ("Verdict", lambda one: one.verdict),
        ("How", lambda one: one.how),
        ("Time B / A", lambda one: _three(one.ratio)),
        ("95 % interval", lambda one: ABSENT if one.ci95 is None else " to ".join(map(_three, one.ci95))),
        ("Top-1 lost pp", lambda one: fixed(one.drop_pp)),
        left=3,
    )


def _three(value: float) -> str:
    return fixed(value, decimals=3)


def to_markdown(table: Table) -> str:
    """Write a table in GitHub's Markdown, aligned so that it reads as plain text too."""
    cells = [[" ".join(as_text(cell).split()).replace("|", "\\|") for cell in line] for line in table.cells]
    aligns = table.aligns if cells else None
    return tabulate(cells, table.headers, tablefmt="pipe", disable_numparse=True, colalign=aligns)


def as_text(markdown: str) -> str:
    """Return Markdown in which what looks like HTML is shown, not obeyed, and nothing steers a terminal."""
    return _TAG.sub("&lt;", _CONTROL.sub("\N{REPLACEMENT CHARACTER}", markdown))


def csv_cell(value: Value) -> Value:
    """Return a cell that no spreadsheet takes for a formula, which a text that begins like one is to it."""
    if not isinstance(value, str):
        return value
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def to_csv(rows: Sequence[Row]) -> str:
    """Return report.csv (RFC 4180, but for the line ends): a header, then every row, numbers as in report.json."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    columns = [column for column in COLUMNS if "csv" in column.shown_in]
    writer.writerow([column.key for column in columns])
    for line in row_lines(rows):
        writer.writerow([_written(column.value(line)) for column in columns])
    return file.getvalue()


def _written(value: Value) -> Value:
    if isinstance(value, tuple):
        return csv_cell("; ".join(map(str, value)))
    return str(value).lower() if isinstance(value, bool) else csv_cell(value)


def _titles(keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(COLUMN[key].title for key in keys)


def _by_batch(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row.batch_size)


def _has_class_drops(row: Row) -> bool:
    return row.role == "candidate" and row.accuracy is not None and bool(row.accuracy.class_drops_pp)


ENGINE = ("variant", "precision", "backend")
_GAINS = ("times_as_fast_as_eager", "times_as_fast_as_dense_fp32")
TERMINAL = (
    *("variant", "precision", "runs_on", "batch_size", "status", "top1", "drop_upper_pp", "score"),
    *("score_drop_upper", "fidelity_db", "p50_ms"),
    *(*_GAINS, "engine_bytes", "marks"),
)
FIDELITY = (
    *("score", "score_drop", "score_drop_upper", "fidelity_db", "fidelity_low_db", "fidelity_worst"),
    *("fidelity_max_error", "fidelity_agreement"),
)
ENGINES = (
    *(*ENGINE, "batch_size", "cut", "top1", "drop_pp", "loss", *FIDELITY, "engine_bytes", "params", "macs", "marks"),
)
LATENCIES = (
    *(*ENGINE, "batch_size", "p50_ms", "compute_ms", "p90_ms", "host_to_host_p50_ms", "ms_per_image"),
    *(*_GAINS, "marks"),
)
FAILURES = (*ENGINE, "batch_size", "status", "reason")
BUILT = (*ENGINE, "device", "achieved", "top1", "score", "fidelity_db", "engine_bytes", "weight_bytes", "build_s")
SCATTER = ("name", "p50_ms", "p50_ci95_ms", "top1")
SIZES = (*ENGINE, "engine_bytes", "weight_bytes", "rest_bytes")

BUILT_LEGEND = (
    "Built for GPUs that are not here, and not run: nothing here was timed or ranked. Top-1 is the graph's, in exact"
    " arithmetic."
)
ENGINES_LEGEND = (
    "Cut: the share of the output channels that is gone. Top-1 with its 95 % Wilson interval. Drop pp: percentage"
    " points lost against the dense network on the same images (after <= the most that may have been lost, which the"
    " limit is held against; ! where more than the limit was lost). Test loss: mean cross-entropy, in nats."
    " Fidelity, of images without labels: 10 log10 of the power of the float network's output over that of the"
    " difference, of the worst output, or of its worst channels of one scale; >= its lower bound; same"
    " largest: the share of images whose largest number is the same one. Score: the mean of the suite's own, of images"
    " without labels; its drop is the float network's less it, <= its upper bound. All bounds are one-sided and hold"
    " together, of all engines that were compared, at 95 %. MB = 10^6 bytes of the file that was timed."
    " Params and MACs, of one image, are in millions."
)
LATENCIES_LEGEND = (
    "One sample is one synchronised inference of a whole batch by the wall clock, on a GPU launch and wake-up included;"
    " Compute is what of it passes on the GPU. p50 is the median, averaged over the processes like its interval and"
    " ratios; p90 and p99 are percentiles of all samples, ms/image is all time over all images."
    " vs eager: times as fast as the same network under PyTorch eager; vs dense: as the dense FP32"
    " network on the same backend."
)
_DROP = (
    "drop: percentage points lost against the dense network on the same images, after <= at most (95 % confidence in"
    " all engines compared together), which the limit is held against; ! where more than the limit was lost"
)
_LEGEND = {  # of the columns that need words, by key
    "top1": "Top-1 with its 95 % interval",
    "drop_pp": _DROP,
    "drop_upper_pp": _DROP,
    "score": "Score: the mean of the suite's own",
    "score_drop_upper": "its drop below the float network's at most, 95 % confidence",
    "fidelity_db": "Fidelity: signal to noise beside the float network, of the worst output or channels",
    "p50_ms": "p50: the median of a batch",
    "times_as_fast_as_eager": "vs eager: times as fast as PyTorch eager",
    "times_as_fast_as_dense_fp32": "vs dense: times as fast as the dense FP32 network",
    "engine_bytes": "MB = 10^6 bytes",
}
_SHARES = (0.25, 0.75, 0.9, 0.99)  # the median stands between the first two
