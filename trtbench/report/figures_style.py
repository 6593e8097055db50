"""How plots look: colours and markers that do not rest on telling red from green, and quiet axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from trtbench.precision import PRECISIONS
from trtbench.report.units import significant
from trtbench.report.words import device_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from trtbench.rows import Row

# Okabe & Ito, "Color Universal Design" (2008), without black and without yellow, which fades on white
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = dict(zip(PRECISIONS, ("o", "p", "^", "v", "s", "D", "h", "*", "X", "P"), strict=True))
GREY = "#595959"
PALE = "#BFBFBF"
GRID = "#E6E6E6"
DPI = 150
# What stands for each colour on a dark page: the same hues, lighter, at 3:1 or more against DARK_PAGE
DARK_PAGE = "#16191D"
DARK = {
    "#FFFFFF": DARK_PAGE,
    "#000000": "#E8E8E8",
    GREY: "#B4B4B4",
    PALE: "#6E6E6E",
    GRID: "#33383E",
    "#0072B2": "#4AA3DC",
    "#D55E00": "#FF8A3D",
    "#009E73": "#35C79B",
    "#CC79A7": "#E6A3C7",
    "#E69F00": "#F0B840",
    "#56B4E9": "#9AD4F7",
}
_TIP = "tip:"


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of that size in inches with an Agg canvas; pyplot and its global state stay out."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def settle_layout(figure: Figure) -> None:
    """Place what a figure has for good. `Figure.savefig` would have a layout engine draw all of it once more."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine(None)  # "none" would be one that does nothing, but has the figure drawn for it each time


def colours(names: Sequence[str]) -> dict[str, str]:
    """Give each distinct name a colour, in order; a seventh name begins anew."""
    return {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(dict.fromkeys(names))}


def marker(precision: str) -> str:
    """Return the marker of a precision."""
    return _MARKERS[precision]


def kind(row: Row, rows: Sequence[Row]) -> str:
    """Say how a row computes, as briefly as the rows allow: its precision, with the backend where that is needed."""
    backends = {other.backend for other in rows if other.role != "baseline"}
    if row.role == "baseline":
        return row.backend if row.precision == "fp32" else f"{row.backend} {row.precision}"
    return row.shown_precision if len(backends) == 1 else f"{row.shown_precision} {row.backend}"


def tip(artist: Artist, text: str) -> None:
    """Let an artist tell more of itself where it is pointed at; only SVG can."""
    artist.set_gid(f"{_TIP}{text}")


def tip_of(identity: str) -> str | None:
    """Return what `tip` was told, from the identity that an element of the SVG then has; None where it told nothing."""
    return identity.removeprefix(_TIP) if identity.startswith(_TIP) else None


def title(topic: str, row: Row) -> str:
    """Return a title that says where the row, and those drawn with it, ran."""
    return f"{topic}, on {device_words(row)}{' (simulated)' if row.simulated else ''}"


def quieten(axes: Axes) -> None:
    """Leave the axes no more ink than they need."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=GREY, labelcolor="black")
    axes.set_axisbelow(True)


def log_milliseconds(axes: Axes) -> None:
    """Make the horizontal axis logarithmic, with ticks at 1, 2, 3, 5 and 7 that read as plain numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: significant(value, digits=1)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
