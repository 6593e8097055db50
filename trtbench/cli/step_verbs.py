"""Verbs that do one step on one model: train, prune, export, calibrate, evaluate; build and bench take a suite too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trtbench.cli.app import app
from trtbench.cli.publish import JunitOption, MlflowOption  # noqa: TC001  Typer resolves them at run time
from trtbench.cli.screen import Screen, say, show, show_json
from trtbench.cli.suite_verbs import (
    CalibOption,
    EnginesOption,
    JsonOption,
    OutOption,
    QuietOption,
    RequireGpuOption,
    bench_engines,
    build_engines,
    check_gpu,
    exit_where_failed,
    places_of,
    show_built,
)
from trtbench.errors import ConfigError

if TYPE_CHECKING:
    from trtbench.suite import DataConfig, Suite, TrainConfig

ModelOption = Annotated[
    str, typer.Option(help="resnet20, torchvision:NAME, timm:NAME, package.module:callable or onnx:PATH.")
]
CheckpointOption = Annotated[Path | None, typer.Option(help="Weights as you have them: .pth, .pt, .th, .safetensors.")]
DataOption = Annotated[str, typer.Option(help="digits, cifar10[:ROOT], cifar100[:ROOT] or folder:PATH.")]
MeanOption = Annotated[str | None, typer.Option(help="Per-channel mean, joined by commas.")]
StdOption = Annotated[str | None, typer.Option(help="Per-channel deviation, joined by commas.")]
SizeOption = Annotated[int, typer.Option(help="Height and width the network sees.")]
OutputOption = Annotated[Path | None, typer.Option(help="Where the result is written.")]
SuiteOption = Annotated[str | None, typer.Argument(help="A suite file or a shipped suite [default: quickstart].")]
ClassesOption = Annotated[int, typer.Option(help="How many classes the network tells apart.")]


@app.command()
def build(
    *,
    suite: SuiteOption = None,
    model: Annotated[str | None, typer.Option(help="Build one model instead of a suite.")] = None,
    checkpoint: CheckpointOption = None,
    data: Annotated[str | None, typer.Option(help="digits, cifar10[:ROOT], cifar100[:ROOT] or folder:PATH.")] = None,
    mean: MeanOption = None,
    std: StdOption = None,
    size: Annotated[int | None, typer.Option(help="Height and width the network sees.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, tf32, fp16, bf16, int8, int8+fp16 ...")] = None,
    backend: Annotated[str | None, typer.Option(help="auto, tensorrt, onnxruntime-cpu ...")] = None,
    per_class: Annotated[int | None, typer.Option(help="Calibration images of each class.")] = None,
    out: OutOption = Path("runs"),
    engines: EnginesOption = Path("engines"),
    calib: CalibOption = Path("calib"),
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    require_gpu: RequireGpuOption = False,
) -> None:
    """Build the engines of a suite, or of one model."""
    places = places_of(out, engines, calib)
    if model is None:
        one_model = {"checkpoint": checkpoint, "data": data, "mean": mean, "std": std, "size": size}
        _refuse_without("--model", one_model | {"precision": precision, "backend": backend, "per-class": per_class})
        build_engines(suite or "quickstart", places, is_quiet=quiet, as_json=as_json, require_gpu=require_gpu)
        return
    if suite is not None:
        raise ConfigError("SUITE and --model", expected="one of them", got="both", cure="leave one out")
    check_gpu(is_required=require_gpu)
    from trtbench.pipeline import build_suite
    from trtbench.suite import CalibrationConfig, adhoc_suite, options

    one = adhoc_suite(
        model=model,
        checkpoint=checkpoint,
        data=data_of(data or "digits", mean=mean, std=std, size=size or 32),
        precisions=(precision or "fp32",),
        backend=backend or "auto",
        calibration=options(CalibrationConfig, per_class=per_class),
    )
    with Screen(is_quiet=quiet) as screen:
        built = build_suite(one, places, tell=screen)
    show_built(built, as_json=as_json)


@app.command()
def bench(
    *,
    suite: SuiteOption = None,
    engine: Annotated[Path | None, typer.Option(help="Measure one engine file instead of a suite.")] = None,
    data: Annotated[str | None, typer.Option(help="digits, cifar10[:ROOT], cifar100[:ROOT] or folder:PATH.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Batch size; may be given several times.")] = None,
    duration: Annotated[float | None, typer.Option(help="Seconds a row is timed, at least.")] = None,
    warm_up: Annotated[float | None, typer.Option(help="Milliseconds of warm-up.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Samples, at least.")] = None,
    processes: Annotated[int | None, typer.Option(help="Fresh processes of the engine.")] = None,
    scenario: Annotated[
        list[str] | None, typer.Option(help="Load: streams:4, arrivals:200 (a second) or arrivals:5ms (p99 at most).")
    ] = None,
    out: OutOption = Path("runs"),
    engines: EnginesOption = Path("engines"),
    calib: CalibOption = Path("calib"),
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    require_gpu: RequireGpuOption = False,
    junit: JunitOption = None,
    mlflow: MlflowOption = None,
) -> None:
    """Score and time the engines of a suite and write the report, or measure one engine file."""
    if engine is None:
        places = places_of(out, engines, calib)
        timing: dict[str, Any] = {"batch": batch, "duration": duration, "warm-up": warm_up, "iterations": iterations}
        timing |= {"processes": processes, "scenario": scenario}
        _refuse_without("--engine", {"data": data} | timing)
        bench_engines(
            suite or "quickstart",
            places,
            is_quiet=quiet,
            as_json=as_json,
            require_gpu=require_gpu,
            junit=junit,
            mlflow=mlflow,
        )
        return
    if suite is not None:
        raise ConfigError("SUITE and --engine", expected="one of them", got="both", cure="leave one out")
    if junit is not None or mlflow is not None:
        cure = "measure a suite, or leave them out"
        raise ConfigError("--junit, --mlflow", expected="a suite's report", got="--engine", cure=cure)
    check_gpu(is_required=require_gpu)
    from trtbench.pipeline.steps import bench_engine
    from trtbench.suite import BenchConfig, options

    config = options(
        BenchConfig,
        batch_sizes=tuple(batch) if batch else None,
        duration=duration,
        warm_up=warm_up,
        iterations=iterations,
        processes=processes,
        load=tuple(_load(one) for one in scenario) if scenario else None,
    )
    with Screen(is_quiet=quiet) as screen:
        rows = bench_engine(engine, data or "digits", config, out=out, tell=screen)
    if as_json:
        show_json({"rows": rows})
    for row in () if as_json else rows:
        accuracy, latency = row.accuracy, row.latency
        if accuracy is None or latency is None:
            show(f"{row.name}: {row.status}: {row.reason}")
        else:
            show(f"{row.name}: {accuracy.correct} of {accuracy.total} correct, p50 {latency.p50_ms:.3f} ms")
        for load in row.loads:
            what = f"{load.streams} in flight" if load.rate is None else f"{load.rate:.0f} requests a second"
            kept = {None: "", True: ", within the limit", False: ", beyond the limit"}[load.holds]
            show(f"  {what}: {load.throughput_ips:.0f} images a second, p50 {load.p50_ms:.3f} ms{kept}")
    exit_where_failed([row.status for row in rows])


@app.command()
def evaluate(
    *,
    model: ModelOption,
    data: DataOption = "digits",
    checkpoint: CheckpointOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    size: SizeOption = 32,
    as_json: JsonOption = False,
) -> None:
    """Score a model on the whole test split."""
    from trtbench.pipeline.steps import evaluate_model

    found = evaluate_model(_one(model, checkpoint, data_of(data, mean=mean, std=std, size=size)))
    tell(found, f"{found['correct']} of {found['total']} correct ({100 * found['top1']:.2f} %)", as_json=as_json)


@app.command()
def prune(
    *,
    model: ModelOption,
    checkpoint: CheckpointOption = None,
    ratio: Annotated[float | None, typer.Option(help="Share of each layer's channels that go.")] = None,
    macs: Annotated[float | None, typer.Option(help="Target: MACs as a share of the dense network's.")] = None,
    params: Annotated[float | None, typer.Option(help="Target: parameters as a share of the dense network's.")] = None,
    importance: Annotated[str, typer.Option(help="l2, l1, bn-scale, taylor, hessian or lamp.")] = "l2",
    scope: Annotated[str, typer.Option(help="uniform or global.")] = "uniform",
    steps: Annotated[int, typer.Option(help="Iterative steps to the target.")] = 1,
    round_to: Annotated[int, typer.Option(help="Widths become multiples of this.")] = 8,
    data: Annotated[str | None, typer.Option(help="Training images, for taylor and hessian only.")] = None,
    classes: ClassesOption = 10,
    size: SizeOption = 32,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove channels from a model; without --checkpoint from fresh weights, which shows the structure only."""
    from trtbench.pipeline.steps import prune_model
    from trtbench.suite import ChannelsVariant, options

    variant = options(
        ChannelsVariant,
        kind="channels",
        name="pruned",
        ratio=ratio,
        macs=macs,
        params=params,
        importance=importance,
        scope=scope,
        steps=steps,
        round_to=round_to,
    )
    images = None if data is None else data_of(data, mean=None, std=None, size=size)
    found = prune_model(model, checkpoint, variant, num_classes=classes, input_size=size, data=images, output=output)
    words = f"{found['params']:,} parameters, {found['macs'] / 1e6:.2f} M MACs; widths {found['widths']}"
    tell(found, words, as_json=as_json)


