"""Tables of one question each: the worst class, layer precisions, loads, cold start, and what a figure draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbench.report.table import Table, drop_text, top1_text
from trtbench.report.units import ABSENT, fixed, megabytes, significant
from trtbench.report.words import short_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbench.decide.sweep import Sweep
    from trtbench.report.spread import Samples
    from trtbench.rows import Row

SWEEP_LEGEND = (
    "Knee: the smallest batch with nine tenths of the best throughput. Faster than dense from: the smallest batch from"
    " which on it is provably faster than the dense FP32 network."
)
CLASS_LEGEND = (
    "The drop is of the class's own images. McNemar's p is exact, and adjusted by Holm for all candidates of a batch"
    " size; the bound of the drop decides, not this p. ECE: expected calibration error, 15 bins."
)
LOAD_LEGEND = "Requests that arrive at a rate are timed from when they were due, so that a queue counts in full."
_SHARES = (0.25, 0.5, 0.75, 0.9, 0.99)


def sweep_table(found: Sequence[Sweep]) -> Table:
    """Return images a second by batch size, with the knee and the break-even batch."""
    sizes = sorted({size for one in found for size in one.batch_sizes})
    headers = ("Engine", *(f"b{size}, images/s" for size in sizes), "Knee", "Faster than dense from")
    cells = []
    for one in found:
        name = f"{short_name(one.rows[0])} {one.rows[0].backend}"
        rates = dict(zip(one.batch_sizes, one.throughput_ips, strict=True))
        shown = [significant(rates.get(size)) for size in sizes]
        cells.append((name, *shown, f"b{one.knee}", f"b{one.breaks_even}" if one.breaks_even else ABSENT))
    return Table(headers=headers, cells=tuple(cells), left=1)


def class_table(rows: Sequence[Row]) -> Table:
    """Return the class that lost most, once for each engine that lost any."""
    told: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for row in rows:
        accuracy = row.accuracy
        if row.role == "candidate" and accuracy is not None and accuracy.worst_class is not None:
            adjusted = significant(accuracy.mcnemar_holm_p)
            most = fixed(max(accuracy.class_drops_pp))
            facts = (accuracy.worst_class, most, adjusted, fixed(accuracy.ece, decimals=3))
            told.setdefault(_engine(row), (*_engine(row), *facts))
    headers = ("Variant", "Precision", "Backend", "Worst class", "its drop, pp", "McNemar p (Holm)", "ECE")
    return Table(headers=headers, cells=tuple(told.values()), left=4)


def load_table(rows: Sequence[Row]) -> Table:
    """Return what each load made of each row."""
    headers = ("Row", "Load", "Requests", "Images/s", "p50 ms", "p90 ms", "p99 ms", "Limit holds")
    cells = []
    for row in rows:
        for load in row.loads:
            what = f"{load.streams} in flight" if load.rate is None else f"{significant(load.rate)} a second"
            times = (significant(load.p50_ms), significant(load.p90_ms), significant(load.p99_ms))
            holds = {None: ABSENT, True: "yes", False: "no"}[load.holds]
            cells.append((row.name, what, str(load.n), significant(load.throughput_ips), *times, holds))
    return Table(headers=headers, cells=tuple(cells), left=2)


def layer_table(rows: Sequence[Row]) -> Table:
    """Return what each engine was asked to compute in, what its layers came to compute in, and how it was opened."""
    told: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for row in rows:
        if row.settings or row.achieved:
            cores = {"cores": row.cores} if row.cores else {}
            opened = ", ".join(f"{key} {_short(value)}" for key, value in {**row.settings, **cores}.items())
            told.setdefault(_engine(row), (*_engine(row), row.achieved or ABSENT, opened))
    headers = ("Variant", "Asked for", "Backend", "Layers achieved", "Opened with")
    return Table(headers=headers, cells=tuple(told.values()), left=5)


def cold_table(rows: Sequence[Row]) -> Table:
    """Return what it takes to have each engine: to build and to load it, the first inference, and its memory."""
    headers = ("Row", "Build s", "Load ms", "First inference ms", "Memory MB")
    cells = [
        (row.name, *map(significant, (row.build_s, row.load_ms, row.first_inference_ms)), megabytes(row.memory_bytes))
        for row in rows
        if row.load_ms is not None
    ]
    return Table(headers=headers, cells=tuple(cells), left=1)


def scatter_table(rows: Sequence[Row]) -> Table:
    """Return the points of the plot of accuracy against latency."""
    cells = [
        (row.name, significant(row.latency.p50_ms), _interval(row), top1_text(row.accuracy, decimals=2))
        for row in rows
        if row.latency is not None and row.accuracy is not None
    ]
    return Table(headers=("Row", "p50 ms", "95 % interval", "Top-1 %"), cells=tuple(cells), left=1)


def batch_table(rows: Sequence[Row]) -> Table:
    """Return latency by batch size, a line an engine."""
    sizes = sorted({row.batch_size for row in rows if row.latency is not None})
    engines: dict[tuple[str, str, str], dict[int, tuple[str, str]]] = {}
    for row in rows:
        if row.latency is not None:
            p50, p90 = row.latency.p50_ms, row.latency.p90_ms
            engines.setdefault(_engine(row), {})[row.batch_size] = (significant(p50), significant(p90))
    headers = ("Variant", "Precision", "Backend", *(f"b{size} {which}" for size in sizes for which in ("p50", "p90")))
    cells = [
        (*name, *(cell for size in sizes for cell in found.get(size, (ABSENT, ABSENT))))
        for name, found in engines.items()
    ]
    return Table(headers=headers, cells=tuple(cells), left=3)


def size_table(rows: Sequence[Row]) -> Table:
    """Return what fills each engine's file, in MB."""
    told: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for row in rows:
        if row.engine_bytes is not None:
            weights = min(row.weight_bytes or 0, row.engine_bytes)
            sizes = (row.engine_bytes, weights, row.engine_bytes - weights)
            told.setdefault(_engine(row), (*_engine(row), *map(megabytes, sizes)))
    headers = ("Variant", "Precision", "Backend", "File MB", "Weights MB", "The rest MB")
    return Table(headers=headers, cells=tuple(told.values()), left=3)


