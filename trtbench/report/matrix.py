"""Reports of several machines as one matrix of variant by machine, and where the winner changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.decide.compare import machine_facts
from trtbench.decide.limits import assess, shown_bound_pp
from trtbench.decide.rank import objective_cost
from trtbench.decide.ratios import is_cpu, is_measured
from trtbench.disk import write_atomically
from trtbench.report.html import templates
from trtbench.report.tables import Table, to_markdown
from trtbench.report.units import ABSENT, fixed, significant
from trtbench.suite import DecisionConfig, options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from trtbench.report.document import Report
    from trtbench.rows import Row

_WINNER = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine: its name, its report, and the row it should ship, by name.

    `costs` are the rows that keep its limits, and how many times what its winner costs by the objective.
    """

    machine: str
    run_id: str
    winner: str | None
    sentence: str
    costs: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What a network does on one machine: p50 in ms, how many times as fast as the first of its column, its drop."""

    p50_ms: float | None
    drop_upper_pp: float | None
    status: str
    is_winner: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Networks by machine: `cells[i][j]` is network `names[i]` on `columns[j]`; None where it was not tried there.

    `for_all` is the row that keeps the limits on every machine and costs least where it costs most.
    """

    columns: tuple[Machine, ...]
    names: tuple[str, ...]
    cells: tuple[tuple[Cell | None, ...], ...]
    notes: tuple[str, ...]
    for_all: str | None = None


def merge_reports(reports: Sequence[Report]) -> Matrix:
    """Put reports beside each other, one column a machine, one line for each network, precision, runtime and batch."""
    columns = tuple(_machine(report, reports) for report in reports)
    names = tuple(dict.fromkeys(row.name for report in reports for row in report.rows))
    cells = tuple(
        tuple(_cell(report, column, name) for report, column in zip(reports, columns, strict=True)) for name in names
    )
    common = [name for name in names if all(name in column.costs for column in columns)]
    for_all = min(common, key=lambda name: max(column.costs[name] for column in columns), default=None)
    notes = (*_changes(columns), _for_all(columns, for_all), *_doubts(reports))
    return Matrix(columns=columns, names=names, cells=cells, notes=notes, for_all=for_all)


def machine_name(report: Report) -> str:
    """Return what decides the latency of a report's candidates: the GPU they ran on, else the CPU's model."""
    model, cores, gpus = machine_facts(report.environment)
    candidates = [row for row in report.rows if row.role == "candidate" and is_measured(row)]
    if gpus and not all(is_cpu(row) for row in candidates):
        return gpus
    return f"{model or 'unknown CPU'} ({cores} cores)" if cores else model or "unknown CPU"


def matrix_table(matrix: Matrix) -> Table:
    """Return the matrix as text: p50 in ms and the bound of the drop, the machine's winner starred."""
    headers = ("Row", *(column.machine for column in matrix.columns))
    cells = tuple(
        (name, *(_words(cell) for cell in line)) for name, line in zip(matrix.names, matrix.cells, strict=True)
    )
    return Table.of(headers, cells, left=1, notes=matrix.notes)


def write_matrix(matrix: Matrix, path: Path, *, pages: Sequence[str]) -> None:
    """Write a matrix as Markdown, or as one page from which each machine's own is switched to where the name asks it.

    Args:
        matrix: what is written.
        path: the file; .html is a page.
        pages: where the page of each column is, from there.

    Raises:
        StoreError: it cannot be written.
    """
    table = matrix_table(matrix)
    if path.suffix == ".html":
        template = templates().get_template("matrix.html.jinja")
        own = list(zip(matrix.columns, pages, strict=True))
        write_atomically(path, template.render(title=path.stem, table=table, pages=own))
        return
    notes = "\n".join(f"- {note}" for note in table.notes)
    write_atomically(path, f"{to_markdown(table)}\n\n{notes}\n")


def _machine(report: Report, reports: Sequence[Report]) -> Machine:
    machine = machine_name(report)
    is_alone = sum(machine_name(other) == machine for other in reports) == 1
    return Machine(
        machine=machine if is_alone else f"{machine}, {report.run_id}",
        run_id=report.run_id,
        winner=report.decision.winner,
        sentence=report.decision.sentence,
        costs=_costs(report),
    )


def _costs(report: Report) -> dict[str, float]:
    decision = options(DecisionConfig, **report.suite.get("decision", {}))
    rows = [one.row for one in assess(report.rows, decision) if one.is_qualified]
    costs = {row.name: objective_cost(row, rows, decision) for row in rows}
    least = costs.get(report.decision.winner or "") or min(costs.values(), default=1.0)
    return {name: cost / least for name, cost in costs.items()}


def _cell(report: Report, column: Machine, name: str) -> Cell | None:
    row: Row | None = next((one for one in report.rows if one.name == name), None)
    if row is None:
        return None
    return Cell(
        p50_ms=row.latency.p50_ms if row.latency else None,
        drop_upper_pp=shown_bound_pp(row, report.rows),
        status=row.status,
        is_winner=name == column.winner,
    )


def _words(cell: Cell | None) -> str:
    if cell is None:
        return ABSENT
    if cell.p50_ms is None:
        return cell.status
    bound = "" if cell.drop_upper_pp is None else f" (<={fixed(cell.drop_upper_pp)} pp)"
    return f"{_WINNER if cell.is_winner else ''}{significant(cell.p50_ms)}{bound}"


def _changes(columns: Sequence[Machine]) -> list[str]:
    first, *others = columns
    lines = [f"{_WINNER} ships {first.winner or 'nothing'} on {first.machine}."]
    for column in others:
        verb = "keeps the winner" if column.winner == first.winner else "changes winner"
        lines.append(f"{verb} on {column.machine}: {column.winner or 'nothing qualifies'}.")
    return lines


def _for_all(columns: Sequence[Machine], name: str | None) -> str:
    """Tell what ships if one row has to do for all, and what that costs where another is the winner."""
    if name is None:
        return "For all: nothing keeps the limits on every machine."
    costs = [
        f"costs {100 * (column.costs[name] - 1):.0f} % on {column.machine}"
        for column in columns
        if name != column.winner
    ]
    return f"For all: ship {name}; it {', '.join(costs) or 'wins on every machine'}."


def _doubts(reports: Sequence[Report]) -> list[str]:
    lines = []
    if len({(one.decision.max_drop_pp, one.decision.objective, one.decision.batch_size) for one in reports}) > 1:
        lines.append("The reports were decided under different limits or objectives; winners are each report's own.")
    if len({str(one.suite.get("name")) for one in reports}) > 1:
        lines.append("The reports come from different suites; equal names may stand for different networks.")
    return lines
