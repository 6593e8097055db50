"""How the raw samples of each row are spread: what a median hides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.report.figures_style import GREY, PALE, colours, kind, new_figure, quieten, tip, title
from trtbench.report.units import significant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from trtbench.rows import Row

    # Milliseconds of every sample, by row name.
    Samples = Mapping[str, NDArray[np.float64]]

_WIDEST = 0.99  # share of the samples that is drawn: the slowest would press the rest flat
_ROW_INCHES = 0.42
_LEAST = 10  # samples below which a shape means nothing


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
        low, middle, high = (float(one) for one in np.quantile(found, (0.25, 0.5, 0.75)))
        drawn: dict[str, Any] = axes.violinplot(
            [found[found <= np.quantile(found, _WIDEST)]], positions=[place], orientation="horizontal", widths=0.85,
            showextrema=False,
        )  # fmt: skip
        for body in drawn["bodies"]:
            body.set_facecolor(PALE if row.role == "baseline" else by_kind[kind(row, shown)])
            body.set_alpha(0.8)
            tip(body, f"{row.name}: half of {len(found):,} samples within {significant(low)} to {significant(high)} ms")
        axes.plot([low, high], [place, place], color=GREY, linewidth=3, solid_capstyle="butt")
        axes.plot(middle, place, "|", color="black", markersize=10)
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
