"""`trtbench explain-int8`: where a network's INT8 drop comes from, and the cheapest layers to keep in float.

The drop's parts and the final statement are of the test images; the layers and the search are of the validation images,
so that nothing is chosen on what it is judged by. Every network that was run is kept in the store: a second call goes
on where the first one stopped.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import onnx

from trtbench.calibrate.exclusion import cheapest_exclusion
from trtbench.errors import ConfigError
from trtbench.graph.ablation import Placement, without_pairs
from trtbench.make.graphs import GRAPH, calibrated_graph, quantized_graph, ranges
from trtbench.precision import PLACEMENTS
from trtbench.progress import Countdown
from trtbench.running.plan import plan_engines
from trtbench.studies.int8_drop import DropSplit, Explanation, LayerEffect
from trtbench.studies.kernels import KernelConfig, kernel_effects
from trtbench.studies.truth import TrueArithmetic, where
from trtbench.suite import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trtbench.make.engines import EnginePlan
    from trtbench.make.makings import Makings
    from trtbench.precision import Runtime
    from trtbench.studies.int8_drop import Effect
    from trtbench.suite import Variant

_PARTS = 3  # weights, activations, both


def explain_int8(
    makings: Makings,
    *,
    variant: str | None = None,
    placement: Runtime | None = None,
    max_drop_pp: float | None = None,
    kernels: KernelConfig | None = None,
) -> Explanation:
    """Explain the INT8 drop of one variant of a suite.

    Args:
        makings: of the suite, with a listener for progress.
        variant: its name; by default the suite's first.
        placement: the Q/DQ pairs that are taken apart: by default those of the engine that the suite builds.
        max_drop_pp: the drop that the layers kept in float must bring; by default the suite's.
        kernels: which kernels are compared beside those of the engine as built.

    Raises:
        ConfigError: the suite has no such variant or builds no such engine.
        RowError: a graph or an engine cannot be made.
    """
    makings.require_labels("what INT8 loses")
    config = makings.suite.calibration
    chosen = _variant(makings, variant)
    engines = _int8_engines(makings, chosen)
    runtime = next(iter(engines)) if placement is None else placement
    limit = makings.suite.decision.max_drop_pp if max_drop_pp is None else max_drop_pp
    reference = onnx.load(calibrated_graph(makings, chosen).path(GRAPH))
    validation, test = (TrueArithmetic(makings, reference, split=split) for split in ("validation", "test"))
    pairs = Placement(
        reference,
        onnx.load(quantized_graph(makings, chosen, runtime=runtime).path(GRAPH)),
        json.loads(ranges(makings, chosen).path("ranges.json").read_bytes()),
        runtime=runtime,
        weights=config.weights,
        exclude=config.exclude,
    )
    layers = tuple(_layers(makings, pairs, validation))
    guess = 2 * (len(pairs.nodes).bit_length() + 1)  # two bisections; putting back adds to it
    progress = Countdown(makings.tell, stage="explain search", total=guess)

    def left_out(nodes: Sequence[str]) -> Effect:
        found = validation.effect(pairs.graph(nodes))
        progress.step(f"{len(nodes)} kept in float", is_kept=validation.is_kept)
        return found

    exclusion = cheapest_exclusion(layers, left_out, max_drop_pp=limit)
    progress.end(f"{len(exclusion.nodes)} of {len(layers)} kept in float")
    excluded = makings.excluding((*config.exclude, *exclusion.nodes))
    final = onnx.load(quantized_graph(excluded, chosen, runtime=runtime).path(GRAPH))
    return Explanation(
        model=makings.suite.model.name,
        dataset=makings.dataset.name,
        variant=chosen.name,
        placement=runtime,
        calibration=config.model_dump(mode="json", exclude={"manifest"}),
        validation_images=len(validation.split),
        test_images=len(test.split),
        validation_float_correct=validation.float_correct,
        splits=tuple(_splits(makings, chosen, engines, test, kernels or KernelConfig())),
        layers=layers,
        all_quantized=validation.effect(pairs.graph(())),
        max_drop_pp=limit,
        exclusion=exclusion,
        final_validation=validation.effect(final),
        final_test=test.effect(final),
        exclude=excluded.suite.calibration.exclude,
        where=where(),
    )


def _variant(makings: Makings, name: str | None) -> Variant:
    variants = makings.suite.variants
    found = variants[0] if name is None else next((one for one in variants if one.name == name), None)
    if found is None:
        raise ConfigError(
            f"variant {name!r}", expected=" or ".join(one.name for one in variants), cure="name one of these"
        )
    return found


def _int8_engines(makings: Makings, variant: Variant) -> dict[Runtime, EnginePlan]:
    """Return the engines that a suite builds of a variant's Q/DQ graphs, one a placement, in the suite's order."""
    found: dict[Runtime, EnginePlan] = {}
    for plan in plan_engines(makings.suite):
        if plan.variant == variant and plan.precision == "int8":
            found.setdefault(BACKENDS[plan.backend].placement, plan)
    if not found:
        raise ConfigError(
            f"engines of suite {makings.suite.name}",
            expected="int8 among them",
            got="none",
            cure="add int8 to engines.precisions",
        )
    return found


def _layers(makings: Makings, placement: Placement, truth: TrueArithmetic) -> Iterator[LayerEffect]:
    nodes = placement.nodes
    accumulated = truth.tensor_snr_db(placement.graph(()), [node.output for node in nodes])
    progress = Countdown(makings.tell, stage="explain layers", total=2 * len(nodes))
    for node in nodes:
        alone, rest = placement.only(node), placement.graph({node.name})
        by_itself = truth.effect(alone)
        progress.step(f"only {node.name}", is_kept=truth.is_kept)
        without = truth.effect(rest)
        progress.step(f"without {node.name}", is_kept=truth.is_kept)
        yield LayerEffect(
            name=node.name,
            op_type=node.op_type,
            macs=node.macs,
            own_snr_db=truth.tensor_snr_db(alone, [node.output])[node.output],
            accumulated_snr_db=accumulated[node.output],
            only=by_itself,
            without=without,
        )
    progress.end(f"{len(nodes)} layers on {len(truth.split)} validation images")


def _splits(
    makings: Makings,
    variant: Variant,
    engines: Mapping[Runtime, EnginePlan],
    test: TrueArithmetic,
    kernels: KernelConfig,
) -> Iterator[DropSplit]:
    """Yield the parts of the drop for each placement, on test, with the kernels of the engine that is built of it."""
    progress = Countdown(makings.tell, stage="explain parts", total=_PARTS * len(PLACEMENTS) + len(engines))
    for runtime in PLACEMENTS:
        graph = onnx.load(quantized_graph(makings, variant, runtime=runtime).path(GRAPH))
        parts = {}
        for name, part in (
            ("weights", without_pairs(graph, of="activations")),
            ("activations", without_pairs(graph, of="weights")),
            ("both", graph),
        ):
            parts[name] = test.effect(part)
            progress.step(f"{runtime} {name}", is_kept=test.is_kept)
        found = []
        if runtime in engines:
            found = list(kernel_effects(makings, engines[runtime], test, kernels))
            progress.step(f"{runtime} kernels")
        yield DropSplit(
            placement=runtime,
            achieved=found[0][0] if found else "not built here",
            float_correct=test.float_correct,
            kernels=tuple(effect for _, effect in found),
            **parts,
        )
    progress.end(f"{len(engines)} engines on {len(test.split)} test images")
