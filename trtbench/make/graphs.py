"""The graphs of a suite: float, equalised, with Q/DQ pairs, in half precision, or made by a method."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping  # noqa: TC003  pydantic resolves the fields of facts at run time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from trtbench.disk import write_atomically
from trtbench.errors import ConfigError, GraphError, UnsupportedError
from trtbench.make.calibration import CalibrationSet, RangesFacts, calibration_set, ranges_of
from trtbench.make.networks import WEIGHTS, FitFacts, Training, epoch_listener, training_for, variant_network
from trtbench.make.recipe import Aside, Facts, Given, Ingredient, recipe
from trtbench.make.refine import QdqOptions, quantize
from trtbench.precision import PRECISIONS
from trtbench.records import ExportRecord, Output, Preprocessing  # noqa: TC001  pydantic resolves the fields of facts at run time
from trtbench.suite import DenseVariant

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from trtbench.compress.method import CompressedGraph
    from trtbench.graph.half import HalfGraph, Method
    from trtbench.graph.half_rules import HalfCheck
    from trtbench.make.makings import Architecture, Makings
    from trtbench.make.networks import OnEpoch
    from trtbench.precision import HalfType, Runtime
    from trtbench.store import Artefact
    from trtbench.suite import ExportConfig, Variant
    from trtbench.train import FitRecord

GRAPH = "model.onnx"
_SHOWN_NODES = 3
_CHECKED_IMAGES = 32  # that a half graph is compared on: whatever the batch size, ten classes are seen
_SHOWN_FINDINGS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFacts(Facts):
    """What there is to say of a float graph, by the way it was made; `method` is what its method notes of itself.

    A user's graph that `is_quantized` has Q/DQ pairs of its own, and is built as it is. `outputs` are those of a graph
    for images without labels.
    """

    is_quantized: bool = False
    notes: tuple[str, ...] = ()
    export: ExportRecord | None = None
    fit: FitFacts | None = None
    method: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[Output, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualisedFacts(Facts):
    """The pairs of layers that were scaled, and the Clips that became ReLUs."""

    pairs: tuple[tuple[str, str], ...]
    clips: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QdqFacts(Facts):
    """How many layers read quantized values, in words."""

    placement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfFacts(Facts):
    """What a conversion did: the share of nodes in half precision, how far a logit moved, what rounding explains of it.

    Both are shares of the largest logit; `error` is None where an activation is beyond FP16's range.
    """

    share_of_nodes: float
    error: float | None
    tolerance: float
    notes: tuple[str, ...]


@recipe(
    kind="graph", facts=GraphFacts, content=(GRAPH,), packages=("torch", "onnx", "onnxscript", "onnxruntime"), version=1
)
def exported(
    folder: Path,
    *,
    network: Ingredient,
    architecture: Architecture,
    input_shape: tuple[int, int, int],
    export: ExportConfig,
) -> GraphFacts:
    """Write a network as one float graph."""
    from trtbench.graph.export import export_onnx

    model = architecture.load(network.path(WEIGHTS)).model
    return GraphFacts(export=export_onnx(model, folder / GRAPH, input_shape=input_shape, config=export))


@recipe(kind="graph", facts=GraphFacts, content=(GRAPH,), packages=("onnx", "onnxruntime"), version=3)
def imported(folder: Path, *, graph: Given[Path], num_classes: int | None, preprocessing: Preprocessing) -> GraphFacts:
    """Bring a user's graph into the form of our own exports; `num_classes` None is of images without labels."""
    from trtbench.graph.given import import_confined

    found = import_confined(graph.value, folder / GRAPH, num_classes=num_classes, preprocessing=preprocessing)
    own = ("it has Q/DQ pairs of its own, which are built as they are",) if found.is_quantized else ()
    return GraphFacts(is_quantized=found.is_quantized, notes=(*found.notes, *own), outputs=found.outputs)


@recipe(kind="graph", facts=GraphFacts, content=(GRAPH,), packages=("onnx", "numpy"), version=1)
def stripped_graph(folder: Path, *, graph: Ingredient, variant: Variant) -> GraphFacts:
    """Take the Q/DQ pairs of a user's graph out of it."""
    import onnx

    from trtbench.compress.method import method_of

    made: CompressedGraph = method_of(variant)(onnx.load(graph.path(GRAPH)), variant, None)
    _save(folder, made.proto)
    return GraphFacts(method=made.facts, notes=made.notes)


