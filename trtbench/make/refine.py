"""A float graph to its Q/DQ graph with what the suite asks for beyond ranges: rounding, bias correction.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (2022), section 3,
which speeds up Frantar and Alistarh, "Optimal Brain Compression" (2022): weights are rounded one input after another,
and what rounding one of them costs is made good by the ones still to come, by the inverse of H = sum x x^T.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019), section 4.2, the
empirical form: what quantization adds to the mean of a layer's channels is measured layer by layer on the float
network's own activations, so that no layer corrects what another one already has, and taken off its bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trtbench.calibrate.ranges import mean_by_channel
from trtbench.data.batches import fed
from trtbench.engines.onnxruntime import iterate_activations
from trtbench.graph.qdq import insert_qdq, weight_name
from trtbench.graph.reference import run_reference_batches
from trtbench.graph.view import LAYERS, LEVELS, QUANTIZERS, as_rows, attribute, constants

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from trtbench.graph.placement import QdqPlan
    from trtbench.make.calibration import CalibrationSet


_DAMPING = 0.01  # of the mean of H's diagonal: the paper's percdamp
_POSITIONS = 4096  # of a batch's patches that H counts at most: they overlap, so more say little more
_LARGEST = 4608  # inputs of an output whose H fits beside the others: 512 channels x 3 x 3
_WITH_BIAS = LAYERS - {"MatMul"}
_WITHOUT_BIAS = 2  # inputs of a layer that has none
_GRAM_BYTES = 256 * 2**20  # of the statistics that one pass over the images gathers


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """One layer to round: its weight and that one's scales, the tensor it reads, and how it reads it."""

    weight: str
    scale: str
    axis: int
    tensor: str
    range_of: str
    node: onnx.NodeProto
    kernel: tuple[int, ...]
    group: int


def reconstructions(proto: onnx.ModelProto, plan: QdqPlan) -> Iterator[Reconstruction]:
    """Yield the layers whose weights can be rounded so: 2-d convolutions and linear layers with one reader."""
    arrays = constants(proto.graph)
    nodes = {node.output[0]: node for node in proto.graph.node}
    sources = {reader.node: point for point in plan.activations for reader in point.readers if reader.index == 0}
    for point in plan.weights:
        node = nodes[point.readers[0].node]
        kernel = arrays[point.tensor].shape[2:] if node.op_type == "Conv" else ()
        inputs = arrays[point.tensor].size // arrays[point.tensor].shape[point.axis]
        is_plain = node.op_type != "ConvTranspose" and attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
        if len(point.readers) == 1 and is_plain and len(kernel) in {0, 2} and inputs <= _LARGEST:
            source = sources[node.output[0]]
            yield Reconstruction(
                weight=point.tensor,
                scale=f"{weight_name(point.tensor, point.axis)}.scale",
                axis=point.axis,
                tensor=source.tensor,
                range_of=source.range_of,
                node=node,
                kernel=kernel,
                group=attribute(node, "group", 1) if kernel else 1,
            )


def gram(layer: Reconstruction, values: NDArray[np.float32], *, scale: float) -> NDArray[np.float64]:
    """Return sum x x^T over what the layer reads of a batch, rounded to its codes: float64 (groups, inputs, inputs).

    Args:
        layer: how it reads.
        values: the tensor it reads, float32, (N, C, H, W) for a convolution.
        scale: of the tensor's int8 codes.
    """
    codes = np.clip(np.rint(values / np.float32(scale)), -LEVELS - 1, LEVELS) * np.float32(scale)
    patches = _patches(layer, codes) if layer.kernel else codes.reshape(1, -1, codes.shape[-1])
    step = -(-patches.shape[1] // _POSITIONS)
    chosen = np.ascontiguousarray(patches[:, ::step])
    found: NDArray[np.float64] = (np.swapaxes(chosen, 1, 2) @ chosen).astype(np.float64)
    return found


def _patches(layer: Reconstruction, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what each output position reads: (groups, N x positions, channels of a group x kernel)."""
    pads = attribute(layer.node, "pads", [0, 0, 0, 0])
    strides, dilations = (attribute(layer.node, name, [1, 1]) for name in ("strides", "dilations"))
    padded = np.pad(values, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    reach = [(side - 1) * dilation + 1 for side, dilation in zip(layer.kernel, dilations, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    images, channels, rows, columns = windows.shape[:4]
    grouped = windows.reshape(images, layer.group, channels // layer.group, rows, columns, *layer.kernel)
    ordered = grouped.transpose(1, 0, 3, 4, 2, 5, 6)
    return ordered.reshape(layer.group, images * rows * columns, -1)


def round_by_reconstruction(
    rows: NDArray[np.float32], scales: NDArray[np.float32], grams: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return weights (outputs, inputs) on their grids, rounded for the least squared error of the outputs.

    What is zero stays zero.

    Args:
        rows: the float weights.
        scales: (outputs,), the grid of each row.
        grams: (groups, inputs, inputs), sum x x^T of each group's inputs; the rows of a group follow each other.
    """
    parts = np.split(np.arange(len(rows)), len(grams))
    rounded = [_gptq(rows[part], scales[part], gram) for part, gram in zip(parts, grams, strict=True)]
    return np.concatenate(rounded)


def _gptq(rows: NDArray[np.float32], scales: NDArray[np.float32], gram: NDArray[np.float64]) -> NDArray[np.float32]:
    left, steps, kept = rows.astype(np.float64), scales.astype(np.float64), rows != 0
    damped = gram + np.eye(len(gram)) * (_DAMPING * np.trace(gram) / len(gram) or 1.0)
    # The paper's section 3.3: one Cholesky factor of the inverse holds every step's column.
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    for index in range(left.shape[1]):
        exact = left[:, index].copy()
        left[:, index] = np.clip(np.rint(exact / steps), -LEVELS - 1, LEVELS) * steps * kept[:, index]
        error = (exact - left[:, index]) / factor[index, index]
        left[:, index + 1 :] -= error[:, None] * factor[index, index + 1 :]
    return left.astype(np.float32)


def with_weights(proto: onnx.ModelProto, weights: Mapping[str, NDArray[np.float32]]) -> onnx.ModelProto:
    """Return the graph with these initializers replaced."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    for item in changed.graph.initializer:
        if item.name in weights:
            item.CopyFrom(numpy_helper.from_array(weights[item.name], item.name))
    return changed


def as_weight(rows: NDArray[np.float32], layer: Reconstruction, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Undo `as_rows`: return rows (outputs, inputs) in a weight's own shape."""
    moved = (shape[layer.axis], *(side for axis, side in enumerate(shape) if axis != layer.axis))
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, layer.axis))


