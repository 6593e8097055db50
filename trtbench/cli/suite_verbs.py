"""Verbs that take a suite, or what a suite left behind: run, build, bench, plan, init, schema, report, store."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtbench.cli.app import app
from trtbench.cli.publish import JunitOption, MlflowOption, check_mlflow, publish
from trtbench.cli.screen import Screen, say, show, show_json, show_table
from trtbench.errors import ConfigError

if TYPE_CHECKING:
    from trtbench.pipeline import BuiltEngine, Places
    from trtbench.report.document import Report
    from trtbench.suite import Suite

SuiteArgument = Annotated[str, typer.Argument(help="A suite file, or the name of a shipped suite.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of runs and of the store.")]
EnginesOption = Annotated[Path, typer.Option("--engines", help="Folder of engine files.")]
CalibOption = Annotated[Path, typer.Option("--calib", help="Folder of committed calibration manifests.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
RequireGpuOption = Annotated[bool, typer.Option("--require-gpu", help="Exit 5 where no GPU can be used.")]

_DEFAULT = "quickstart"
_SOME_ROWS_FAILED = 3


@app.command()
def run(
    *,
    suite: SuiteArgument = _DEFAULT,
    out: OutOption = Path("runs"),
    engines: EnginesOption = Path("engines"),
    calib: CalibOption = Path("calib"),
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    require_gpu: RequireGpuOption = False,
    junit: JunitOption = None,
    mlflow: MlflowOption = None,
) -> None:
    """Do everything a suite asks for, going on where an earlier run stopped."""
    bench_engines(
        suite,
        places_of(out, engines, calib),
        is_quiet=quiet,
        as_json=as_json,
        require_gpu=require_gpu,
        junit=junit,
        mlflow=mlflow,
    )


def build_engines(suite: str, places: Places, *, is_quiet: bool, as_json: bool, require_gpu: bool) -> None:
    """Build every engine of a suite and list them."""
    from trtbench.pipeline import build_suite

    loaded = _load(suite, require_gpu=require_gpu)
    with Screen(is_quiet=is_quiet) as screen:
        built = build_suite(loaded, places, tell=screen)
    show_built(built, as_json=as_json)


def show_built(built: tuple[BuiltEngine, ...], *, as_json: bool) -> None:
    """List engines that were built; exit 3 where one failed."""
    if as_json:
        show_json({"engines": [_built_facts(one) for one in built]})
    else:
        headers = ("engine", "status", "precision achieved", "MB", "file")
        show_table("Engines", headers, [_built_cells(one) for one in built])
    exit_where_failed([one.status for one in built])


@app.command()
def plan(
    *,
    suite: SuiteArgument = _DEFAULT,
    out: OutOption = Path("runs"),
    engines: EnginesOption = Path("engines"),
    calib: CalibOption = Path("calib"),
    as_json: JsonOption = False,
) -> None:
    """List the rows ahead: what is kept from earlier runs, and the time and disk the rest takes."""
    from trtbench.pipeline import outlook

    found = outlook(_load(suite, require_gpu=False), places_of(out, engines, calib))
    if as_json:
        show_json(found)
        return
    headers = ("row", "still to make")
    cells = [(row.name, ", ".join(row.missing) or "nothing: only to measure") for row in found.rows]
    show_table(f"{len(found.rows)} rows of {suite}", headers, cells)
    ahead = "unknown until a first run" if found.seconds is None else f"about {found.seconds:.0f} s"
    say(
        f"Time ahead: {ahead}. Disk ahead: about {found.disk_bytes / 1e6:.0f} MB. Timing alone: {found.timing_s:.0f} s."
    )


@app.command()
def init(
    *,
    model: Annotated[
        str, typer.Option(help="The architecture: resnet20, torchvision:NAME, package.module:callable ...")
    ],
    data: Annotated[str, typer.Option(help="The images: digits, cifar10[:ROOT], cifar100[:ROOT], folder:PATH.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Trained weights; without them the suite trains.")] = None,
    output: Annotated[Path, typer.Option(help="The suite file to write.")] = Path("suite.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there.")] = False,
) -> None:
    """Write a suite for my model and my images, ready to run and to edit."""
    from trtbench.store import write_atomically
    from trtbench.suite import parse_suite, suite_template

    if output.exists() and not force:
        raise ConfigError(f"file {output}", expected="no file there", cure="choose another --output, or add --force")
    base = output.resolve().parent
    near = {"model": _from(base, model, prefix="onnx:"), "data": _from(base, data, prefix="folder:")}
    weights = None if checkpoint is None else Path(_from(base, str(checkpoint)))
    text = suite_template(**near, checkpoint=weights)
    parse_suite(text, origin=str(output))
    write_atomically(output, text)
    say(f"Wrote {output}. Next: trtbench plan {output}; trtbench run {output}")


def _from(base: Path, place: str, *, prefix: str = "") -> str:
    """Write a path that was given from here as it reads from the folder of the suite's file."""
    if not place.startswith(prefix):
        return place
    return prefix + os.path.relpath(Path(place.removeprefix(prefix)).expanduser(), base)


