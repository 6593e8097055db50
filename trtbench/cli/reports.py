"""Verbs that take reports, and where else results go: JUnit XML, the summary page of a GitHub job, MLflow."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtbench.cli.given import Given, takes
from trtbench.cli.options import DECISION, JsonOption, JunitOption, MlflowOption, RunArgument, output_option
from trtbench.cli.screen import Screen, say, show, show_json, show_table
from trtbench.errors import ConfigError, GateError, InconclusiveError
from trtbench.jsonable import without_secrets
from trtbench.progress import RUN_LOG

if TYPE_CHECKING:
    from trtbench.decide.compare import Comparison, Gates
    from trtbench.report.document import Report
    from trtbench.report.matrix import Matrix

app = typer.Typer()
_LATEST = Path("runs/latest")


@app.command()
def report(
    run: RunArgument = _LATEST,
    *,
    as_json: JsonOption = False,
    junit: JunitOption = None,
    mlflow: MlflowOption = None,
) -> None:
    """Render a run's report again from its report.json, and show its tables."""
    from trtbench.report.disk import write_report
    from trtbench.report.document import read_report

    found = read_report(run)
    folder = run if run.is_dir() else run.parent
    write_report(found, folder)
    show_report(found, folder, as_json=as_json)
    publish(found, folder, junit=junit, mlflow=mlflow)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="The run before: its folder or report.json; or a bundle.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The run after.")],
    *,
    engines: Annotated[
        list[Path] | None, typer.Option(help="Folder of engine files; may be given several times [default: engines].")
    ] = None,
    fail_on: Annotated[str, typer.Option(help="Exit 4 on any of slower:5%,drop:0.5,inconclusive.")] = "",
    across_machines: Annotated[bool, typer.Option("--across-machines", help="Compare unlike machines.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Time engines that are the same file too.")] = False,
    pairs: Annotated[int | None, typer.Option(min=1, help="Block pairs, at least.")] = None,
    junit: JunitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say of each row of two runs whether it is SAME, FASTER, SLOWER or AMBIGUOUS.

    A bundle is held against the row of its name in the run, and against the row that the run recommends.
    """
    from trtbench.bench.versus import PAIRS
    from trtbench.decide.compare import parse_gates
    from trtbench.report.document import read_report
    from trtbench.report.tables import comparison_table
    from trtbench.running.again import compare_reports
    from trtbench.shipping.bundle import BUNDLE, beside

    gates = parse_gates(fail_on)
    reports = (read_report(first), read_report(second))
    is_bundle = (first / BUNDLE).is_file()
    with Screen() as screen:
        found, matched = compare_reports(
            *reports,
            engines=[*(engines or [Path("engines")]), *([first] if is_bundle else [])],
            folder=second if second.is_dir() else second.parent,
            across_machines=across_machines,
            again=again,
            pairs=PAIRS if pairs is None else pairs,
            matched=beside(first, *reports) if is_bundle else None,
            tell=screen,
        )
    if as_json:
        show_json({"comparisons": found, "only_first": matched.only_first, "only_second": matched.only_second})
    else:
        table = comparison_table(found)
        show_table(f"{len(found)} rows in both", table.headers, table.cells, left=table.left)
        for names, which in ((matched.only_first, "A"), (matched.only_second, "B")):
            for name in names:
                say(f"only in {which}: {name}")
    _judge(found, gates, junit=junit)


def _judge(found: tuple[Comparison, ...], gates: Gates, *, junit: Path | None) -> None:
    """Tell whoever else wants to know, and end as the verdicts demand: a broken gate, or not one that is decided."""
    from trtbench.decide.compare import broken_gates
    from trtbench.disk import write_atomically
    from trtbench.report.ci import append_summary, comparison_junit, comparison_summary
    from trtbench.report.words import gate_clause

    broken = [gate_clause(one) for one in broken_gates(found, gates)]
    if junit is not None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_atomically(junit, comparison_junit(found, gates, created=now))
    if (page := _step_summary()) is not None:
        append_summary(page, comparison_summary(found, broken=broken))
    if broken:
        raise GateError("--fail-on", expected="no row beyond it", got="; ".join(broken))
    if all(one.verdict == "AMBIGUOUS" for one in found):
        cure = "keep the engines of both runs at hand, or time longer with --pairs"
        raise InconclusiveError("compare", expected="a verdict on some row", got="only AMBIGUOUS", cure=cure)


@app.command()
def merge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs of several machines.")],
    *,
    output: Annotated[Path | None, output_option("Write the matrix too: as Markdown, or as a page (.html).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Put the reports of several machines into one matrix, and say where the winner changes."""
    from trtbench.report.document import read_report
    from trtbench.report.matrix import merge_reports, write_matrix

    if len(runs) < 2:  # noqa: PLR2004  one report is its own matrix
        raise ConfigError("merge", expected="at least two runs", got=str(len(runs)), cure="name another run")
    matrix = merge_reports([read_report(run) for run in runs])
    if output is not None:
        folders = [run if run.is_dir() else run.parent for run in runs]
        pages = [os.path.relpath(folder / "report.html", output.parent) for folder in folders]
        write_matrix(matrix, output, pages=pages)
    if as_json:
        show_json(matrix)
    else:
        show_matrix(matrix)


