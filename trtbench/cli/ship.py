"""Verbs from the decision to the device: ship a row as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trtbench.cli.options import JsonOption, QuietOption, RunArgument, output_option
from trtbench.cli.screen import Screen, say, show, show_json

app = typer.Typer()
_LATEST = Path("runs/latest")


@app.command()
def ship(
    run: RunArgument = _LATEST,
    *,
    output: Annotated[Path, output_option("The folder to write.")] = Path("bundle"),
    row: Annotated[str | None, typer.Option(help="A row by its name [default: the one that is recommended].")] = None,
    engines: Annotated[
        list[Path] | None, typer.Option(help="Folder to look for the engine in, if it was moved; repeatable.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of the weights, for the bundle's card.")] = None,
    zips: Annotated[bool, typer.Option("--zip", help="Pack it into one file too: equal bundles are equal bytes.")] = (
        False
    ),
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a row's engine with all that running it takes; a fresh process proves that it scores the same."""
    from trtbench.shipping import ship_row

    with Screen(is_quiet=quiet) as screen:
        found = ship_row(run, output, row=row, engines=engines or (), licence=licence, zips=zips, tell=screen)
    if as_json:
        show_json({"folder": str(found.folder), "zip": found.zip and str(found.zip), "bundle": found.bundle})
        return
    proof = found.bundle.proof
    if proof is not None and proof.why_not:
        show(f"{found.bundle.row}: {found.folder}, {proof.why_not}")
    elif proof is not None:
        show(f"{found.bundle.row}: {found.folder}, proven: {proof.correct} of {proof.total} right, as the run counted")
    say(f"Run it: python {found.folder / 'predict.py'} IMAGE; what it is: {found.folder / 'README.md'}")