@app.command()
def train(
    *,
    model: ModelOption,
    output: Annotated[Path, typer.Option(help="Folder of the checkpoint, its curves and its log.")],
    data: DataOption = "digits",
    checkpoint: CheckpointOption = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images of a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adam, adamw, rmsprop, adagrad, nadam, adadelta.")] = None,
    schedule: Annotated[str | None, typer.Option(help="cosine, one-cycle, multistep or constant.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Label smoothing.")] = None,
    amp: Annotated[str | None, typer.Option(help="off, bf16 or fp16 (CUDA only).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, order and augmentation.")] = None,
    seeds: Annotated[int, typer.Option(help="Train this many times, by seed, seed + 1, ..., and tell the spread.")] = 1,
    key: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of the suite's training budget; repeatable.")
    ] = None,
    mean: MeanOption = None,
    std: StdOption = None,
    size: SizeOption = 32,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model, or fine-tune a checkpoint; a second call goes on from the last epoch."""
    from trtbench.pipeline.seeds import train_seeds
    from trtbench.pipeline.steps import train_model
    from trtbench.suite import TrainConfig, options

    config = options(
        TrainConfig,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        schedule=schedule,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        amp=amp,
        seed=seed,
        **_with_keys({"augment": _augment_for(data)}, key or []),
    )
    images = data_of(data, mean=mean, std=std, size=size)
    with Screen(is_quiet=quiet) as screen:
        if seeds > 1:
            found = train_seeds(model, checkpoint, images, config, seeds=seeds, output=output, tell=screen)
            tell(found, found["sentence"], as_json=as_json)
            return
        found = train_model(model, checkpoint, images, config, output=output, tell=screen)
    words = f"validation {found['val_correct']} of {found['val_total']} in epoch {found['best_epoch']}"
    tell(found, words, as_json=as_json)


@app.command()
def export(
    *,
    model: ModelOption,
    output: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    checkpoint: CheckpointOption = None,
    exporter: Annotated[str, typer.Option(help="dynamo or torchscript (faster).")] = "dynamo",
    opset: Annotated[int, typer.Option(help="ONNX operator set.")] = 20,
    classes: ClassesOption = 10,
    size: SizeOption = 32,
    as_json: JsonOption = False,
) -> None:
    """Export a model to one checked ONNX file with the batch norms folded."""
    from trtbench.pipeline.steps import export_model
    from trtbench.suite import ExportConfig, options

    config = options(ExportConfig, exporter=exporter, opset=opset)
    found = export_model(model, checkpoint, config, num_classes=classes, input_size=size, output=output)
    words = f"{output}: opset {found['opset']}, logits within {found['max_abs_error']:.1e} of PyTorch's"
    tell(found, words, as_json=as_json)


@app.command()
def calibrate(
    *,
    model: ModelOption,
    output: Annotated[Path, typer.Option(help="Folder of manifest.json, ranges.json and the Q/DQ graph.")],
    data: DataOption = "digits",
    checkpoint: CheckpointOption = None,
    per_class: Annotated[int | None, typer.Option(help="Training images of each class.")] = None,
    total: Annotated[int | None, typer.Option(help="Training images in all.")] = None,
    method: Annotated[str | None, typer.Option(help="entropy, mse, percentile, minmax or moving-average.")] = None,
    weights: Annotated[str | None, typer.Option(help="Clip of a weight's channels: absmax or mse.")] = None,
    equalise: Annotated[bool, typer.Option("--equalise", help="Equalise neighbouring layers (depthwise).")] = False,
    rounding: Annotated[str | None, typer.Option(help="nearest, or gptq: layer reconstruction.")] = None,
    bias_correction: Annotated[bool, typer.Option("--bias-correction", help="Take mean shifts off biases.")] = False,
    allow_short: Annotated[bool, typer.Option("--allow-short", help="Take classes short that lack images.")] = False,
    seed: Annotated[int | None, typer.Option(help="Seed of the sample.")] = None,
    from_cache: Annotated[
        Path | None, typer.Option(help="Take the ranges from a calibration cache that TensorRT 10 wrote.")
    ] = None,
    mean: MeanOption = None,
    std: StdOption = None,
    size: SizeOption = 32,
    as_json: JsonOption = False,
) -> None:
    """Choose class-balanced training images and turn their activations into a Q/DQ graph, or import a cache."""
    from trtbench.pipeline.steps import calibrate_model
    from trtbench.suite import CalibrationConfig, options

    chosen = {"per_class": per_class, "total": total, "method": method, "seed": seed}
    chosen |= {"allow_short": allow_short or None}
    if from_cache is not None and (given := [name for name, value in chosen.items() if value is not None]):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        cure = "leave them out: images and method were chosen when the cache was written"
        raise ConfigError(f"{names} with --from-cache", expected="one or the other", cure=cure)
    how = {"weights": weights, "rounding": rounding, "equalise": equalise, "bias_correction": bias_correction}
    one = _one(
        model,
        checkpoint,
        data_of(data, mean=mean, std=std, size=size),
        calibration=options(CalibrationConfig, **chosen, **how),
    )
    found = calibrate_model(one, output=output, cache=from_cache)
    source = f"{found['images']} images" if from_cache is None else from_cache.name
    tell(found, f"{output}: {found['tensors']} tensors from {source}", as_json=as_json)


def _load(text: str) -> dict[str, Any]:
    """Read a load as people write it: streams:4, arrivals:200, arrivals:5ms.

    Raises:
        ConfigError: it is none of these.
    """
    found = re.fullmatch(r"(streams):(\d+)|(arrivals):(\d+(?:\.\d+)?)(ms)?", text)
    if found is None:
        cure = "e.g. --scenario streams:4 --scenario arrivals:200"
        expected = "streams:NUMBER, arrivals:RATE or arrivals:MILLISECONDSms"
        raise ConfigError("--scenario", expected=expected, got=repr(text), cure=cure)
    if found[1]:
        return {"scenario": "streams", "streams": int(found[2])}
    return {"scenario": "arrivals", "p99_ms" if found[5] else "rate": float(found[4])}


def _one(model: str, checkpoint: Path | None, data: DataConfig, **parts: Any) -> Suite:
    from trtbench.suite import adhoc_suite

    return adhoc_suite(model=model, checkpoint=checkpoint, data=data, **parts)


def data_of(source: str, *, mean: str | None, std: str | None, size: int) -> DataConfig:
    """Return the `data` section that a step's options amount to."""
    from trtbench.suite import DataConfig, options

    return options(DataConfig, source=source, size=size, mean=_numbers("--mean", mean), std=_numbers("--std", std))


