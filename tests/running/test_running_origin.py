"""A run keeps what it was made of beside its report, and its report names the winner's file."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trtbench.disk import file_sha256
from trtbench.errors import ConfigError
from trtbench.report.disk import write_report
from trtbench.report.document import read_report
from trtbench.report.words import file_line, recommend
from trtbench.running import run_suite
from trtbench.running.run import read_origin, write_origin
from trtbench.suite import DecisionConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbench.running import Places
    from trtbench.suite import Suite

GOLDEN = read_report(Path(__file__).parent.parent / "report" / "twenty-four-rows.json")
_NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_report_names_every_file_as_the_run_did(suite: Callable[..., Suite], places: Places) -> None:
    report, folder = run_suite(suite(), places, argv=[], now=_NOW)

    for row in report.rows:
        assert row.engine_path is not None
        assert file_sha256(Path(row.engine_path)) == row.engine_sha256
        for name in ("report.md", "report.html", "report.csv"):
            assert row.engine_path in (folder / name).read_text(encoding="utf-8")


def test_a_decision_names_the_winners_file_and_how_to_run_it(tmp_path: Path) -> None:
    named = tuple(replace(row, engine_path=f"engines/{row.name}") for row in GOLDEN.rows)
    decision = recommend(named, DecisionConfig(max_drop_pp=1.0))
    report = replace(GOLDEN, rows=named, decision=decision)
    write_report(report, tmp_path)

    line = file_line(decision)

    assert decision.engine_path == f"engines/{decision.winner}"
    assert line == f"Its file: engines/{decision.winner}. Run it: trtbench ship RUN --output bundle"
    assert file_line(decision, run="my runs/now").endswith(" trtbench ship 'my runs/now' --output bundle")
    assert line in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert line in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert file_line(recommend(GOLDEN.rows, DecisionConfig(max_drop_pp=1.0))) == ""


def test_what_a_run_was_made_of_is_read_back_whole(
    suite: Callable[..., Suite], places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = suite()
    write_origin(tmp_path, asked, places)
    (tmp_path / "elsewhere").mkdir()
    started = Path.cwd()
    monkeypatch.chdir(tmp_path / "elsewhere")

    found = read_origin(tmp_path)

    assert found.suite.model_dump() == asked.model_dump()
    assert (found.places, found.folder) == (places, started)


def test_what_was_kept_of_a_run_and_is_damaged_is_told(tmp_path: Path) -> None:
    (tmp_path / "origin.json").write_text('{"runs": 1}')

    with pytest.raises(ConfigError, match=r"origin.json: expected a whole file"):
        read_origin(tmp_path)
