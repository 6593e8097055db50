"""The application, put together from the modules of verbs, and how an error becomes a message and an exit code."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import io
import logging
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from trtbench import __version__
from trtbench.cli import machine, reports, ship, steps, studies, suite
from trtbench.cli.options import (
    GIVEN_DEVICE,
    IS_DEBUGGED,
    PLAIN,
    LogLevelOption,
    QuietOption,
    VerboseOption,
    command_of,
    speak_as_usual,
)
from trtbench.cli.screen import complain, show
from trtbench.ending import Stopped, heed_signals
from trtbench.errors import ConfigError, TrtbenchError
from trtbench.foreign import path_fault
from trtbench.progress import LEVEL

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

_INTERRUPTED = 130
_GROUPS: Mapping[str, tuple[ModuleType, ...]] = {
    "Run": (suite,),
    "Steps": (steps,),
    "Results": (reports, ship, studies),
    "Machine": (machine,),
}
# Options that a verb does not have, though another has them or it had them once: what is expected, and the cure.
_ELSEWHERE = {
    "--batch": ("--batch-size", "write --batch-size, as everywhere"),
    "--device": ("it before the verb", "trtbench --device cuda:1 VERB ..."),
    "--out": ("-o/--output", "--out is the folder of runs; what this verb writes is named by --output"),
    "--output": ("--out", "--output names what a verb writes; the folder of runs is --out"),
}
_MOST = 500  # characters of a fault of the command line
_UsageError: Any = typer.BadParameter.__base__  # click's, which Typer may bring inside


def groups() -> dict[str, dict[str, typer.Typer]]:
    """Return every verb by its name, each an application of its own, in the groups that --help shows."""
    return {title: _verbs_of(modules) for title, modules in _GROUPS.items()}


def verbs() -> dict[str, typer.Typer]:
    """Return every verb by its name."""
    return {name: verb for group in groups().values() for name, verb in group.items()}


def _verbs_of(modules: tuple[ModuleType, ...]) -> dict[str, typer.Typer]:
    found = {}
    for module in modules:
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
        return None if found is None else command_of(found)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  as in every group
        """Write what each verb does, building none."""
        for title, group in groups().items():
            with formatter.section(title):
                formatter.write_dl([(name, _first_line(one)) for name, one in group.items()])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb that is meant, or name the nearest."""
        near = [] if args[0].startswith("-") else difflib.get_close_matches(args[0], verbs(), n=1)
        if near and near[0] != args[0]:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run one verb; an option of another verb, or of an earlier version, is told as such."""
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            option = getattr(error, "option_name", "")
            if option in _ELSEWHERE:
                expected, cure = _ELSEWHERE[option]
                raise ConfigError(option, expected=expected, cure=cure) from error
            if len(error.message) > _MOST:  # it repeats what was typed, or what a script put there
                error.message = f"{error.message[:_MOST]} ..."
            raise
        except KeyboardInterrupt as interrupt:
            complain("interrupted; run the same command again to go on where it stopped")
            code = interrupt.exit_code if isinstance(interrupt, Stopped) else _INTERRUPTED
            raise typer.Exit(code) from interrupt


def _first_line(verb: typer.Typer) -> str:
    text = (
        inspect.getdoc(verb.registered_commands[0].callback) if len(verb.registered_commands) == 1 else verb.info.help
    )
    return str(text).partition("\n")[0]


app = typer.Typer(name="trtbench", cls=_Verbs, no_args_is_help=True, **{**PLAIN, "add_completion": True})


def _tell_version(is_asked: bool) -> None:  # noqa: FBT001  as Typer calls it
    if is_asked:
        show(f"trtbench {__version__}")
        raise typer.Exit


@app.callback()
def _application(
    ctx: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001  told before anything else is read
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Show the version and exit.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(help="The GPU, as cuda:N in the order of nvidia-smi or by its UUID; goes before a suite's own."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show where in trtbench an unforeseen error arose.")] = False,
    quiet: QuietOption = False,  # noqa: ARG001  heeded when it is read, as the two below
    verbose: VerboseOption = False,  # noqa: ARG001
    log_level: LogLevelOption = None,  # noqa: ARG001
) -> None:
    """Which compressed variant of this CNN should I ship to this GPU?"""
    from trtbench.environment import using_gpu

    GIVEN_DEVICE.set(device)
    IS_DEBUGGED.set(debug)
    ctx.with_resource(using_gpu(device))


def main() -> None:
    """Run the command line and exit: 0 done, else as `trtbench.errors` says; 130 after Ctrl-C, 143 after SIGTERM.

    An error that nobody foresaw is told in a sentence too, and exits 70.
    """
    heed_signals()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what no encoding has
    sys.path.append(str(Path.cwd()))  # so that `mymodel:build` in this folder is found, as under `python -m`
    logging.getLogger().setLevel(LEVEL.get())
    try:
        app(prog_name="trtbench")
    except TrtbenchError as error:
        complain(error)
        sys.exit(error.exit_code)
    except Exception as error:
        if IS_DEBUGGED.get():
            raise
        fault = path_fault(error) or _unforeseen(error)
        complain(fault)
        sys.exit(fault.exit_code)
    finally:
        speak_as_usual()


class _UnforeseenError(TrtbenchError):
    exit_code = 70  # EX_SOFTWARE of sysexits.h


def _unforeseen(error: Exception) -> TrtbenchError:
    """Say of an error that is no user's mistake what it was, and where its traceback is kept."""
    got = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    cure = "run it again with --debug and report what it shows"
    with contextlib.suppress(OSError):
        handle, log = tempfile.mkstemp(prefix="trtbench-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            traceback.print_exception(error, file=file)
        cure = f"report it with {log}, or run it again with --debug"
    return _UnforeseenError("trtbench itself: an error that nobody foresaw", got=got, cure=cure)
