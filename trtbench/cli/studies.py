"""Verbs that look into a network: where an INT8 drop comes from, what calibration images and layers are worth."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtbench.cli.given import Given, Only, takes
from trtbench.cli.options import (
    CALIBRATION,
    DATA,
    MODEL,
    CalibOption,
    EnginesOption,
    JsonOption,
    OutOption,
    command_line,
    output_option,
    places_of,
)
from trtbench.cli.screen import Screen, say, show, show_json, show_table, tell
from trtbench.errors import ConfigError

if TYPE_CHECKING:
    from trtbench.precision import Runtime
    from trtbench.report.tables import Table
    from trtbench.suite import Suite

app = typer.Typer()

_Precision = Annotated[str, typer.Option(hidden=True, help="int8 alone; once it chose the placement too.")]
_WHOSE = "Whose kernels the Q/DQ pairs are placed for: tensorrt or onnxruntime-cpu"
_METHODS = "entropy, mse, percentile, minmax or moving-average; mse where the suite has auto"
_MEASURED = "mse"  # a study varies the images and not the method, which auto would choose anew for each sample
_ONE_MODEL = Only(with_="--model", cure="add --model, or set it in the suite")
_MODEL = replace(MODEL, needs="", has_defaults=False, rule=_ONE_MODEL)
_DATA = replace(DATA, rule=_ONE_MODEL)
_Target = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="A run's folder, its report.json, or a suite; or give --model."),
    Only(without="--model", cure="name a run's folder, or a model"),
]


@app.command("explain-int8")
@takes(replace(CALIBRATION, rule=_ONE_MODEL), _DATA, _MODEL)
def explain_int8(
    given: Given,
    *,
    target: _Target = None,
    variant: Annotated[str | None, typer.Option(help="The suite's variant [default: its first].")] = None,
    placement: Annotated[str | None, typer.Option(help=f"{_WHOSE} [default: the engine's].")] = None,
    precision: _Precision = "int8",
    max_drop: Annotated[float | None, typer.Option(min=0, help="Accepted drop, pp [default: the suite's].")] = None,
    under: Annotated[
        str, typer.Option(help="Run the engine under this emulator too, e.g. 'qemu-x86_64 -cpu Haswell'.")
    ] = "",
    saturation: Annotated[bool, typer.Option("--saturation", help="Simulate CPUs without VNNI too.")] = False,
    kernel_images: Annotated[int, typer.Option(min=1, help="Test images under the emulator and simulated.")] = 256,
    output: Annotated[Path | None, output_option("Folder of the result [default: RUN/explain-int8].")] = None,
    out: OutOption = Path("runs"),
    engines: EnginesOption = Path("engines"),
    calib: CalibOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say where an INT8 drop comes from, and which layers to keep in higher precision."""
    suite = _suite(target, given)
    from trtbench.make.makings import Makings
    from trtbench.studies.int8_drop_page import (
        caveats,
        explanation_json,
        kernel_table,
        layer_table,
        split_table,
        verdict,
        write_explanation,
    )
    from trtbench.studies.int8_drop_run import explain_int8 as explain
    from trtbench.studies.kernels import KernelConfig

    kernels = KernelConfig(under=tuple(shlex.split(under)), simulate=saturation, images=kernel_images)
    with Screen() as screen:
        makings = Makings(suite, places_of(out, engines, calib), tell=screen)
        wanted = _placement(placement, precision)
        found = explain(makings, variant=variant, placement=wanted, max_drop_pp=max_drop, kernels=kernels)
    folder = output or _beside(target, out / f"explain-int8-{suite.name}", "explain-int8")
    write_explanation(found, folder)
    if as_json:
        show_json(explanation_json(found))
        return
    _show(f"The drop in parts: {found.test_images} test images", split_table(found))
    _show("The runtime's kernels beside true arithmetic", kernel_table(found))
    _show(f"Layer by layer: {found.validation_images} validation images", layer_table(found))
    for line in (verdict(found), *caveats(found)):
        show(line)
    say(f"Report: {folder / 'explain.md'}. Exclude list for the suite: {folder / 'exclude.yaml'}")


