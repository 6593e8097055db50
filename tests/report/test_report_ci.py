"""JUnit XML and the summary of a GitHub job: what CI reads is whole, and says what failed and why."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from trtbench.decide.compare import Comparison, parse_gates
from trtbench.errors import StoreError
from trtbench.report.ci import append_summary, comparison_junit, comparison_summary, report_junit, report_summary

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.bench.versus import Verdict
    from trtbench.report.document import Report


def _comparison(name: str, verdict: Verdict, ratio: float, *, drop_pp: float | None = 0.0) -> Comparison:
    interval = None if verdict == "AMBIGUOUS" else (ratio - 0.01, ratio + 0.01)
    return Comparison(name=name, verdict=verdict, ratio=ratio, ci95=interval, drop_pp=drop_pp, how="re-timed")


COMPARISONS = (
    _comparison("same row", "SAME", 1.0),
    _comparison("slow | row", "SLOWER", 1.25),
    _comparison("lost row", "SAME", 1.0, drop_pp=0.75),
    _comparison("doubtful row", "AMBIGUOUS", 1.02, drop_pp=None),
)


def _cases(text: str) -> dict[str, ET.Element]:
    root = ET.fromstring(text)  # noqa: S314  our own
    assert root.tag == "testsuites"
    (suite,) = root
    cases = {str(case.get("name")): case for case in suite.iter("testcase")}
    counts = {"failures": "failure", "skipped": "skipped"}
    for element in (root, suite):
        assert element.get("tests") == str(len(cases))
        for key, tag in counts.items():
            assert element.get(key) == str(sum(case.find(tag) is not None for case in cases.values()))
    return cases


def test_a_row_is_a_case_that_fails_or_is_skipped_as_its_status_says(full_report: Report) -> None:
    oom = replace(full_report.rows[0], variant="large", status="oom", reason="no memory")
    report = replace(full_report, rows=(*full_report.rows, oom))
    cases = _cases(report_junit(report))

    assert len(cases) == len(report.rows) + 1
    found = {row.status: case for row in report.rows for name, case in cases.items() if name == row.name}
    for status in ("failed", "oom"):
        failure = found[status].find("failure")
        assert failure is not None
        assert str(failure.get("message")).startswith(f"{status}: ")
    skipped = found["unsupported"].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "unsupported: no such kernel"
    assert len(found["ok"]) == 1
    row = report.rows[0]
    assert row.latency
    spent = row.latency.n * row.latency.mean_ms / 1000
    assert cases[row.name].get("time") == f"{spent:.3f}"
    assert "p50" in str(cases[row.name].findtext("system-out"))


def test_a_reason_with_control_characters_stays_xml(full_report: Report) -> None:
    text = report_junit(full_report)
    assert "\x1b" not in text
    case = _cases(text)["broken fp32 onnxruntime-cpu b1"]
    failure = case.find("failure")
    assert failure is not None
    assert failure.text == "failed: it <burst>\N{REPLACEMENT CHARACTER} & went"


def test_the_decision_is_a_gate_that_fails_where_nothing_qualifies(full_report: Report) -> None:
    name = f"a row keeps every limit at batch {full_report.decision.batch_size}"
    assert _cases(report_junit(full_report))[name].find("failure") is None
    none = replace(full_report.decision, winner=None, sentence="Nothing qualifies: all lost.")
    failure = _cases(report_junit(replace(full_report, decision=none)))[name].find("failure")
    assert failure is not None
    assert failure.get("message") == "Nothing qualifies: all lost."


def test_a_comparison_fails_where_it_breaks_a_gate_and_only_there() -> None:
    created = "2026-01-02T03:04:05+00:00"

    def failing(gates: str) -> set[str]:
        cases = _cases(comparison_junit(COMPARISONS, parse_gates(gates), created=created))
        assert set(cases) == {one.name for one in COMPARISONS}
        return {name for name, case in cases.items() if case.find("failure") is not None}

    assert failing("") == set()
    assert failing("slower:5%") == {"slow | row"}
    assert failing("slower:5%,drop:0.5,inconclusive") == {"slow | row", "lost row", "doubtful row"}
    text = comparison_junit(COMPARISONS, parse_gates("drop:0.5"), created=created)
    assert 'timestamp="2026-01-02T03:04:05"' in text
    assert "lost 0.75 pp of top-1 (limit 0.500 pp)" in text


def test_the_summary_of_a_run_has_the_sentence_and_every_row(full_report: Report) -> None:
    text = report_summary(full_report)
    assert f"**{full_report.decision.sentence}**" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == len(full_report.rows) + 2
    assert "| broken " in text


def test_the_summary_of_a_comparison_tells_broken_gates_first() -> None:
    text = comparison_summary(COMPARISONS, broken=("slow | row takes 1.25 times as long",))
    assert text.index("- **slow | row takes 1.25 times as long**") < text.index("| Row")
    assert r"slow \| row" in text
    assert "1.240 to 1.260" in text
    assert "No gate broke." in comparison_summary(COMPARISONS[:1], broken=())


def test_a_summary_is_added_to_what_other_steps_wrote(tmp_path: Path) -> None:
    page = tmp_path / "summary.md"
    page.write_text("before\n", encoding="utf-8")
    append_summary(page, "mine\n")
    append_summary(page, "mine again\n")
    assert page.read_text(encoding="utf-8") == "before\nmine\nmine again\n"
    with pytest.raises(StoreError, match="cannot write"):
        append_summary(tmp_path, "into a folder")
