"""Verbs that do one step on one model; what they take by options are the parts of the suite that says the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path  # noqa: TC003  Typer resolves the options at run time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtbench.cli.fields import Section
from trtbench.cli.given import Given, Only, takes
from trtbench.cli.options import (
    CALIBRATION,
    DATA,
    EXPORT,
    MODEL,
    TRAIN,
    ClassesOption,
    JsonOption,
    QuietOption,
    output_option,
)
from trtbench.cli.screen import Screen, tell
from trtbench.errors import ConfigError

if TYPE_CHECKING:
    from trtbench.suite import DataConfig, NmVariant, TrainConfig, WeightsVariant

app = typer.Typer()

_IMPORTED = Only(
    without="--from-cache", cure="leave it out: images, method and places were chosen when the cache was written"
)
_TRAINED = Only(with_="--epochs", cure="add --epochs, or leave it out")
_FINE_TUNE = Section(key="fine_tune", part="TrainConfig", rule=_TRAINED)
_SPARSE_METHODS = ("global", "layer", "second-order", "nm")


@app.command()
@takes(DATA, MODEL)
def evaluate(given: Given, *, as_json: JsonOption = False) -> None:
    """Score a model on the whole test split."""
    from trtbench.pipeline.steps import evaluate_model

    found = evaluate_model(given.suite())
    tell(found, f"{found['correct']} of {found['total']} correct ({100 * found['top1']:.2f} %)", as_json=as_json)


@app.command()
@takes(Section(key="variants", part="ChannelsVariant"), replace(DATA, fields=("source", "size")), MODEL)
def prune(
    given: Given,
    *,
    classes: ClassesOption = 10,
    output: Annotated[Path | None, output_option("The checkpoint to write.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove channels from a model; without --checkpoint from fresh weights, which shows the structure only."""
    from trtbench.pipeline.steps import prune_model
    from trtbench.suite import ChannelsVariant

    model, checkpoint, data = subject(given)
    variant = given.part("variants", ChannelsVariant, kind="channels", name="pruned", round_to=8)
    images = data if "data.source" in given.values else None
    found = prune_model(
        model, checkpoint, variant, num_classes=classes, input_size=data.size, data=images, output=output
    )
    words = f"{found['params']:,} parameters, {found['macs'] / 1e6:.2f} M MACs; widths {found['widths']}"
    tell(found, words, as_json=as_json)


