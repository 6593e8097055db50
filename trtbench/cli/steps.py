"""Verbs that do one step on one model; what they take by options are the parts of the suite that says the same."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path  # noqa: TC003  Typer resolves the options at run time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtbench.cli.given import Given, Only, Section, takes
from trtbench.cli.options import (
    CALIBRATION,
    DATA,
    EXPORT,
    FINE_TUNE,
    MODEL,
    TRAIN,
    TRAINED_MODEL,
    JsonOption,
    output_option,
)
from trtbench.cli.screen import Screen, tell
from trtbench.errors import ConfigError

if TYPE_CHECKING:
    from trtbench.steps import Evaluated, Scored
    from trtbench.suite import Suite

app = typer.Typer()

_IMPORTED = Only(
    without="--from-cache", cure="leave it out: images, method and places were chosen when the cache was written"
)
_TRAINED = Only(with_="--epochs", cure="add --epochs, or leave it out")
_BUDGET = replace(FINE_TUNE, rule=_TRAINED)
_QAT_BUDGET = replace(FINE_TUNE, kind="QatVariant")
_FEW_BITS_BUDGET = replace(_BUDGET, kind="FixedPointVariant")
_CLASSES = 10
_SPARSE_METHODS = ("global", "layer", "second-order", "nm")
_Classes = Annotated[
    int | None,
    typer.Option(
        "--classes",
        "--num-classes",
        min=1,
        help="How many classes the network tells apart, without --data.  [default: 10]",
    ),
    Only(without="--data"),
]


@app.command()
@takes(DATA, MODEL)
def evaluate(given: Given, *, as_json: JsonOption = False) -> None:
    """Score a model on the whole test split."""
    from trtbench.steps import accuracy, step

    with Screen() as screen:
        found = step(given.suite(), accuracy, None, screen)
    tell(found, _counted(found), as_json=as_json)


@app.command()
@takes(Section(key="variants", part="ChannelsVariant"), _BUDGET, DATA, TRAINED_MODEL)
def prune(
    given: Given,
    *,
    classes: _Classes = None,
    output: Annotated[Path | None, output_option("The checkpoint to write.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Remove channels from a model; without --checkpoint from fresh weights, which shows the structure only.

    Widths become multiples of 16, as in a suite that builds INT8; --round-to says otherwise.
    """
    from trtbench.steps import network, step

    suite = _fresh(given, variants={"kind": "channels", "fine_tune": _learns(given)})
    with Screen() as screen:
        found = step(suite, network, output, screen, classes=_without_data(given, classes))
    words = f"{found.params:,} parameters, {found.macs / 1e6:.2f} M MACs; widths {dict(found.widths)}"
    tell(found, words, as_json=as_json)


