"""The one list of columns: every field of a record is shown by one, and every column where it says."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from trtbench.report.columns import COLUMN, COLUMNS
from trtbench.report.details import DETAILS
from trtbench.report.document import read_report
from trtbench.report.html import ALL_ROWS, render_html
from trtbench.report.markdown import render_markdown
from trtbench.report.tables import BUILT, ENGINES, FAILURES, LATENCIES, SCATTER, SIZES, TERMINAL, row_lines, to_csv
from trtbench.rows import (
    AccuracyRecord,
    CalibrationRecord,
    FidelityRecord,
    LatencyRecord,
    LoadRecord,
    OutputFidelity,
    Row,
    ScoreRecord,
)

if TYPE_CHECKING:
    from trtbench.report.columns import Line, Medium

GOLDEN = read_report(Path(__file__).parent / "twenty-four-rows.json")
SELECTIONS: dict[Medium, tuple[tuple[str, ...], ...]] = {
    "terminal": (TERMINAL,),
    "md": (ENGINES, LATENCIES, FAILURES, BUILT),
    "html": (ALL_ROWS, SCATTER, SIZES),
    "csv": (tuple(column.key for column in COLUMNS),),
}
LOAD = LoadRecord(
    scenario="arrivals", streams=1, rate=100.0, throughput_ips=99.0, p50_ms=1.0, p90_ms=2.0, p99_ms=3.0, max_ms=4.0,
    n=1500, p99_limit_ms=10.0, holds=True,
)  # fmt: skip
assert GOLDEN.rows[0].latency is not None
LATENCY = replace(
    GOLDEN.rows[0].latency,
    parts_ms={"h2d": 0.1, "enqueue": 0.2, "compute": 0.3, "d2h": 0.4},
    p50_ci95_ms=(0.9, 1.1),
    p50_by_process_ms=(1.0, 2.0),
)
FULL = replace(
    GOLDEN.rows[0],
    latency=LATENCY,
    other_latencies=(replace(LATENCY, scope="host-to-host"), replace(LATENCY, mode="throughput")),
    loads=(LOAD,),
    settings={"threads": 1},
    calibration=CalibrationRecord(method="entropy", snr_db=30.0, agreement=0.99, images=100),
    fidelity=FidelityRecord(
        images=100,
        outputs=(OutputFidelity(name="boxes", snr_db=30.0, max_error=0.1, agreement=0.9, channels="4"),),
        snr_db=30.0,
        snr_se_db=0.5,
        score=ScoreRecord(mean=0.5, drop=0.1, drop_uppers=(0.2, 0.3)),
    ),
)


def _another(kind: Any, value: Any) -> Any:
    """Return a value of a field's type that is not the one it has."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return next(one for one in args if one != value)
    if origin in {Union, UnionType}:
        return _another(next(one for one in args if one is not NoneType), value)
    if origin is tuple:
        return tuple(_another(args[0], one) for one in value or (None,))
    if origin is Mapping:
        return {key: one + 1 for key, one in value.items()}
    if kind in {bool, int, float}:
        return not value if kind is bool else (value or 0) + 1
    others: dict[Any, dict[str, Any]] = {OutputFidelity: {"name": "scores"}, ScoreRecord: {"mean": 7.0}}
    return replace(value, **others[kind]) if kind in others else f"{value}x"


def _lines(row: Row) -> list[tuple[tuple[str, ...], Line]]:
    """Return what is shown of a row, as (keys of columns, line)."""
    plain = row_lines([row])
    first = [(keys, line) for found in SELECTIONS.values() for keys in found for line in plain]
    return first + [(detail.keys, line) for detail in DETAILS for line in detail.lines([row])]


def _shown(row: Row) -> list[Any]:
    columns = [(COLUMN[key], line) for keys, line in _lines(row) for key in keys]
    return [(column.value(line), column.cell(line)) for column, line in columns if column.shown_in]


