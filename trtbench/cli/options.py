"""The options that several verbs share, each declared once, and what they amount to."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from dataclasses import replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtbench.cli.given import Section
from trtbench.cli.screen import IS_QUIET, LogOnScreen
from trtbench.jsonable import without_secrets
from trtbench.progress import LEVEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbench.running import Places

GIVEN_DEVICE: ContextVar[str | None] = ContextVar("device", default=None)  # of the command line, before any verb
IS_DEBUGGED: ContextVar[bool] = ContextVar("debug", default=False)  # likewise
PLAIN: Mapping[str, Any] = {  # of every application: what is shown is text
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
SuiteArgument = Annotated[str, typer.Argument(help="A suite file, the name of a shipped suite, or a job.zip.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder or report.json.")]
EngineArgument = Annotated[Path, typer.Argument(help="An engine file; its sidecar stands beside it.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of runs and of the store.")]
EnginesOption = Annotated[Path, typer.Option("--engines", help="Folder of engine files.")]
CalibOption = Annotated[
    Path | None,
    typer.Option(
        "--calib", help="Folder that calibration manifests are read from and written to; else calib is read only."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
RequireGpuOption = Annotated[bool, typer.Option("--require-gpu", help="Exit 5 where no GPU can be used.")]
JunitOption = Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML too: a test case a row and a gate.")]
MlflowOption = Annotated[
    str | None, typer.Option("--mlflow", metavar="URI", help="Log to MLflow too, e.g. sqlite:///mlflow.db.")
]


class Level(StrEnum):
    """What is logged at least."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _be_quiet(is_asked: bool) -> None:  # noqa: FBT001  as Typer calls it
    if is_asked:
        IS_QUIET.set(True)


def _be_verbose(is_asked: bool) -> None:  # noqa: FBT001  likewise
    root = logging.getLogger()
    if is_asked and not any(isinstance(one, LogOnScreen) for one in root.handlers):
        root.addHandler(LogOnScreen())


def _log_from(level: Level | None) -> None:
    if level is not None:
        LEVEL.set(logging.getLevelNamesMapping()[level.name])
        logging.getLogger().setLevel(LEVEL.get())


# Of every verb, and before it. They act when they are read; a verb sees nothing of them.
_heeded = {"expose_value": False}
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only results, warnings and errors.", callback=_be_quiet, **_heeded)
]
VerboseOption = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Show what libraries log, and what begins.", callback=_be_verbose, **_heeded),
]
LogLevelOption = Annotated[
    Level | None,
    typer.Option(help="What is logged at least: to a run's run.log, and by -v.", callback=_log_from, **_heeded),
]


@cache
def _of_every_verb() -> list[Any]:
    one = typer.Typer(**PLAIN)

    @one.command()
    def verb(
        *, quiet: QuietOption = False, verbose: VerboseOption = False, log_level: LogLevelOption = None
    ) -> None: ...

    return typer.main.get_command(one).params


def command_of(verb: typer.Typer) -> Any:
    """Return the command of a verb, with the options that every verb has."""
    command: Any = typer.main.get_command(verb)
    for one in getattr(command, "commands", {"": command}).values():
        one.params += _of_every_verb()
    return command


def speak_as_usual() -> None:
    """Undo what the options of every verb said."""
    IS_QUIET.set(False)
    LEVEL.set(logging.INFO)
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    for handler in [one for one in root.handlers if isinstance(one, LogOnScreen)]:
        root.removeHandler(handler)


MODEL = Section(
    key="model",
    part="ModelConfig",
    fields=("name", "checkpoint", "weights_from"),
    names={"name": "model"},
    needs="name",
)
TRAINED_MODEL = replace(MODEL, fields=(*MODEL.fields, "dense"))  # of verbs that may train what they are given
DATA = Section(key="data", part="DataConfig", fields=("source", "size", "mean", "std"), names={"source": "data"})
TRAIN = Section(key="model.train", part="TrainConfig")
FINE_TUNE = Section(key="fine_tune", part="TrainConfig")
EXPORT = Section(key="export", part="ExportConfig")
CALIBRATION = Section(key="calibration", part="CalibrationConfig")
ENGINE = Section(key="engines", part="EngineConfig", names={"precisions": "precision", "targets": "target"})
# `load` is --scenario; the others say which engines a suite measures beside each other, and here is one.
BENCH = Section(
    key="bench",
    part="BenchConfig",
    but=("load", "alive", "baselines", "baseline_precisions"),
    names={"batch_sizes": "batch-size"},
)
# What is not given is as the run decided it.
DECISION = Section(
    key="decision",
    part="DecisionConfig",
    names={"max_drop_pp": "max-drop", "max_p99_ms": "max-p99"},
    has_defaults=False,
)


def output_option(text: str) -> Any:
    """Return -o/--output, what a verb writes, with its help."""
    return typer.Option("--output", "-o", help=text)


def command_line() -> list[str]:
    """Return the command as reports have it, without the folder that it was started from, and without passwords."""
    return [Path(sys.argv[0]).name, *without_secrets(sys.argv[1:])]


def places_of(out: Path, engines: Path, calib: Path | None) -> Places:
    """Return the folders of a run."""
    from trtbench.running import Places

    return Places(runs=out, engines=engines, calib=calib)


def check_gpu(*, is_required: bool) -> None:
    """Demand a GPU where the user does.

    Raises:
        CapabilityError: none can be used.
    """
    if is_required:
        from trtbench.environment import collect_environment, demand

        demand(collect_environment(), require=("gpu",))
