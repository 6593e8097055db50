"""report.html and report.csv: everything in one file, no network, the same numbers everywhere."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trtbench.errors import ConfigError
from trtbench.jsonable import canonical_json
from trtbench.report.columns import COLUMNS
from trtbench.report.disk import write_report
from trtbench.report.document import Report, read_report
from trtbench.report.figures_style import DARK, DARK_PAGE
from trtbench.report.html import render_html
from trtbench.report.markdown import render_markdown
from trtbench.report.remarks import footnotes
from trtbench.report.tables import rows_for_terminal, to_csv
from trtbench.report.units import probability, significant
from trtbench.report.words import recommend
from trtbench.suite import DecisionConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

_VOID = {"meta", "link", "input", "br"}


class _Page(HTMLParser):
    """Elements as (tag, attributes), the text of each table's lines, and whether every tag is closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.lines: dict[str, list[list[str]]] = {}
        self.open: list[str] = []
        self._table = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "table":
            self._table = str(dict(attrs).get("id", len(self.lines)))
            self.lines[self._table] = []
        if tag == "tr":
            self.lines[self._table].append([])
        if tag in {"td", "th"}:
            self.lines[self._table][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"td", "th"}:
            self.lines[self._table][-1][-1] += data.strip()


@pytest.fixture(scope="module")
def text(report_folder: Path) -> str:
    return (report_folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> _Page:
    return _Page(text)


def _attributes(page: _Page, *names: str) -> Iterator[str]:
    return (str(found[name]) for _, found in page.elements for name in names if name in found)


def test_the_page_asks_no_network_for_anything(page: _Page, text: str) -> None:
    assert all(value.startswith(("#", "data:,")) for value in _attributes(page, "src", "href", "xlink:href", "action"))
    assert not re.search(r"@import|url\((?!#)|\bfetch\(|XMLHttpRequest|https?://", text)
    policy = next(found for tag, found in page.elements if found.get("http-equiv") == "Content-Security-Policy")
    assert str(policy["content"]).startswith("default-src 'none'")
    assert page.open == []


def test_every_id_is_unique_and_every_reference_finds_one(page: _Page) -> None:
    ids = list(_attributes(page, "id"))
    assert len(ids) == len(set(ids))
    wanted = {value.removeprefix("#") for value in _attributes(page, "href") if value.startswith("#")}
    clips = {value.removeprefix("url(#").removesuffix(")") for value in _attributes(page, "clip-path")}
    labels = set(_attributes(page, "aria-labelledby"))
    assert wanted | clips | labels <= set(ids)
    assert clips


def test_the_decision_comes_first_and_every_part_is_there(page: _Page, text: str, full_report: Report) -> None:
    assert text.index(full_report.decision.sentence) < text.index("<main>")
    ids = set(_attributes(page, "id"))
    parts = {"rows", "why", "worst-class", "layers", "sweep", "load", "cold", "notes", "limits", "environment"}
    assert parts <= ids
    assert {"environment-all", "telemetry", "suite", "run"} <= ids
    assert {"accuracy-latency", "latency", "batch", "size", "samples", "classes"} <= ids
    for note in footnotes(full_report.rows).texts:
        assert note.split("<")[0].split("\x1b")[0] in text
    assert "ratio: 0.5" in text  # the suite as it was written


def test_the_card_has_the_winner_and_the_table_begins_with_it(page: _Page, text: str, full_report: Report) -> None:
    head = text[: text.index("<main>")]
    winner = next(row for row in full_report.rows if row.name == full_report.decision.winner)
    assert f"{winner.variant} {winner.shown_precision}" in head
    assert "<b>pass</b> drop at most" in head
    assert "<b>fail</b>" not in head
    headers, first, *others = page.lines["all-rows"]
    answer = headers.index("Answer")
    assert (first[0], first[answer]) == (winner.variant, "recommended")
    assert [line[0] for line in others if line[answer] == "failed"] == ["broken"]
    assert text.count('<tr class="winner">') == 1
    assert '<tr class="out">' in text
    assert all("recommended" not in line for line in others)


def test_where_nothing_qualifies_the_card_shows_the_closest_and_the_limit_it_fails(full_report: Report) -> None:
    limits = DecisionConfig(max_drop_pp=2.0, max_engine_mb=0.001)
    none = replace(full_report, decision=recommend(full_report.rows, limits))
    head = render_html(none).partition("<main>")[0]
    assert "Nothing qualifies; closest is" in head
    assert "<b>fail</b>" in head
    assert '<div class="card none">' in head


def test_a_p_value_that_is_next_to_nothing_is_told_as_below_a_thousandth() -> None:
    assert [probability(one) for one in (2.47e-19, 0.0004, 0.0312, 1.0, None)] == [
        "<0.001", "<0.001", "0.031", "1.000", "-",
    ]  # fmt: skip


def test_what_looks_like_markup_is_text(text: str) -> None:
    assert "<burst>" not in text
    assert "it &lt;burst&gt;" in text
    assert "<b>markup</b>" not in text
    assert "class &lt;four&gt;" in text


def test_each_figure_has_a_caption_a_name_and_its_numbers_as_a_table(page: _Page) -> None:
    tags = [tag for tag, _ in page.elements]
    charts = [found for tag, found in page.elements if tag == "svg"]
    assert len(charts) == 6
    assert all(found["aria-label"] and found["role"] == "group" for found in charts)
    assert tags.count("figure") == tags.count("figcaption") == 6
    assert tags.count("caption") == tags.count("table")
    after = tags[tags.index("figure") :]
    assert after.count("details") >= 6
    marks = [found for _, found in page.elements if found.get("class") == "tip"]
    assert len(marks) > 60
    assert all(found["aria-label"] and found["role"] == "img" for found in marks)


def test_colours_of_figures_follow_the_page(text: str) -> None:
    svgs = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    for colour, dark in DARK.items():
        assert not any(colour.lower() in svg.lower() for svg in svgs)
        assert f"--c-{colour[1:].lower()}: {dark};" in text
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize(
    ("colour", "least"), [(colour, 3.0) for colour in DARK if colour not in {"#FFFFFF", "#E6E6E6"}]
)
def test_dark_colours_stand_out_from_the_dark_page(colour: str, least: float) -> None:
    assert _contrast(DARK[colour], DARK_PAGE) >= least


def _contrast(first: str, second: str) -> float:
    """WCAG 2.2, "contrast ratio" and "relative luminance"."""
    high, low = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_number_is_the_same_in_all_four_forms(page: _Page, report_folder: Path, full_report: Report) -> None:
    winner = next(row for row in full_report.rows if row.name == full_report.decision.winner)
    assert winner.latency
    told = significant(winner.latency.p50_ms)
    name = [winner.variant, winner.precision, winner.backend]
    markdown = (report_folder / "report.md").read_text(encoding="utf-8")
    in_markdown = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines() if "|" in line]
    headers, *lines = page.lines["all-rows"]
    html = next(line for line in lines if [line[0], *line[1:3], line[3]] == [f"{name[0]}", *name[1:], "1"])
    (exact,) = (
        line["p50_ms"]
        for line in csv.DictReader((report_folder / "report.csv").read_text(encoding="utf-8").splitlines())
        if [line["variant"], line["precision"], line["backend"], line["batch_size"]] == [*name, "1"]
    )
    terminal = rows_for_terminal(full_report.rows)
    assert html[headers.index("p50 ms")] == told
    assert any(line[:4] == [*name, "1"] and line[4] == told for line in in_markdown)
    assert [line[7] for line in terminal.cells if list(line[:4]) == [*name, "1"]] == [told]
    assert float(exact) == winner.latency.p50_ms


