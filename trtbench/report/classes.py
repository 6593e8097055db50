"""Which classes each engine lost: a field for each engine and class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

from trtbench.report.figures_style import kind, new_figure, tip, title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from trtbench.rows import Row

_MOST = 20  # classes beside each other whose numbers can still be read
# Not quite those of `figures_style`, for they stay as they are on a dark page, under dark ink
_GAINED, _EVEN, _LOST, _INK = "#57B4E9", "#F4F4F4", "#D65F00", "#111111"
_LEAST_SPAN = 1.0  # pp: noise of a tenth of a point is not painted as a catastrophe


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
