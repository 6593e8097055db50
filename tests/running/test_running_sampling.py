"""A choice that is open is sampled on, by as many processes as its spread asks for and as its budget pays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trtbench.bench.interleave import Timing
from trtbench.bench.records import PLAIN, Bench, EngineFile, Images, Measured, Run
from trtbench.bench.spread import Interval
from trtbench.decide.rank import processes_needed
from trtbench.report.document import read_report
from trtbench.running import bench as measuring
from trtbench.suite import BenchConfig, DecisionConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbench.rows import Row

_ROWS = read_report(Path(__file__).parent.parent / "report" / "twenty-four-rows.json").rows
_FP32 = next(row for row in _ROWS if row.name == "dense fp32 onnxruntime-cpu b1")
_DECISION = DecisionConfig(max_drop_pp=2.0)
_TIMED = Timing(blocks=(np.array([1, 1]),), processes=(0,), spans=((0, 1),))


def _row(variant: str, *, engine_bytes: int) -> Row:
    return replace(_FP32, variant=variant, engine_bytes=engine_bytes, engine_sha256=variant)


_SMALL, _LARGE, _SLOW = (_row(name, engine_bytes=size) for name, size in (("small", 1), ("large", 2), ("slow", 3)))
_ROWS_OF = (_SLOW, _LARGE, _SMALL)


def _found() -> list[Measured]:
    return [
        Measured(
            engine=EngineFile(name=row.name.removesuffix(" b1"), backend=row.backend, path=Path()),
            batch_size=size,
            runs={0: Run(timed={PLAIN: _TIMED})},
        )
        for row in _ROWS_OF
        for size in (1, 32)
    ]


def _paired(half_width: float) -> Any:
    """Small and large as fast as each other, known to within so much; slow takes three times as long."""

    def ratio(first: Row, second: Row) -> Interval:
        value = {"small": 1.0, "large": 0.999, "slow": 3.0}
        between = value[first.variant] / value[second.variant]
        return Interval(value=between, low=between / (1 + half_width), high=between * (1 + half_width))

    return ratio


def _sampled(half_width: float, monkeypatch: pytest.MonkeyPatch, *, budget_s: float | None = None) -> list[list[str]]:
    """Sample on after a plan of three processes of 6 s, of which one of all six rows, and tell who ran each time."""
    ran: list[list[str]] = []

    def time_again(rows: Sequence[Measured], _bench: Bench, *, number: int) -> float:
        assert number == len(ran)
        ran.append([f"{one.engine.name.split()[0]} b{one.batch_size}" for one in rows])
        return 3.0

    monkeypatch.setattr(measuring, "time_again", time_again)
    config = BenchConfig(budget_s=budget_s)
    images = Images(path=Path(), labels=np.zeros(1, np.int64))
    bench = Bench(images=images, config=config, folder=Path(), seconds={0: 6.0, 1: 6.0, 2: 6.0})
    rows = [replace(row, latency=replace(row.latency, ratio=None)) for row in _ROWS_OF if row.latency]
    measuring.sample_on(_found(), rows, bench, _DECISION, paired=_paired(half_width))
    return ran


def test_an_interval_is_narrow_enough_at_two_thirds_of_the_margin() -> None:
    def needed(half_width: float) -> int:
        return processes_needed(
            Interval(value=2.0, low=2 / (1 + half_width), high=2 * (1 + half_width)), 3, margin=0.05
        )

    assert needed(0.03) == 3
    assert needed(0.0672) == 12  # twice as wide on the log scale, so four times as many


def test_where_the_choice_is_clear_nothing_more_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _sampled(0.01, monkeypatch) == []


def test_an_open_choice_is_raced_by_those_it_is_open_against_beside_the_anchor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = _sampled(0.06, monkeypatch, budget_s=1000)

    assert len(ran) == 7
    assert all(rows == ["slow b1", "large b1", "small b1"] for rows in ran)


@pytest.mark.parametrize(("budget_s", "processes"), [(30, 4), (20.9, 0), (21, 1), (None, 3)])
def test_the_budget_pays_for_more_processes_only_while_it_lasts(
    budget_s: float | None, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(_sampled(0.3, monkeypatch, budget_s=budget_s)) == processes


def test_nothing_is_timed_for_a_choice_among_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "time_again", None)
    bench = Bench(images=Images(path=Path(), labels=np.zeros(1, np.int64)), config=BenchConfig(), folder=Path())

    assert not measuring.sample_on([], [], bench, _DECISION, paired=_paired(0.5))
