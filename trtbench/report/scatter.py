"""Accuracy against latency: one point a row, its interval, its name, and the line no candidate beats.

Labels cover neither each other nor the points: pure geometry in pixels. A box is a rectangle (left, bottom, right,
top); boxes are float64 arrays (n, 4).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D

from trtbench.decide.rank import pareto_front
from trtbench.report.figures_style import (
    GREY,
    GRID,
    PALE,
    colours,
    kind,
    log_milliseconds,
    marker,
    new_figure,
    quieten,
    settle_layout,
    tip,
    title,
)
from trtbench.report.units import percent
from trtbench.report.words import row_in_brief

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from trtbench.report.document import Recommendation
    from trtbench.rows import AccuracyRecord, LatencyRecord, Row

    XY = tuple[float, float]
    Box = tuple[float, float, float, float]
    Boxes = NDArray[np.float64]
    Mask = NDArray[np.bool_]

KEEP_OFF = 12  # pixels around a point that labels leave free
_RING = 18  # the same around the recommended one
_PADDING = 2  # pixels of air around a label
_DISTANCES = np.array([14.0, 20, 28, 38, 50, 64, 80, 100, 124])  # pixels between a point and its label
_ANGLES = np.arange(16) * np.pi / 8
_SWEEPS = 4  # later labels may make an earlier one move
_LINE_PARTS = np.linspace(0, 1, 13)[1:-1]  # where the line from a point to its label is looked at
# What a label costs, in pixels of distance: a line crossed is worth a detour, a point or a label hidden a long one.
_LINE_CROSSED = 40.0
_HIDDEN = 400.0
_OUTSIDE = 4000.0
_LIMIT = "#D55E00"
_BELOW = "$\\downarrow$"  # the marker of what lies below the frame
_KEYS = 4  # of the legend in a line


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    row: Row
    accuracy: AccuracyRecord
    latency: LatencyRecord
    label: str
    colour: str
    is_winner: bool
    is_out: bool
    clipped_at: float | None = None

    @property
    def xy(self) -> tuple[float, float]:
        return (self.latency.p50_ms, 100 * self.accuracy.top1 if self.clipped_at is None else self.clipped_at)


def accuracy_figure(
    rows: Sequence[Row], decision: Recommendation, *, out: Collection[str] = frozenset()
) -> Figure | None:
    """Return top-1 with Wilson intervals against median latency at the decision's batch size, or None without rows.

    `out` names rows that are out of the question: they are grey, and one far below all others stands at the edge with
    its number, so that it does not press the others flat.
    """
    shown = [row for row in rows if row.batch_size == decision.batch_size]
    limit = _limit(shown, decision)
    points = _clipped(_points(shown, decision, out=out), limit)
    if not points:
        return None
    figure = new_figure(9.5, 6)
    axes = figure.subplots()
    for point in points:
        _draw_point(axes, point)
    front = _front([point.xy for point in points if point.row.role == "candidate"])
    if front:
        axes.step(*zip(*front, strict=True), where="post", color=GREY, linewidth=1, linestyle="--", zorder=1)
    if limit is not None:
        axes.axhline(limit, color=_LIMIT, linewidth=1, linestyle=":", zorder=1)
    quieten(axes)
    axes.grid(color=GRID, linewidth=0.6)
    log_milliseconds(axes)
    axes.margins(x=0.18, y=0.08)
    axes.set_xlabel(f"median latency at batch {decision.batch_size}, ms (log scale; left is better)")
    axes.set_ylabel("top-1, % (up is better; bars: 95 % intervals)")
    axes.set_title(title(f"Accuracy against latency at batch {decision.batch_size}", points[0].row), loc="left")
    _draw_legend(axes, points, limit=None if limit is None else decision.max_drop_pp)
    draw_labels(
        axes,
        [(point.label, point.xy) for point in points],
        points=[(point.xy, _RING if point.is_winner else KEEP_OFF) for point in points],
        lines=[*map(_interval, points), *level_parts(front)],
    )
    return figure


def _interval(point: _Point) -> tuple[XY, XY]:
    """Return the ends of the bar of a Wilson interval."""
    low, high = point.accuracy.ci95
    return (point.latency.p50_ms, 100 * low), (point.latency.p50_ms, 100 * high)


def _limit(rows: Sequence[Row], decision: Recommendation) -> float | None:
    """Return the top-1 in % that is the allowed drop below the dense network's; None where no drop was counted."""
    scored = [row.accuracy for row in rows if row.accuracy is not None]
    dense = next((100 * one.top1 + one.drop_pp for one in scored if one.drop_pp is not None), None)
    return None if dense is None else dense - decision.max_drop_pp