@app.command()
@takes(TRAIN, DATA, MODEL)
def train(
    given: Given,
    *,
    output: Annotated[Path, output_option("Folder of the checkpoint, its curves and its log.")],
    seeds: Annotated[
        int, typer.Option(min=1, help="Train this many times, by seed, seed + 1, ..., and tell the spread.")
    ] = 1,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model, or fine-tune a checkpoint; a second call goes on from the last epoch."""
    from trtbench.pipeline.seeds import train_seeds
    from trtbench.pipeline.steps import train_model

    model, checkpoint, data = subject(given)
    budget = _budget(given, "model.train")
    with Screen(is_quiet=quiet) as screen:
        if seeds > 1:
            found = train_seeds(model, checkpoint, data, budget, seeds=seeds, output=output, tell=screen)
            tell(found, found["sentence"], as_json=as_json)
            return
        found = train_model(model, checkpoint, data, budget, output=output, tell=screen)
    words = f"validation {found['val_correct']} of {found['val_total']} in epoch {found['best_epoch']}"
    tell(found, words, as_json=as_json)


@app.command()
@takes(EXPORT, replace(DATA, fields=("size",)), MODEL)
def export(
    given: Given,
    *,
    output: Annotated[Path, output_option("The ONNX file to write.")],
    classes: ClassesOption = 10,
    as_json: JsonOption = False,
) -> None:
    """Export a model to one checked ONNX file with the batch norms folded."""
    from trtbench.pipeline.steps import export_model
    from trtbench.suite import ExportConfig

    model, checkpoint, data = subject(given)
    config = given.part("export", ExportConfig)
    found = export_model(model, checkpoint, config, num_classes=classes, input_size=data.size, output=output)
    words = f"{output}: opset {found['opset']}, logits within {found['max_abs_error']:.1e} of PyTorch's"
    tell(found, words, as_json=as_json)


@app.command()
@takes(replace(CALIBRATION, rule=_IMPORTED), DATA, MODEL)
def calibrate(
    given: Given,
    *,
    output: Annotated[Path, output_option("Folder of manifest.json, ranges.json and the Q/DQ graph.")],
    from_cache: Annotated[
        Path | None, typer.Option(help="Take the ranges from a calibration cache that TensorRT 10 wrote.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Choose class-balanced training images and turn their activations into a Q/DQ graph, or import a cache."""
    from trtbench.pipeline.steps import calibrate_model

    found = calibrate_model(given.suite(), output=output, cache=from_cache)
    source = f"{found['images']} images" if from_cache is None else from_cache.name
    tell(found, f"{output}: {found['tensors']} tensors from {source}", as_json=as_json)


@app.command()
@takes(replace(_FINE_TUNE, rule=None), CALIBRATION, EXPORT, DATA, MODEL)
def qat(
    given: Given,
    *,
    output: Annotated[Path, output_option("Folder of the learnt graph, its Q/DQ graph and the ranges.")],
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model with the roundings of its INT8 graph, scales and places alike, and write that graph."""
    from trtbench.pipeline.int8_steps import learn_int8_model

    with Screen(is_quiet=quiet) as screen:
        found = learn_int8_model(given.suite(), _budget(given, "fine_tune"), output=output, tell=screen)
    words = f"{_counted(found)}, {found['before']} before the training; INT8 in {found['placement']}"
    tell(found, words, as_json=as_json)


@app.command()
@takes(EXPORT, DATA, MODEL)
def dynamic_int8(
    given: Given,
    *,
    output: Annotated[Path, output_option("The ONNX file to write.")],
    as_json: JsonOption = False,
) -> None:
    """Put a model's linear layers into dynamic INT8 (ONNX Runtime), and say how little of it that is."""
    from trtbench.pipeline.int8_steps import dynamic_int8_model

    found = dynamic_int8_model(given.suite(), output=output)
    words = f"{_counted(found)}, {100 * found['share']:.2f} % of the weights in INT8, {found['bytes']:,} bytes"
    tell(found, words, as_json=as_json)


@app.command()
@takes(Section(key="variants", part="FixedPointVariant"), _FINE_TUNE, DATA, MODEL)
def quantize(
    given: Given,
    *,
    output: Annotated[Path, output_option("The packed file to write (.tbz).")],
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Round a model's weights to 8 bits or fewer, save them packed, and score what was saved."""
    from trtbench.pipeline.quantize import quantize_model
    from trtbench.suite import FixedPointVariant

    config = given.part("variants", FixedPointVariant, kind="fixed_point", name="quantized", fine_tune=_learns(given))
    with Screen(is_quiet=quiet) as screen:
        found = quantize_model(*subject(given), config, output=output, budget=_budget(given, "fine_tune"), tell=screen)
    words = f"{found['bits_per_weight']:.2f} bits a weight, {found['bytes']:,} bytes in {found['output']}"
    tell(found, f"{_counted(found)}, {words}", as_json=as_json)


@app.command()
@takes(
    Section(key="variants", part="WeightsVariant", but=("method", "scope"), rule=Only(without="--method nm")),
    Section(key="variants", part="WeightsVariant", fields=("scope",), rule=Only(with_="--method second-order")),
    Section(key="variants", part="NmVariant", but=("method",), rule=Only(with_="--method nm")),
    _FINE_TUNE,
    DATA,
    MODEL,
)
def sparsify(
    given: Given,
    *,
    output: Annotated[Path, output_option("The checkpoint to write; a CSV and a plot of its layers go beside it.")],
    method: Annotated[str, typer.Option(help="global or layer (magnitude), second-order, or nm.")] = "global",
    second_order: Annotated[
        bool | None,
        typer.Option("--second-order", help="nm: by curvature, not magnitude."),
        Only(with_="--method nm"),
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Set single weights of a model to zero, save it, and count and score what was saved."""
    from trtbench.pipeline.sparsify import sparsify_model

    variant = _sparse(given, method, is_second_order=bool(second_order))
    with Screen(is_quiet=quiet) as screen:
        found = sparsify_model(*subject(given), variant, output=output, budget=_budget(given, "fine_tune"), tell=screen)
    words = (
        f"{found['correct']} of {found['total']} correct with {100 * found['sparsity']:.2f} % of the weights at zero, "
        f"in {found['seconds']:.0f} s"
    )
    tell(found, words, as_json=as_json)


@app.command()
def pack(
    checkpoint: Annotated[Path, typer.Argument(help="Weights as you have them, or a packed file.")],
    *,
    output: Annotated[Path, output_option("The packed file to write (.tbz).")],
    clusters: Annotated[int | None, typer.Option(help="Values that the weights of each layer share.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Round what is left in float to half precision.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint in the fewest bytes; without --clusters and --half nothing of it is lost."""
    from trtbench.pipeline.packing import pack_checkpoint

    found = pack_checkpoint(checkpoint, output=output, clusters=clusters, is_halved=half)
    words = f"{output}: {found['bytes']:,} bytes, {found['ratio']:.2f} times less than in float32"
    tell(found, words, as_json=as_json)


@app.command()
def unpack(
    packed: Annotated[Path, typer.Argument(help="A packed file (.tbz).")],
    *,
    output: Annotated[Path, output_option("The safetensors file to write.")],
    as_json: JsonOption = False,
) -> None:
    """Write a packed file's weights as safetensors."""
    from trtbench.pipeline.packing import unpack_checkpoint

    found = unpack_checkpoint(packed, output=output)
    tell(found, f"{output}: {found['bytes']:,} bytes; sha256 of the state {found['sha256']}", as_json=as_json)


def subject(given: Given) -> tuple[str, Path | None, DataConfig]:
    """Return the model, its weights and the images of a step."""
    from trtbench.suite import DataConfig

    checkpoint = given.values.get("model.checkpoint")
    return given.values["model.name"], checkpoint, given.part("data", DataConfig)


def _budget(given: Given, key: str) -> TrainConfig:
    from trtbench.suite import TrainConfig

    budget = given.part(key, TrainConfig)
    if given.values.get("data.source", "digits") == "digits" and f"{key}.augment.flip" not in given.values:
        return budget.model_copy(update={"augment": budget.augment.model_copy(update={"flip": False})})
    return budget  # of other images: a mirrored 2 is no digit


def _learns(given: Given) -> bool:
    return bool(given.values.get("fine_tune.epochs", 0) > 0)


def _sparse(given: Given, method: str, *, is_second_order: bool) -> WeightsVariant | NmVariant:
    """Return the variant that a method's name and its options stand for.

    Raises:
        ConfigError: there is no such method, or a value that cannot be.
    """
    from trtbench.suite import NmVariant, WeightsVariant

    if method not in _SPARSE_METHODS:
        expected = " or ".join(_SPARSE_METHODS)
        raise ConfigError("--method", expected=expected, got=repr(method), cure="name one of these")
    fixed: dict[str, Any] = {"name": "sparse", "fine_tune": _learns(given)}
    if method == "nm":
        rule = "second-order" if is_second_order else "magnitude"
        return given.part("variants", NmVariant, kind="nm", method=rule, **fixed)
    if method == "second-order":
        return given.part("variants", WeightsVariant, kind="weights", method="second-order", **fixed)
    return given.part("variants", WeightsVariant, kind="weights", scope=method, **fixed)


def _counted(found: dict[str, Any]) -> str:
    return f"{found['correct']} of {found['total']} correct ({100 * found['top1']:.2f} %)"
