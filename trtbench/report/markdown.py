"""report.md: the sentence first, then the tables, the plots, what the marks mean, and what the numbers do not say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from trtbench.jsonable import to_jsonable
from trtbench.report.details import details
from trtbench.report.remarks import caveats, footnotes, observed
from trtbench.report.tables import (
    BUILT_LEGEND,
    ENGINES_LEGEND,
    LATENCIES_LEGEND,
    Table,
    as_text,
    built_table,
    engine_table,
    failure_table,
    latency_table,
    sections,
    to_markdown,
)
from trtbench.report.units import significant
from trtbench.report.words import file_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trtbench.report.document import Report
    from trtbench.rows import Row


def render_markdown(report: Report, *, plots: Mapping[str, str] | None = None) -> str:
    """Return report.md; `plots` maps the path of each image, relative to the file, to what it shows."""
    parts = [
        f"# {report.run_id}",
        f"**{report.decision.sentence}**",
        *filter(None, [" ".join(report.decision.reasons), file_line(report.decision)]),
        *_bullets(observed(report)),
        *_tables(report.rows),
        *(f"![{caption}]({path})" for path, caption in (plots or {}).items()),
        *(part for one in details(report.rows, "md") for part in _table(one.title, one.table, one.legend)),
        *_why(report),
        "## What these numbers do not say",
        *_bullets([*caveats(report.rows)]),
        *_bullets(report.notes),
    ]
    return "\n\n".join([*map(as_text, parts), *_about(report)]) + "\n"


def _tables(rows: Sequence[Row]) -> Iterator[str]:
    marks = footnotes([row for row in rows if row.status == "ok"])
    for title, here in sections([row for row in rows if row.status == "ok"]):
        yield f"## {title}"
        yield from _table("Accuracy and size of each engine", engine_table(here, marks), ENGINES_LEGEND)
        yield from _table("Latency of each row", latency_table(here, marks), LATENCIES_LEGEND)
    if marks.texts:
        yield "Notes:"
        yield "\n".join(f"- {line}" for line in marks.lines())
    built = built_table(rows)
    if built.cells:
        yield from _table("Built, not run", built, BUILT_LEGEND)
    failures = failure_table(rows)
    if failures.cells:
        yield from _table("Rows without a result", failures, "")


def _table(title: str, table: Table, legend: str) -> Iterator[str]:
    yield f"### {title}"
    yield to_markdown(table)
    if legend:
        yield legend


def _why(report: Report) -> Iterator[str]:
    if report.beaten:
        yield "## Why not the others"
        yield "\n".join(f"- {loser.name}: {loser.reason}" for loser in report.beaten)
    if report.decision.what_if:
        yield "## What would change the choice"
        yield "\n".join(f"- {line}" for line in report.decision.what_if)
    if report.decision.pareto:
        names_told = ", ".join(report.decision.pareto)
        yield f"No comparable row beats these in accuracy, latency and size together: {names_told}."


def _about(report: Report) -> Iterator[str]:
    yield "## Environment"
    yield _block(report.environment)
    yield "## Suite"
    yield f"<details><summary>Every key, with its default</summary>\n\n{_block(report.suite)}\n\n</details>"
    yield "## Run"
    seconds = {stage: f"{significant(value)} s" for stage, value in report.stages.items()}
    facts = {"run": report.run_id, "created": report.created, "command": " ".join(report.argv), "git": dict(report.git)}
    yield _block({**facts, "stages": seconds})


def _block(values: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(to_jsonable(dict(values)), sort_keys=False, allow_unicode=True, width=110)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))  # which nothing inside ends
    return f"{fence}yaml\n{text}{fence}"


def _bullets(lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield "\n".join(f"- {line}" for line in lines)
