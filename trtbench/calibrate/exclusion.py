"""The cheapest layers to keep in higher precision so that the others may be INT8. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Measured(Protocol):
    """What a network with some layers in INT8 is measured to lose."""

    @property
    def drop_pp(self) -> float:
        """Percentage points lost against the float network."""
        ...

    @property
    def noise(self) -> float:
        """The power of the logits' difference over that of the float logits."""
        ...


class Layer(Protocol):
    """A layer that may be INT8: its cost, and what is lost if it alone is."""

    @property
    def name(self) -> str:
        """Its node."""
        ...

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        ...

    @property
    def only(self) -> Measured:
        """What is lost if only this layer is quantized."""
        ...


Found = TypeVar("Found", bound=Measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion(Generic[Found]):
    """The cheapest set of layers found that, kept in higher precision, brings the drop within the limit."""

    nodes: tuple[str, ...]
    effect: Found
    macs_share: float


def cheapest_exclusion(
    layers: Sequence[Layer], measure: Callable[[tuple[str, ...]], Found], *, max_drop_pp: float
) -> Exclusion[Found]:
    """Search the layers to keep in higher precision so that the measured drop is at most `max_drop_pp`.

    Cheap is what leaves few multiply-accumulates out of INT8, then few layers. The layers are ranked twice: by the
    noise they alone put on the logits, and by that noise for each multiply-accumulate. Of each ranking the shortest
    prefix that holds is found by bisection; then its members are put back one by one, the largest first, where the
    drop allows. The cheaper of both sets is returned; what it reaches was measured. Optimal it need not be.

    Args:
        layers: all layers of the placement.
        measure: the effect of a network with these layers left out; asked once a set.
        max_drop_pp: the largest accepted drop, percentage points, not below 0.
    """
    known: dict[tuple[str, ...], Found] = {}
    position = {layer.name: index for index, layer in enumerate(layers)}
    macs = {layer.name: layer.macs for layer in layers}

    def holds(nodes: Sequence[str]) -> bool:
        key = tuple(sorted(nodes, key=position.__getitem__))
        if key not in known:
            known[key] = measure(key)
        return known[key].drop_pp <= max_drop_pp

    found = []
    for ranking in _rankings(layers):
        nodes = ranking[: _shortest_prefix(ranking, holds)]
        for name in sorted(nodes, key=lambda name: -macs[name]):
            rest = [other for other in nodes if other != name]
            if holds(rest):
                nodes = rest
        found.append(tuple(sorted(nodes, key=position.__getitem__)))
    best = min(found, key=lambda nodes: (sum(macs[name] for name in nodes), len(nodes)))
    holds(best)
    share = sum(macs[name] for name in best) / max(1, sum(macs.values()))
    return Exclusion(nodes=best, effect=known[best], macs_share=share)


def _rankings(layers: Sequence[Layer]) -> tuple[list[str], list[str]]:
    by_noise = sorted(layers, key=lambda layer: -layer.only.noise)
    by_price = sorted(layers, key=lambda layer: -layer.only.noise / (layer.macs + 1))
    return [layer.name for layer in by_noise], [layer.name for layer in by_price]


def _shortest_prefix(ranking: Sequence[str], holds: Callable[[Sequence[str]], bool]) -> int:
    """Return a length whose prefix holds and whose predecessor was seen not to, or 0; all layers out always hold."""
    if holds(ranking[:0]):
        return 0
    low, high = 0, len(ranking)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(ranking[:middle]) else (middle, high)
    return high
