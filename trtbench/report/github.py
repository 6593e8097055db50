"""What a GitHub job shows on its summary page: the decision, or the verdicts, and a table in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbench.report.remarks import observations, texts
from trtbench.report.tables import comparison_table, rows_for_terminal, to_markdown
from trtbench.store import storing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trtbench.decide.compare import Comparison
    from trtbench.report.document import Report


def report_summary(report: Report) -> str:
    """Return the summary of a run: the same table as in the terminal."""
    table = rows_for_terminal(report.rows)
    notes = [*table.notes, *texts(observations(report.rows)), *report.notes]
    told = "\n".join(f"- {' '.join(note.split())}" for note in notes)
    head = f"### trtbench: {report.suite.get('name', report.run_id)}"
    return f"{head}\n\n**{report.decision.sentence}**\n\n{to_markdown(table)}\n\n{told}\n\n"


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
