"""A row that lost more than the limit is marked in every form, with the class, the cause and the cure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trtbench.decide.limits import held_against
from trtbench.report.ci import report_junit, report_summary
from trtbench.report.document import read_report
from trtbench.report.html import render_html
from trtbench.report.markdown import render_markdown
from trtbench.report.remarks import explained_losses
from trtbench.report.tables import rows_for_terminal, to_csv
from trtbench.report.words import recommend
from trtbench.suite import DecisionConfig

if TYPE_CHECKING:
    from trtbench.rows import Row

REPORT = read_report(Path(__file__).parent / "twenty-four-rows.json")
NAMED = {row.name: row for row in REPORT.rows}
DENSE = NAMED["dense fp32 onnxruntime-cpu b1"]
FP32 = NAMED["channels-50 fp32 onnxruntime-cpu b1"]
INT8 = NAMED["channels-50 int8 onnxruntime-cpu b1"]
DECISION = DecisionConfig(max_drop_pp=2.0)


def _having(row: Row, correct: int, *, drop_pp: float, **changes: Any) -> Row:
    assert row.accuracy is not None
    accuracy = replace(
        row.accuracy,
        correct=correct,
        total=360,
        drop_pp=drop_pp,
        class_totals=(36,) * 10,
        class_drops_pp=(0.0,) * 4 + (97.2,) + (16.0,) * 5,
        worst_class="four",
        **changes,
    )
    return held_against([replace(row, accuracy=accuracy)], DECISION)[0]


LOST = _having(INT8, 289, drop_pp=18.06)
KEPT = _having(FP32, 354, drop_pp=0.0)
WHOLE = _having(DENSE, 356, drop_pp=0.0)


def test_the_points_beyond_the_limit_stand_in_the_row() -> None:
    assert LOST.over_limit_pp == pytest.approx(16.06)
    assert KEPT.over_limit_pp is None
    found = held_against([LOST, replace(LOST, accuracy=None)], DecisionConfig(max_drop_pp=20))
    assert [one.over_limit_pp for one in found] == [None, None]


@pytest.mark.parametrize("form", ["markdown", "html", "terminal", "csv", "junit", "summary"])
def test_every_form_marks_it_and_names_the_class(form: str) -> None:
    rows = (WHOLE, KEPT, LOST)
    report = replace(REPORT, rows=rows, decision=recommend(rows, DECISION))
    table = rows_for_terminal(rows)
    text = {
        "markdown": lambda: render_markdown(report),
        "html": lambda: render_html(report),
        "terminal": lambda: "\n".join((*map(str, table.cells), *table.notes)),
        "csv": lambda: to_csv(rows),
        "junit": lambda: report_junit(report),
        "summary": lambda: report_summary(report),
    }[form]()

    if form == "csv":
        head, *lines = (line.split(",") for line in text.splitlines())
        assert [line[head.index("over_limit_pp")][:5] for line in lines] == ["", "", "16.06"]
        return
    assert "loses 18.06 pp, 16.06 pp more than the limit: class four lost 35 of its 36 images" in text
    assert form == "junit" or " !" in text
    (reason,) = (loser.reason for loser in report.decision.losers if loser.name == LOST.name)
    assert reason == "it lost 18.06 pp, more than the limit of 2.00 pp"


def _said(*rows: Row) -> str:
    return " ".join(text for text in explained_losses(rows))


def test_codes_are_blamed_where_fp32_of_the_same_network_keeps_the_limit() -> None:
    said = _said(WHOLE, KEPT, LOST, replace(LOST, batch_size=32))

    assert said.count("Quantization lost it: FP32 of the same network gets 65 more right.") == 1  # once an engine
    assert "`trtbench explain-int8 SUITE` names the layers" in said
    exact = _having(INT8, 289, drop_pp=18.06, true_arithmetic_correct=350)
    assert "This machine's kernels lost it: the same graph in exact arithmetic gets 61 more right." in _said(
        WHOLE, KEPT, exact
    )
    few = _having(INT8, 289, drop_pp=18.06, true_arithmetic_correct=300)
    assert "Quantization lost it" in _said(WHOLE, KEPT, few)
    half = replace(LOST, precision="fp16")
    assert "fp16 lost it: FP32 of the same network gets 65 more right, so ship that" in _said(WHOLE, KEPT, half)


def test_the_row_that_rescues_int8_is_named_as_the_cure() -> None:
    rescued = replace(_having(INT8, 353, drop_pp=0.28), rescued=True, notes=("2 of 32 layers in FP32",))

    said = _said(WHOLE, KEPT, LOST, rescued)

    assert "channels-50 int8-rescued keeps the limit, losing 0.28 pp (2 of 32 layers in FP32)." in said
    assert "explain-int8" not in said
    lost_too = replace(_having(INT8, 300, drop_pp=15.0), rescued=True)
    assert _said(WHOLE, KEPT, LOST, lost_too).count("explain-int8") == 2


def test_compression_is_blamed_where_fp32_of_the_same_network_lost_it_too() -> None:
    pruned = _having(FP32, 330, drop_pp=7.0)

    said = _said(WHOLE, pruned, LOST)

    assert "channels-50 fp32 on onnxruntime-cpu loses 7.00 pp" in said
    assert "Compression lost it: dense gets 26 more right. Compress less, or let it learn longer" in said
    assert "dense gets 67 more right" in said
    assert "Quantization" not in said


def test_a_network_that_nothing_here_keeps_says_so() -> None:
    assert "nothing here keeps what it lost" in _said(LOST)
    assert _said(replace(LOST, role="baseline")) == ""


def test_what_of_the_channels_is_gone_stands_beside_the_variant() -> None:
    rows = (replace(WHOLE, widths=(16, 32)), replace(KEPT, widths=(8, 20)), replace(LOST, widths=()))
    lines = [line for line in render_markdown(replace(REPORT, rows=rows)).splitlines() if line.startswith("|")]

    headers = [cell.strip() for cell in lines[0].split("|")]
    cells = [[cell.strip() for cell in line.split("|")][headers.index("Cut %")] for line in lines[2:5]]
    assert cells == ["-", "41.67", "-"]