@app.command("calibration-study")
@takes(_DATA, _MODEL)
def calibration_study(
    given: Given,
    *,
    target: _Target = None,
    per_class: Annotated[str, typer.Option(help="Images of each class, joined by commas.")] = "1,2,5,10,20,50",
    seeds: Annotated[int, typer.Option(min=1, help="How many samples of each kind.")] = 5,
    method: Annotated[list[str] | None, typer.Option(help=f"{_METHODS}; may be given several times.")] = None,
    placement: Annotated[str | None, typer.Option(help=f"{_WHOSE} [default: tensorrt].")] = None,
    precision: _Precision = "int8",
    split: Annotated[str, typer.Option(help="The images that are scored: validation or test.")] = "validation",
    output: Annotated[Path | None, output_option("Folder of the result.")] = None,
    out: OutOption = Path("runs"),
    engines: EnginesOption = Path("engines"),
    calib: CalibOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what calibration images are worth: how many, and whether their classes must be balanced."""
    suite = _suite(target, given)
    from trtbench.make.makings import Makings
    from trtbench.studies.calibration_page import balance_table, spread_table, study_json, study_sentences, write_study
    from trtbench.studies.calibration_run import StudyConfig, study_calibration

    config = StudyConfig(
        per_class=_counts("--per-class", per_class),
        seeds=seeds,
        methods=tuple(method or (_MEASURED if suite.calibration.method == "auto" else suite.calibration.method,)),
        placement=_placement(placement, precision) or "tensorrt",
        split=split,
    )
    with Screen() as screen:
        found = study_calibration(Makings(suite, places_of(out, engines, calib), tell=screen), config)
    folder = output or _beside(target, out / f"calibration-study-{suite.name}", "calibration-study")
    write_study(found, folder)
    if as_json:
        show_json(study_json(found))
        return
    _show(
        f"INT8 accuracy by images per class: {found.images} {found.split} images, FP32 {found.float_correct}",
        spread_table(found),
    )
    _show("What class balance gains", balance_table(found))
    for line in study_sentences(found):
        show(f"- {line}")
    say(f"Report: {folder / 'calibration-study.md'}")


@app.command()
@takes(DATA, MODEL)
def sensitivity(
    given: Given,
    *,
    output: Annotated[Path, output_option("The CSV to write; a plot goes beside it.")],
    ratio: Annotated[list[float] | None, typer.Option(help="Share of a layer's outputs; repeatable.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Prune one layer at a time and count what the model still gets right on the validation images."""
    from trtbench.steps import step
    from trtbench.studies.sensitivity import layers_alone

    with Screen() as screen:
        found = step(given.suite(), partial(layers_alone, ratios=ratio or (0.25, 0.5, 0.75)), output, screen)
    worst = min(found.layers, key=lambda one: one.correct)
    words = f"{output}: {worst.layer} is the most sensitive: {worst.correct} of {worst.total} at {worst.ratio:.0%}"
    tell(found, words, as_json=as_json)


@app.command()
def reproduce(
    *,
    suite: Annotated[str, typer.Argument(help="A shipped suite of a source study, its file, or a job.")],
    theirs: Annotated[Path | None, typer.Option(help="Folder of the study's checkpoints, scored beside ours.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this variant, and those before it; repeatable.")] = None,
    builds: Annotated[bool, typer.Option("--engines-too/--no-engines", help="Build the engines, for their bytes.")] = (
        True
    ),
    measures: Annotated[bool, typer.Option("--measure", help="Time the engines too, as `trtbench run`.")] = False,
    bundle: Annotated[Path | None, typer.Option(help="Only pack code, suite and images, for a GPU's host.")] = None,
    output: Annotated[Path, output_option("Folder of the result.")] = Path("results"),
    out: OutOption = Path("runs"),
    engines: EnginesOption = Path("engines"),
    as_json: JsonOption = False,
) -> None:
    """Make and score a source study's networks, and show what the study published beside them."""
    from trtbench.fleet import opened
    from trtbench.studies.published import published
    from trtbench.studies.reproduce import measured_rows, reproduce_suite, restricted, write_bundle, write_reproduction
    from trtbench.studies.reproduce_page import read_results, study_tables

    whole, places = opened(suite, places_of(out, engines, None))
    asked, named = restricted(whole, tuple(only or ())), [f"--only={name}" for name in only or ()]
    if bundle is not None:
        with Screen() as screen:
            script = write_bundle(asked, places, bundle, tell=screen)
        if as_json:
            show_json({"output": str(script)})
        say(f"Wrote {bundle}. On the machine with the GPU: sh {script}")
        return
    argv = ["trtbench", "reproduce", asked.name, *named, *([] if builds else ["--no-engines"])]
    argv += ["--measure"] * measures + ([] if theirs is None else [f"--theirs={theirs.name}"])
    with Screen() as screen:
        found = reproduce_suite(
            asked,
            places,
            argv=argv,
            now=datetime.now(UTC).astimezone(),
            published=published(),
            theirs=theirs,
            builds=builds,
            measured=measured_rows(asked, places, argv=command_line(), tell=screen) if measures else (),
            tell=screen,
        )
    path = write_reproduction(found, output)
    if as_json:
        show_json(found)
    else:
        for table, lines in study_tables(asked.name, read_results(output)):
            _show(table.title, lines)
    say(f"Result: {path}. All tables of the folder: python -m trtbench.studies.reproduce_page {output}")


def _placement(name: str | None, precision: str) -> Runtime | None:
    from trtbench.precision import PLACEMENTS

    if precision != "int8":
        cure = "--placement onnxruntime-cpu" if precision == "int8-ort" else f"--placement {' or '.join(PLACEMENTS)}"
        raise ConfigError("--precision", expected="int8", got=precision, cure=f"choose the layers by {cure}")
    chosen: Runtime | None = next((one for one in PLACEMENTS if one == name), None)
    if name is not None and chosen is None:
        raise ConfigError("--placement", expected=" or ".join(PLACEMENTS), got=name, cure="choose one of these")
    return chosen


def _suite(target: str | None, given: Given) -> Suite:
    from trtbench.report.document import read_report
    from trtbench.suite import load_suite, parse_suite

    if target is not None:
        if Path(target).is_dir() or target.endswith(".json"):
            # Relative paths of the suite are taken from here: a run does not keep where its file stood.
            return parse_suite(json.dumps(read_report(target).suite), origin=target, base=Path.cwd())
        return load_suite(target)
    if "model.name" not in given.values:
        raise ConfigError(
            "RUN and --model", expected="one of them", got="neither", cure="name a run's folder, or a model"
        )
    return given.suite(engines={"precisions": ["fp32", "int8"]})


def _beside(target: str | None, otherwise: Path, name: str) -> Path:
    """Return a folder inside the run's, where the target is one."""
    return Path(target) / name if target is not None and Path(target).is_dir() else otherwise


def _counts(option: str, text: str) -> tuple[int, ...]:
    try:
        found = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise ConfigError(
            option, expected="whole numbers joined by commas", got=repr(text), cure="e.g. 1,5,20"
        ) from error
    if found[0] < 1:
        raise ConfigError(option, expected="numbers of at least 1", got=repr(text), cure="e.g. 1,5,20")
    return found


def _show(title: str, table: Table) -> None:
    if table.cells:
        show_table(title, table.headers, table.cells, left=table.left)
