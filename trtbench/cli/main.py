"""The application, put together from the modules of verbs, and how an error becomes a message and an exit code."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from trtbench.cli import machine, reports, ship, steps, studies, suite
from trtbench.cli.options import GIVEN_DEVICE, PLAIN
from trtbench.cli.screen import complain
from trtbench.ending import Stopped, heed_signals
from trtbench.errors import TrtbenchError

_INTERRUPTED = 130


def verbs() -> dict[str, typer.Typer]:
    """Return every verb by its name, each an application of its own."""
    found = {}
    for module in (suite, steps, reports, ship, studies, machine):
        for command in module.app.registered_commands:
            found[command.name or command.callback.__name__.replace("_", "-")] = one = typer.Typer(**PLAIN)
            one.registered_commands.append(command)
        found |= {str(group.name): group.typer_instance for group in module.app.registered_groups}
    return found


class _Verbs(TyperGroup):
    """All verbs; one is built when it is asked for: its options are read off models that cost more than the help.

    Ctrl-C is told here, before Typer would end the process without a word.
    """

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  as in every group
        """Return the names of the verbs."""
        return list(verbs())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  as in every group
        """Build one verb, if there is such a one."""
        found = verbs().get(cmd_name)
        return None if found is None else typer.main.get_command(found)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  as in every group
        """Write what each verb does, building none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_line(one)) for name, one in verbs().items()])

    def invoke(self, ctx: Any) -> Any:
        """Run one verb.

        Raises:
            Exit: it was interrupted.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            complain("interrupted; run the same command again to go on where it stopped")
            code = interrupt.exit_code if isinstance(interrupt, Stopped) else _INTERRUPTED
            raise typer.Exit(code) from interrupt


def _first_line(verb: typer.Typer) -> str:
    text = (
        inspect.getdoc(verb.registered_commands[0].callback) if len(verb.registered_commands) == 1 else verb.info.help
    )
    return str(text).partition("\n")[0]


app = typer.Typer(name="trtbench", cls=_Verbs, no_args_is_help=True, **PLAIN)


@app.callback()
def _application(
    ctx: typer.Context,
    *,
    device: Annotated[
        str | None,
        typer.Option(help="The GPU, as cuda:N in the order of nvidia-smi or by its UUID; goes before a suite's own."),
    ] = None,
) -> None:
    """Which compressed variant of this CNN should I ship to this GPU?"""
    from trtbench.environment import using_gpu

    GIVEN_DEVICE.set(device)
    ctx.with_resource(using_gpu(device))


def main() -> None:
    """Run the command line and exit: 0 done, else as `trtbench.errors` says; 130 after Ctrl-C, 143 after SIGTERM."""
    heed_signals()
    sys.path.append(str(Path.cwd()))  # so that `mymodel:build` in this folder is found, as under `python -m`
    try:
        app()
    except TrtbenchError as error:
        complain(error)
        sys.exit(error.exit_code)
