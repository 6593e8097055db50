"""The Typer application, and how an error becomes a message and an exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from trtbench.cli.screen import complain
from trtbench.errors import TrtbenchError

_INTERRUPTED = 130


class _Verbs(TyperGroup):
    """All verbs; Ctrl-C is told here, before Typer would end the process without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run one verb.

        Raises:
            Exit: it was interrupted.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            complain("interrupted; run the same command again to go on where it stopped")
            raise typer.Exit(_INTERRUPTED) from interrupt


app = typer.Typer(
    name="trtbench",
    cls=_Verbs,
    help="Which compressed variant of this CNN should I ship to this GPU?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def load_verbs() -> None:
    """Import the modules whose verbs make up the command line."""
    from trtbench.cli import (  # noqa: F401  they put their verbs into `app`
        explain_verbs,
        int8_verbs,
        machine_verbs,
        quantize_verbs,
        report_verbs,
        sparsify_verb,
        step_verbs,
        suite_verbs,
        tensorrt_verbs,
    )


def main() -> None:
    """Run the command line and exit: 0 done, else as `trtbench.errors` says; 130 when interrupted."""
    load_verbs()

    sys.path.append(str(Path.cwd()))  # so that `mymodel:build` in this folder is found, as under `python -m`
    try:
        app()
    except TrtbenchError as error:
        complain(error)
        sys.exit(error.exit_code)