def _changed(record: type, field: str) -> Row:
    """Return the full row with one field of it, or of a record it holds, changed."""
    kind = get_type_hints(record)[field]
    names = {AccuracyRecord: "accuracy", CalibrationRecord: "calibration", FidelityRecord: "fidelity"}
    if name := {**names, LatencyRecord: "latency"}.get(record):
        held_by: Any = getattr(FULL, name)
        return replace(FULL, **{name: replace(held_by, **{field: _another(kind, getattr(held_by, field))})})
    if record is ScoreRecord:
        assert FULL.fidelity is not None
        assert FULL.fidelity.score is not None
        score = replace(FULL.fidelity.score, **{field: _another(kind, getattr(FULL.fidelity.score, field))})
        return replace(FULL, fidelity=replace(FULL.fidelity, score=score))
    if record is LoadRecord:
        return replace(FULL, loads=(replace(LOAD, **{field: _another(kind, getattr(LOAD, field))}),))
    held: dict[str, Any] = {
        "accuracy": None,
        "fidelity": None,
        "latency": None,
        "loads": (),
        "other_latencies": (),
        "calibration": None,
    }
    if field in held:
        return replace(FULL, **{field: held[field]})
    return replace(FULL, **{field: _another(kind, getattr(FULL, field))})


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (record, field.name)
        for record in (Row, AccuracyRecord, CalibrationRecord, FidelityRecord, ScoreRecord, LatencyRecord, LoadRecord)
        for field in dataclasses.fields(record)
    ],
    ids=lambda one: one if isinstance(one, str) else one.__name__,
)
def test_every_field_has_a_column(record: type, field: str) -> None:
    assert _shown(_changed(record, field)) != _shown(FULL), "measured and shown nowhere: give it a column, or drop it"


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.key)
def test_a_column_is_shown_where_it_says(column: Any) -> None:
    assert column.shown_in
    for medium in column.shown_in:
        chosen = [key for keys in SELECTIONS[medium] for key in keys]
        chosen += [key for detail in DETAILS if medium in detail.media for key in detail.keys]
        assert column.key in chosen, medium


def test_a_key_is_of_one_column_and_no_table_bears_a_header_twice() -> None:
    assert len(COLUMN) == len(COLUMNS)
    for keys in [*(keys for medium in ("terminal", "md", "html") for keys in SELECTIONS[medium])]:
        titles = [COLUMN[key].title for key in keys]
        assert len(titles) == len(set(titles))


def test_report_csv_keeps_its_first_keys_in_their_order() -> None:
    committed = Path(__file__).parents[2] / "docs" / "evidence" / "quickstart" / "report.csv"
    renamed = {"channels": "widths", "memory_bytes": "host_memory_bytes"}  # on a CPU they were these
    gone = {"halves", "blocks_within", "was_unsettled"}  # on which nobody acted
    keys = committed.read_text(encoding="utf-8").splitlines()[0].split(",")
    first = [renamed.get(key, key) for key in keys if key not in gone]
    header = to_csv(GOLDEN.rows).splitlines()[0].split(",")
    assert [key for key in header if key in first] == first
    assert len(header) == len(set(header))


def test_what_another_way_of_timing_measured_is_shown_in_every_file() -> None:
    other = replace(LATENCY, scope="host-to-host", p50_ms=LATENCY.p50_ms + 7)
    report = replace(GOLDEN, rows=(replace(FULL, other_latencies=(other,)), *GOLDEN.rows[1:]))

    markdown, html = render_markdown(report), render_html(report)

    shown = COLUMN["p50_ms"].cell(replace(row_lines(report.rows)[0], latency=other))
    assert "### Timed in other ways" in markdown
    assert shown in markdown
    assert shown in html
    assert next(csv.DictReader(to_csv(report.rows).splitlines()))["host_to_host_p50_ms"] == str(other.p50_ms)
    assert "host-to-host" not in render_markdown(GOLDEN)
