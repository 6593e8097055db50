"""One figure a function: latency and size as bars, latency over the batch, the spread of samples, drops by class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from trtbench.decide.limits import BYTES_PER_MB
from trtbench.report.figures_style import GREY, GRID, PALE, colours, kind, new_figure, quieten, tip, title
from trtbench.report.units import megabytes, significant
from trtbench.report.words import row_in_brief, short_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from trtbench.rows import Row

    # Milliseconds of every sample, by row name.
    Samples = Mapping[str, NDArray[np.float64]]


_BAR_INCHES = 0.3  # of height per bar, so that every label keeps its line
_LOW = 0.27  # of a bar's pitch: whiskers pass below the numbers
_WEIGHTS = "#0072B2"
_PANEL_INCHES = 2.6
_COLUMNS = 4
_WIDEST = 0.99  # share of the samples that is drawn: the slowest would press the rest flat
_ROW_INCHES = 0.42
_LEAST = 10  # samples below which a shape means nothing
_MOST = 20  # classes beside each other whose numbers can still be read
# Not quite those of `figures_style`, for they stay as they are on a dark page, under dark ink
_GAINED, _EVEN, _LOST, _INK = "#57B4E9", "#F4F4F4", "#D65F00", "#111111"
_LEAST_SPAN = 1.0  # pp: noise of a tenth of a point is not painted as a catastrophe


def latency_figure(rows: Sequence[Row], *, winner: str | None = None) -> Figure | None:
    """Return bars of the median latency, one panel per batch size, whiskers to p90; None without rows.

    The row named `winner` is marked.
    """
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
        kinds = [(row.variant, kind(row, shown)) for row in here]
        _draw_bars(axes, here, kinds, places=places, by_kind=by_kind, winner=winner)
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
    handles = [Patch(color=colour, label=name) for name, colour in keys.items()]
    figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False, fontsize=8)
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
    winner: str | None,
) -> None:
    for row, name in zip(rows, names, strict=True):
        latency = row.latency
        assert latency is not None
        place = places[name]
        colour = PALE if row.role == "baseline" else by_kind[name[1]]
        (bar,) = axes.barh(place, latency.p50_ms, height=0.72, color=colour)
        tip(bar, row_in_brief(row))
        axes.plot([latency.p50_ms, latency.p90_ms], [place + _LOW, place + _LOW], color=GREY, linewidth=1)
        is_winner = row.name == winner
        if is_winner:
            bar.set(edgecolor="black", linewidth=1.4)
        axes.annotate(
            significant(latency.p50_ms) + ("  recommended" if is_winner else ""),
            (latency.p50_ms, place),
            xytext=(3, 1.5),
            textcoords="offset points",
            va="center",
            fontsize=8,
            fontweight="bold" if is_winner else "normal",
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


def batch_figure(rows: Sequence[Row]) -> Figure | None:
    """Return the median latency of one image against the batch size; None with fewer than two batch sizes."""
    shown = sorted((row for row in rows if row.latency is not None), key=lambda row: row.batch_size)
    sizes = sorted({row.batch_size for row in shown})
    if len(sizes) < 2:  # noqa: PLR2004  one size makes no line
        return None
    kinds = list(dict.fromkeys(kind(row, shown) for row in sorted(shown, key=lambda row: row.role != "candidate")))
    columns = min(len(kinds), _COLUMNS)
    lines = -(-len(kinds) // columns)
    figure = new_figure(1 + _PANEL_INCHES * columns, 1 + 3 * lines)
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel().tolist()
    by_variant = colours([row.variant for row in rows])
    for axes, how in zip(panels, kinds, strict=False):
        _draw_panel(axes, [row for row in shown if kind(row, shown) == how], by_variant=by_variant, sizes=sizes)
        axes.set_title(how, loc="left", fontsize=10)
    for axes in panels[len(kinds) :]:
        axes.remove()
    _name_axes(panels, columns=columns, count=len(kinds))
    handles = {line.get_label(): line for axes in panels[: len(kinds)] for line in axes.get_lines()}
    figure.legend(handles=[*handles.values()], loc="outside lower left", ncols=5, frameon=False, fontsize=8)
    figure.suptitle(title("Latency of one image by batch size", shown[0]), x=0.01, ha="left", fontsize=12)
    return figure


def _draw_panel(axes: Axes, rows: Sequence[Row], *, by_variant: dict[str, str], sizes: Sequence[int]) -> None:
    for variant, colour in by_variant.items():
        own = [row for row in rows if row.variant == variant]
        if not own:
            continue
        axes.plot(
            [row.batch_size for row in own], [_of_one(row) for row in own], color=colour, linewidth=1.2, label=variant
        )
        for row in own:
            tip(axes.scatter(row.batch_size, _of_one(row), s=30, color=colour, zorder=3), row_in_brief(row))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: significant(value, digits=1)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.08, y=0.1)
    axes.grid(color=GRID, linewidth=0.6)
    quieten(axes)


def _name_axes(panels: Sequence[Axes], *, columns: int, count: int) -> None:
    for index, axes in enumerate(panels[:count]):
        if index % columns == 0:
            axes.set_ylabel("p50 / batch, ms")
        axes.set_xlabel("batch size")


def _of_one(row: Row) -> float:
    assert row.latency is not None, "rows without latency are left out"
    return row.latency.p50_ms / row.batch_size


def samples_figure(rows: Sequence[Row], samples: Samples, *, batch_size: int) -> Figure | None:
    """Return the density of each row's samples at one batch size, its quartiles and median marked; None without any.

    Each shape ends at the 99th percentile; the table beside it has the largest sample.
    """
    shown = [row for row in rows if row.batch_size == batch_size and _enough(samples.get(row.name))]
    if not shown:
        return None
    figure = new_figure(9, 1.4 + _ROW_INCHES * len(shown))
    axes = figure.subplots()
    by_kind = colours([kind(row, shown) for row in shown])
    for place, row in enumerate(shown):
        found = samples[row.name]
        low, high = (float(one) for one in np.quantile(found, (0.25, 0.75)))
        drawn: dict[str, Any] = axes.violinplot(
            [found[found <= np.quantile(found, _WIDEST)]], positions=[place], orientation="horizontal", widths=0.85,
            showextrema=False,
        )  # fmt: skip
        for body in drawn["bodies"]:
            body.set_facecolor(PALE if row.role == "baseline" else by_kind[kind(row, shown)])
            body.set_alpha(0.8)
            tip(body, f"{row.name}: half of {len(found):,} samples within {significant(low)} to {significant(high)} ms")
        axes.plot([low, high], [place, place], color=GREY, linewidth=3, solid_capstyle="butt")
        assert row.latency is not None, "a row with samples has a latency"
        axes.plot(row.latency.p50_ms, place, "|", color="black", markersize=10)
    axes.set_yticks(range(len(shown)), [f"{row.variant} {kind(row, shown)}" for row in shown], fontsize=8)
    axes.invert_yaxis()
    quieten(axes)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("one sample, ms (bar: the middle half, tick: the median; the slowest 1 % are left out)")
    axes.set_title(title(f"Samples at batch {batch_size}", shown[0]), loc="left")
    return figure


def _enough(found: NDArray[np.float64] | None) -> bool:
    """Whether there are samples enough to draw a density, and not all the same."""
    return found is not None and len(found) >= _LEAST and float(np.ptp(found)) > 0


def class_figure(rows: Sequence[Row]) -> Figure | None:
    """Return the points each class lost, a line an engine; of many classes those that lost most; None without any."""
    engines = {
        (row.variant, kind(row, rows)): row
        for row in rows
        if row.role == "candidate" and row.accuracy is not None and row.accuracy.class_drops_pp
    }
    if not engines:
        return None
    drops = np.array([_drops(row) for row in engines.values()])
    classes = np.sort(np.argsort(-drops.max(axis=0), kind="stable")[:_MOST])
    figure = new_figure(2.6 + 0.48 * len(classes), 1.3 + 0.34 * len(engines))
    axes = figure.subplots()
    span = max(float(np.abs(drops).max()), _LEAST_SPAN)
    palette = LinearSegmentedColormap.from_list("drop", [_GAINED, _EVEN, _LOST])
    axes.pcolormesh(
        drops[:, classes], cmap=palette, norm=TwoSlopeNorm(0, -span, span), edgecolors="white", linewidth=1.5
    )
    for line, (row, own) in enumerate(zip(engines.values(), drops[:, classes], strict=True)):
        for place, (number, drop) in enumerate(zip(classes, own, strict=True)):
            field = axes.text(place + 0.5, line + 0.5, f"{drop:.1f}", ha="center", va="center", fontsize=7, color=_INK)
            tip(field, f"{row.variant} {kind(row, rows)}: class {number} lost {drop:.2f} pp")
    axes.set_xticks(np.arange(len(classes)) + 0.5, [str(number) for number in classes], fontsize=8)
    axes.set_yticks(np.arange(len(engines)) + 0.5, [" ".join(name) for name in engines], fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"class{'' if len(classes) == drops.shape[1] else f' (the {_MOST} that lost most)'}")
    axes.set_title(title("Points lost by class, pp", next(iter(engines.values()))), loc="left")
    return figure


def _drops(row: Row) -> tuple[float, ...]:
    assert row.accuracy is not None, "engines without accuracy are left out"
    return row.accuracy.class_drops_pp
