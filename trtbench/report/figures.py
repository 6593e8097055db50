"""Which figures a report has, and the images of those that report.md shows."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.report.answer import parts
from trtbench.report.charts import batch_figure, class_figure, latency_figure, samples_figure, size_figure
from trtbench.report.figures_style import settle_layout
from trtbench.report.scatter import accuracy_figure
from trtbench.report.tables import (
    batch_table,
    class_drops_table,
    samples_table,
    scatter_table,
    sections,
    size_table,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from matplotlib.figure import Figure

    from trtbench.report.charts import Samples
    from trtbench.report.document import Recommendation
    from trtbench.report.tables import Table
    from trtbench.rows import Row

_CAPTIONS = {
    "accuracy-latency": "Accuracy against latency",
    "latency": "Latency by batch size",
    "batch": "Latency of one image against batch size",
    "size": "Engine files: weights and the rest",
    "samples": "Spread of the raw samples",
    "classes": "Points lost by class",
}
_READINGS = {
    "accuracy-latency": "Up and to the left is better. Bars are 95 % intervals; the dashed line joins the candidates"
    " that none beats in both, the dotted one is the allowed drop; hollow points are baselines or references, grey ones"
    " do not provably keep a limit; the ring is the recommended row.",
    "latency": "Bars and numbers: medians; the whisker ends at the 90th percentile. Shorter is better.",
    "batch": "Median time of a batch over its images, both axes logarithmic. Where lines cross, the choice changes with"
    " the batch size.",
    "size": "The file that was timed: its weights, and what the runtime adds.",
    "samples": "The density of the samples at the batch size that decides, over all processes; bar: the middle half,"
    " tick: the median. Two humps mean two states of the machine or of the program.",
    "classes": "Percentage points that each class lost of its own images against the dense network; below zero it"
    " gained.",
}
_IMAGES = {"accuracy-latency", "latency", "size"}  # what report.md shows, of the first device


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """An image: where it goes below the report's folder, what it shows, and its bytes."""

    path: str
    caption: str
    png: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawing:
    """A figure, what it shows, how to read it, and the numbers behind it; `is_image`: report.md has it too."""

    name: str
    caption: str
    reading: str
    figure: Figure
    table: Table
    is_image: bool


def draw_figures(
    rows: Sequence[Row], decision: Recommendation, *, samples: Samples | None = None
) -> tuple[Drawing, ...]:
    """Draw every figure that the rows have numbers for, device by device, GPUs first.

    Args:
        rows: of the whole report.
        decision: says which batch size decided, and which row won.
        samples: every sample in ms, by row name, where they were kept.
    """
    out = {row.name for row, part in zip(rows, parts(rows, decision), strict=True) if part.is_out}
    by_device = sections([row for row in rows if row.status == "ok"])
    return tuple(
        drawing
        for number, (_, here) in enumerate(by_device)
        for drawing in _of_device(here, decision, out=out, samples=samples or {}, number=number)
    )


def images(drawings: Sequence[Drawing]) -> tuple[Plot, ...]:
    """Return the images of report.md."""
    shown = [one for one in drawings if one.is_image]
    return tuple(Plot(path=f"plots/{one.name}.png", caption=one.caption, png=png(one.figure)) for one in shown)


def _of_device(
    rows: Sequence[Row], decision: Recommendation, *, out: Collection[str], samples: Samples, number: int
) -> Iterator[Drawing]:
    size = decision.batch_size
    at_size = [row for row in rows if row.batch_size == size]
    figures = {
        "accuracy-latency": accuracy_figure(rows, decision, out=out),
        "latency": latency_figure(rows, winner=decision.winner),
        "batch": batch_figure(rows),
        "size": size_figure(rows),
        "samples": samples_figure(rows, samples, batch_size=size),
        "classes": class_figure(rows),
    }
    tables = {
        "accuracy-latency": scatter_table(at_size),
        "latency": batch_table(rows),
        "batch": batch_table(rows),
        "size": size_table(rows),
        "samples": samples_table(at_size, samples),
        "classes": class_drops_table(rows),
    }
    for name, figure in figures.items():
        if figure is not None:
            yield Drawing(
                name=f"{name}-{number + 1}" if number else name,
                caption=_CAPTIONS[name],
                reading=_READINGS[name],
                figure=figure,
                table=tables[name],
                is_image=number == 0 and name in _IMAGES,
            )


def png(figure: Figure) -> bytes:
    """Return a figure as PNG; equal figures are equal bytes."""
    settle_layout(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi="figure", metadata={"Software": None})  # the version would change the bytes
    return file.getvalue()
