"""Verbs that make an INT8 graph of a model other than by calibration alone: qat, dynamic-int8."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations at run time
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


@app.command()
def qat(
    *,
    model: ModelOption,
    output: Annotated[Path, typer.Option(help="Folder of the learnt graph, its Q/DQ graph and the ranges.")],
    data: DataOption = "digits",
    checkpoint: CheckpointOption = None,
    epochs: Annotated[int, typer.Option(help="Epochs of training under the roundings of INT8.")] = 5,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.001,
    per_class: Annotated[int | None, typer.Option(help="Calibration images of each class.")] = None,
    method: Annotated[str, typer.Option(help="entropy, minmax, percentile or mse.")] = "entropy",
    exporter: Annotated[str, typer.Option(help="dynamo or torchscript (faster).")] = "dynamo",
    seed: Annotated[int, typer.Option(help="Of calibration sample and training.")] = 0,
    mean: MeanOption = None,
    std: StdOption = None,
    size: SizeOption = 32,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model with the roundings of its INT8 graph, scales and places alike, and write that graph."""
    from trtbench.pipeline.int8_steps import learn_int8_model
    from trtbench.suite import CalibrationConfig, ExportConfig, adhoc_suite, options

    suite = adhoc_suite(
        model=model,
        checkpoint=checkpoint,
        data=data_of(data, mean=mean, std=std, size=size),
        calibration=options(CalibrationConfig, per_class=per_class, method=method, seed=seed),
        export=options(ExportConfig, exporter=exporter),
    )
    budget = budget_of(data, epochs=epochs, lr=lr, seed=seed)
    with Screen(is_quiet=quiet) as screen:
        found = learn_int8_model(suite, budget, output=output, tell=screen)
    words = f"{_counted(found)}, {found['before']} before the training; INT8 in {found['placement']}"
    tell(found, words, as_json=as_json)


@app.command()
def dynamic_int8(
    *,
    model: ModelOption,
    output: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    data: DataOption = "digits",
    checkpoint: CheckpointOption = None,
    exporter: Annotated[str, typer.Option(help="dynamo or torchscript (faster).")] = "dynamo",
    mean: MeanOption = None,
    std: StdOption = None,
    size: SizeOption = 32,
    as_json: JsonOption = False,
) -> None:
    """Put a model's linear layers into dynamic INT8 (ONNX Runtime), and say how little of it that is."""
    from trtbench.pipeline.int8_steps import dynamic_int8_model
    from trtbench.suite import ExportConfig, adhoc_suite, options

    suite = adhoc_suite(
        model=model,
        checkpoint=checkpoint,
        data=data_of(data, mean=mean, std=std, size=size),
        export=options(ExportConfig, exporter=exporter),
    )
    found = dynamic_int8_model(suite, output=output)
    words = f"{_counted(found)}, {100 * found['share']:.2f} % of the weights in INT8, {found['bytes']:,} bytes"
    tell(found, words, as_json=as_json)


def _counted(found: dict[str, Any]) -> str:
    return f"{found['correct']} of {found['total']} correct ({100 * found['top1']:.2f} %)"
