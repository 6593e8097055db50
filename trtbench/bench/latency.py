"""Latency by interleaved blocks: in each round every engine is timed once, in random order, one at a time.

Slow drift of a shared machine then falls on all engines alike, and ratios are paired by round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from trtbench.errors import RowError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

_MAX_ROUNDS = 10_000  # a stop for engines whose timer answers nothing


class TimedEngine(Protocol):
    """An engine at one batch size that can be warmed and timed."""

    def warm_up(self) -> float:
        """Warm up; return the expected nanoseconds of one inference."""
        ...

    def time(self, samples: int) -> NDArray[np.int64]:
        """Return that many durations in nanoseconds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimedRow:
    """Raw samples of one engine at one batch size: `blocks[r]` are the nanoseconds of round r."""

    blocks: tuple[NDArray[np.int64], ...]

    @property
    def samples_ns(self) -> NDArray[np.int64]:
        """All samples in the order they were taken."""
        return np.concatenate(self.blocks)

    @property
    def block_medians_ns(self) -> NDArray[np.float64]:
        """The median of each round."""
        return np.array([np.median(block) for block in self.blocks])


def measure_interleaved(
    engines: Mapping[str, TimedEngine],
    *,
    block_ms: float,
    duration_s: float,
    iterations: int,
    seed: int,
    on_round: Callable[[float], None] | None = None,
) -> dict[str, TimedRow | RowError]:
    """Time every engine in interleaved blocks until each has the duration and the samples it needs.

    Args:
        engines: by name; they share the machine and run one at a time.
        block_ms: length of one block; a block has at least one sample.
        duration_s: summed duration of the samples of each engine, at least.
        iterations: samples of each engine, at least.
        seed: of the order within each round.
        on_round: told the share done, in [0, 1].

    Returns:
        The raw samples of each engine, or the error that ended it; the others go on.
    """
    result: dict[str, TimedRow | RowError] = {}
    per_block: dict[str, int] = {}
    for name, engine in engines.items():
        try:
            per_block[name] = max(1, round(block_ms * 1e6 / max(1.0, engine.warm_up())))
        except RowError as error:  # a failed row does not stop the others
            result[name] = error
    blocks: dict[str, list[NDArray[np.int64]]] = {name: [] for name in per_block}
    random = np.random.default_rng(seed)
    for _ in range(_MAX_ROUNDS):
        share = _share_done(blocks, duration_s=duration_s, iterations=iterations)
        if on_round is not None:
            on_round(share)
        if share >= 1:
            break
        for name in random.permutation(list(blocks)):
            try:
                blocks[name].append(engines[name].time(per_block[name]))
            except RowError as error:
                result[name] = error
                del blocks[name]
    return result | {name: TimedRow(blocks=tuple(taken)) for name, taken in blocks.items()}


def _share_done(blocks: Mapping[str, Sequence[NDArray[np.int64]]], *, duration_s: float, iterations: int) -> float:
    """Return the share done of the engine that lags most; 1 when there is none."""
    shares = [
        min(sum(int(block.sum()) for block in taken) / (duration_s * 1e9), sum(map(len, taken)) / iterations)
        for taken in blocks.values()
    ]
    return min(1.0, *shares) if shares else 1.0
