"""Interleaved blocks put drift on all engines alike; an engine that fails does not stop the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from trtbench.bench.latency import TimedRow, measure_interleaved
from trtbench.bench.statistics import paired_ratio
from trtbench.errors import WorkerError

if TYPE_CHECKING:
    from numpy.typing import NDArray


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


def _measure(engines: dict[str, _Engine], **changes: float) -> dict[str, TimedRow | WorkerError]:
    limits = {"block_ms": 1.0, "duration_s": 0.05, "iterations": 30, **changes}
    return measure_interleaved(engines, seed=0, **limits)  # type: ignore[arg-type,return-value]  # numbers as they are


def test_every_engine_gets_the_duration_and_the_samples_it_needs() -> None:
    clock = _Clock()
    fast, slow = _Engine(clock, 1e5), _Engine(clock, 1e6)

    found = _measure({"fast": fast, "slow": slow})

    for row in found.values():
        assert isinstance(row, TimedRow)
        assert row.samples_ns.sum() >= 0.05e9
        assert len(row.samples_ns) >= 30
    assert set(fast.blocks) == {10}
    assert set(slow.blocks) == {1}


def test_an_engine_slower_than_a_block_still_gives_its_samples() -> None:
    found = _measure({"slow": _Engine(_Clock(), 5e6)})["slow"]

    assert isinstance(found, TimedRow)
    assert len(found.samples_ns) == 30


def test_the_paired_ratio_is_right_on_a_machine_that_drifts() -> None:
    clock = _Clock()
    found = _measure({"a": _Engine(clock, 2e5), "b": _Engine(clock, 1e5)}, duration_s=0.5)
    a, b = found["a"], found["b"]
    assert isinstance(a, TimedRow)
    assert isinstance(b, TimedRow)
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
    assert isinstance(found["never"], TimedRow)


def test_progress_rises_to_one() -> None:
    shares: list[float] = []

    measure_interleaved(
        {"a": _Engine(_Clock(), 1e5)}, block_ms=1, duration_s=0.02, iterations=30, seed=0, on_round=shares.append
    )

    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_no_engine_is_no_work() -> None:
    assert _measure({}) == {}
