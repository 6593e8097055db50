"""Bars: the latency of each row by batch size, and what fills each engine file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.patches import Patch

from trtbench.decide.limits import BYTES_PER_MB
from trtbench.report.figures_style import GREY, PALE, colours, kind, new_figure, quieten, tip, title
from trtbench.report.units import megabytes, significant
from trtbench.report.words import row_in_brief, short_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trtbench.rows import Row

_BAR_INCHES = 0.3  # of height per bar, so that every label keeps its line
_WEIGHTS = "#0072B2"


def latency_figure(rows: Sequence[Row]) -> Figure | None:
    """Return bars of the median latency, one panel per batch size, whiskers to p90; None without rows."""
    shown = [row for row in rows if row.latency is not None]
    if not shown:
        return None
    batches = sorted({row.batch_size for row in shown})
    names = list(dict.fromkeys((row.variant, kind(row, shown)) for row in shown))
    figure = new_figure(2.2 + 3.8 * len(batches), 1.4 + _BAR_INCHES * len(names))
    panels = figure.subplots(1, len(batches), sharey=True, squeeze=False)[0]
    by_kind, places = colours([how for _, how in names]), _places(names)
    for axes, batch in zip(panels, batches, strict=True):
        here = [row for row in shown if row.batch_size == batch]
        _draw_bars(axes, here, [(row.variant, kind(row, shown)) for row in here], places=places, by_kind=by_kind)
        axes.set_title(f"batch {batch}", loc="left", fontsize=10)
        axes.set_xlabel("median latency, ms (whisker: p90)")
    _name_bars(panels[0], places)
    figure.suptitle(title("Latency by batch size", shown[0]), x=0.01, ha="left", fontsize=12)
    return figure


def size_figure(rows: Sequence[Row]) -> Figure | None:
    """Return bars of each engine file's bytes, split in weights and the rest; None without sizes."""
    shown = [row for row in rows if row.engine_bytes is not None]
    engines = list({(row.variant, kind(row, shown)): row for row in reversed(shown)}.values())[::-1]
    if not engines:
        return None
    figure = new_figure(8, 1.4 + _BAR_INCHES * len(engines))
    axes = figure.subplots()
    places = _places([(row.variant, kind(row, shown)) for row in engines])
    for row, place in zip(engines, places.values(), strict=True):
        _draw_size(axes, place, row)
    quieten(axes)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12, y=0.02)
    _name_bars(axes, places)
    axes.set_xlabel("file, MB (10^6 bytes)")
    axes.set_title(title("Engine files: weights and the rest", engines[0]), loc="left")
    keys = {"weights": _WEIGHTS, "the rest: graph, kernels, headers": PALE}
    axes.legend(handles=[Patch(color=colour, label=name) for name, colour in keys.items()], frameon=False, fontsize=8)
    return figure


def _places(names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Return where the bar of each (variant, kind) stands: those of a variant together, with a gap between variants."""
    variants = list(dict.fromkeys(variant for variant, _ in names))
    together = sorted(names, key=lambda name: variants.index(name[0]))
    return {name: index + 0.45 * variants.index(name[0]) for index, name in enumerate(together)}


def _name_bars(axes: Axes, places: dict[tuple[str, str], float]) -> None:
    axes.set_yticks(list(places.values()), [" ".join(name) for name in places], fontsize=8)
    axes.invert_yaxis()


def _draw_bars(
    axes: Axes,
    rows: Sequence[Row],
    names: Sequence[tuple[str, str]],
    *,
    places: dict[tuple[str, str], float],
    by_kind: dict[str, str],
) -> None:
    for row, name in zip(rows, names, strict=True):
        latency = row.latency
        assert latency is not None
        place = places[name]
        colour = PALE if row.role == "baseline" else by_kind[name[1]]
        (bar,) = axes.barh(place, latency.p50_ms, height=0.72, color=colour)
        tip(bar, row_in_brief(row))
        axes.plot([latency.p50_ms, latency.p90_ms], [place, place], color=GREY, linewidth=1)
        axes.annotate(
            significant(latency.p50_ms),
            (max(latency.p50_ms, latency.p90_ms), place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    quieten(axes)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.18, y=0.02)
    axes.set_xlim(left=0)


def _draw_size(axes: Axes, place: float, row: Row) -> None:
    total = row.engine_bytes or 0
    weights = min(row.weight_bytes or 0, total)
    parts = ((weights, 0, _WEIGHTS, "weights"), (total - weights, weights, PALE, "the rest"))
    for size, left, colour, what in parts:
        (bar,) = axes.barh(place, size / BYTES_PER_MB, left=left / BYTES_PER_MB, height=0.72, color=colour)
        tip(bar, f"{short_name(row)} {row.backend}: {what} {megabytes(size)} of {megabytes(total)} MB")
    axes.annotate(
        megabytes(total),
        (total / BYTES_PER_MB, place),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )
