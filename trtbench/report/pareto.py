"""Which points no other point beats in every respect."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def pareto_front(points: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """Return the indices, in order, of the points that none dominates; less is better in every coordinate.

    A point dominates another when it is nowhere worse and somewhere better, so equal points stay together.
    """
    return tuple(index for index, point in enumerate(points) if not any(_dominates(other, point) for other in points))


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
