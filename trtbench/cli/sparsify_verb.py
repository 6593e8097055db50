"""The verbs of what can go: sparsify sets single weights to zero, sensitivity says which layers mind."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer resolves the options at run time
from typing import TYPE_CHECKING, Annotated

import typer

from trtbench.cli.app import app
from trtbench.cli.screen import Screen
from trtbench.cli.step_verbs import (
    CheckpointOption,
    DataOption,
    MeanOption,
    ModelOption,
    SizeOption,
    StdOption,
    budget_of,
    data_of,
    tell,
)
from trtbench.cli.suite_verbs import JsonOption, QuietOption  # noqa: TC001  likewise
from trtbench.errors import ConfigError

if TYPE_CHECKING:
    from trtbench.suite import NmVariant, WeightsVariant

_METHODS = ("global", "layer", "second-order", "nm")


@app.command()
def sparsify(
    *,
    model: ModelOption,
    output: Annotated[Path, typer.Option(help="The checkpoint to write; a CSV and a plot of its layers go beside it.")],
    checkpoint: CheckpointOption = None,
    data: DataOption = "digits",
    method: Annotated[str, typer.Option(help="global or layer (magnitude), second-order, or nm.")] = "global",
    sparsity: Annotated[float | None, typer.Option(help="Share of the weights that go.")] = None,
    per_round: Annotated[float | None, typer.Option(help="Instead: share g of each of the rounds.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of global magnitude: 1 - (1 - g)^n in all.")] = None,
    pattern: Annotated[str | None, typer.Option(help="nm: N:M, as 2:4 or 4:8.")] = None,
    second_order: Annotated[bool, typer.Option("--second-order", help="nm: by curvature, not magnitude.")] = False,
    scope: Annotated[str | None, typer.Option(help="second-order: global or layer.")] = None,
    schedule: Annotated[str | None, typer.Option(help="one-shot, iterative or cubic (these need --epochs).")] = None,
    ramp: Annotated[int | None, typer.Option(help="Epochs until an iterative or cubic schedule is there.")] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of fine-tuning with the zeros held.")] = 0,
    lr: Annotated[float, typer.Option(help="Learning rate of the fine-tuning.")] = 0.01,
    exclude: Annotated[list[str] | None, typer.Option(help="Layers whose name contains this stay; repeatable.")] = None,
    batch_norm: Annotated[str | None, typer.Option(help="Statistics: keep, recalibrate or validation.")] = None,
    images: Annotated[int | None, typer.Option(help="Training images that second-order methods look at.")] = None,
    passes: Annotated[int | None, typer.Option(help="second-order: sequential reconstructions.")] = None,
    seed: Annotated[int, typer.Option(help="Of the images, and of the training.")] = 0,
    mean: MeanOption = None,
    std: StdOption = None,
    size: SizeOption = 32,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Set single weights of a model to zero, save it, and count and score what was saved."""
    from trtbench.pipeline.sparsify import sparsify_model

    shared: dict[str, object] = {"exclude": exclude, "batch_norm": batch_norm, "images": images, "passes": passes}
    shared |= {"seed": seed, "fine_tune": epochs > 0, "name": "sparse"}
    nm: dict[str, object] = {"pattern": pattern}
    weights: dict[str, object] = {"sparsity": sparsity, "per_round": per_round, "rounds": rounds}
    weights |= {"scope": scope, "schedule": schedule, "ramp": ramp}
    _refuse_foreign(method, weights if method == "nm" else {**nm, "second-order": second_order})
    variant = _variant(method, shared, nm if method == "nm" else weights, is_second_order=second_order)
    budget = budget_of(data, epochs=epochs, lr=lr, seed=seed)
    images_of = data_of(data, mean=mean, std=std, size=size)
    with Screen(is_quiet=quiet) as screen:
        found = sparsify_model(model, checkpoint, images_of, variant, output=output, budget=budget, tell=screen)
    words = (
        f"{found['correct']} of {found['total']} correct with {100 * found['sparsity']:.2f} % of the weights at zero, "
        f"in {found['seconds']:.0f} s"
    )
    tell(found, words, as_json=as_json)


@app.command()
def sensitivity(
    *,
    model: ModelOption,
    output: Annotated[Path, typer.Option(help="The CSV to write; a plot goes beside it.")],
    checkpoint: CheckpointOption = None,
    data: DataOption = "digits",
    ratio: Annotated[list[float] | None, typer.Option(help="Share of a layer's outputs; repeatable.")] = None,
    mean: MeanOption = None,
    std: StdOption = None,
    size: SizeOption = 32,
    as_json: JsonOption = False,
) -> None:
    """Prune one layer at a time and count what the model still gets right on the validation images."""
    from trtbench.pipeline.sensitivity import measure_sensitivity

    images = data_of(data, mean=mean, std=std, size=size)
    found = measure_sensitivity(model, checkpoint, images, ratios=ratio or (0.25, 0.5, 0.75), output=output)
    worst = min(found["layers"], key=lambda one: one["correct"])
    words = f"{output}: {worst['layer']} minds most: {worst['correct']} of {worst['total']} at {worst['ratio']:.0%}"
    tell(found, words, as_json=as_json)


def _variant(
    method: str, shared: dict[str, object], own: dict[str, object], *, is_second_order: bool
) -> WeightsVariant | NmVariant:
    from trtbench.suite import NmVariant, WeightsVariant, options

    if method not in _METHODS:
        raise ConfigError("--method", expected=" or ".join(_METHODS), got=repr(method), cure="name one of these")
    if method == "nm":
        rule = "second-order" if is_second_order else "magnitude"
        return options(NmVariant, kind="nm", method=rule, **shared, **own)
    if method == "second-order":
        return options(WeightsVariant, kind="weights", method="second-order", **shared, **own)
    return options(WeightsVariant, kind="weights", **shared, **{**own, "scope": method})


def _refuse_foreign(method: str, foreign: dict[str, object]) -> None:
    """Refuse options of another method, rather than passing over them.

    Raises:
        ConfigError: one of them was given.
    """
    if given := [f"--{name.replace('_', '-')}" for name, value in foreign.items() if value]:
        raise ConfigError(
            f"{', '.join(given)} with --method {method}", expected="options of that method", cure="leave them out"
        )
