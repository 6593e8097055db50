"""Everything a person reads, rendered from rows: the recommendation, tables, plots, report.json and report.md."""

from __future__ import annotations

from trtbench.report.disk import write_report
from trtbench.report.document import Recommendation, Report, read_report, report_schema
from trtbench.report.words import recommend

__all__ = ["Recommendation", "Report", "read_report", "recommend", "report_schema", "write_report"]
