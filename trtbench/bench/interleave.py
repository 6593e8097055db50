"""Latency by interleaved blocks: in each round every engine is timed once, in random order, one at a time.

Slow drift of a shared machine then falls on all engines alike, and ratios are paired by round. Every other round runs
in the reverse order of the one before it (AB/BA), so that a steady trend within a round cancels too.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from trtbench.bench.spread import relative_noise
from trtbench.errors import RowError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

Key = TypeVar("Key", bound=Hashable)  # what tells engines apart
_MAX_ROUNDS = 10_000  # a stop for engines whose timer answers nothing


class TimedEngine(Protocol):
    """An engine at one batch size that can be warmed and timed."""

    def warm_up(self) -> float:
        """Warm up; return the expected nanoseconds of one sample."""
        ...

    def time(self, samples: int) -> NDArray[np.int64]:
        """Return that many durations in nanoseconds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long each engine is timed in one process.

    Args:
        block_ms: length of one block; a block has at least one sample.
        duration_s: summed duration of the samples of each engine, at least.
        iterations: samples of each engine, at least.
        warm_up_ms: how long each is warmed up before, at least.
        noise: go on until the 95 % interval of the median is at most this share of it to either side; None never does.
        ceiling_s: stop by then, however noisy.
        rounds: rounds at least.
    """

    block_ms: float
    duration_s: float
    iterations: int
    warm_up_ms: float = 0.0
    noise: float | None = None
    ceiling_s: float = 0.0
    rounds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timing:
    """Raw samples of one engine at one batch size.

    `blocks[r]` are the nanoseconds of round r, `processes[r]` is the number of the worker process that took them, and
    `spans[r]` is when, in nanoseconds of the parent's monotonic clock.
    """

    blocks: tuple[NDArray[np.int64], ...]
    processes: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def samples_ns(self) -> NDArray[np.int64]:
        """All samples in the order they were taken."""
        return np.concatenate(self.blocks)

    @property
    def block_medians_ns(self) -> NDArray[np.float64]:
        """The median of each round."""
        return np.array([_median(block) for block in self.blocks])

    def of_process(self, process: int) -> Timing:
        """Return the blocks of one process."""
        kept = [index for index, number in enumerate(self.processes) if number == process]
        return Timing(
            blocks=tuple(self.blocks[index] for index in kept),
            processes=tuple(process for _ in kept),
            spans=tuple(self.spans[index] for index in kept),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """Block medians of two engines, float64 (pairs,) in ns, that ran side by side, and the process pair of each."""

    first: NDArray[np.float64]
    second: NDArray[np.float64]
    processes: NDArray[np.int64]


def joined(parts: Sequence[Timing]) -> Timing:
    """Return the blocks of several processes as one row."""
    return Timing(
        blocks=tuple(block for part in parts for block in part.blocks),
        processes=tuple(number for part in parts for number in part.processes),
        spans=tuple(span for part in parts for span in part.spans),
    )


def side_by_side(first: Timing, second: Timing) -> Pairs:
    """Pair block i of one engine with block i of the other within each process both have; what is left over is not."""
    medians: list[tuple[NDArray[np.float64], NDArray[np.float64], int]] = []
    for process in sorted(set(first.processes) & set(second.processes)):
        a, b = first.of_process(process).block_medians_ns, second.of_process(process).block_medians_ns
        pairs = min(len(a), len(b))
        medians.append((a[:pairs], b[:pairs], process))
    none = np.zeros(0)
    return Pairs(
        first=np.concatenate([none, *(a for a, _, _ in medians)]),
        second=np.concatenate([none, *(b for _, b, _ in medians)]),
        processes=np.concatenate([none, *(np.full(len(a), number) for a, _, number in medians)]).astype(np.int64),
    )


def measure_interleaved(
    engines: Mapping[Key, TimedEngine],
    budget: Budget,
    *,
    seed: int | Sequence[int],
    process: int = 0,
    on_round: Callable[[float], None] | None = None,
) -> dict[Key, Timing | RowError]:
    """Time every engine in interleaved blocks until each has what the budget asks for.

    Args:
        engines: by what tells them apart; they share the machine and run one at a time.
        budget: how long.
        seed: of the order within each round.
        process: the number written beside each block.
        on_round: told the share done, in [0, 1].

    Returns:
        The raw samples of each engine, or the error that ended it; the others go on.
    """
    result: dict[Key, Timing | RowError] = {}
    per_block: dict[Key, int] = {}
    for name, engine in engines.items():
        try:
            per_block[name] = max(1, round(budget.block_ms * 1e6 / max(1.0, engine.warm_up())))
        except RowError as error:  # a failed row does not stop the others
            result[name] = error
    blocks: dict[Key, list[NDArray[np.int64]]] = {name: [] for name in per_block}
    spans: dict[Key, list[tuple[int, int]]] = {name: [] for name in per_block}
    for order in _orders(list(per_block), seed=seed):
        share = min((_share(taken, budget) for taken in blocks.values()), default=1.0)  # of the one that lags most
        if on_round is not None:
            on_round(share)
        if share >= 1:
            break
        for name in order:
            if name not in blocks:
                continue
            try:
                since = time.monotonic_ns()
                blocks[name].append(engines[name].time(per_block[name]))
                spans[name].append((since, time.monotonic_ns()))
            except RowError as error:
                result[name] = error
                del blocks[name]
    return result | {
        name: Timing(blocks=tuple(taken), processes=(process,) * len(taken), spans=tuple(spans[name]))
        for name, taken in blocks.items()
    }


def _orders(names: Sequence[Key], *, seed: int | Sequence[int]) -> Iterator[list[Key]]:
    """Yield random orders, each followed by its reverse."""
    random = np.random.default_rng(seed)
    for _ in range(_MAX_ROUNDS // 2):
        order = [names[index] for index in random.permutation(len(names))]
        yield order
        yield order[::-1]


def _share(taken: Sequence[NDArray[np.int64]], budget: Budget) -> float:
    spent_s = sum(int(block.sum()) for block in taken) / 1e9
    share = min(1.0, spent_s / budget.duration_s, sum(map(len, taken)) / budget.iterations)
    if budget.rounds:
        share = min(share, len(taken) / budget.rounds)
    if share < 1 or budget.noise is None or spent_s >= budget.ceiling_s:
        return share
    noise = relative_noise([_median(block) for block in taken])
    return 1.0 if noise <= budget.noise else min(0.999, max(spent_s / budget.ceiling_s, budget.noise / noise))


def _median(block: NDArray[np.int64]) -> float:
    """Return the median of a block; that of one sample at once."""
    return float(block[0]) if block.size == 1 else float(np.median(block))
