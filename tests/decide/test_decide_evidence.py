"""What the committed reports recommend is what their own rows say, and no row that keeps the limits beats it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trtbench.decide.limits import assess
from trtbench.decide.ratios import latency_ratio
from trtbench.report.document import read_report
from trtbench.suite import DecisionConfig, options

if TYPE_CHECKING:
    from trtbench.report.document import Report
    from trtbench.rows import Row

_EVIDENCE = Path(__file__).parent.parent.parent / "docs" / "evidence"
_REPORTS = sorted(_EVIDENCE.rglob("report.json"))


@pytest.fixture(params=_REPORTS, ids=lambda path: path.parent.name)
def report(request: pytest.FixtureRequest) -> Report:
    return read_report(request.param)


def _is_better(first: Row, second: Row) -> bool:
    """Whether a row is no worse in images right, bytes and time as it was measured, and better in one of them."""
    assert first.accuracy is not None
    assert second.accuracy is not None
    ratio = latency_ratio(first, second)
    assert ratio is not None
    bytes_more = (first.engine_bytes or 0) - (second.engine_bytes or 0)
    fewer_right = second.accuracy.correct - first.accuracy.correct
    is_no_worse = fewer_right <= 0 and bytes_more <= 0 and ratio.value <= 1
    return is_no_worse and (fewer_right < 0 or bytes_more < 0 or ratio.value < 1)


def test_there_is_evidence() -> None:
    assert len(_REPORTS) >= 2


def test_the_winner_is_undominated_among_the_rows_that_keep_the_limits(report: Report) -> None:
    decision = options(DecisionConfig, **dict(report.suite["decision"]))
    qualified = [one.row for one in assess(report.rows, decision) if one.is_qualified]

    (winner,) = (row for row in qualified if row.name == report.decision.winner)

    better = [row.name for row in qualified if row is not winner and _is_better(row, winner)]
    surely = [row for row in qualified if (ratio := latency_ratio(row, winner)) and ratio.ci95 and ratio.ci95[1] < 1]
    assert better == []
    assert decision.objective != "p50_ms" or surely == []  # none is provably faster


def test_every_candidate_is_the_winner_or_says_why_it_is_not(report: Report) -> None:
    here = [row for row in report.rows if row.role == "candidate" and row.batch_size == report.decision.batch_size]
    reasons = {loser.name: loser.reason for loser in report.decision.losers}

    assert {row.variant for row in here} == {variant["name"] for variant in report.suite["variants"]}
    for row in here:
        assert row.name == report.decision.winner or reasons[row.name]
