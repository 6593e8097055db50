"""Where else results go: JUnit XML, the summary page of a GitHub job, MLflow."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtbench.cli.screen import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbench.decide.compare import Comparison, Gates
    from trtbench.report.document import Report

JunitOption = Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML too: a test case a row and a gate.")]
MlflowOption = Annotated[
    str | None, typer.Option("--mlflow", metavar="URI", help="Log to MLflow too, e.g. sqlite:///mlflow.db.")
]


def check_mlflow(uri: str | None) -> None:
    """Refuse before hours of work what could not be logged after them.

    Raises:
        CapabilityError: MLflow is asked for and absent.
    """
    if uri is not None:
        from trtbench import _optional

        _optional.load("mlflow")


def publish(report: Report, folder: Path, *, junit: Path | None, mlflow: str | None) -> None:
    """Hand a report that is written to whoever else wants it.

    Raises:
        StoreError: a file cannot be written.
        ConfigError: the MLflow store refuses.
        CapabilityError: MLflow is asked for and absent.
    """
    from trtbench.report.junit import report_junit
    from trtbench.report.step_summary import append_summary, report_summary
    from trtbench.store import write_atomically

    if junit is not None:
        write_atomically(junit, report_junit(report))
    if (page := _step_summary()) is not None:
        append_summary(page, report_summary(report))
    if mlflow is not None:
        from trtbench.report.tracking import log_to_mlflow

        say(f"MLflow run {log_to_mlflow(report, folder, uri=mlflow)} at {mlflow}")


def publish_comparisons(found: Sequence[Comparison], gates: Gates, *, junit: Path | None) -> None:
    """Hand a comparison to whoever else wants it.

    Raises:
        StoreError: a file cannot be written.
    """
    from trtbench.decide.compare import broken_gates
    from trtbench.report.junit import comparison_junit
    from trtbench.report.step_summary import append_summary, comparison_summary
    from trtbench.report.words import gate_clause
    from trtbench.store import write_atomically

    if junit is not None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_atomically(junit, comparison_junit(found, gates, created=now))
    if (page := _step_summary()) is not None:
        append_summary(page, comparison_summary(found, broken=[gate_clause(one) for one in broken_gates(found, gates)]))


def _step_summary() -> Path | None:
    """Return the file GitHub gives a step for its summary, where there is one."""
    named = os.environ.get("GITHUB_STEP_SUMMARY")
    return Path(named) if named else None