@app.command()
@takes(TRAIN, DATA, TRAINED_MODEL)
def train(
    given: Given,
    *,
    output: Annotated[Path, output_option("Folder of the checkpoint, its curves and its log.")],
    seeds: Annotated[
        int, typer.Option(min=1, help="Train this many times, by seed, seed + 1, ..., and tell the spread.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Train a model, or fine-tune a checkpoint; a second call goes on from the last epoch."""
    from trtbench.steps import step, training
    from trtbench.studies.seeds import train_seeds

    suite = _training(given)
    with Screen() as screen:
        if seeds > 1:
            spread = train_seeds(suite, seeds=seeds, output=output, tell=screen)
            tell(spread, spread.sentence, as_json=as_json)
            return
        found = step(suite, training, output, screen, store=output)
    tell(found, f"validation {found.val_correct} of {found.val_total} in epoch {found.best_epoch}", as_json=as_json)


@app.command()
@takes(EXPORT, DATA, MODEL)
def export(
    given: Given,
    *,
    output: Annotated[Path, output_option("The ONNX file to write.")],
    classes: _Classes = None,
    as_json: JsonOption = False,
) -> None:
    """Export a model to one checked ONNX file with the batch norms folded."""
    from trtbench.steps import float_onnx, step

    with Screen() as screen:
        found = step(_fresh(given), float_onnx, output, screen, classes=_without_data(given, classes))
    words = f"{output}: opset {found.opset}, logits within {found.max_abs_error:.1e} of PyTorch's"
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
    from trtbench.steps import calibration, imported_calibration, step

    target = calibration if from_cache is None else partial(imported_calibration, cache=from_cache)
    with Screen() as screen:
        found = step(given.suite(), target, output, screen)
    source = f"{found.images} images" if from_cache is None else from_cache.name
    tell(found, f"{output}: {found.tensors} tensors from {source}", as_json=as_json)


@app.command()
@takes(_QAT_BUDGET, CALIBRATION, EXPORT, DATA, TRAINED_MODEL)
def qat(
    given: Given,
    *,
    output: Annotated[Path, output_option("Folder of the learnt graph, its Q/DQ graph and the ranges.")],
    as_json: JsonOption = False,
) -> None:
    """Train a model with the roundings of its INT8 graph, scales and places alike, and write that graph."""
    from trtbench.steps import learnt_onnx, step

    with Screen() as screen:
        suite = given.suite(variants={"kind": "qat"}, fine_tune=_usual(_QAT_BUDGET))
        found = step(suite, learnt_onnx, output, screen)
    words = f"{_counted(found)}, {found.before} before the training; INT8 in {found.placement}"
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
    from trtbench.steps import dynamic_onnx, step

    with Screen() as screen:
        found = step(given.suite(variants={"kind": "dynamic_int8"}), dynamic_onnx, output, screen)
    words = f"{_counted(found)}, {100 * found.share:.2f} % of the weights in INT8, {found.bytes:,} bytes"
    tell(found, words, as_json=as_json)


@app.command()
@takes(Section(key="variants", part="FixedPointVariant"), _FEW_BITS_BUDGET, DATA, TRAINED_MODEL)
def quantize(
    given: Given,
    *,
    output: Annotated[Path, output_option("The packed file to write (.tbz).")],
    as_json: JsonOption = False,
) -> None:
    """Round a model's weights to 8 bits or fewer, save them packed, and score what was saved."""
    from trtbench.steps import packed_network, step

    variant = {"kind": "fixed_point", "fine_tune": _learns(given)}
    suite = given.suite(variants=variant, fine_tune=_usual(_FEW_BITS_BUDGET))
    with Screen() as screen:
        found = step(suite, packed_network, output, screen)
    words = f"{found.bits_per_weight:.2f} bits a weight, {found.bytes:,} bytes in {found.output}"
    tell(found, f"{_counted(found)}, {words}", as_json=as_json)


@app.command()
@takes(
    Section(key="variants", part="WeightsVariant", but=("method", "scope"), rule=Only(without="--method nm")),
    Section(key="variants", part="WeightsVariant", fields=("scope",), rule=Only(with_="--method second-order")),
    Section(key="variants", part="NmVariant", but=("method",), rule=Only(with_="--method nm")),
    _BUDGET,
    DATA,
    TRAINED_MODEL,
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
    as_json: JsonOption = False,
) -> None:
    """Set single weights of a model to zero, save it, and count and score what was saved."""
    from trtbench.steps import sparse_network, step

    suite = given.suite(variants=_sparse(given, method, is_second_order=bool(second_order)))
    with Screen() as screen:
        found = step(suite, sparse_network, output, screen)
    words = f"{_counted(found)} with {100 * found.sparsity:.2f} % of the weights at zero, in {found.seconds:.0f} s"
    tell(found, words, as_json=as_json)


@app.command()
def pack(
    checkpoint: Annotated[Path, typer.Argument(help="Weights as you have them, or a packed file.")],
    *,
    output: Annotated[Path, output_option("The packed file to write (.tbz).")],
    clusters: Annotated[int | None, typer.Option(help="Values that the weights of each layer share.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Round what is left in float to half precision.")] = False,
    weights_from: Annotated[str | None, typer.Option(help="Key or prefix of the network that is meant.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a checkpoint in the fewest bytes; without --clusters and --half nothing of it is lost."""
    from trtbench.compress.codec import pack_checkpoint

    found = pack_checkpoint(checkpoint, output=output, clusters=clusters, is_halved=half, weights_from=weights_from)
    words = f"{output}: {found.bytes:,} bytes, {found.ratio:.2f} times less than in float32"
    tell(found, words, as_json=as_json)


@app.command()
def unpack(
    packed: Annotated[Path, typer.Argument(help="A packed file (.tbz).")],
    *,
    output: Annotated[Path, output_option("The safetensors file to write.")],
    as_json: JsonOption = False,
) -> None:
    """Write a packed file's weights as safetensors."""
    from trtbench.compress.codec import unpack_checkpoint

    found = unpack_checkpoint(packed, output=output)
    tell(found, f"{output}: {found.bytes:,} bytes; sha256 of the state {found.sha256}", as_json=as_json)


def _usual(budget: Section) -> dict[str, Any]:
    assert budget.usual is not None, "the kind has one"
    return budget.usual.model_dump(exclude_unset=True)


def _learns(given: Given) -> bool:
    return bool(given.values.get("fine_tune.epochs", 0) > 0)


def _fresh(given: Given, **usual: Any) -> Suite:
    """Return the suite of a step that can do without a checkpoint: with the weights that its seed gives."""
    is_fresh = "model.checkpoint" not in given.values and not given.values["model.name"].startswith("onnx:")
    return given.suite(**usual, **({"model": {"train": {"epochs": 0}}} if is_fresh else {}))


def _without_data(given: Given, classes: int | None) -> int | None:
    return None if "data.source" in given.values else classes or _CLASSES


def _training(given: Given) -> Suite:
    """Return the suite that trains: the dense network, or where it has a checkpoint, a variant of it."""
    if "model.checkpoint" not in given.values:
        return given.suite(model={"train": {}})
    budget = {f"fine_tune{key.removeprefix(TRAIN.key)}": value for key, value in given.values.items() if _trains(key)}
    others = {key: value for key, value in given.values.items() if not _trains(key)}
    tuned = {"fine_tune": True}
    usual = {key: TRAIN.model.model_fields[key].default for key in ("epochs", "lr")}  # as from fresh weights
    return Given(values=others | budget).suite(variants=tuned, fine_tune=usual)


def _trains(key: str) -> bool:
    return key.startswith(f"{TRAIN.key}.")


def _sparse(given: Given, method: str, *, is_second_order: bool) -> dict[str, Any]:
    if method not in _SPARSE_METHODS:
        expected = " or ".join(_SPARSE_METHODS)
        raise ConfigError("--method", expected=expected, got=repr(method), cure="name one of these")
    usual: dict[str, Any] = {"fine_tune": _learns(given)}
    if method == "nm":
        return {**usual, "kind": "nm", "method": "second-order" if is_second_order else "magnitude"}
    how = {"method": "second-order"} if method == "second-order" else {"scope": method}
    return {**usual, "kind": "weights", **how}


def _counted(found: Evaluated | Scored) -> str:
    return f"{found.correct} of {found.total} correct ({100 * found.top1:.2f} %)"