@recipe(kind="graph", facts=GraphFacts, content=(GRAPH,), packages=("torch", "onnx"), version=2)
def compressed_graph(
    folder: Path,
    *,
    graph: Ingredient,
    variant: Variant,
    ranges: Ingredient | None,
    exclude: tuple[str, ...],
    network: Ingredient,
    architecture: Architecture,
    training: Training,
    on_epoch: Aside[OnEpoch],
) -> GraphFacts:
    """Make a graph of a float one by the method of a variant."""
    import onnx

    from trtbench.compress.method import GraphContext, method_of
    from trtbench.models.masks import masks_of

    fits: list[FitRecord] = []
    context = GraphContext(
        tune=training.tuner(folder, fits, architecture=architecture, on_epoch=on_epoch.value),
        sparse_layers=tuple(masks_of(architecture.load(network.path(WEIGHTS)).model)),
        ranges={} if ranges is None else _amax(ranges),
        exclude=exclude,
    )
    made: CompressedGraph = method_of(variant)(onnx.load(graph.path(GRAPH)), variant, context)
    _save(folder, made.proto)
    fit = FitFacts.of(fits[-1]) if fits else None
    return GraphFacts(fit=fit, method=made.facts, notes=(*made.notes, *(fit.notes if fit else ())))


@recipe(kind="equalised", facts=EqualisedFacts, content=(GRAPH,), packages=("onnx",), version=1)
def equalised(folder: Path, *, graph: Ingredient) -> EqualisedFacts:
    """Even out the ranges of channels across the layers of a float graph."""
    import onnx

    from trtbench.graph.equalise import equalise

    found = equalise(onnx.load(graph.path(GRAPH)))
    _save(folder, found.proto)
    return EqualisedFacts(pairs=found.pairs, clips=found.clips)


@recipe(kind="qdq", facts=QdqFacts, content=(GRAPH,), packages=("onnx", "onnxruntime", "numpy"), version=3)
def quantized(
    folder: Path,
    *,
    graph: Ingredient,
    ranges: Ingredient,
    runtime: Runtime,
    options: QdqOptions,
    exclude: tuple[str, ...],
    images: CalibrationSet | None,
    name: Aside[str],
) -> QdqFacts:
    """Put Q/DQ pairs into a float graph where the kernels of a runtime want them."""
    import onnx

    from trtbench.graph.lint import lint
    from trtbench.graph.placement import plan_qdq

    proto = onnx.load(graph.path(GRAPH))
    plan = plan_qdq(proto, exclude=exclude, runtime=runtime)
    made = quantize(proto, plan, _amax(ranges), options, images=images)
    if runtime == "tensorrt" and (findings := lint(made)):
        raise GraphError(
            f"Q/DQ graph of {name.value}",
            got="; ".join(f"{found.node}: {found.message} ({found.rule})" for found in findings[:_SHOWN_FINDINGS]),
            cure="exclude the layer, or export the model another way",
        )
    _save(folder, made)
    return QdqFacts(placement=plan.summary)


@recipe(kind="qdq", facts=QdqFacts, content=(GRAPH,), packages=("onnx", "numpy"), version=1)
def quantized_fp8(
    folder: Path, *, graph: Ingredient, ranges: Ingredient, exclude: tuple[str, ...], name: Aside[str]
) -> QdqFacts:
    """Put FP8 pairs into a float graph, before the layers that have FP8 kernels."""
    import onnx

    from trtbench.graph.fp8 import insert_fp8, plan_fp8

    proto = onnx.load(graph.path(GRAPH))
    plan = plan_fp8(proto, exclude=exclude)
    if not plan.weights:
        reasons = "; ".join(dict.fromkeys(layer.reason for layer in plan.layers))
        cure = "ask for int8+fp16 or fp16"
        raise GraphError(f"FP8 graph of {name.value}", expected="a layer that has FP8 kernels", got=reasons, cure=cure)
    made = insert_fp8(proto, plan, _amax(ranges))
    _save(folder, made)
    return QdqFacts(placement=plan.summary)


@recipe(kind="half", facts=HalfFacts, content=(GRAPH,), packages=("onnx", "onnxruntime", "numpy"), version=1)
def halved(folder: Path, *, graph: Ingredient, dtype: HalfType, images: CalibrationSet) -> HalfFacts:
    """Convert a float or Q/DQ graph to half precision by our rules, its input and output float32."""
    return _halved(folder, graph, dtype, images, method="trtbench")


@recipe(kind="half", facts=HalfFacts, content=(GRAPH,), packages=(*halved.packages, "nvidia-modelopt"), version=1)
def autocast(folder: Path, *, graph: Ingredient, dtype: HalfType, images: CalibrationSet) -> HalfFacts:
    """Convert a float graph to half precision by ModelOpt's AutoCast."""
    return _halved(folder, graph, dtype, images, method="modelopt")


def float_graph(makings: Makings, variant: Variant) -> Artefact[GraphFacts]:
    """Return the float ONNX graph of a variant; of a kind that makes graphs, what its method makes."""
    if makings.onnx_path is not None:
        return _given_graph(makings, makings.onnx_path, variant)
    if variant.makes == "graph":
        return _method_graph(makings, variant)
    return makings.book.make(
        exported,
        variant.name,
        network=variant_network(makings, variant),
        architecture=makings.architecture,
        input_shape=makings.input_shape,
        export=makings.suite.export,
    )


def calibrated_graph(makings: Makings, variant: Variant) -> Artefact[Any]:
    """Return the float graph that INT8 starts from: a variant's own, or with its layers equalised.

    One that learnt in INT8 began with them equalised, and learnt within the ranges they have then.

    Raises:
        UnsupportedError: the graph came with Q/DQ pairs of its own.
    """
    graph = float_graph(makings, variant)
    if makings.onnx_path is not None and graph.facts.is_quantized:  # in a plan our own has no facts yet
        raise UnsupportedError(
            f"our Q/DQ pairs in {makings.suite.model.name}",
            expected="a float graph",
            got="one with Q/DQ pairs of its own, with which fp32 builds it",
            cure="add the variant {kind: stripped, name: stripped}, or give the FP32 export",
        )
    if _learns_in_int8(variant) or not makings.suite.calibration.equalise:
        return graph
    return makings.book.make(equalised, variant.name, graph=graph)


def ranges(makings: Makings, variant: Variant) -> Artefact[RangesFacts]:
    """Return the range of every activation that a placement may quantize; of a learnt graph, those it learnt with."""
    if _learns_in_int8(variant):
        return ranges(makings, before(variant))
    return ranges_of(makings, calibrated_graph(makings, variant), variant.name)


def quantized_graph(makings: Makings, variant: Variant, *, runtime: Runtime = "tensorrt") -> Artefact[QdqFacts]:
    """Return the graph of a variant with Q/DQ pairs: where TensorRT wants them, or where ONNX Runtime's CPU does."""
    config = makings.suite.calibration
    options = QdqOptions(weights=config.weights, rounding=config.rounding, bias_correction=config.bias_correction)
    return makings.book.make(
        quantized,
        f"{variant.name}/int8 for {runtime}",
        graph=calibrated_graph(makings, variant),
        ranges=ranges(makings, variant),
        runtime=runtime,
        options=options,
        exclude=config.exclude,
        images=calibration_set(makings) if options.reads_images else None,
        name=Aside(variant.name),
    )


def fp8_graph(makings: Makings, variant: Variant) -> Artefact[QdqFacts]:
    """Return the graph of a variant with FP8 pairs, where TensorRT has kernels for them.

    A range is the largest magnitude: FP8 codes stand closer where values are small, so that clipping gains nothing.
    """
    graph = calibrated_graph(makings, variant)
    return makings.book.make(
        quantized_fp8,
        f"{variant.name}/fp8",
        graph=graph,
        ranges=ranges_of(makings, graph, f"{variant.name}/fp8", method="minmax"),
        exclude=makings.suite.calibration.exclude,
        name=Aside(variant.name),
    )


def half_graph(makings: Makings, variant: Variant, *, precision: str, method: Method) -> Artefact[HalfFacts]:
    """Return the graph of a variant in fp16, bf16, int8+fp16 or fp8+fp16 (Q/DQ with FP16 scales)."""
    asked = PRECISIONS[precision]
    assert asked.half is not None, "a half graph is of a half type"
    if asked.halves is not None:
        graph: Artefact[Any] = (fp8_graph if asked.codes == "fp8" else quantized_graph)(makings, variant)
    else:
        graph = float_graph(makings, variant)
    converter = autocast if method == "modelopt" and not asked.halves else halved  # AutoCast takes no Q/DQ graph
    item, images = f"{variant.name}/{precision}", calibration_set(makings)
    return makings.book.make(converter, item, graph=graph, dtype=asked.half, images=images)


