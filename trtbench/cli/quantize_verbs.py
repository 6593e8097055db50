"""Verbs of fewer bits and fewer bytes: quantize, pack, unpack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
from trtbench.cli.suite_verbs import JsonOption, QuietOption  # noqa: TC001  typer reads the annotations at run time

PackedOption = Annotated[Path, typer.Option("--output", "-o", help="The packed file to write (.tbz).")]


@app.command()
def quantize(
    *,
    model: ModelOption,
    output: PackedOption,
    data: DataOption = "digits",
    checkpoint: CheckpointOption = None,
    bits: Annotated[str, typer.Option(help="Of each weight: 8 to 1 (1 is binary), or ternary.")] = "4",
    scheme: Annotated[str, typer.Option(help="best, or the source study's asymmetric or symmetric.")] = "best",
    activations: Annotated[int | None, typer.Option(help="Bits of what flows into a layer.")] = None,
    images: Annotated[int | None, typer.Option(help="Training images that best looks at.")] = None,
    epochs: Annotated[int, typer.Option(help="Epochs of training with the weights rounded; 0 trains nothing.")] = 0,
    lr: Annotated[float, typer.Option(help="Learning rate of that training.")] = 0.002,
    seed: Annotated[int, typer.Option(help="Of the images, and of the training.")] = 0,
    mean: MeanOption = None,
    std: StdOption = None,
    size: SizeOption = 32,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Round a model's weights to 8 bits or fewer, save them packed, and score what was saved."""
    from trtbench.pipeline.quantize import quantize_model
    from trtbench.suite import FixedPointVariant, options

    config = options(
        FixedPointVariant,
        kind="fixed_point",
        name="quantized",
        bits=int(bits) if bits.isdigit() else bits,
        scheme=scheme,
        activations=activations,
        images=images,
        seed=seed,
        fine_tune=epochs > 0,
    )
    budget = budget_of(data, epochs=epochs, lr=lr, seed=seed)
    source = data_of(data, mean=mean, std=std, size=size)
    with Screen(is_quiet=quiet) as screen:
        found = quantize_model(model, checkpoint, source, config, output=output, budget=budget, tell=screen)
    tell(found, _score(found), as_json=as_json)


def _score(found: dict[str, Any]) -> str:
    return (
        f"{found['correct']} of {found['total']} correct ({100 * found['top1']:.2f} %), "
        f"{found['bits_per_weight']:.2f} bits a weight, {found['bytes']:,} bytes in {found['output']}"
    )


@app.command()
def pack(
    checkpoint: Annotated[Path, typer.Argument(help="Weights as you have them, or a packed file.")],
    *,
    output: PackedOption,
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
    output: Annotated[Path, typer.Option("--output", "-o", help="The safetensors file to write.")],
    as_json: JsonOption = False,
) -> None:
    """Write a packed file's weights as safetensors."""
    from trtbench.pipeline.packing import unpack_checkpoint

    found = unpack_checkpoint(packed, output=output)
    tell(found, f"{output}: {found['bytes']:,} bytes; sha256 of the state {found['sha256']}", as_json=as_json)
