"""Which points no other point beats in every respect, exactly or as far as noise lets it be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def pareto_front(points: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """Return the indices, in order, of the points that none dominates; less is better in every coordinate.

    A point dominates another when it is nowhere worse and somewhere better, so equal points stay together.
    """
    return tuple(index for index, point in enumerate(points) if not any(_dominates(other, point) for other in points))


def undominated(count: int, *, compare: Callable[[int, int], Sequence[int]]) -> tuple[int, ...]:
    """Return the indices, in order, of the items that none provably dominates.

    Args:
        count: how many items there are.
        compare: answers, for each respect, -1 where the first item is better than the second, 1 where it is worse, and
            0 where the two cannot be told apart.
    """

    def beats(other: int, one: int) -> bool:
        signs = compare(other, one)
        return max(signs) <= 0 and min(signs) < 0

    everyone = range(count)
    return tuple(one for one in everyone if not any(beats(other, one) for other in everyone if other != one))


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    pairs = list(zip(first, second, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
