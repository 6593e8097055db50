"""Single steps on one model as plain functions: what the command line's steps call, and a notebook can."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.accuracy import score
from trtbench.bench.measure import measure_engines
from trtbench.bench.measured import EngineFile, Images
from trtbench.engines.sidecar import read_sidecar
from trtbench.errors import ConfigError
from trtbench.jsonable import to_jsonable
from trtbench.make.calibration import manifest
from trtbench.make.gains import calibration_notes
from trtbench.make.graphs import GRAPH, float_graph, quantized_graph, ranges
from trtbench.make.makings import Makings, Places
from trtbench.make.networks import dense, follow_training
from trtbench.progress import Event, Listener, nobody
from trtbench.running.bench import reference_logits, row_of
from trtbench.store import storing

if TYPE_CHECKING:
    from trtbench.rows import Row
    from trtbench.suite import BenchConfig, ChannelsVariant, DataConfig, ExportConfig, Suite, TrainConfig


def evaluate_model(suite: Suite) -> dict[str, Any]:
    """Score the dense network of a suite on its whole test split.

    Returns:
        `correct`, `total`, `top1`, `top5`, `ci95`, `per_class` and the `notes` of loading its checkpoint.
    """
    with tempfile.TemporaryDirectory() as folder:
        makings = Makings(suite, Places(runs=Path(folder)))
        found = score(reference_logits(makings), makings.dataset.test.labels)
        notes = [] if makings.onnx_path is not None else list(dense(makings).facts.notes)
    return {**to_jsonable(found), "notes": notes}


def prune_model(
    model: str,
    checkpoint: Path | None,
    variant: ChannelsVariant,
    *,
    num_classes: int,
    input_size: int,
    data: DataConfig | None = None,
    output: Path | None = None,
) -> dict[str, Any]:
    """Remove channels from a network and save it where `output` says.

    Returns:
        `params`, `macs`, `widths` after, the record of the pruning, and `output`.

    Raises:
        ConfigError: an importance needs images and `data` is None.
        RowError: the target cannot be reached.
    """
    from trtbench.compress.channels import labelled_batches, prune_channels
    from trtbench.models import load_model, save_model

    loaded = load_model(model, num_classes=num_classes, checkpoint=checkpoint)
    pruned = prune_channels(
        loaded.model,
        variant,
        input_shape=(3, input_size, input_size),
        round_to=variant.round_to or 1,
        batches=None if data is None else labelled_batches(_dataset(data)),
    )
    if output is not None:
        save_model(output, pruned.model, name=model, num_classes=num_classes, metadata={})
    record = to_jsonable(pruned.record)
    return {
        "params": record["params_after"],
        "macs": record["macs_after"],
        "widths": record["widths_after"],
        "output": None if output is None else str(output),
        "record": record,
        "notes": [*loaded.notes, *record["notes"]],
    }


def train_model(
    model: str,
    checkpoint: Path | None,
    data: DataConfig,
    config: TrainConfig,
    *,
    output: Path,
    tell: Listener = nobody,
) -> dict[str, Any]:
    """Train a network, from fresh weights or a checkpoint, into `output/model.safetensors`.

    Returns:
        The record of the training.
    """
    import torch

    from trtbench.models import build_model, load_model, save_model
    from trtbench.train import fit

    dataset = _dataset(data)
    classes = dataset.num_classes
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = (
            build_model(model, num_classes=classes)
            if checkpoint is None
            else load_model(model, num_classes=classes, checkpoint=checkpoint).model
        )

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    with storing(output):
        output.mkdir(parents=True, exist_ok=True)
    follow = follow_training(tell, item=model, epochs=config.epochs)
    record = fit(network, dataset, config, folder=output, device=device, on_epoch=follow)
    network.to("cpu")
    path = output / "model.safetensors"
    metadata = {"preprocessing": dataset.preprocessing.fingerprint}
    save_model(path, network, name=model, num_classes=classes, metadata=metadata)
    return {**to_jsonable(record), "output": str(path)}


def export_model(
    model: str, checkpoint: Path | None, config: ExportConfig, *, num_classes: int, input_size: int, output: Path
) -> dict[str, Any]:
    """Export a network to one ONNX file.

    Returns:
        The record of the graph and the `notes` of loading the checkpoint.
    """
    from trtbench.graph.export import export_onnx
    from trtbench.models import load_model

    loaded = load_model(model, num_classes=num_classes, checkpoint=checkpoint)
    with storing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    record = export_onnx(loaded.model, output, input_shape=(3, input_size, input_size), config=config)
    return {**to_jsonable(record), "path": str(output), "notes": list(loaded.notes)}


def calibrate_model(suite: Suite, *, output: Path, cache: Path | None = None) -> dict[str, Any]:
    """Write ranges.json and model.qdq.onnx of a suite's first variant into `output`, and manifest.json beside them.

    With a `cache` that a calibrator of TensorRT 10 wrote, the ranges are its own and there is no manifest: which images
    it saw, it does not tell.

    Returns:
        `tensors`, `method`, `output`; `images` and `manifest_sha256`, or `cache_sha256`; and as `notes` classes that
        were taken short and what each option beyond the method brought on the validation images.

    Raises:
        DataError: the cache cannot be read.
        GraphError: it is not of this graph.
    """
    with tempfile.TemporaryDirectory() as folder:
        makings = Makings(suite, Places(runs=Path(folder), calib=Path(folder) / "calib"))
        made, facts = _calibrated(makings) if cache is None else _imported(makings, cache)
        with storing(output):
            output.mkdir(parents=True, exist_ok=True)
            for name, content in made.items():
                (output / name).write_bytes(content)
    return {**facts, "output": str(output)}


def _calibrated(makings: Makings) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of a calibration by name, and what is said of it."""
    variant = makings.suite.variants[0]
    chosen, found, quantized = manifest(makings), ranges(makings, variant), quantized_graph(makings, variant)
    files = {
        "manifest.json": chosen.path("manifest.json"),
        "ranges.json": found.path("ranges.json"),
        "model.qdq.onnx": quantized.path(GRAPH),
    }
    facts = {
        "images": chosen.facts.images,
        "tensors": found.facts.tensors,
        "manifest_sha256": chosen.facts.sha256,
        "method": makings.suite.calibration.method,
        "notes": list(calibration_notes(makings, variant, precision="int8")),
    }
    return {name: path.read_bytes() for name, path in files.items()}, facts


