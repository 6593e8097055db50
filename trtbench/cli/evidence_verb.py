"""The verb `evidence`: one command that says what ran on this machine, for docs/evidence."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtbench.cli.app import app
from trtbench.cli.screen import Screen, say, show, show_json
from trtbench.cli.suite_verbs import (
    CalibOption,
    EnginesOption,
    JsonOption,
    OutOption,
    QuietOption,
    SuiteArgument,
    exit_where_failed,
    places_of,
)

if TYPE_CHECKING:
    from trtbench.pipeline.evidence import Evidence


@app.command("evidence")
def evidence_verb(
    *,
    suite: SuiteArgument = "quickstart",
    name: Annotated[str | None, typer.Option(help="Of the file; by default the day, the suite and the GPU.")] = None,
    to: Annotated[Path, typer.Option("--to", help="The folder the file is written to.")] = Path("docs/evidence"),
    tests: Annotated[Path, typer.Option(help="The tests of a checkout.")] = Path("tests"),
    no_tests: Annotated[bool, typer.Option("--no-tests", help="Measure only.")] = False,
    out: OutOption = Path("runs"),
    engines: EnginesOption = Path("engines"),
    calib: CalibOption = Path("calib"),
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the hardware tests and a suite here, and write one JSON file with hardware, versions and what came of it."""
    from trtbench.pipeline.evidence import collect_evidence, write_evidence
    from trtbench.suite import load_suite

    loaded = load_suite(suite)
    with Screen(is_quiet=quiet) as screen:
        found = collect_evidence(
            loaded,
            places_of(out, engines, calib),
            argv=[Path(sys.argv[0]).name, *sys.argv[1:]],
            now=datetime.now(UTC).astimezone(),
            name=name,
            tests=None if no_tests else tests,
            tell=screen,
        )
    path = write_evidence(found, to)
    if as_json:
        show_json(found)
    else:
        _show(found)
    say(f"Evidence: {path}")
    failures = ["failed" for one in found.tests for _ in one.failures]
    exit_where_failed([*(row.status for row in found.rows), *failures])


def _show(found: Evidence) -> None:
    show(f"cuda: {found.cuda}")
    show(f"tensorrt: {found.tensorrt}")
    for one in found.tests:
        counts = f"{one.passed} passed, {len(one.failures)} failed, {len(one.skipped)} skipped"
        show(f"tests marked {one.marker}: {counts if one.status == 'run' else one.status}")
        for failure in one.failures:
            show(f"  failed: {failure}")
    ok = sum(row.status == "ok" for row in found.rows)
    show(f"suite {found.suite['name']}: {ok} of {len(found.rows)} rows measured. {found.answer}")
