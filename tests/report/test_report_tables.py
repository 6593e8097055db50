"""Tables people read: width, sections, marks, failures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trtbench.decide.rank import sweeps
from trtbench.report.document import read_report
from trtbench.report.remarks import footnotes
from trtbench.report.tables import (
    engine_table,
    failure_table,
    latency_table,
    rows_for_terminal,
    sections,
    sweep_table,
    to_markdown,
)

ROWS = read_report(Path(__file__).parent / "twenty-four-rows.json").rows
MARKS = footnotes(ROWS)


def test_the_tables_of_24_rows_fit_128_columns() -> None:
    tables = (to_markdown(engine_table(ROWS, MARKS)), to_markdown(latency_table(ROWS, MARKS)))
    assert max(len(line) for table in tables for line in table.splitlines()) <= 128
    terminal = rows_for_terminal(ROWS)
    headers = [max(header.split(), key=len) for header in terminal.headers]  # they are folded between words
    columns = zip(headers, *terminal.cells, strict=True)
    assert sum(max(map(len, column)) for column in columns) + 3 * len(headers) + 1 <= 120


def test_an_engine_has_one_line_for_all_its_batch_sizes() -> None:
    table = engine_table(ROWS, MARKS)
    assert len(table.cells) == 12
    assert table.cells[1] == (
        "dense",
        "int8",
        "onnxruntime-cpu",
        "97.22 (95.0-98.5)",
        "0.28 <=1.42",
        "0.316",
        "0.272",
        "41.2",
        "1",
    )


def test_an_engine_whose_batch_sizes_differ_has_a_line_each_and_names_them() -> None:
    odd = [replace(row, engine_bytes=5) if row.name == "dense fp32 onnxruntime-cpu b32" else row for row in ROWS]
    table = engine_table(odd, MARKS)
    assert (table.headers[3], table.left, len(table.cells)) == ("Batch", 3, 13)
    assert [line[3] for line in table.cells[:3]] == ["1", "1, 32", "1, 32"]


def test_latency_has_one_line_a_row_by_batch_size_with_both_speed_ups() -> None:
    table = latency_table(ROWS, MARKS)
    assert [line[3] for line in table.cells] == ["1"] * 12 + ["32"] * 12
    fields = dict(zip(table.headers, table.cells[10], strict=True))
    assert (fields["Variant"], fields["Precision"], fields["Note"]) == ("channels-50", "int8", "1")
    rows = {row.name: row.latency for row in ROWS}
    mine, eager, dense = (
        rows[f"{name} b1"]
        for name in ("channels-50 int8 onnxruntime-cpu", "channels-50 fp32 eager", "dense fp32 onnxruntime-cpu")
    )
    assert mine
    assert eager
    assert dense
    assert mine.ratio
    assert eager.ratio
    assert fields["vs eager"] == f"{eager.ratio / mine.ratio:.2f}x"
    assert fields["vs dense"] == f"{1 / mine.ratio:.2f}x"
    assert fields["p50 ms"] == f"{mine.p50_ms:.3f}"


def test_cpu_rows_stand_in_their_own_section_after_the_gpus() -> None:
    gpu = [replace(row, device="cuda:0", backend="tensorrt") for row in ROWS[:3]]
    titles = [(title, len(here)) for title, here in sections([*ROWS, *gpu])]
    assert titles == [("GPU rows on cuda:0", 3), ("CPU rows, never ranked with GPU rows", 24)]
    backends = [line[2] for line in rows_for_terminal([*ROWS, *gpu]).cells]
    assert backends[:3] == ["tensorrt"] * 3
    assert set(backends[3:]) == {"onnxruntime-cpu", "eager (CPU)"}


def test_a_failed_row_shows_its_status_and_its_reason() -> None:
    failed = replace(ROWS[0], status="oom", reason="too\nlarge | for 1 GiB", accuracy=None, latency=None)
    table = failure_table([failed, *ROWS[1:]])
    assert table.cells == (("dense", "fp32", "onnxruntime-cpu", "1", "oom", "too\nlarge | for 1 GiB"),)
    assert to_markdown(table).splitlines()[-1].endswith(r"| oom      | too large \| for 1 GiB |")
    terminal = rows_for_terminal([failed])
    assert terminal.headers[4:] == ("Status", "File MB", "Note")
    assert terminal.cells[0][4:] == ("oom", "1.10", "1")
    assert terminal.notes[0] == "MB = 10^6 bytes"  # of the columns that are there, and no other
    assert terminal.notes[1] == "1: oom: too\nlarge | for 1 GiB"
    assert all(len(line) == len(terminal.headers) for line in terminal.cells)


def test_what_one_row_lacks_is_a_dash_and_what_no_row_has_is_no_column() -> None:
    bare = replace(ROWS[0], variant="bare", accuracy=None, latency=None, engine_bytes=None, params=None, macs=None)
    assert engine_table([ROWS[0], bare], MARKS).cells[1][3:] == ("-", "-", "-", "-", "-")
    assert latency_table([ROWS[0], bare], MARKS).cells[1][4:] == ("-", "-", "-", "-")
    assert rows_for_terminal([ROWS[0], bare]).cells[1][4:] == ("-", "-", "-", "-", "-")
    assert engine_table([bare], MARKS).headers == ("Variant", "Precision", "Backend")
    assert ROWS[0].accuracy
    unpaired = replace(ROWS[0], accuracy=replace(ROWS[0].accuracy, drop_upper_pp=None))
    assert engine_table([unpaired], MARKS).cells[0][4] == "0.00"


def test_marks_number_each_distinct_remark_once_in_order() -> None:
    latency = ROWS[0].latency
    assert latency
    first = replace(ROWS[0], notes=("b", "a"), latency=replace(latency, throttled_samples=3))
    second = replace(ROWS[1], notes=("a",), simulated=True)
    marks = footnotes([first, second])
    assert (marks.marks(first), marks.marks(second), marks.marks(first, second)) == ("1 2 3", "3 4", "1 2 3 4")
    assert marks.lines()[1:3] == ("2: b", "3: a")
    assert "held back" in marks.lines()[0]
    assert "simulated" in marks.lines()[3]


def test_an_empty_table_is_only_its_header() -> None:
    assert len(to_markdown(engine_table([], MARKS)).splitlines()) == 2


def test_the_sweep_has_a_column_for_each_batch_size_and_gaps_where_none_was_timed() -> None:
    sizes = (("dense", 1), ("dense", 8), ("other", 8), ("other", 9), ("single", 1))
    rows = [replace(ROWS[0], variant=variant, batch_size=size) for variant, size in sizes]

    table = sweep_table(sweeps(rows))

    assert table.headers == ("Engine", "b1 images/s", "b8 images/s", "b9 images/s", "Knee", "Faster than dense from")
    assert [line[0] for line in table.cells] == ["dense fp32 onnxruntime-cpu", "other fp32 onnxruntime-cpu"]
    assert table.cells[1][1] == "-"


def test_what_passes_on_the_gpu_stands_beside_the_wall_clock_that_holds_the_launch() -> None:
    row = next(row for row in ROWS if row.latency)
    assert row.latency is not None
    on_gpu = replace(row, latency=replace(row.latency, parts_ms={"compute": 0.123}))

    headers = latency_table((on_gpu,), MARKS).headers

    assert headers[headers.index("p50 ms") + 1] == "Compute ms"
    assert "Compute ms" not in latency_table((row,), MARKS).headers
