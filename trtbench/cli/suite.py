"""Verbs that take a suite: run, build, bench, plan, init, schema, and what its runs keep: store."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtbench.cli.given import Given, Only, takes
from trtbench.cli.options import (
    BENCH,
    CALIBRATION,
    DATA,
    ENGINE,
    GIVEN_DEVICE,
    MODEL,
    PLAIN,
    CalibOption,
    EnginesOption,
    JsonOption,
    JunitOption,
    MlflowOption,
    OutOption,
    RequireGpuOption,
    SuiteArgument,
    check_gpu,
    command_line,
    output_option,
    places_of,
)
from trtbench.cli.reports import check_mlflow, publish, show_matrix, show_report
from trtbench.cli.screen import Screen, say, show, show_json, show_table, warn
from trtbench.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbench.rows import Row
    from trtbench.running import BuiltEngine, Places
    from trtbench.suite import Suite

app = typer.Typer()
store_app = typer.Typer(help="The content-keyed artefacts of earlier runs.", no_args_is_help=True, **PLAIN)
app.add_typer(store_app, name="store")

_DEFAULT = "quickstart"
_SOME_ROWS_FAILED = 3
_ONE_MODEL = Only(with_="--model", cure="add --model, or set it in the suite's file")
_ONE_ENGINE = Only(with_="--engine", cure="add --engine, or set it in the suite's file")
_TRAINING = {"epochs": 100, "lr": 0.1, "schedule": "one-cycle"}  # of weights that there are none of yet
_A_REPORT = "measure a suite, or leave it out"
_OfSuite = Annotated[
    str | None, typer.Argument(metavar="SUITE", help=f"A suite file or a shipped suite [default: {_DEFAULT}].")
]


@app.command()
def run(
    *,
    suite: SuiteArgument = _DEFAULT,
    out: OutOption = Path("runs"),
    engines: EnginesOption = Path("engines"),
    calib: CalibOption = None,
    as_json: JsonOption = False,
    require_gpu: RequireGpuOption = False,
    junit: JunitOption = None,
    mlflow: MlflowOption = None,
    on: Annotated[str | None, typer.Option(help="ray or ray:ADDRESS: over a Ray cluster, by device.")] = None,
) -> None:
    """Do everything a suite asks for, going on where an earlier run stopped."""
    places = places_of(out, engines, calib)
    if on is not None:
        if junit or mlflow or require_gpu:
            cure = "publish the run of one device afterwards: `trtbench report`"
            raise ConfigError("--on", expected="none of --junit, --mlflow, --require-gpu", got="one", cure=cure)
        _measure_fleet(suite, places, on, as_json=as_json)
        return
    _measure(suite, places, as_json=as_json, require_gpu=require_gpu, junit=junit, mlflow=mlflow)


@app.command()
@takes(
    replace(ENGINE, rule=_ONE_MODEL),
    replace(CALIBRATION, fields=("per_class",), rule=_ONE_MODEL),
    replace(DATA, rule=_ONE_MODEL),
    replace(MODEL, needs="", has_defaults=False, rule=_ONE_MODEL),
)
def build(
    given: Given,
    *,
    suite: Annotated[_OfSuite, Only(without="--model")] = None,
    out: OutOption = Path("runs"),
    engines: EnginesOption = Path("engines"),
    calib: CalibOption = None,
    as_json: JsonOption = False,
    require_gpu: RequireGpuOption = False,
) -> None:
    """Build the engines of a suite, or of one model."""
    from trtbench.running import build_suite

    places = places_of(out, engines, calib)
    asked, places = (given.suite(), places) if "model.name" in given.values else _load(suite or _DEFAULT, places)
    check_gpu(is_required=require_gpu)
    with Screen() as screen:
        built = build_suite(asked, places, tell=screen)
    if as_json:
        show_json({"engines": [_built_facts(one) for one in built]})
    else:
        headers = ("engine", "status", "precision achieved", "MB", "file")
        show_table("Engines", headers, [_built_cells(one) for one in built])
    _exit_where_failed([one.status for one in built])


@app.command()
@takes(replace(BENCH, rule=_ONE_ENGINE), replace(DATA, fields=("source",), rule=_ONE_ENGINE))
def bench(
    given: Given,
    *,
    suite: Annotated[_OfSuite, Only(without="--engine")] = None,
    engine: Annotated[Path | None, typer.Option(help="Measure one engine file instead of a suite.")] = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option(help="Load: streams:4, arrivals:200 (a second) or arrivals:5ms (p99 at most); repeatable."),
        _ONE_ENGINE,
    ] = None,
    out: OutOption = Path("runs"),
    engines: EnginesOption = Path("engines"),
    calib: CalibOption = None,
    as_json: JsonOption = False,
    require_gpu: RequireGpuOption = False,
    junit: Annotated[JunitOption, Only(without="--engine", cure=_A_REPORT)] = None,
    mlflow: Annotated[MlflowOption, Only(without="--engine", cure=_A_REPORT)] = None,
) -> None:
    """Score and time the engines of a suite and write the report, or measure one engine file."""
    if engine is None:
        places = places_of(out, engines, calib)
        _measure(suite or _DEFAULT, places, as_json=as_json, require_gpu=require_gpu, junit=junit, mlflow=mlflow)
        return
    from trtbench.running.bench import bench_engine
    from trtbench.suite import BenchConfig

    load = {"load": [_load_of(one) for one in scenario]} if scenario else {}
    config = given.part("bench", BenchConfig, **load)
    check_gpu(is_required=require_gpu)
    with Screen() as screen:
        rows = bench_engine(engine, given.values.get("data.source", "digits"), config, out=out, tell=screen)
    if as_json:
        show_json({"rows": rows})
    else:
        _show_rows(rows)
    _exit_where_failed([row.status for row in rows])


def _show_rows(rows: tuple[Row, ...]) -> None:
    for row in rows:
        accuracy, latency = row.accuracy, row.latency
        if accuracy is None or latency is None:
            show(f"{row.name}: {row.status}: {row.reason}")
        else:
            show(f"{row.name}: {accuracy.correct} of {accuracy.total} correct, p50 {latency.p50_ms:.3f} ms")
        for load in row.loads:
            what = f"{load.streams} in flight" if load.rate is None else f"{load.rate:.0f} requests a second"
            kept = {None: "", True: ", within the limit", False: ", beyond the limit"}[load.holds]
            show(f"  {what}: {load.throughput_ips:.0f} images a second, p50 {load.p50_ms:.3f} ms{kept}")


def _load_of(text: str) -> dict[str, Any]:
    """Read a load as people write it: streams:4, arrivals:200, arrivals:5ms."""
    found = re.fullmatch(r"(streams):([0-9]{1,9})|(arrivals):([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms)?", text)
    if found is None:
        cure = "e.g. --scenario streams:4 --scenario arrivals:200"
        expected = "streams:NUMBER, arrivals:RATE or arrivals:MILLISECONDSms"
        raise ConfigError("--scenario", expected=expected, got=repr(text), cure=cure)
    if found[1]:
        return {"scenario": "streams", "streams": int(found[2])}
    return {"scenario": "arrivals", "p99_ms" if found[5] else "rate": float(found[4])}


@app.command()
def plan(
    *,
    suite: SuiteArgument = _DEFAULT,
    out: OutOption = Path("runs"),
    engines: EnginesOption = Path("engines"),
    calib: CalibOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the rows ahead: what is kept from earlier runs, and the time and disk the rest takes."""
    from trtbench.running import outlook

    loaded, places = _load(suite, places_of(out, engines, calib))
    if loaded.code:
        warn(f"this suite runs code with your rights, here as when it is built: {', '.join(loaded.code)}.")
    found = outlook(loaded, places)
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