def _imported(makings: Makings, cache: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files that come of a cache by name, and what is said of it."""
    from trtbench.make.cache_import import import_cache

    graph = float_graph(makings, makings.suite.variants[0])
    found = import_cache(graph.path(GRAPH), cache)
    facts = {
        "tensors": found.tensors,
        "method": f"TensorRT's {found.algorithm}",
        "cache_sha256": found.sha256,
        "notes": list(found.notes),
    }
    return {"ranges.json": found.ranges.encode(), "model.qdq.onnx": found.graph}, facts


def bench_engine(
    engine: Path, source: str, config: BenchConfig, *, out: Path, tell: Listener = nobody
) -> tuple[Row, ...]:
    """Score and time one engine file on a test split, with the preprocessing of its sidecar.

    Raises:
        ConfigError: there is no such file, or it tells other classes apart than the images have.
        SidecarError: its sidecar is absent or does not fit.
    """
    from trtbench.suite import DataConfig, options

    if not engine.is_file():
        raise ConfigError(f"engine {engine}", expected="an engine file", got="nothing there", cure="`trtbench build`")
    sidecar = read_sidecar(engine)
    fit = sidecar.preprocessing
    dataset = _dataset(options(DataConfig, source=source, size=fit.size, mean=fit.mean, std=fit.std))
    if dataset.num_classes != sidecar.num_classes:
        raise ConfigError(
            f"engine {engine}",
            expected=f"images of {sidecar.num_classes} classes",
            got=f"{dataset.num_classes} in {source}",
            cure="give the --data it was trained on",
        )
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "test.npy"
        with storing(images):
            np.save(images, dataset.test.images)
        name = f"{sidecar.variant} {sidecar.shown_precision} {sidecar.backend}"
        settings = {"cuda_graph": config.cuda_graph} if sidecar.backend == "tensorrt" else {}
        measured = measure_engines(
            [EngineFile(name=name, backend=sidecar.backend, path=engine, settings=settings)],
            Images(path=images, labels=dataset.test.labels),
            config,
            folder=out,
            progress=lambda stage, item, share: tell(Event(stage=stage, item=item, state="progress", share=share)),
        )
    return tuple(row_of(one, sidecar) for one in measured)


def _dataset(config: DataConfig) -> Any:
    from trtbench.data import load_dataset

    return load_dataset(config)
