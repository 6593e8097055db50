"""Reports of several machines become one matrix that says where the winner changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from trtbench.report.document import Report, read_report
from trtbench.report.matrix import machine_name, matrix_table, merge_reports, write_matrix

REPORT = read_report(Path(__file__).parent / "twenty-four-rows.json")


def _on(machine: str, *, run_id: str = "run", winner: str | None = None, **changes: Any) -> Report:
    environment = {"host": {"cpu": {"model": machine, "logical_cores": 4}}}
    decision = replace(REPORT.decision, winner=winner or REPORT.decision.winner)
    return replace(REPORT, run_id=run_id, environment=environment, decision=decision, **changes)


def test_a_matrix_has_a_column_for_each_machine_and_a_line_for_each_row() -> None:
    only_here = replace(REPORT.rows[0], variant="only-here")
    found = merge_reports([_on("A"), _on("B", rows=(*REPORT.rows, only_here))])

    assert [column.machine for column in found.columns] == ["A (4 cores)", "B (4 cores)"]
    assert found.names == (*(row.name for row in REPORT.rows), only_here.name)
    assert found.cells[-1][0] is None
    assert found.cells[-1][1] is not None
    assert [line[0].is_winner for line in found.cells if line[0]].count(True) == 1


def test_the_notes_say_where_the_winner_changes() -> None:
    other = next(row.name for row in REPORT.rows if row.name != REPORT.decision.winner)

    notes = merge_reports([_on("A"), _on("B"), _on("T4", winner=other)]).notes

    assert notes[0] == f"* ships {REPORT.decision.winner} on A (4 cores)."
    assert notes[1].startswith("keeps the winner on B")
    assert notes[2] == f"changes winner on T4 (4 cores): {other}."


def test_two_runs_of_one_machine_are_told_apart_by_their_names() -> None:
    found = merge_reports([_on("A", run_id="monday"), _on("A", run_id="tuesday")])

    assert [column.machine for column in found.columns] == ["A (4 cores), monday", "A (4 cores), tuesday"]


def test_a_gpu_names_the_machine_where_its_rows_ran_there() -> None:
    gpu_rows = tuple(replace(row, device="cuda:0") for row in REPORT.rows)
    environment = {"host": {"cpu": {"model": "A"}}, "gpus": [{"name": "Tesla T4"}]}

    assert machine_name(replace(REPORT, environment=environment, rows=gpu_rows)) == "Tesla T4"
    assert machine_name(replace(REPORT, environment=environment)) == "A"
    assert machine_name(replace(REPORT, environment={})) == "unknown CPU"


def test_other_limits_and_other_suites_are_said() -> None:
    strict = _on("B", suite={"name": "other"})
    strict = replace(strict, decision=replace(strict.decision, max_drop_pp=0.1))

    notes = merge_reports([_on("A"), strict]).notes

    assert any("different limits" in note for note in notes)
    assert any("different suites" in note for note in notes)


def test_the_table_stars_the_winner_and_shows_what_failed() -> None:
    failed = replace(REPORT.rows[0], status="oom", latency=None, accuracy=None)
    bare = replace(REPORT.rows[1], accuracy=None)
    found = merge_reports([_on("A", rows=(failed, bare, *REPORT.rows[2:])), _on("B", rows=REPORT.rows[1:])])

    table = matrix_table(found)

    lines = {line[0]: line[1:] for line in table.cells}
    assert REPORT.decision.winner is not None
    assert lines[REPORT.decision.winner][0].startswith("*")
    assert lines[failed.name] == ("oom", "-")
    assert "pp" not in lines[bare.name][0]


def test_the_row_for_all_is_the_one_whose_worst_cost_is_least(tmp_path: Path) -> None:
    """Two rows keep every limit; each wins somewhere, and one of them costs 50 % where the other wins."""
    kept = [row for row in REPORT.rows if row.name in {REPORT.decision.winner, REPORT.decision.runner_up}]
    first, second = (row.name for row in kept)
    timed = [row.latency for row in kept if row.latency is not None]

    def on(machine: str, winner: str, *p50_ms: float) -> Report:
        latencies = [replace(one, p50_ms=ms, ratio=None) for one, ms in zip(timed, p50_ms, strict=True)]
        rows = tuple(replace(row, latency=one) for row, one in zip(kept, latencies, strict=True))
        return _on(machine, rows=rows, winner=winner)

    found = merge_reports([on("A", first, 1.0, 1.2), on("B", second, 1.5, 1.0)])
    write_matrix(found, tmp_path / "all.html", pages=["a/report.html", "b/report.html"])

    assert found.for_all == second
    assert f"For all: ship {second}; it costs 20 % on A (4 cores)." in found.notes
    assert (tmp_path / "all.html").read_text().count("<iframe") == 2
    assert merge_reports([on("A", first, 1.0, 2.0), on("B", second, 1.5, 1.0)]).for_all == first