@app.command("pack-job")
def pack_job(
    *,
    suite: SuiteArgument = _DEFAULT,
    output: Annotated[Path, output_option("The job to write.")] = Path("job.zip"),
    out: OutOption = Path("runs"),
    calib: CalibOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make all of a suite that needs no particular machine, and pack it for one: there, `trtbench run job.zip`."""
    from trtbench.fleet import pack_job as pack

    loaded, places = _load(suite, places_of(out, Path("engines"), calib))
    with Screen() as screen:
        found = pack(loaded, places, output, tell=screen)
    if as_json:
        show_json(found)
        return
    for name, why in found.lost.items():
        warn(f"{name} is not in it: {why}")
    there = f"trtbench run {shlex.quote(str(output))}"
    say(f"Wrote {found.output}: {found.artefacts} artefacts, {found.bytes / 1e6:.1f} MB. There: {there}")


@app.command()
@takes(replace(DATA, needs="source", has_defaults=False), replace(MODEL, needs=""))
def init(
    given: Given,
    *,
    output: Annotated[Path, output_option("The suite file to write.")] = Path("suite.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there.")] = False,
) -> None:
    """Open my weights and my images, and write a suite for them that is ready to run and to edit.

    What is not given is found: the network by its checkpoint, size, mean and std by who published the weights or by
    measuring the images; comments in the file say which. One image goes through the network first. The schema is
    written beside the suite, whose first line names it to editors: they complete keys and say what each takes.
    """
    from trtbench.disk import write_atomically
    from trtbench.running import propose
    from trtbench.suite import parse_suite, suite_schema, suite_template

    if output.exists() and not force:
        raise ConfigError(f"file {output}", expected="no file there", cure="choose another --output, or add --force")
    _require_there(given.values)
    if others := [key for key in given.values if not key.startswith(("data.", "model."))]:
        cure = "write it into the file"
        raise ConfigError(f"--set {others[0]}", expected="keys of data and of model", cure=cure)
    values = dict(given.values)
    if "model.checkpoint" in values and "model.name" not in values:
        from trtbench.models.checkpoints import network_of

        values["model.name"] = network_of(values["model.checkpoint"], weights_from=values.get("model.weights_from"))
        say(f"{values['model.checkpoint']} fits {values['model.name']}.")
    if "model.name" not in values:
        raise ConfigError("--model", expected="a network", got="none", cure="name it, or give its --checkpoint")
    is_trained = "model.checkpoint" in values or values["model.name"].startswith("onnx:")
    found = propose(Given(values=values).suite(**({} if is_trained else {"model": {"train": _TRAINING}})))
    schema = output.with_suffix(".schema.json")
    text = suite_template(found, base=output.resolve().parent)
    parse_suite(text, origin=str(output))
    write_atomically(output, f"# yaml-language-server: $schema={schema.name}\n{text}")
    write_atomically(schema, json.dumps(suite_schema(), indent=2) + "\n")
    for note in found.notes:
        say(note)
    name = shlex.quote(str(output))
    say(f"Wrote {output}. Next: trtbench plan {name}; trtbench run {name}")


def _require_there(values: Mapping[str, Any]) -> None:
    named = (("model.name", "onnx:"), ("model.checkpoint", ""), ("data.source", "folder:"), ("data.source", "images:"))
    for key, prefix in named:
        value = str(values.get(key, ""))
        place = Path(value.removeprefix(prefix)).expanduser()
        if value and value.startswith(prefix) and not place.exists():
            raise ConfigError(key, expected="a file or folder that is there", got=str(place), cure="mend the path")


@app.command()
def schema() -> None:
    """Print the JSON Schema of suite files."""
    from trtbench.suite import suite_schema

    show(json.dumps(suite_schema(), indent=2))


@store_app.command("list")
def store_list(out: OutOption = Path("runs"), *, as_json: JsonOption = False) -> None:
    """List the artefacts that are kept, with their size and what they took to make."""
    from trtbench.running import Places
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
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Reports and last runs too: all but what runs use just now.")
    ] = False,
) -> None:
    """Remove artefacts that no report under --out used, nor the last run of a suite; what runs use just now stays.

    A build that was stopped is the last run of its suite: it goes on where it stopped.
    """
    from trtbench.running import Places
    from trtbench.running.run import artefacts_of_reports
    from trtbench.store import Store

    freed = Store(Places(runs=out).store).prune(
        older_than_days=older_than_days,
        keep=() if everything else artefacts_of_reports(out),
        keep_last=not everything,
    )
    say(f"Freed {freed / 1e6:.2f} MB.")


def _load(suite: str, places: Places) -> tuple[Suite, Places]:
    """Return a suite, or that of a job, and its places; its GPU is that of the command line where that names one."""
    from trtbench.fleet import opened

    loaded, places = opened(suite, places)
    return (loaded.model_copy(update={"device": None}) if GIVEN_DEVICE.get() else loaded), places


def _measure(
    suite: str,
    places: Places,
    *,
    as_json: bool,
    require_gpu: bool,
    junit: Path | None,
    mlflow: str | None,
) -> None:
    from trtbench.running import run_suite

    check_mlflow(mlflow)
    loaded, places = _load(suite, places)
    check_gpu(is_required=require_gpu)
    with Screen() as screen:
        now = datetime.now(UTC).astimezone()
        found, folder = run_suite(loaded, places, argv=command_line(), now=now, tell=screen)
    show_report(found, folder, as_json=as_json)
    publish(found, folder, junit=junit, mlflow=mlflow)
    _exit_where_failed([row.status for row in found.rows])


def _measure_fleet(suite: str, places: Places, on: str, *, as_json: bool) -> None:
    from trtbench.fleet.cluster import run_on_ray

    scheduler, _, address = on.partition(":")
    if scheduler != "ray":
        raise ConfigError("--on", expected="ray or ray:ADDRESS", got=repr(on), cure="name a Ray cluster")
    loaded, places = _load(suite, places)
    now = datetime.now(UTC).astimezone()
    with Screen() as screen:
        found = run_on_ray(loaded, places, address=address, argv=command_line(), now=now, tell=screen)
    if as_json:
        show_json(found)
    elif found.matrix is not None:
        show_matrix(found.matrix)
    for kind, why in found.lost.items():
        warn(f"{kind} has no report: {why}")
    if found.folder is not None:
        say(f"Report: {found.folder}/matrix.html, matrix.md, fleet.json")
    statuses = [row.status for report in found.reports.values() for row in report.rows]
    _exit_where_failed([*statuses, *("failed" for _ in found.lost)])


def _exit_where_failed(statuses: list[Any]) -> None:
    """Exit 3 where a row failed, or nothing was made at all."""
    if any(status in {"failed", "oom"} for status in statuses) or not {"ok", "built"} & set(statuses):
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
