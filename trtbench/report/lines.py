"""Latency against batch size: one panel for each way to compute, one line a variant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from trtbench.report.figures_style import GRID, colours, kind, new_figure, quieten, tip, title
from trtbench.report.units import significant
from trtbench.report.words import row_in_brief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from trtbench.rows import Row

_PANEL_INCHES = 2.6
_COLUMNS = 4


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