@app.command()
def schema() -> None:
    """Print the JSON Schema of suite files."""
    from trtbench.suite import Suite

    show(json.dumps(Suite.model_json_schema(), indent=2))


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder or report.json.")] = Path(
        "runs/latest"
    ),
    *,
    as_json: JsonOption = False,
    junit: JunitOption = None,
    mlflow: MlflowOption = None,
) -> None:
    """Render a run's report again from its report.json, and show its tables."""
    from trtbench.report.document import read_report
    from trtbench.report.write import write_report

    found = read_report(run_folder)
    folder = run_folder if run_folder.is_dir() else run_folder.parent
    write_report(found, folder)
    _show_report(found, folder, as_json=as_json)
    publish(found, folder, junit=junit, mlflow=mlflow)


store_app = typer.Typer(help="The content-keyed artefacts of earlier runs.", no_args_is_help=True)
app.add_typer(store_app, name="store")


@store_app.command("list")
def store_list(out: OutOption = Path("runs"), *, as_json: JsonOption = False) -> None:
    """List the artefacts that are kept, with their size and what they took to make."""
    from trtbench.pipeline import Places
    from trtbench.store import Store

    found = list(Store(Places(runs=out).store).artefacts())
    if as_json:
        facts = [{"kind": one.kind, "key": one.key, "bytes": one.size_bytes, "seconds": one.seconds} for one in found]
        show_json({"artefacts": facts})
        return
    cells = [(one.kind, one.key, f"{one.size_bytes / 1e6:.2f}", f"{one.seconds:.1f}") for one in found]
    show_table(f"{len(found)} artefacts", ("kind", "key", "MB", "seconds to make"), cells)


@store_app.command("prune")
def store_prune(
    out: OutOption = Path("runs"),
    older_than_days: Annotated[float, typer.Option(help="Only what was last used before that many days.")] = 0.0,
) -> None:
    """Remove artefacts that are kept; they are made again when they are needed."""
    from trtbench.pipeline import Places
    from trtbench.store import Store

    freed = Store(Places(runs=out).store).prune(older_than_days=older_than_days)
    say(f"Freed {freed / 1e6:.2f} MB.")


def places_of(out: Path, engines: Path, calib: Path) -> Places:
    """Return the folders of a run."""
    from trtbench.pipeline import Places

    return Places(runs=out, engines=engines, calib=calib)


def _load(suite: str, *, require_gpu: bool) -> Suite:
    from trtbench.suite import load_suite

    loaded = load_suite(suite)
    check_gpu(is_required=require_gpu)
    return loaded


def check_gpu(*, is_required: bool) -> None:
    """Demand a GPU where the user does.

    Raises:
        CapabilityError: none can be used.
    """
    if is_required:
        from trtbench.environment import collect_environment, demand

        demand(collect_environment(), require=("gpu",))


def bench_engines(
    suite: str,
    places: Places,
    *,
    is_quiet: bool,
    as_json: bool,
    require_gpu: bool,
    junit: Path | None = None,
    mlflow: str | None = None,
) -> None:
    """Score and time every engine of a suite, building what is not there, and write the report."""
    from trtbench.pipeline import run_suite

    check_mlflow(mlflow)
    loaded = _load(suite, require_gpu=require_gpu)
    with Screen(is_quiet=is_quiet) as screen:
        found, folder = run_suite(
            loaded,
            places,
            argv=[Path(sys.argv[0]).name, *sys.argv[1:]],
            now=datetime.now(UTC).astimezone(),
            stages=screen.stages,
            tell=screen,
        )
    _show_report(found, folder, as_json=as_json)
    publish(found, folder, junit=junit, mlflow=mlflow)
    exit_where_failed([row.status for row in found.rows])


def _show_report(found: Report, folder: Path, *, as_json: bool) -> None:
    from trtbench.report.observations import observations
    from trtbench.report.tables import rows_for_terminal

    if as_json:
        show_json(found)
        return
    table = rows_for_terminal(found.rows)
    show_table(f"Suite {found.suite['name']}", table.headers, table.cells, left=table.left)
    for line in table.notes:
        show(line)
    for line in observations([row for row in found.rows if row.batch_size == found.decision.batch_size]):
        show(f"- {line}")
    show(found.decision.sentence)
    say(f"Report: {folder / 'report.html'}, report.md, report.csv")


def exit_where_failed(statuses: list[Any]) -> None:
    """Exit 3 where a row failed.

    Raises:
        Exit: one did.
    """
    if any(status in {"failed", "oom"} for status in statuses):
        raise typer.Exit(_SOME_ROWS_FAILED)


def _built_facts(one: BuiltEngine) -> dict[str, Any]:
    facts = {"engine": one.plan.name, "status": one.status, "reason": one.reason, "path": str(one.path or "")}
    if one.sidecar is not None:
        facts |= {"sha256": one.sidecar.engine_sha256, "achieved": one.sidecar.achieved}
    return facts


def _built_cells(one: BuiltEngine) -> tuple[str, ...]:
    if one.sidecar is None:
        return (one.plan.name, one.status, one.reason, "", "")
    size = f"{one.sidecar.engine_bytes / 1e6:.3f}"
    return (one.plan.name, one.status, one.sidecar.achieved, size, str(one.path))
