"""A float graph to its Q/DQ graph with what the suite asks for beyond ranges: rounding, bias correction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trtbench.calibrate.ranges import mean_by_channel
from trtbench.engines.onnxruntime import iterate_graph_activations
from trtbench.graph.qdq import insert_qdq
from trtbench.graph.reference import run_reference_batches
from trtbench.graph.rounding import (
    as_weight,
    correct_biases,
    gram,
    layer_rows,
    reconstructions,
    round_by_reconstruction,
    shift_graph,
    with_weights,
)
from trtbench.graph.view import LEVELS, constants

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from trtbench.graph.placement import QdqPlan
    from trtbench.make.calibration import CalibrationSet

_INPUT = "input"
_GRAM_BYTES = 256 * 2**20  # of the statistics that one pass over the images gathers


@dataclass(frozen=True, slots=True, kw_only=True)
class QdqOptions:
    """How weights become codes: their clip, their rounding, and whether the mean shift is taken off the biases."""

    weights: Literal["absmax", "mse"]
    rounding: Literal["nearest", "gptq"]
    bias_correction: bool

    @property
    def reads_images(self) -> bool:
        """Whether calibration images decide the codes, beside the ranges."""
        return self.bias_correction or self.rounding != "nearest"


def quantize(
    proto: onnx.ModelProto,
    plan: QdqPlan,
    amax: Mapping[str, float],
    options: QdqOptions,
    *,
    images: CalibrationSet | None,
) -> onnx.ModelProto:
    """Return the Q/DQ graph by the suite's options.

    Args:
        proto: the float graph, its layers equalised where the suite says so.
        plan: where the pairs go.
        amax: the ranges of `activation_tensors(plan)`.
        options: how weights become codes.
        images: those of calibration, where the options read them.
    """
    rounded = proto
    if options.rounding == "gptq":
        assert images is not None, "reconstruction reads images"
        rounded = _reconstructed(proto, plan, amax, options, images)
    made = insert_qdq(rounded, plan, amax, weights=options.weights, scales_of=proto)
    if not options.bias_correction:
        return made
    assert images is not None, "means are of images"
    graph, names = shift_graph(proto, made)
    found = run_reference_batches(graph, ({_INPUT: batch} for batch in images.batches()), outputs=tuple(names.values()))
    corrected = correct_biases(rounded, mean_by_channel(found, names=names))
    return insert_qdq(corrected, plan, amax, weights=options.weights, scales_of=proto)


def _reconstructed(
    proto: onnx.ModelProto, plan: QdqPlan, amax: Mapping[str, float], options: QdqOptions, images: CalibrationSet
) -> onnx.ModelProto:
    """Return the float graph with weights on their grids, rounded layer by layer."""
    grids = constants(insert_qdq(proto, plan, amax, weights=options.weights).graph)
    weights: dict[str, NDArray[np.float32]] = {}
    for layers in _within_memory(list(reconstructions(proto, plan)), proto):
        grams: dict[str, Any] = {}
        tensors = tuple(dict.fromkeys(layer.tensor for layer in layers))
        for values in iterate_graph_activations(proto, tensors, images.batches()):
            for layer in layers:
                scale = plan.amax(layer.range_of, amax) / LEVELS
                grams[layer.weight] = grams.get(layer.weight, 0) + gram(layer, values[layer.tensor], scale=scale)
        for layer in layers:
            rows = round_by_reconstruction(layer_rows(proto, layer), grids[layer.scale], grams[layer.weight])
            weights[layer.weight] = as_weight(rows, layer, constants(proto.graph)[layer.weight].shape)
    return with_weights(proto, weights)


def _within_memory(layers: list[Any], proto: onnx.ModelProto) -> Iterator[list[Any]]:
    """Yield the layers in parts whose statistics fit the memory of one pass."""
    part: list[Any] = []
    taken = 0
    for layer in layers:
        inputs = layer_rows(proto, layer).shape[1]
        size = 8 * layer.group * inputs**2
        if part and taken + size > _GRAM_BYTES:
            yield part
            part, taken = [], 0
        part.append(layer)
        taken += size
    if part:
        yield part