def show_matrix(matrix: Matrix) -> None:
    """Show a matrix and what it says."""
    from trtbench.report.matrix import matrix_table

    table = matrix_table(matrix)
    show_table("p50 in ms, batch as named (drop at most, 95 % confidence)", table.headers, table.cells, left=table.left)
    for note in table.notes:
        show(f"- {note}")


@app.command()
@takes(DECISION)
def recommend(given: Given, *, run: RunArgument = _LATEST, as_json: JsonOption = False) -> None:
    """Decide a run again under other limits, from its stored samples; nothing is measured."""
    from trtbench.running.again import decide_again
    from trtbench.suite import DecisionConfig, options

    found = decide_again(run, lambda kept: options(DecisionConfig, **{**kept, **given.section("decision")}))
    if as_json:
        show_json(found)
    else:
        show(found.sentence)
        for line in (*found.reasons, *found.what_if, *(f"{loser.name}: {loser.reason}" for loser in found.losers)):
            show(f"- {line}")
    if found.winner is None:
        if found.closest is None:
            raise InconclusiveError("recommend", expected="a row that can be ranked", got="none")
        raise GateError("recommend", expected="a row within every limit", got="none", cure="widen a limit")


_SPARE = ("Note", "vs eager", "Backend", "File MB")  # what a narrow terminal does without first


def show_report(found: Report, folder: Path, *, as_json: bool) -> None:
    """Show a report's table, what strikes in it, and its answer."""
    from trtbench.report.remarks import observed
    from trtbench.report.tables import rows_for_terminal
    from trtbench.report.words import file_line

    if as_json:
        show_json(found)
        return
    table = rows_for_terminal(found.rows, winner=found.decision.winner)
    show_table(f"Suite {found.suite['name']}", table.headers, table.cells, left=table.left, spare=_SPARE)
    for line in table.notes:
        show(line)
    for line in observed(found, batch_size=found.decision.batch_size):
        show(f"- {line}")
    show(found.decision.sentence)
    for line in found.decision.reasons:
        show(f"  {line}")
    if line := file_line(found.decision, run=str(folder)):
        show(line)
    files = ("report.md", "report.csv", *([RUN_LOG] if (folder / RUN_LOG).exists() else []))
    say(f"Report: {folder / 'report.html'}, {', '.join(files)}")


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
    from trtbench.disk import write_atomically
    from trtbench.report.ci import append_summary, report_junit, report_summary

    if junit is not None:
        write_atomically(junit, report_junit(report))
    if (page := _step_summary()) is not None:
        append_summary(page, report_summary(report))
    if mlflow is not None:
        from trtbench.report.mlflow import log_to_mlflow
        from trtbench.running.run import training_curves

        logged = log_to_mlflow(report, folder, uri=mlflow, curves=training_curves(folder))
        say(f"MLflow run {logged} at {without_secrets((mlflow,))[0]}")


def _step_summary() -> Path | None:
    named = os.environ.get("GITHUB_STEP_SUMMARY")
    return Path(named) if named else None