def layer_rows(proto: onnx.ModelProto, layer: Reconstruction) -> NDArray[np.float32]:
    """Return a layer's weight as (outputs, inputs)."""
    return as_rows(constants(proto.graph)[layer.weight], axis=layer.axis)


def shift_graph(proto: onnx.ModelProto, quantized: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return a graph that computes each layer as float and as quantized, from the same float activations.

    Args:
        proto: the float graph.
        quantized: the same graph with Q/DQ pairs; its weights may be rounded otherwise.

    Returns:
        The graph, and for each layer with a bias, by its output, the tensor that holds quantized minus float.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(proto)
    known = {item.name for item in proto.graph.initializer}
    own = {name: f"{name}.quantized-copy" for name in known}
    float_layers = {node.output[0]: node for node in proto.graph.node}
    shifts: dict[str, str] = {}
    copies = []
    for original in quantized.graph.node:
        is_layer = original.op_type in _WITH_BIAS and list(original.input) != list(
            float_layers[original.output[0]].input
        )
        if not is_layer and original.op_type not in QUANTIZERS:
            continue
        node = onnx.NodeProto()
        node.CopyFrom(original)
        node.input[:] = [own.get(name, name) for name in node.input]
        copies.append(node)
        if is_layer:
            tensor = original.output[0]
            node.name, node.output[0], shifts[tensor] = f"{tensor}.copy", f"{tensor}.copy", f"{tensor}.shift"
            copies.append(helper.make_node("Sub", [f"{tensor}.copy", tensor], [shifts[tensor]]))
    for item in quantized.graph.initializer:
        copy = onnx.TensorProto()
        copy.CopyFrom(item)
        copy.name = own.get(item.name, item.name)
        graph.graph.initializer.append(copy)
    graph.graph.node.extend(copies)  # all they read is made by the nodes before
    return graph, shifts


def correct_biases(proto: onnx.ModelProto, shifts: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """Return the graph with the mean shift of each channel, by layer output, taken off its bias."""
    corrected = onnx.ModelProto()
    corrected.CopyFrom(proto)
    arrays = constants(proto.graph)
    for node in corrected.graph.node:
        shift = shifts.get(node.output[0])
        if shift is None:
            continue
        has_bias = len(node.input) > _WITHOUT_BIAS and bool(node.input[_WITHOUT_BIAS])
        bias = arrays[node.input[_WITHOUT_BIAS]] if has_bias else np.zeros(len(shift), np.float32)
        name = f"{node.output[0]}.corrected-bias"  # its own: another layer may share the old one
        node.input[:] = [*node.input[:_WITHOUT_BIAS], name]
        value = (bias.astype(np.float64) - shift).astype(np.float32)
        corrected.graph.initializer.append(numpy_helper.from_array(value, name))
    used = {name for node in corrected.graph.node for name in node.input}
    kept = [item for item in corrected.graph.initializer if item.name in used]
    del corrected.graph.initializer[:]
    corrected.graph.initializer.extend(kept)
    return corrected


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
    found = run_reference_batches(graph, map(fed, images.batches()), outputs=tuple(names.values()))
    corrected = correct_biases(rounded, mean_by_channel(found, names=names))
    return insert_qdq(corrected, plan, amax, weights=options.weights, scales_of=proto)


def _reconstructed(
    proto: onnx.ModelProto, plan: QdqPlan, amax: Mapping[str, float], options: QdqOptions, images: CalibrationSet
) -> onnx.ModelProto:
    grids = constants(insert_qdq(proto, plan, amax, weights=options.weights).graph)
    weights: dict[str, NDArray[np.float32]] = {}
    for layers in _within_memory(list(reconstructions(proto, plan)), proto):
        grams: dict[str, Any] = {}
        tensors = tuple(dict.fromkeys(layer.tensor for layer in layers))
        for values in iterate_activations(proto, tensors, images.batches()):
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