def samples_table(rows: Sequence[Row], samples: Samples) -> Table:
    """Return quantiles of each row's raw samples, in ms."""
    headers = ("Row", "n", "min", "p25", "p50", "p75", "p90", "p99", "max")
    cells = []
    for row in rows:
        found = samples.get(row.name)
        if found is not None and len(found):
            figures = (found.min(), *np.quantile(found, _SHARES), found.max())
            cells.append((row.name, str(len(found)), *(significant(float(one)) for one in figures)))
    return Table(headers=headers, cells=tuple(cells), left=1)


def class_drops_table(rows: Sequence[Row]) -> Table:
    """Return the points each engine lost of each class, and in all."""
    told: dict[tuple[str, str, str], tuple[str, ...]] = {}
    count = 0
    for row in rows:
        if row.role == "candidate" and row.accuracy is not None and row.accuracy.class_drops_pp:
            drops = row.accuracy.class_drops_pp
            count = len(drops)
            told.setdefault(_engine(row), (*_engine(row), drop_text(row.accuracy), *(fixed(one) for one in drops)))
    headers = ("Variant", "Precision", "Backend", "All", *(str(number) for number in range(count)))
    return Table(headers=headers, cells=tuple(told.values()), left=3)


def _engine(row: Row) -> tuple[str, str, str]:
    return (row.variant, row.precision, row.backend)


def _interval(row: Row) -> str:
    interval = None if row.latency is None else row.latency.p50_ci95_ms
    return ABSENT if interval is None else f"{significant(interval[0])}-{significant(interval[1])}"


def _short(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(str(one) for one in value) if isinstance(value, (list, tuple)) else str(value)