def test_the_caption_of_the_rows_says_that_a_bound_is_of_all_that_were_compared(text: str) -> None:
    (caption,) = re.findall(r"<caption><span>(The recommended row first.*?)</span>", text)
    assert "at most (95 % confidence in all engines compared together), which the limit is" in caption
    assert "Fidelity" not in caption  # no row of this report has one


def test_the_cells_of_the_page_are_those_of_markdown(page: _Page, full_report: Report) -> None:
    markdown = render_markdown(full_report)
    headers, *lines = page.lines["all-rows"]
    assert len(lines) == len(full_report.rows)
    for header in ("Top-1 %", "Drop pp", "p50 ms", "p90 ms", "ms/image", "vs eager", "vs dense", "File MB"):
        index = headers.index(header)
        assert all(f" {line[index]} |" in markdown for line in lines)


def test_csv_has_every_row_flat_and_unrounded(full_report: Report) -> None:
    lines = list(csv.DictReader(to_csv(full_report.rows).splitlines()))
    first, failed = lines[0], lines[-2]
    row = full_report.rows[0]
    assert row.accuracy
    assert row.latency
    assert row.latency.p50_ci95_ms
    assert len(lines) == len(full_report.rows)
    assert list(first) == [column.key for column in COLUMNS if "csv" in column.shown_in]
    assert float(first["top1"]) == row.accuracy.top1
    assert float(first["p50_high_ms"]) == row.latency.p50_ci95_ms[1]
    assert (first["simulated"], first["worst_class"]) == ("false", "class <four>")
    assert (failed["status"], failed["p50_ms"], failed["top1"], failed["p50_low_ms"]) == ("failed", "", "", "")


def test_an_empty_report_is_still_a_page() -> None:
    golden = read_report(Path(__file__).parent / "twenty-four-rows.json")
    bare = replace(
        golden, rows=(), environment={}, stages={}, notes=(),
        decision=replace(golden.decision, winner=None, losers=(), pareto=(), what_if=()),
    )  # fmt: skip
    page = _Page(render_html(bare))
    assert page.open == []
    assert not [tag for tag, _ in page.elements if tag in {"figure", "svg"}]


@pytest.mark.usefixtures("unpainted")
def test_a_gpu_is_named_in_the_environment_and_drawn_before_the_cpu(tmp_path: Path) -> None:
    golden = read_report(Path(__file__).parent / "twenty-four-rows.json")
    gpu = tuple(replace(row, device="cuda:0", backend="tensorrt") for row in golden.rows[:4])
    both = replace(golden, rows=(*golden.rows, *gpu), environment={"gpus": [{"name": "NVIDIA L4"}]})
    write_report(both, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "NVIDIA L4" in text
    assert text.index('id="size"') < text.index('id="size-2"')
    assert len(list((tmp_path / "plots").iterdir())) == 3


def test_damaged_samples_are_named(tmp_path: Path) -> None:
    golden = read_report(Path(__file__).parent / "twenty-four-rows.json")
    raw = tmp_path / "raw" / f"{golden.rows[0].name.replace(' ', '_')}.json"
    raw.parent.mkdir()
    raw.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"samples .*expected a whole file"):
        write_report(golden, tmp_path)


def test_the_same_report_is_the_same_page(text: str, report_folder: Path, full_report: Report) -> None:
    write_report(full_report, report_folder)
    assert (report_folder / "report.html").read_text(encoding="utf-8") == text
    assert canonical_json([text])  # text that JSON, and so any log, can carry
