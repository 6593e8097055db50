"""Single steps: what the suite of one model makes by its recipes, copied out, and scored as it was saved.

found = step(suite, network, Path("pruned.safetensors"))  # found.params, found.correct
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from trtbench.bench.accuracy import score
from trtbench.data.load import framing_of
from trtbench.disk import file_sha256, write_atomically
from trtbench.errors import ConfigError
from trtbench.make.calibration import manifest
from trtbench.make.gains import calibration_notes, calibration_record
from trtbench.make.graphs import GRAPH, before, float_graph, notes_of, quantized_graph, ranges
from trtbench.make.images import overlap_notes
from trtbench.make.makings import Makings, Places
from trtbench.make.networks import PACKED, WEIGHTS, dense, variant_network
from trtbench.progress import Listener, nobody
from trtbench.records import Dataset, ExportRecord, Preprocessing, Split
from trtbench.rows import AccuracyRecord
from trtbench.running.bench import reference_logits, true_logits
from trtbench.store import LISTING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trtbench.make.networks import NetworkFacts
    from trtbench.store import Artefact
    from trtbench.suite import Suite

_NO_MEAN, _NO_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # of no images
Found = TypeVar("Found")
Place = TypeVar("Place", bound=Path | None)


def step(
    suite: Suite,
    target: Callable[[Makings, Place], Found],
    output: Place,
    tell: Listener = nobody,
    *,
    store: Path | None = None,
    classes: int | None = None,
) -> Found:
    """Make what a target wants of a suite and write it to `output`.

    Args:
        suite: of one variant.
        target: a function of this module, which says what it writes and tells.
        output: a file or a folder, as the target has it.
        tell: told of progress.
        store: keeps what is made on the way, so that an interrupted step goes on; without it, it goes with the step.
        classes: so many and no images, for a step that looks at none.

    Raises:
        ConfigError: without images, the variant looks at some or learns from some.
        RowError: it cannot be made.
        StoreError: it cannot be written.
    """
    with tempfile.TemporaryDirectory() as scratch:
        places = Places(runs=store or Path(scratch), calib=Path(scratch) / "calib")
        makings = Makings(suite, places, tell=tell)
        if classes is not None:
            makings.dataset = _without_images(suite, classes)
        return target(makings, output)


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What a step wrote, and what there is to say of it."""

    output: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored(Saved):
    """What a step wrote and gets right: of `total` test images, the share `top1`."""

    correct: int
    total: int
    top1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated(AccuracyRecord):
    """What the dense network gets right, and what there is to say of its checkpoint."""

    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedNetwork(Saved):
    """A smaller network; what it gets right is None without images. `record` is what its method notes."""

    params: int
    macs: int
    widths: Mapping[str, int]
    record: Mapping[str, Any]
    correct: int | None = None
    total: int | None = None
    top1: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedNetwork(Scored):
    """A trained network and its training; the validation counts are those of the best epoch, whose weights it has."""

    epochs: int
    best_epoch: int
    val_correct: int
    val_total: int
    seconds: float
    resumed_from: int | None
    history: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseNetwork(Scored):
    """A network with zero weights, counted in the file as it is read again; a table and a plot of its layers."""

    sparsity: float
    zeros: int
    weights: int
    seconds: float
    layers_csv: str
    plot: str
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedNetwork(Scored):
    """A network of few bits in a packed file."""

    bytes: int
    scheme: str
    bits: int | str
    activations: int | None
    layers: int
    float_layers: tuple[str, ...]
    bits_per_weight: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedGraph(ExportRecord):
    """A float graph as it was written: `path` is `output`."""

    output: str
    path: str
    sha256: str
    ir_version: int
    file_bytes: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicGraph(Scored):
    """A graph with its linear layers in dynamic INT8: how many, their weights, of all weights, and the share."""

    bytes: int
    layers: int
    weights: int
    total_weights: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LearntGraph(Scored):
    """A Q/DQ graph that learnt with its roundings; `before` is what it got right without the training."""

    before: int
    epochs: int
    best_epoch: int
    placement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated(Saved):
    """Ranges of so many tensors, by which method, from which images or which cache; and how near FP32 they come."""

    tensors: int
    method: str
    images: int | None = None
    manifest_sha256: str | None = None
    cache_sha256: str | None = None
    snr_db: float | None = None
    agreement: float | None = None


def accuracy(makings: Makings, output: None) -> Evaluated:  # noqa: ARG001  there is nothing to write
    """Score the dense network on the whole test split."""
    makings.require_labels("accuracy", "give images by class: folder:PATH; `trtbench run` compares outputs without")
    found = score(reference_logits(makings), makings.dataset.test.labels)
    own = () if makings.onnx_path is not None else dense(makings).facts.notes
    return Evaluated(**_shared(Evaluated, found), notes=(*makings.dataset.notes, *own))


def network(makings: Makings, output: Path | None) -> PrunedNetwork:
    """Write the variant's network as a checkpoint, if asked, and count what is left of it."""
    made = _network(makings)
    _copy({} if output is None else {output: made.path(WEIGHTS)})
    return PrunedNetwork(
        output=None if output is None else str(output),
        record=made.facts.method.get("prune", made.facts.method),
        notes=_notes(makings, made),
        **_shared(PrunedNetwork, made.facts),
        **(_counted(makings, output or made.path(WEIGHTS)) if len(makings.dataset.test) else {}),
    )


def training(makings: Makings, output: Path) -> TrainedNetwork:
    """Write the network that was trained, its curves and its log into a folder."""
    made = _network(makings)
    files = [path for path in made.folder.iterdir() if path.is_file() and path.name != LISTING]
    _copy({output / path.name: path for path in files})
    fit = made.facts.fit
    assert fit is not None, "the variant was trained"
    return TrainedNetwork(
        output=str(output / WEIGHTS),
        history=tuple(json.loads((output / "history.json").read_bytes())["history"]),
        notes=(*overlap_notes(makings), *_notes(makings, made)),
        **_shared(TrainedNetwork, fit),
        **_counted(makings, output / WEIGHTS),
    )


def sparse_network(makings: Makings, output: Path) -> SparseNetwork:
    """Write the variant's network as a checkpoint, with a table and a plot of its layers beside it."""
    from trtbench.compress.sparsity import layer_sparsities

    made = _network(makings)
    table, plot = output.with_suffix(".sparsity.csv"), output.with_suffix(".sparsity.png")
    _copy(
        {
            output: made.path(WEIGHTS),
            table: made.path("layers.sparsity.csv"),
            plot: made.path("layers.sparsity.png"),
        }
    )
    layers = layer_sparsities(makings.architecture.load(output).model)
    weights, zeros = sum(one.weights for one in layers), sum(one.zeros for one in layers)
    return SparseNetwork(
        output=str(output),
        sparsity=zeros / weights,
        zeros=zeros,
        weights=weights,
        seconds=made.seconds,
        layers_csv=str(table),
        plot=str(plot),
        record=made.facts.method,
        notes=_notes(makings, made),
        **_counted(makings, output),
    )


def packed_network(makings: Makings, output: Path) -> PackedNetwork:
    """Write the variant's network as a packed file, its rounded weights as codes."""
    made = _network(makings)
    _copy({output: made.path(PACKED)})
    record = {name: value for name, value in made.facts.method["fixed_point"].items() if name != "notes"}
    return PackedNetwork(
        output=str(output),
        bytes=output.stat().st_size,
        seconds=made.seconds,
        notes=_notes(makings, made),
        **record,
        **_counted(makings, output),
    )


def float_onnx(makings: Makings, output: Path) -> ExportedGraph:
    """Write the variant's float graph."""
    import onnx

    variant = makings.suite.variants[0]
    made = float_graph(makings, variant)
    _copy({output: made.path(GRAPH)})
    export = made.facts.export
    if export is None:
        raise ConfigError(
            f"model {makings.suite.model.name}", expected="a network to export", got="a graph", cure="take it as it is"
        )
    return ExportedGraph(
        output=str(output),
        path=str(output),
        sha256=file_sha256(output),
        ir_version=onnx.load(output, load_external_data=False).ir_version,
        file_bytes=output.stat().st_size,
        notes=notes_of(makings, variant),
        **_shared(ExportedGraph, export),
    )


def dynamic_onnx(makings: Makings, output: Path) -> DynamicGraph:
    """Write the graph with its linear layers in dynamic INT8."""
    variant = makings.suite.variants[0]
    made = float_graph(makings, variant)
    _copy({output: made.path(GRAPH)})
    return DynamicGraph(
        output=str(output),
        bytes=output.stat().st_size,
        notes=notes_of(makings, variant),
        **made.facts.method,
        **_true_counts(makings, output),
    )


def learnt_onnx(makings: Makings, output: Path) -> LearntGraph:
    """Write the graph that learnt, float and with Q/DQ pairs, and its ranges into a folder."""
    variant = makings.suite.variants[0]
    start = _true_counts(makings, quantized_graph(makings, before(variant)).path(GRAPH))
    learnt, quantized = float_graph(makings, variant), quantized_graph(makings, variant)
    fit = learnt.facts.fit
    assert fit is not None, "such a graph was trained"
    _copy(
        {
            output / "model.onnx": learnt.path(GRAPH),
            output / "model.qdq.onnx": quantized.path(GRAPH),
            output / "ranges.json": ranges(makings, variant).path("ranges.json"),
        }
    )
    return LearntGraph(
        output=str(output),
        before=start["correct"],
        placement=quantized.facts.placement,
        notes=notes_of(makings, variant),
        **_shared(LearntGraph, fit),
        **_true_counts(makings, output / "model.qdq.onnx"),
    )


def calibration(makings: Makings, output: Path) -> Calibrated:
    """Write manifest.json, ranges.json and model.qdq.onnx into a folder.

    Notes tell of classes taken short, and what each option beyond the method brought on the validation images.
    """
    variant = makings.suite.variants[0]
    chosen, found = manifest(makings), ranges(makings, variant)
    record = calibration_record(makings, variant, runtime="tensorrt")
    _copy(
        {
            output / "manifest.json": chosen.path("manifest.json"),
            output / "ranges.json": found.path("ranges.json"),
            output / "model.qdq.onnx": quantized_graph(makings, variant).path(GRAPH),
        }
    )
    return Calibrated(
        output=str(output),
        images=chosen.facts.images,
        tensors=found.facts.tensors,
        manifest_sha256=chosen.facts.sha256,
        method=record.method,
        snr_db=record.snr_db,
        agreement=record.agreement,
        notes=tuple(calibration_notes(makings, variant, precision="int8", runtime="tensorrt")),
    )


def imported_calibration(makings: Makings, output: Path, *, cache: Path) -> Calibrated:
    """Write ranges.json and model.qdq.onnx of a cache that a calibrator of TensorRT 10 wrote into a folder.

    There is no manifest: which images the calibrator saw, the cache does not tell.

    Raises:
        DataError: the cache cannot be read.
        GraphError: it is not of this graph.
    """
    from trtbench.make.calibration import import_cache

    graph = float_graph(makings, makings.suite.variants[0]).path(GRAPH)
    return Calibrated(output=str(output), **import_cache(graph, cache, output))


def _network(makings: Makings) -> Artefact[NetworkFacts]:
    return variant_network(makings, makings.suite.variants[0])


def _notes(makings: Makings, made: Artefact[NetworkFacts]) -> tuple[str, ...]:
    """Return what there is to say of the images, of the network a variant starts from, and of its own."""
    return tuple(dict.fromkeys((*makings.dataset.notes, *dense(makings).facts.notes, *made.facts.notes)))


def _shared(kind: type[Any], facts: object) -> dict[str, Any]:
    """Return what the facts have under the names of a result's fields; notes come from more than one place."""
    names = {one.name for one in dataclasses.fields(kind)} - {"notes"}
    return {name: getattr(facts, name) for name in names if hasattr(facts, name)}


def _copy(files: Mapping[Path, Path]) -> None:
    for place, source in files.items():
        write_atomically(place, source.read_bytes())


def _counted(makings: Makings, checkpoint: Path) -> dict[str, Any]:
    """Load a checkpoint, as any other command does, and count its right answers on the test split."""
    from trtbench.train import predict

    test, loaded = makings.dataset.test, makings.architecture.load(checkpoint).model
    return _counts(
        predict(loaded, test.images, makings.dataset.preprocessing, device=makings.computing.device), test.labels
    )


def _true_counts(makings: Makings, graph: Path) -> dict[str, Any]:
    return _counts(true_logits(graph, makings), makings.dataset.test.labels)


def _counts(logits: Any, labels: Any) -> dict[str, Any]:
    found = score(np.asarray(logits), labels)
    return {"correct": found.correct, "total": found.total, "top1": found.top1}


def _without_images(suite: Suite, classes: int) -> Dataset:
    """Return a dataset of so many classes and no images, as the suite preprocesses them; its variant needs none."""
    (variant,) = suite.variants
    if variant.fine_tune or variant.settled(builds_int8=suite.builds_int8).reads_images():
        keys = variant.model_dump(mode="json", exclude_unset=True, exclude={"kind", "name"})
        said = ", ".join(f"{name} {value}" for name, value in keys.items())
        what = "to learn from" if variant.fine_tune else "to look at"
        raise ConfigError(
            f"{variant.kind}, {said}", expected=f"images {what}", got="none", cure="name them with --data"
        )
    framing, names = framing_of(suite.data, None), tuple(map(str, range(classes)))
    none = Split(images=np.empty((0, 3, *framing.height_width), np.uint8), labels=np.empty(0, np.int64))
    fit = Preprocessing(mean=suite.data.mean or _NO_MEAN, std=suite.data.std or _NO_STD, **framing.framing)
    return Dataset(name="no images", classes=names, train=none, validation=none, test=none, preprocessing=fit)