def _clipped(points: Sequence[_Point], limit: float | None) -> list[_Point]:
    """Draw what is out and lies further below all others than these spread at the lower edge, with its number."""
    edges = [100 * bound for point in points if not point.is_out for bound in point.accuracy.ci95]
    edges += [] if limit is None or not edges else [limit]
    if not edges:
        return list(points)
    floor = min(edges) - (max(edges) - min(edges))
    return [
        replace(point, clipped_at=floor, label=f"{point.label}: {percent(point.accuracy.top1)} %")
        if point.is_out and point.xy[1] < floor
        else point
        for point in points
    ]


def _points(rows: Sequence[Row], decision: Recommendation, *, out: Collection[str]) -> list[_Point]:
    by_variant = colours([row.variant for row in rows])
    return [
        _Point(
            row=row,
            accuracy=row.accuracy,
            latency=row.latency,
            label=f"{row.variant} {kind(row, rows)}",
            colour=PALE if row.name in out else by_variant[row.variant],
            is_winner=row.name == decision.winner,
            is_out=row.name in out,
        )
        for row in rows
        if row.accuracy is not None and row.latency is not None
    ]


def _draw_point(axes: Axes, point: _Point) -> None:
    x, y = point.xy
    low, high = (100 * bound for bound in point.accuracy.ci95) if point.clipped_at is None else (y, y)
    fast, slow = point.latency.p50_ci95_ms or (x, x)
    axes.errorbar(
        x,
        y,
        xerr=None if fast == slow else [[max(x - fast, 0)], [max(slow - x, 0)]],
        yerr=[[y - low], [high - y]],
        color=point.colour,
        linewidth=1,
        alpha=0.45,
        capsize=2,
        zorder=2,
    )
    drawn = axes.scatter(
        x,
        y,
        s=46,
        marker=marker(point.row.precision) if point.clipped_at is None else _BELOW,
        facecolors=point.colour if point.row.role == "candidate" else "white",
        edgecolors=point.colour,
        linewidths=1.4,
        zorder=3,
    )
    tip(drawn, row_in_brief(point.row))
    if point.is_winner:
        axes.scatter(x, y, s=210, marker="o", facecolors="none", edgecolors="black", linewidths=1.4, zorder=4)


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (ms, %) that reach the best top-1 within their latency, fastest first."""
    return sorted(points[index] for index in pareto_front([(x, -y) for x, y in points]))


def _draw_legend(axes: Axes, points: Sequence[_Point], *, limit: float | None) -> None:
    precisions = dict.fromkeys(point.row.precision for point in points if point.row.role == "candidate")
    keys = [_key(precision, marker(precision), face=GREY) for precision in precisions]
    if any(point.row.role != "candidate" for point in points):
        keys.append(_key("hollow: baseline or reference", "o", face="white"))
    if precisions:
        keys.append(Line2D([], [], color=GREY, linestyle="--", linewidth=1, label="Pareto line of the candidates"))
    if limit is not None:
        label = f"{limit:g} pp below the dense network: the limit"
        keys.append(Line2D([], [], color=_LIMIT, linestyle=":", linewidth=1, label=label))
    if any(point.is_out for point in points):
        keys.append(_key("grey: a limit is not provably kept", "o", face=PALE, edge=PALE))
    if any(point.clipped_at is not None for point in points):
        keys.append(_key("far below, at its number", _BELOW, face=PALE, edge=PALE))
    if any(point.is_winner for point in points):
        keys.append(_key("recommended", "o", face="none", size=13, edge="black"))
    axes.figure.legend(handles=keys, loc="outside lower left", ncols=min(len(keys), _KEYS), frameon=False, fontsize=8)


def _key(label: str, shape: str, *, face: str, size: float = 7, edge: str = GREY) -> Line2D:
    return Line2D(
        [], [], linestyle="none", marker=shape, markersize=size, markerfacecolor=face, markeredgecolor=edge, label=label
    )


def draw_labels(
    axes: Axes, names: Sequence[tuple[str, XY]], *, points: Sequence[tuple[XY, float]], lines: Sequence[tuple[XY, XY]]
) -> None:
    """Write names of points where they cover least, with a line to points that are not next to them.

    The layout is settled then.

    Args:
        axes: whose limits are final.
        names: each with its point, in the data's units.
        points: what no name may cover, each with the pixels around it that stay free.
        lines: upright or level ones that names cross as little as may be, each by its ends.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    texts = [axes.annotate(name, xy, fontsize=8) for name, xy in names]
    settle_layout(figure)  # so that pixels mean something
    extents = [text.get_window_extent() for text in texts]
    pixels = [_pixels(axes, xy) for _, xy in names]
    places = place_labels(
        pixels,
        [(extent.width + 2 * _PADDING, extent.height + 2 * _PADDING) for extent in extents],
        frame=(axes.bbox.x0, axes.bbox.y0, axes.bbox.x1, axes.bbox.y1),
        solid=[_around(_pixels(axes, xy), reach) for xy, reach in points],
        thin=[_bar(_pixels(axes, start), _pixels(axes, end)) for start, end in lines],
    )
    leader = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 5}
    points_per_pixel = 72 / figure.dpi  # pixels are not the same in every format
    for text, (name, xy), place, (x, y) in zip(texts, names, places, pixels, strict=True):
        text.remove()
        axes.annotate(
            name,
            xy,
            xytext=((place[0] + _PADDING - x) * points_per_pixel, (place[1] + _PADDING - y) * points_per_pixel),
            textcoords="offset points",
            fontsize=8,
            zorder=5,
            arrowprops=None if _near(place, x, y) else leader,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1},
        )


