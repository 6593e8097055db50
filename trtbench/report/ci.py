"""What CI shows: JUnit XML with a test case for each row and each gate, and the summary of a job on GitHub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree as ET

from trtbench.decide.compare import broken_gates
from trtbench.disk import storing
from trtbench.report.remarks import observed, remarks
from trtbench.report.tables import comparison_table, rows_for_terminal, to_markdown
from trtbench.report.units import fixed
from trtbench.report.words import gate_clause, row_in_brief

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trtbench.decide.compare import Comparison, Gates
    from trtbench.report.document import Report
    from trtbench.rows import Row


# What XML 1.0 (section 2.2) allows nowhere, escaped or not; reasons of runtimes carry colour codes.
_UNSPEAKABLE = re.compile(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test case; `outcome` is None where it passed, else `message` says why. `seconds` were spent timing."""

    name: str
    group: str
    outcome: Literal["failure", "skipped"] | None = None
    message: str = ""
    output: str = ""
    seconds: float = 0.0


def report_junit(report: Report) -> str:
    """Return JUnit XML of a run: a case a row, and one for the decision, which fails where no row keeps every limit."""
    decision = report.decision
    answer = Case(
        name=f"a row keeps every limit at batch {decision.batch_size}",
        group="decision",
        outcome=None if decision.winner else "failure",
        message="" if decision.winner else decision.sentence,
        output="\n".join((decision.sentence, *decision.reasons)),
    )
    cases = [*map(_row_case, report.rows), answer]
    return _document(str(report.suite.get("name", report.run_id)), cases, created=report.created)


def comparison_junit(comparisons: Sequence[Comparison], gates: Gates, *, created: str) -> str:
    """Return JUnit XML of a comparison: a case for each row in both reports, which fails where it breaks a gate."""
    return _document("compare", [_comparison_case(one, gates) for one in comparisons], created=created)


def _row_case(row: Row) -> Case:
    outcome: Literal["failure", "skipped"] | None = "failure" if row.status in {"failed", "oom"} else "skipped"
    outcome = None if row.status == "ok" else outcome
    timed = 0.0 if row.latency is None else row.latency.n * row.latency.mean_ms / 1000
    return Case(
        name=row.name,
        group=f"{row.backend}.{row.device}",
        outcome=outcome,
        message=f"{row.status}: {row.reason}" if outcome else "",
        output="\n".join((row_in_brief(row), *remarks(row))),
        seconds=timed,
    )


def _comparison_case(one: Comparison, gates: Gates) -> Case:
    broken = "; ".join(map(gate_clause, broken_gates([one], gates)))
    interval = "" if one.ci95 is None else f" (95 % interval {fixed(one.ci95[0])} to {fixed(one.ci95[1])})"
    output = f"{one.verdict}: {fixed(one.ratio)} times the time{interval}, {one.how}"
    return Case(name=one.name, group="compare", outcome="failure" if broken else None, message=broken, output=output)


def _document(name: str, cases: Sequence[Case], *, created: str) -> str:
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.outcome == "failure" for case in cases)),
        "errors": "0",
        "skipped": str(sum(case.outcome == "skipped" for case in cases)),
        "time": f"{sum(case.seconds for case in cases):.3f}",
    }
    root = ET.Element("testsuites", {"name": "trtbench", **counts})
    # Jenkins takes no offset in a timestamp, and every reader takes its absence.
    suite = ET.SubElement(root, "testsuite", {"name": name, **counts, "timestamp": created[:19]})
    for case in cases:
        suite.append(_element(case))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _element(case: Case) -> ET.Element:
    element = ET.Element(
        "testcase", {"classname": _spoken(case.group), "name": _spoken(case.name), "time": f"{case.seconds:.3f}"}
    )
    if case.outcome is not None:
        found = ET.SubElement(element, case.outcome, {"message": _spoken(case.message)})
        found.text = _spoken(case.message)
    ET.SubElement(element, "system-out").text = _spoken(case.output)
    return element


def _spoken(text: str) -> str:
    return _UNSPEAKABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def report_summary(report: Report) -> str:
    """Return the summary of a run: the same table as in the terminal."""
    table = rows_for_terminal(report.rows)
    notes = [*report.decision.reasons, *table.notes, *observed(report), *report.notes]
    listed = "\n".join(f"- {' '.join(note.split())}" for note in notes)
    head = f"### trtbench: {report.suite.get('name', report.run_id)}"
    return f"{head}\n\n**{report.decision.sentence}**\n\n{to_markdown(table)}\n\n{listed}\n\n"


def comparison_summary(comparisons: Sequence[Comparison], *, broken: Sequence[str]) -> str:
    """Return the summary of a comparison: which gates broke, and the verdict of each row."""
    clauses = "".join(f"- **{clause}**\n" for clause in broken) or "No gate broke.\n"
    return f"### trtbench compare\n\n{clauses}\n{to_markdown(comparison_table(comparisons))}\n\n"


def append_summary(path: Path, text: str) -> None:
    """Add to the file that GitHub names in GITHUB_STEP_SUMMARY, to which other steps write too.

    Raises:
        StoreError: it cannot be written.
    """
    with storing(path), path.open("a", encoding="utf-8") as file:
        file.write(text)
