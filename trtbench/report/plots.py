"""The plots of a report as images."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.report.bars import latency_figure, size_figure
from trtbench.report.scatter import accuracy_figure
from trtbench.report.style import DPI
from trtbench.report.table import sections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from trtbench.records import Row
    from trtbench.report.recommend import Recommendation


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """An image: where it goes below the report's folder, what it shows, and its bytes."""

    path: str
    caption: str
    png: bytes


def draw_plots(rows: Sequence[Row], decision: Recommendation) -> tuple[Plot, ...]:
    """Draw every plot that the rows of one device have numbers for: the first GPU's, else the CPU's."""
    by_device = sections([row for row in rows if row.status == "ok"])
    here = by_device[0][1] if by_device else ()
    drawn = (
        ("accuracy-latency", "Accuracy against latency", accuracy_figure(here, decision)),
        ("latency", "Latency by batch size", latency_figure(here)),
        ("size", "Engine files: weights and the rest", size_figure(here)),
    )
    return tuple(
        Plot(path=f"plots/{name}.png", caption=caption, png=png(figure))
        for name, caption, figure in drawn
        if figure is not None
    )


def png(figure: Figure) -> bytes:
    """Return a figure as PNG; equal figures are equal bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})  # the version would change the bytes
    return file.getvalue()