def budget_of(source: str, *, epochs: int, lr: float, seed: int) -> TrainConfig:
    """Return the training budget that a step's options amount to."""
    from trtbench.suite import TrainConfig, options

    return options(TrainConfig, epochs=epochs, lr=lr, seed=seed, augment=_augment_for(source))


def _augment_for(source: str) -> dict[str, Any]:
    return {"flip": False} if source == "digits" else {}  # a mirrored 2 is no digit


def _with_keys(values: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """Add KEY=VALUE, the value read as YAML; a dot leads into a section, as in augment.mixup=0.2.

    Raises:
        ConfigError: no KEY=VALUE.
    """
    import yaml

    for text in keys:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigError("--set", expected="KEY=VALUE", got=repr(text), cure="e.g. --set ema=0.999")
        *sections, leaf = name.split(".")
        part = values
        for section in sections:
            part = part.setdefault(section, {})
        part[leaf] = yaml.safe_load(value)
    return values


def _refuse_without(needed: str, options: dict[str, Any]) -> None:
    """Refuse options that a suite decides, rather than passing over them.

    Raises:
        ConfigError: one of them was given.
    """
    if given := [f"--{name}" for name, value in options.items() if value]:
        cure = f"add {needed}, or set it in the suite's file"
        raise ConfigError(f"{', '.join(given)} with a suite", expected=f"only with {needed}", cure=cure)


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            option, expected="numbers joined by commas", got=repr(text), cure="e.g. 0.5,0.5,0.5"
        ) from error


def tell(found: dict[str, Any], words: str, *, as_json: bool) -> None:
    """Show a step's result, and its notes beside it."""
    if as_json:
        show_json(found)
        return
    show(words)
    for note in found.get("notes", ()):
        say(f"note: {note}")
