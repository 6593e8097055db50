"""Interleaved blocks put drift on all engines alike; an engine that fails does not stop the others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.interleave import Budget, Timing, joined, measure_interleaved, side_by_side
from trtbench.bench.statistics import paired_ratio
from trtbench.errors import RowError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from trtbench.bench.interleave import TimedEngine


@dataclass
class _Clock:
    """A machine that gets slower by one part in ten thousand with each sample it times."""

    factor: float = 1.0

    def tick(self) -> float:
        self.factor *= 1.0001
        return self.factor


@dataclass
class _Engine:
    """Takes `ns` a sample on the clock's machine."""

    clock: _Clock
    ns: float
    fails_at: int | None = None
    blocks: list[int] = field(default_factory=list)

    def warm_up(self) -> float:
        if self.fails_at == 0:
            raise WorkerError("worker", got="a crash")
        return self.ns

    def time(self, samples: int) -> NDArray[np.int64]:
        self.blocks.append(samples)
        if self.fails_at is not None and len(self.blocks) >= self.fails_at:
            raise WorkerError("worker", got="a crash")
        return np.array([self.ns * self.clock.tick() for _ in range(samples)], dtype=np.int64)


_BUDGET = Budget(block_ms=1.0, duration_s=0.05, iterations=30)


def _measure(engines: Mapping[str, TimedEngine], **changes: Any) -> dict[str, Timing | RowError]:
    return measure_interleaved(engines, replace(_BUDGET, **changes), seed=0)


def _row(found: Timing | RowError) -> Timing:
    assert isinstance(found, Timing)
    return found


def test_every_engine_gets_the_duration_and_the_samples_it_needs() -> None:
    clock = _Clock()
    fast, slow = _Engine(clock, 1e5), _Engine(clock, 1e6)

    found = _measure({"fast": fast, "slow": slow})

    for row in found.values():
        assert isinstance(row, Timing)
        assert row.samples_ns.sum() >= 0.05e9
        assert len(row.samples_ns) >= 30
    assert set(fast.blocks) == {10}
    assert set(slow.blocks) == {1}


def test_an_engine_slower_than_a_block_still_gives_its_samples() -> None:
    found = _measure({"slow": _Engine(_Clock(), 5e6)})["slow"]

    assert isinstance(found, Timing)
    assert len(found.samples_ns) == 30


def test_the_paired_ratio_is_right_on_a_machine_that_drifts() -> None:
    clock = _Clock()
    found = _measure({"a": _Engine(clock, 2e5), "b": _Engine(clock, 1e5)}, duration_s=0.5)
    a, b = found["a"], found["b"]
    assert isinstance(a, Timing)
    assert isinstance(b, Timing)
    rounds = min(len(a.blocks), len(b.blocks))

    ratio, low, high = paired_ratio(a.block_medians_ns[:rounds], b.block_medians_ns[:rounds])

    assert abs(ratio - 2) < 0.01
    assert low <= 2 <= high
    assert clock.factor > 1.5


def test_an_engine_that_fails_does_not_stop_the_others() -> None:
    clock = _Clock()
    engines = {
        "at once": _Engine(clock, 1e5, fails_at=0),
        "later": _Engine(clock, 1e5, fails_at=3),
        "never": _Engine(clock, 1e5),
    }

    found = _measure(engines)

    assert isinstance(found["at once"], WorkerError)
    assert isinstance(found["later"], WorkerError)
    assert isinstance(found["never"], Timing)


def test_progress_rises_to_one() -> None:
    shares: list[float] = []

    measure_interleaved({"a": _Engine(_Clock(), 1e5)}, _BUDGET, seed=0, on_round=shares.append)

    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_no_engine_is_no_work() -> None:
    assert _measure({}) == {}


def test_every_second_round_runs_in_the_reverse_order() -> None:
    taken: list[str] = []

    class Named(_Engine):
        def time(self, samples: int) -> NDArray[np.int64]:
            taken.append(f"{self.ns:.0f}")
            return super().time(samples)

    _measure({name: Named(_Clock(), float(name)) for name in ("100000", "100001", "100002")})

    rounds = [taken[start : start + 3] for start in range(0, len(taken), 3)]
    assert len(rounds) > 20
    assert all(second == first[::-1] for first, second in zip(rounds[::2], rounds[1::2], strict=False))
    assert len({tuple(order) for order in rounds}) == 6


def test_where_the_clock_drifts_interleaving_is_right_and_one_after_the_other_is_wrong() -> None:
    interleaved = _Clock()
    found = _measure(
        {"a": _Engine(interleaved, 1e5), "b": _Engine(interleaved, 1.02e5)}, duration_s=0.3, iterations=1000
    )
    pairs = side_by_side(_row(found["b"]), _row(found["a"]))
    ratio, low, high = paired_ratio(pairs.first, pairs.second)
    sequential = _Clock()
    a = _measure({"a": _Engine(sequential, 1e5)}, duration_s=0.3, iterations=1000)["a"]
    b = _measure({"b": _Engine(sequential, 1.02e5)}, duration_s=0.3, iterations=1000)["b"]

    wrong = np.median(_row(b).samples_ns) / np.median(_row(a).samples_ns)

    assert low <= 1.02 <= high
    assert abs(ratio - 1.02) < 0.002
    assert wrong > 1.1  # the machine got slower while the second one ran


def test_a_noisy_engine_is_timed_until_it_is_quiet_or_the_ceiling_is_reached() -> None:
    class Noisy(_Engine):
        def time(self, samples: int) -> NDArray[np.int64]:
            self.blocks.append(samples)
            factor = 1.2 if len(self.blocks) % 2 else 1.0
            return np.full(samples, int(self.ns * factor))

    quiet = _row(_measure({"a": _Engine(_Clock(), 1e5)}, noise=0.05, ceiling_s=0.3)["a"])
    noisy = _row(_measure({"a": Noisy(_Clock(), 1e5)}, noise=0.05, ceiling_s=0.3)["a"])

    assert quiet.samples_ns.sum() < 0.1e9
    assert 0.3e9 <= noisy.samples_ns.sum() < 0.4e9


def test_a_budget_of_rounds_is_kept_however_fast_they_are() -> None:
    assert len(_row(_measure({"a": _Engine(_Clock(), 1e5)}, rounds=70)["a"]).blocks) == 70


def test_blocks_pair_within_their_process_only() -> None:
    def row(process: int, *ns: int) -> Timing:
        return Timing(
            blocks=tuple(np.array([one]) for one in ns),
            processes=(process,) * len(ns),
            spans=tuple((0, 1) for _ in ns),
        )

    pairs = side_by_side(joined([row(0, 1, 2, 3), row(1, 4)]), joined([row(0, 5, 6), row(1, 7, 8), row(2, 9)]))

    assert pairs.first.tolist() == [1, 2, 4]
    assert pairs.second.tolist() == [5, 6, 7]
    assert pairs.processes.tolist() == [0, 0, 1]
    assert len(side_by_side(row(0, 1), row(1, 1)).first) == 0
