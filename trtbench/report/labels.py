"""Where to put the labels of a plot so that they cover neither each other nor the points; pure geometry in pixels.

A box is a rectangle (left, bottom, right, top); boxes are float64 arrays (n, 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Box = tuple[float, float, float, float]
    Boxes = NDArray[np.float64]
    Mask = NDArray[np.bool_]

_DISTANCES = np.array([14.0, 20, 28, 38, 50, 64, 80, 100, 124])  # pixels between a point and its label
_ANGLES = np.arange(16) * np.pi / 8
_SWEEPS = 4  # later labels may make an earlier one move
_LINE_PARTS = np.linspace(0, 1, 13)[1:-1]  # where the line from a point to its label is looked at
# What a label costs, in pixels of distance: a line crossed is worth a detour, a point or a label hidden a long one.
_LINE_CROSSED = 40.0
_HIDDEN = 400.0
_OUTSIDE = 4000.0


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
    choices = [_around(point, size) for point, size in zip(points, sizes, strict=True)]
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


def _around(point: tuple[float, float], size: tuple[float, float]) -> Boxes:
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
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    meeting: Mask = np.all(low < high, axis=2)
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
    inside: Mask = np.all((boxes[None, :, :2] <= points[:, None]) & (points[:, None] <= boxes[None, :, 2:]), axis=2)
    return inside