def outputs_of(makings: Makings) -> tuple[Output, ...]:
    """Return the outputs of the suite's network where images without labels compare them; () of a classifier."""
    if makings.dataset.is_labelled:
        return ()
    return float_graph(makings, DenseVariant(kind="dense", name="dense")).facts.outputs


def notes_of(makings: Makings, variant: Variant) -> tuple[str, ...]:
    """Return what there is to say of a variant's float graph and of the network behind it."""
    network = () if makings.onnx_path is not None else variant_network(makings, variant).facts.notes
    return (*network, *float_graph(makings, variant).facts.notes)


def before(variant: Variant) -> DenseVariant:
    """Return the variant that a graph is made from: the network the method starts from, as it is."""
    return DenseVariant(kind="dense", name=variant.name, after=variant.after)


def _method_graph(makings: Makings, variant: Variant) -> Artefact[GraphFacts]:
    settled = variant.settled(builds_int8=makings.suite.builds_int8)
    training, is_calibrated = training_for(makings, settled), settled.reads_images()
    return makings.book.make(
        compressed_graph,
        variant.name,
        graph=(calibrated_graph if is_calibrated else float_graph)(makings, before(variant)),
        variant=settled,
        ranges=ranges(makings, variant) if is_calibrated else None,
        exclude=makings.suite.calibration.exclude if is_calibrated else (),
        network=variant_network(makings, before(variant)),
        architecture=makings.architecture,
        training=training,
        on_epoch=epoch_listener(makings, training.config, item=variant.name),
    )


def _learns_in_int8(variant: Variant) -> bool:
    return variant.makes == "graph" and variant.reads_images()


def _given_graph(makings: Makings, path: Path, variant: Variant) -> Artefact[GraphFacts]:
    if variant.kind == "stripped":
        return makings.book.make(
            stripped_graph, variant.name, graph=_given_graph(makings, path, before(variant)), variant=variant
        )
    if not variant.is_identity:
        raise UnsupportedError(
            f"variant {variant.name!r} of {makings.suite.model.name}",
            expected="the dense network as it is: a graph cannot be pruned or trained",
            cure="name the PyTorch architecture under model.name",
        )
    if not path.is_file():
        raise ConfigError(f"model {makings.suite.model.name}", expected="an ONNX file", got="nothing there")
    from trtbench.graph.given import graph_sha256

    return makings.book.make(
        imported,
        variant.name,
        graph=Given(path, key=graph_sha256(path)),
        num_classes=makings.dataset.num_classes if makings.dataset.is_labelled else None,
        preprocessing=makings.dataset.preprocessing,
    )


def _amax(ranges: Ingredient) -> dict[str, float]:
    found: dict[str, float] = json.loads(ranges.path("ranges.json").read_bytes())
    return found


def _save(folder: Path, proto: onnx.ModelProto) -> None:
    write_atomically(folder / GRAPH, proto.SerializeToString(deterministic=True))


def _halved(
    folder: Path,
    graph: Ingredient,
    dtype: HalfType,
    images: CalibrationSet,
    *,
    method: Literal["trtbench", "modelopt"],
) -> HalfFacts:
    import onnx

    from trtbench.data.batches import fed
    from trtbench.graph.half import to_half
    from trtbench.graph.half_rules import check_half

    proto = onnx.load(graph.path(GRAPH))
    half = to_half(proto, dtype=dtype, method=method)
    check = check_half(proto, half.proto, fed(next(images.batches(size=_CHECKED_IMAGES))), dtype=dtype)
    _save(folder, half.proto)
    return HalfFacts(
        share_of_nodes=half.share_of_nodes,
        error=check.error if math.isfinite(check.error) else None,
        tolerance=check.tolerance,
        notes=tuple(_half_notes(half, check, dtype=dtype)),
    )


def _half_notes(half: HalfGraph, check: HalfCheck, *, dtype: str) -> list[str]:
    """Say which nodes stayed in FP32, and where rounding does not explain what the conversion changed."""
    notes = [f"{node} stays in FP32: {reason}" for node, reason in half.kept[:_SHOWN_NODES]]
    if len(half.kept) > _SHOWN_NODES:
        notes.append(f"{len(half.kept) - _SHOWN_NODES} more nodes stay in FP32")
    if not math.isfinite(check.error):
        notes.append(f"{dtype} overflows: its logits on the calibration images are not finite")
    elif not check.holds:
        notes.append(
            f"{dtype} moves a logit by {100 * check.error:.1f} % of the largest, "
            f"where rounding explains {100 * check.tolerance:.1f} %"
        )
    return notes
