"""An interval of a ratio proves SAME, FASTER or SLOWER, or nothing; real workers settle which."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trtbench.bench import versus
from trtbench.bench.interleave import Timing
from trtbench.bench.versus import judge, outcome, time_together
from trtbench.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trtbench.bench.records import EngineFile

    Make = Callable[..., EngineFile]

_SETTINGS = {"threads": 1, "spin": False}


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.951, 1.049, "SAME"),
        (0.95, 1.05, "SAME"),
        (1.031, 1.2, "SLOWER"),
        (0.7, 0.969, "FASTER"),
        (1.031, 1.049, "SAME"),  # beyond 3 %, but too small to matter
        (0.99, 1.051, "AMBIGUOUS"),
        (0.949, 1.0, "AMBIGUOUS"),
        (1.03, 1.2, "AMBIGUOUS"),
        (0.8, 0.97, "AMBIGUOUS"),
        (0.8, 1.2, "AMBIGUOUS"),
    ],
)
def test_a_verdict_needs_the_whole_interval(low: float, high: float, verdict: str) -> None:
    assert judge(low, high) == verdict


def _row(ns: float, *, blocks: int = 20, processes: int = 3, seed: int = 0, spread: float = 0.01) -> Timing:
    random = np.random.default_rng(seed)
    count = blocks * processes
    return Timing(
        blocks=tuple(
            np.array([ns * math.exp(spread * random.standard_normal())]).astype(np.int64) for _ in range(count)
        ),
        processes=tuple(process for process in range(processes) for _ in range(blocks)),
        spans=((0, 1),) * count,
    )


def test_an_outcome_counts_its_pairs_and_tells_the_second_over_the_first() -> None:
    found = outcome(_row(1e6), _row(1.1e6, seed=1))

    assert found is not None
    assert (found.verdict, found.pairs, found.process_pairs) == ("SLOWER", 60, 3)
    assert found.ci95[0] <= found.ratio <= found.ci95[1]
    assert found.ratio == pytest.approx(1.1, rel=0.01)
    assert outcome(_row(1e6, blocks=1, processes=1), _row(1e6, blocks=1, processes=1)) is None


def test_engines_are_timed_in_as_many_processes_and_pairs_as_were_asked_for(fake_engine: Make, tmp_path: Path) -> None:
    shares: list[float] = []
    first, slower = fake_engine("a", jitter=0.01), fake_engine("b", ns_per_image=1.2e6, jitter=0.01)

    timed = time_together(
        [first, slower],
        batch_size=1,
        folder=tmp_path,
        settings=_SETTINGS,
        pairs=20,
        process_pairs=2,
        block_ms=5,
        on_share=shares.append,
    )

    found = outcome(timed["a"], timed["b"])
    assert found is not None
    assert (found.verdict, found.pairs, found.process_pairs) == ("SLOWER", 20, 2)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.usefixtures("workers_here")
def test_what_is_ambiguous_is_timed_in_more_processes_up_to_a_ceiling(
    fake_engine: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versus, "judge", lambda *_: "AMBIGUOUS")
    noisy, slower = fake_engine("noisy"), fake_engine("slower")

    timed = time_together(
        [noisy, slower], batch_size=1, folder=tmp_path, settings=_SETTINGS, pairs=12, process_pairs=2, block_ms=1
    )

    assert sorted(set(timed["noisy"].processes)) == [0, 1, 2, 3]


def test_an_engine_that_crashes_ends_the_comparison(fake_engine: Make, tmp_path: Path) -> None:
    engines = [fake_engine("good"), fake_engine("bad", crash_at="time")]

    with pytest.raises(WorkerError, match="worker of bad"):
        time_together(engines, batch_size=1, folder=tmp_path, settings=_SETTINGS, pairs=2, process_pairs=1, block_ms=1)
