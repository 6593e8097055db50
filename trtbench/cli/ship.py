"""Verbs from the decision to the device: ship a row as a bundle, and say what it sees."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from trtbench.cli.options import JsonOption, RunArgument, output_option
from trtbench.cli.screen import Screen, say, show, show_json
from trtbench.errors import ConfigError, DataError
from trtbench.progress import Event
from trtbench.records import AsTheyAre

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from trtbench.shipping import Prediction, Predictor

app = typer.Typer()
_LATEST = Path("runs/latest")
_AT_ONCE = 256  # images decoded at a time, at least: a pool of threads reads them


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
    serve: Annotated[
        bool,
        typer.Option("--serve-check", help="Serve it by Triton too, on loopback; its figures go on the card."),
    ] = False,
    triton: Annotated[
        Path,
        typer.Option(
            envvar="TRITON_PYTHON",
            show_default="the one that runs trtbench",
            help="With --serve-check: a Python that has nvidia-pytriton.",
        ),
    ] = Path(sys.executable),
    as_json: JsonOption = False,
) -> None:
    """Write a row's engine with all that running it takes; a fresh process proves that it scores the same."""
    from trtbench.shipping import ship_row
    from trtbench.shipping.prove import proof_words

    with Screen() as screen:
        found = ship_row(
            run,
            output,
            row=row,
            engines=engines or (),
            licence=licence,
            zips=zips,
            triton=triton if serve else None,
            tell=screen,
        )
    if as_json:
        show_json({"folder": str(found.folder), "zip": found.zip and str(found.zip), "bundle": found.bundle})
        return
    proof = found.bundle.proof
    if proof is not None and proof.why_not:
        show(f"{found.bundle.row}: {found.folder}, {proof.why_not}")
    elif proof is not None:
        how = "counted" if proof.fidelity is None else "found"
        show(f"{found.bundle.row}: {found.folder}, proven: {proof_words(proof)}, as the run {how}")
    given = "SAMPLES.npz" if isinstance(found.bundle.preprocessing, AsTheyAre) else "IMAGE"
    say(f"Run it: python {found.folder / 'predict.py'} {given}; what it is: {found.folder / 'README.md'}")


@app.command()
def predict(
    engine: Annotated[Path, typer.Argument(metavar="BUNDLE|ENGINE", help="A bundle, or an engine with its sidecar.")],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES...", help="Files, folders, patterns; - reads a list of them; or a .npz of inputs."
        ),
    ],
    *,
    top: Annotated[int, typer.Option(min=1, help="Classes to name, the likeliest first.")] = 1,
    batch: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Images at once [default: as it was shipped].")
    ] = None,
    output: Annotated[
        Path | None,
        output_option("Of no classifier: the .npz to write every output to, by its name."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is on images; where their folders bear the names of classes, count what is right."""
    from trtbench.report.units import significant
    from trtbench.shipping import load

    found: list[Prediction] = []
    with Screen() as screen, load(engine, batch=batch) as predictor:
        if isinstance(predictor.preprocessing, AsTheyAre):
            _tell_samples(images, predictor, output=output, as_json=as_json)
            return
        paths = _listed(images)
        if not predictor.classes:
            _tell_outputs(paths, predictor, output=output, as_json=as_json)
            return
        if output is not None:
            raise ConfigError("--output", expected="a network that is no classifier", got="classes", cure="give --json")
        step = max(_AT_ONCE, predictor.batch)
        begun = time.perf_counter()
        for start in range(0, len(paths), step):
            found += predictor.predict(paths[start : start + step], top=top)
            share = len(found) / len(paths)
            screen(Event(stage="predict", item=f"{len(paths)} images", state="progress", share=share))
        seconds = time.perf_counter() - begun
        labels = [path.parent.name for path in paths]
        right = sum(one.label == label for one, label in zip(found, labels, strict=True))
        counted = {"correct": right, "total": len(paths)} if set(labels) <= set(predictor.classes) else {}
    if as_json:
        told = [
            {"image": str(path), "top": [{"class": label, "probability": share} for label, share in one.top]}
            for path, one in zip(paths, found, strict=True)
        ]
        show_json({"images": told, "images_per_s": len(paths) / seconds, **counted})
        return
    for path, one in zip(paths, found, strict=True):
        show(f"{path}: {', '.join(f'{label} {share:.3f}' for label, share in one.top)}")
    number = "1 image" if len(paths) == 1 else f"{len(paths)} images"
    say(f"{number} in {significant(seconds)} s" + (f", {right} right" if counted else ""))


def _tell_samples(given: Sequence[str], predictor: Predictor, *, output: Path | None, as_json: bool) -> None:
    """Show what each output of the samples of a .npz is like, and write them all where that is asked."""
    from trtbench.data.load import load_tensors
    from trtbench.shipping.templates.predict import summary, summary_words

    if len(given) != 1:
        raise DataError("samples", expected="one .npz, an array for each input", got=f"{len(given)} files")
    tensors, samples = load_tensors(Path(given[0]), fewest=1)
    found = predictor.outputs({one.name: samples[one.name] for one in tensors})
    told = {name: summary(values) for name, values in found.items()}
    _write_outputs(output, found)
    if as_json:
        show_json({"outputs": told, "output": output and str(output)})
        return
    show(f"{given[0]}: {summary_words(told)}")


def _tell_outputs(paths: Sequence[Path], predictor: Predictor, *, output: Path | None, as_json: bool) -> None:
    """Show what each output of each image is like, and write them all where that is asked."""
    from trtbench.shipping.templates.predict import summary, summary_words

    parts = [predictor.outputs(paths[at : at + predictor.batch]) for at in range(0, len(paths), predictor.batch)]
    found = {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}
    told = [{name: summary(values[at]) for name, values in found.items()} for at in range(len(paths))]
    _write_outputs(output, found)
    if as_json:
        images = [{"image": str(path), "outputs": one} for path, one in zip(paths, told, strict=True)]
        show_json({"images": images, "output": output and str(output)})
        return
    for path, one in zip(paths, told, strict=True):
        show(f"{path}: {summary_words(one)}")
    if output is not None:
        say(f"Every output, by its name: {output}")


def _write_outputs(output: Path | None, found: Mapping[str, NDArray[np.float32]]) -> None:
    from trtbench.disk import storing
    from trtbench.shipping.templates.predict import write_arrays

    if output is not None:
        with storing(output):
            write_arrays(output, dict(found))


def _listed(images: Sequence[str]) -> list[Path]:
    """Return the files that are meant: a folder's images at any depth, what a pattern matches, the lines of stdin."""
    from trtbench.data.folder import IMAGES

    found: list[Path] = []
    for name in [line for one in images for line in (sys.stdin.read().splitlines() if one == "-" else [one])]:
        path = Path(name)
        if path.is_dir():
            own = sorted(one for one in path.rglob("*") if one.suffix.lower() in IMAGES)
        elif path.exists():
            own = [path]
        else:
            base = Path(path.anchor)
            own = sorted(base.glob(str(path.relative_to(base)))) if any(mark in name for mark in "*?[") else []
        if not own:
            raise DataError(f"images {name!r}", expected="a file, a folder of images or a pattern", got="none")
        found += own
    return found
