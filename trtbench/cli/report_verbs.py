"""Verbs that take reports: compare two, merge several, decide one again under other limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtbench.cli.app import app
from trtbench.cli.publish import JunitOption, publish_comparisons
from trtbench.cli.screen import Screen, say, show, show_json, show_table
from trtbench.cli.suite_verbs import JsonOption, QuietOption  # noqa: TC001  Typer resolves them at run time
from trtbench.errors import ConfigError, GateError, InconclusiveError

if TYPE_CHECKING:
    from trtbench.decide.compare import Comparison

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder or report.json.")]


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="The run before: its folder or report.json.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The run after.")],
    *,
    engines: Annotated[
        list[Path] | None, typer.Option(help="Folder of engine files; may be given several times [default: engines].")
    ] = None,
    fail_on: Annotated[str, typer.Option(help="Exit 4 on any of slower:5%,drop:0.5,inconclusive.")] = "",
    across_machines: Annotated[bool, typer.Option("--across-machines", help="Compare unlike machines.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Time engines that are the same file too.")] = False,
    pairs: Annotated[int | None, typer.Option(help="Block pairs, at least.")] = None,
    junit: JunitOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say of each row of two runs whether it is SAME, FASTER, SLOWER or AMBIGUOUS."""
    from trtbench.bench.versus import PAIRS
    from trtbench.decide.compare import parse_gates
    from trtbench.pipeline.compare import compare_reports
    from trtbench.report.document import read_report

    gates = parse_gates(fail_on)
    reports = (read_report(first), read_report(second))
    with Screen(is_quiet=quiet) as screen:
        found, matched = compare_reports(
            *reports,
            engines=engines or [Path("engines")],
            folder=second if second.is_dir() else second.parent,
            across_machines=across_machines,
            again=again,
            pairs=pairs or PAIRS,
            tell=screen,
        )
    if as_json:
        show_json({"comparisons": found, "only_first": matched.only_first, "only_second": matched.only_second})
    else:
        _show_comparisons(found)
        for names, which in ((matched.only_first, "A"), (matched.only_second, "B")):
            for name in names:
                say(f"only in {which}: {name}")
    publish_comparisons(found, gates, junit=junit)
    _judge(found, gates)


def _show_comparisons(found: tuple[Comparison, ...]) -> None:
    from trtbench.report.tables import comparison_table

    table = comparison_table(found)
    show_table(f"{len(found)} rows in both", table.headers, table.cells, left=table.left)


def _judge(found: tuple[Comparison, ...], gates: Any) -> None:
    """End as the verdicts demand.

    Raises:
        GateError: a row breaks a gate.
        InconclusiveError: not one row could be decided.
    """
    from trtbench.decide.compare import broken_gates
    from trtbench.report.words import gate_clause

    if broken := broken_gates(found, gates):
        raise GateError("--fail-on", expected="no row beyond it", got="; ".join(map(gate_clause, broken)))
    if all(one.verdict == "AMBIGUOUS" for one in found):
        cure = "keep the engines of both runs at hand, or time longer with --pairs"
        raise InconclusiveError("compare", expected="a verdict on some row", got="only AMBIGUOUS", cure=cure)


@app.command()
def merge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs of several machines.")],
    *,
    output: Annotated[Path | None, typer.Option(help="Write the matrix as Markdown too.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Put the reports of several machines into one matrix, and say where the winner changes."""
    from trtbench.report.document import read_report
    from trtbench.report.merge import matrix_table, merge_reports
    from trtbench.report.tables import to_markdown
    from trtbench.store import write_atomically

    if len(runs) < 2:  # noqa: PLR2004  one report is its own matrix
        raise ConfigError("merge", expected="at least two runs", got=str(len(runs)), cure="name another run")
    matrix = merge_reports([read_report(run) for run in runs])
    table = matrix_table(matrix)
    if output is not None:
        notes = "\n".join(f"- {note}" for note in table.notes)
        write_atomically(output, f"{to_markdown(table)}\n\n{notes}\n")
    if as_json:
        show_json(matrix)
        return
    show_table("p50 in ms, batch as named (drop at most, 95 % confidence)", table.headers, table.cells, left=table.left)
    for note in table.notes:
        show(f"- {note}")


@app.command()
def recommend(
    run: RunArgument = Path("runs/latest"),
    *,
    max_drop: Annotated[float | None, typer.Option(help="Largest accepted drop in top-1, pp, proven.")] = None,
    max_p99: Annotated[float | None, typer.Option(help="Largest accepted p99, ms.")] = None,
    max_engine_mb: Annotated[float | None, typer.Option(help="Largest accepted engine file, 10^6 bytes.")] = None,
    max_memory_mb: Annotated[float | None, typer.Option(help="Largest accepted memory, 10^6 bytes.")] = None,
    min_throughput: Annotated[float | None, typer.Option(help="Least accepted images a second.")] = None,
    objective: Annotated[
        str | None, typer.Option(help="p50_ms, p99_ms, ms_per_image, throughput or engine_bytes.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="The batch size that decides.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Decide a run again under other limits, from its stored samples; nothing is measured."""
    from trtbench.pipeline.decide import decide_again
    from trtbench.suite import DecisionConfig, options

    limits = {
        "max_drop_pp": max_drop,
        "max_p99_ms": max_p99,
        "max_engine_mb": max_engine_mb,
        "max_memory_mb": max_memory_mb,
        "min_throughput": min_throughput,
        "objective": objective,
        "batch_size": batch_size,
    }
    found = decide_again(run, lambda kept: options(DecisionConfig, **{**kept, **_given(limits)}))
    if as_json:
        show_json(found)
    else:
        show(found.sentence)
        for line in (*found.what_if, *(f"{loser.name}: {loser.reason}" for loser in found.losers)):
            show(f"- {line}")
    if found.winner is None:
        if found.closest is None:
            raise InconclusiveError("recommend", expected="a row that can be ranked", got="none")
        raise GateError("recommend", expected="a row within every limit", got="none", cure="widen a limit")


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
