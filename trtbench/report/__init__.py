"""Everything a person reads, rendered from rows: the recommendation, tables, plots, report.json and report.md."""

from __future__ import annotations

from trtbench.report.disk import write_report
from trtbench.report.document import Loser, Recommendation, Report, read_report, report_schema
from trtbench.report.tables import Table, rows_for_terminal
from trtbench.report.words import recommend

__all__ = [
    "Loser",
    "Recommendation",
    "Report",
    "Table",
    "read_report",
    "recommend",
    "report_schema",
    "rows_for_terminal",
    "write_report",
]
