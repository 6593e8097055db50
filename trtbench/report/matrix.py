"""Reports of several machines as one matrix of variant by machine, and where the winner changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.decide.compare import machine_facts
from trtbench.decide.ratios import is_cpu, is_measured
from trtbench.report.tables import Table
from trtbench.report.units import ABSENT, fixed, significant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trtbench.report.document import Report
    from trtbench.rows import Row

_WINNER = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine: its name, its report, and the row it should ship, by name."""

    machine: str
    run_id: str
    winner: str | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What a network does on one machine: p50 in ms, how many times as fast as the first of its column, its drop."""

    p50_ms: float | None
    drop_upper_pp: float | None
    status: str
    is_winner: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Networks by machine: `cells[i][j]` is network `names[i]` on `columns[j]`; None where it was not tried there."""

    columns: tuple[Machine, ...]
    names: tuple[str, ...]
    cells: tuple[tuple[Cell | None, ...], ...]
    notes: tuple[str, ...]


def merge_reports(reports: Sequence[Report]) -> Matrix:
    """Put reports beside each other, one column a machine, one line for each network, precision, runtime and batch."""
    columns = tuple(_machine(report, reports) for report in reports)
    names = tuple(dict.fromkeys(row.name for report in reports for row in report.rows))
    cells = tuple(
        tuple(_cell(report, column, name) for report, column in zip(reports, columns, strict=True)) for name in names
    )
    return Matrix(columns=columns, names=names, cells=cells, notes=(*_changes(columns), *_doubts(reports)))


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


def _machine(report: Report, reports: Sequence[Report]) -> Machine:
    machine = machine_name(report)
    is_alone = sum(machine_name(other) == machine for other in reports) == 1
    return Machine(
        machine=machine if is_alone else f"{machine}, {report.run_id}",
        run_id=report.run_id,
        winner=report.decision.winner,
        sentence=report.decision.sentence,
    )


def _cell(report: Report, column: Machine, name: str) -> Cell | None:
    row: Row | None = next((one for one in report.rows if one.name == name), None)
    if row is None:
        return None
    return Cell(
        p50_ms=row.latency.p50_ms if row.latency else None,
        drop_upper_pp=row.accuracy.drop_upper_pp if row.accuracy else None,
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
    """Tell where another row wins than on the first machine."""
    first, *others = columns
    lines = [f"{_WINNER} ships {first.winner or 'nothing'} on {first.machine}."]
    for column in others:
        verb = "keeps the winner" if column.winner == first.winner else "changes winner"
        lines.append(f"{verb} on {column.machine}: {column.winner or 'nothing qualifies'}.")
    return lines


def _doubts(reports: Sequence[Report]) -> list[str]:
    """Tell what makes columns hard to compare."""
    lines = []
    if len({(one.decision.max_drop_pp, one.decision.objective, one.decision.batch_size) for one in reports}) > 1:
        lines.append("The reports were decided under different limits or objectives; winners are each report's own.")
    if len({str(one.suite.get("name")) for one in reports}) > 1:
        lines.append("The reports come from different suites; equal names may stand for different networks.")
    return lines