def _pixels(axes: Axes, xy: XY) -> XY:
    x, y = axes.transData.transform(xy)
    return (float(x), float(y))


def _near(place: Box, x: float, y: float) -> bool:
    """Whether a label stands so close to its point that no line is needed."""
    left, bottom, right, top = place
    return math.hypot(max(left - x, x - right, 0), max(bottom - y, y - top, 0)) < 2 * KEEP_OFF


def _around(xy: XY, reach: float) -> Box:
    return (xy[0] - reach, xy[1] - reach, xy[0] + reach, xy[1] + reach)


def _bar(start: XY, end: XY) -> Box:
    """Return the box of an upright or level line."""
    wide, high = (2 * (one == other) for one, other in zip(start, end, strict=True))
    return (start[0] - wide, start[1] - high, end[0] + wide, end[1] + high)


def level_parts(front: Sequence[XY]) -> list[tuple[XY, XY]]:
    """Return the ends of the level parts of a line that steps up from point to point."""
    return [((x, y), (end, y)) for (x, y), (end, _) in itertools.pairwise(front)]


def place_labels(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    *,
    frame: Box,
    solid: Sequence[Box] = (),
    thin: Sequence[Box] = (),
) -> tuple[Box, ...]:
    """Return a box for each label's (width, height) beside its point.

    Each label takes the cheapest place around its point: near it, inside the frame, over no other label and nothing
    `solid`, the line to its point through neither, and across as few `thin` lines as may be. All are placed in turn,
    several times over, so that the first ones can make room for the last.
    """
    choices = [_places_around(point, size) for point, size in zip(points, sizes, strict=True)]
    distance = np.repeat(_DISTANCES, len(_ANGLES))
    fixed, lines = _boxes(solid), _boxes(thin)
    costs = [
        distance + _OUTSIDE * ~_inside(boxes, frame) + _LINE_CROSSED * _meets(boxes, lines).sum(1) for boxes in choices
    ]
    placed = np.full((len(points), 4), np.nan)  # NaN meets nothing: a label that is not placed yet
    for index in [*range(len(points))] * _SWEEPS:
        placed[index] = np.nan
        taken = np.concatenate([fixed, placed])
        hidden = _meets(choices[index], taken).sum(1) + _struck(points[index], choices[index], taken)
        placed[index] = choices[index][np.argmin(costs[index] + _HIDDEN * hidden)]
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in placed)


def _boxes(boxes: Sequence[Box]) -> Boxes:
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _places_around(point: tuple[float, float], size: tuple[float, float]) -> Boxes:
    """Return the places around a point, nearest first; the side that faces the point stands off by the distance."""
    way = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
    corner = np.array(point) + _DISTANCES[:, None, None] * way + (way - 1) * np.array(size) / 2
    low = corner.reshape(-1, 2)
    return np.concatenate([low, low + size], axis=1)


def _inside(boxes: Boxes, frame: Box) -> Mask:
    left, bottom, right, top = boxes.T
    inside: Mask = (frame[0] <= left) & (frame[1] <= bottom) & (right <= frame[2]) & (top <= frame[3])
    return inside


def _meets(boxes: Boxes, others: Boxes) -> Mask:
    """Return (n, m): whether box i and other j share an area."""
    left, bottom, right, top = boxes.T[:, :, None]
    others_left, others_bottom, others_right, others_top = others.T
    meeting: Mask = np.maximum(left, others_left) < np.minimum(right, others_right)
    meeting &= np.maximum(bottom, others_bottom) < np.minimum(top, others_top)
    return meeting


def _struck(point: tuple[float, float], boxes: Boxes, others: Boxes) -> NDArray[np.int64]:
    """Return how many of `others` the line from the point to each box runs through; those around the point are none."""
    start = np.array(point)
    strange = others[~_covers(others, start[None, :])[0]]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    line = start + _LINE_PARTS[:, None, None] * (centres - start)
    inside = np.stack([_covers(strange, part) for part in line])
    counts: NDArray[np.int64] = np.count_nonzero(inside.any(axis=0), axis=1)
    return counts


def _covers(boxes: Boxes, points: NDArray[np.float64]) -> Mask:
    """Return (k, n): whether point k lies in box n."""
    left, bottom, right, top = boxes.T
    x, y = points[:, :1], points[:, 1:]
    inside: Mask = (left <= x) & (bottom <= y) & (x <= right) & (y <= top)
    return inside
