"""An ONNX graph as a network that learns: each node by torch's own operator, its weights as parameters. Needs torch.

With a plan of Q/DQ pairs the network rounds at exactly those places and by exactly those numbers that the exported
graph will (Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018, section 3): activations by their calibrated scales, which stay, and weights by the scales of the
weights as they are at that moment. BatchNorm is folded already where it folds, as in section 3.2. Rounding passes
gradients through, clipping does not.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field reads
from onnx import numpy_helper
from torch import Tensor, nn

from trtbench.errors import UnsupportedError
from trtbench.graph.qdq import LARGEST_BIAS_CODE, UNSIGNED_LEVELS
from trtbench.graph.reference import run_reference
from trtbench.graph.view import LEVELS, SMALLEST_SCALE, attribute, constants, node_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from trtbench.graph.placement import ActivationPoint, QdqPlan

_Inputs = list[Any]
_TOLERANCE = 1e-3  # of the largest value of a tensor: sums in another order differ by less than a hundredth of it


class GraphNetwork(nn.Module):
    """A float graph as a network.

    Args:
        proto: with one input and one output, as `simplify` leaves it; it is not changed.
        plan: where to round; None rounds nowhere.
        activation_amax: for each of `activation_tensors(plan)`.

    Raises:
        UnsupportedError: the graph has an operator that is not known here.
    """

    def __init__(
        self, proto: onnx.ModelProto, plan: QdqPlan | None = None, activation_amax: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        self._proto = proto
        self._nodes = tuple(proto.graph.node)
        if unknown := sorted({node.op_type for node in self._nodes} - _OPERATORS.keys()):
            raise UnsupportedError(
                f"training the graph's {', '.join(unknown)}",
                expected=f"operators among {', '.join(sorted(_OPERATORS))}",
                cure="train the network in float, then calibrate it",
            )
        stored = {item.name for item in proto.graph.initializer}
        self._input = next(item for item in proto.graph.input if item.name not in stored)
        self._slots: dict[str, str] = {}
        fixed = {name for node in self._nodes if node.op_type == "BatchNormalization" for name in node.input[3:]}
        for name, array in constants(proto.graph).items():
            self._add(name, array, learns=name not in fixed)
        self._activations, self._weights = _by_reader(plan)
        self._scales = _scales(plan, activation_amax or {})

    def _add(self, name: str, array: Any, *, learns: bool) -> None:
        slot = self._slots[name] = name.replace(".", "/")
        tensor = torch.from_numpy(np.array(array))
        if learns and tensor.is_floating_point() and tensor.ndim:
            self.register_parameter(slot, nn.Parameter(tensor))
        else:
            self.register_buffer(slot, tensor)

    def weights_of(self, layers: tuple[str, ...]) -> dict[str, Tensor]:
        """Return the weights of these layers that the graph has, by the layer's name."""
        slots = {layer: self._slots.get(f"{layer}.weight") for layer in layers}
        return {layer: getattr(self, slot) for layer, slot in slots.items() if slot is not None}

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, classes)."""
        values = {node.output[0]: value for node, value in self._steps(images)}
        logits: Tensor = values[self._proto.graph.output[0].name]
        return logits

    def _steps(self, images: Tensor) -> Iterator[tuple[onnx.NodeProto, Tensor]]:
        values: dict[str, Any] = {name: getattr(self, slot) for name, slot in self._slots.items()}
        values[self._input.name] = images
        rounded: dict[str, Tensor] = {}
        for node in self._nodes:
            inputs = [self._read(node, index, values, rounded) for index in range(len(node.input))]
            values[node.output[0]] = _OPERATORS[node.op_type](node, inputs)
            yield node, values[node.output[0]]

    def require_same(self) -> None:
        """Compare each node, nothing rounded, with what the standard makes of two images of noise.

        Raises:
            UnsupportedError: a node has attributes that are not known here; the message names the first.
        """
        float_network = GraphNetwork(self._proto).eval()
        shape = [dim.dim_value for dim in self._input.type.tensor_type.shape.dim][1:]
        noise = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
        made = [node.output[0] for node in self._nodes]
        expected = run_reference(self._proto, {self._input.name: noise}, outputs=made)
        steps = float_network._steps(torch.from_numpy(noise))  # noqa: SLF001  its own class
        for node in self._nodes:
            try:
                with torch.no_grad():
                    got = next(steps)[1].numpy()
            except (RuntimeError, TypeError, ValueError, IndexError) as error:
                raise _differs(node, got=str(error).partition("\n")[0]) from error
            wanted = expected[node.output[0]]
            if got.shape != wanted.shape:
                raise _differs(node, got=f"shape {got.shape}, not {wanted.shape}")
            moved = np.abs(got - wanted).max(initial=0)
            if not moved <= _TOLERANCE * np.abs(wanted).max(initial=1e-3):
                raise _differs(node, got=f"values that differ by {moved:.3g}")

    def _read(self, node: onnx.NodeProto, index: int, values: Mapping[str, Any], rounded: dict[str, Tensor]) -> Any:
        """Return an input of a node, through its Q/DQ pair where it has one."""
        name, reader = node.input[index], (node.output[0], index)
        if not name:
            return None
        if reader in self._activations:
            point = self._activations[reader]
            if name not in rounded:
                least, most = (0, UNSIGNED_LEVELS) if point.is_unsigned else (-LEVELS - 1, LEVELS)
                scale = self._scales[point.range_of]
                rounded[name] = torch.fake_quantize_per_tensor_affine(values[name], scale, 0, least, most)
            return rounded[name]
        if reader in self._weights:
            return self._rounded_weight(node, values)
        return values[name]

    def _rounded_weight(self, node: onnx.NodeProto, values: Mapping[str, Any]) -> Tensor:
        """Round a layer's weight by the scales that `insert_qdq` will give it."""
        weight, axis = values[node.input[1]], self._weights[node.output[0], 1]
        others = [dimension for dimension in range(weight.ndim) if dimension != axis]
        with torch.no_grad():
            scales = (weight.abs().amax(others) / LEVELS).clamp_min(SMALLEST_SCALE)
            bias = values.get(node.input[2]) if len(node.input) > 2 else None  # noqa: PLR2004  data, weight, bias
            if bias is not None and bias.numel() in {1, scales.numel()}:
                into = self._scales[self._activations[node.output[0], 0].range_of]
                scales = torch.maximum(scales, bias.abs().reshape(-1) / (into * LARGEST_BIAS_CODE))
        zeros = torch.zeros(scales.numel(), dtype=torch.int32, device=scales.device)
        return torch.fake_quantize_per_channel_affine(weight, scales, zeros, axis, -LEVELS - 1, LEVELS)

    def trained_graph(self) -> onnx.ModelProto:
        """Return the float graph with the weights that were learnt."""
        trained = deepcopy(self._proto)
        learnt = {name: getattr(self, slot) for name, slot in self._slots.items()}
        for item in trained.graph.initializer:
            if isinstance(learnt[item.name], nn.Parameter):
                array = learnt[item.name].detach().cpu().contiguous().numpy()
                item.CopyFrom(numpy_helper.from_array(array, item.name))
        return trained


def _differs(node: onnx.NodeProto, *, got: str) -> UnsupportedError:
    return UnsupportedError(
        f"training the graph's {node.op_type} {node_name(node)!r}",
        expected="what ONNX defines it to compute",
        got=got,
        cure="train the network in float, then calibrate it",
    )


def _by_reader(
    plan: QdqPlan | None,
) -> tuple[dict[tuple[str, int], ActivationPoint], dict[tuple[str, int], int]]:
    """Return the pair on an activation, and the axis of a weight's, that each (node's output, input index) reads by."""
    activations, weights = (() if plan is None else plan.activations), (() if plan is None else plan.weights)
    return (
        {(reader.node, reader.index): point for point in activations for reader in point.readers},
        {(reader.node, reader.index): point.axis for point in weights for reader in point.readers},
    )


def _scales(plan: QdqPlan | None, amax: Mapping[str, float]) -> dict[str, float]:
    points = () if plan is None else plan.activations
    levels = {point.range_of: UNSIGNED_LEVELS if point.is_unsigned else LEVELS for point in points}
    return {tensor: float(np.float32(amax[tensor] / count)) for tensor, count in levels.items()}


def _convolution(node: onnx.NodeProto, inputs: _Inputs) -> Tensor:
    images, weight, bias = (*inputs, None)[:3]
    pads = attribute(node, "pads", [0, 0, 0, 0])
    height, width = len(pads) // 2, len(pads) - 1
    if pads[:height] != pads[height:]:
        images = F.pad(images, (pads[1], pads[width], pads[0], pads[height]))
        pads = [0] * len(pads)
    return F.conv2d(
        images,
        weight,
        bias,
        stride=tuple(attribute(node, "strides", [1, 1])),
        padding=tuple(pads[:height]),
        dilation=tuple(attribute(node, "dilations", [1, 1])),
        groups=attribute(node, "group", 1),
    )


def _matrix(node: onnx.NodeProto, inputs: _Inputs) -> Tensor:
    left, right, bias = (*inputs, None)[:3]
    left = left.mT if attribute(node, "transA", 0) else left
    right = right.mT if attribute(node, "transB", 0) else right
    product = attribute(node, "alpha", 1.0) * (left @ right)
    summed: Tensor = product if bias is None else product + attribute(node, "beta", 1.0) * bias
    return summed


def _slice(_node: onnx.NodeProto, inputs: _Inputs) -> Tensor:
    data, starts, ends, axes, steps = (*inputs, None, None)[:5]
    places = [slice(None)] * data.ndim
    for place, axis in enumerate(range(len(starts)) if axes is None else axes.tolist()):
        step = 1 if steps is None else int(steps[place])
        places[axis] = slice(int(starts[place]), int(ends[place]), step)
    sliced: Tensor = data[tuple(places)]
    return sliced


def _pad(_node: onnx.NodeProto, inputs: _Inputs) -> Tensor:
    data, pads, fill = (*inputs, None)[:3]
    half = len(pads) // 2
    pairs = [int(size) for axis in reversed(range(half)) for size in (pads[axis], pads[half + axis])]
    return F.pad(data, pairs, value=0.0 if fill is None else float(fill))


def _pool(pool: Callable[..., Tensor], node: onnx.NodeProto, inputs: _Inputs, **more: bool) -> Tensor:
    kernel = attribute(node, "kernel_shape")
    strides, pads = attribute(node, "strides", [1] * len(kernel)), attribute(node, "pads", [0, 0, 0, 0])[:2]
    ceil_mode = bool(attribute(node, "ceil_mode", 0))
    return pool(inputs[0], kernel, stride=strides, padding=pads, ceil_mode=ceil_mode, **more)


def _average_pool(node: onnx.NodeProto, inputs: _Inputs) -> Tensor:
    return _pool(F.avg_pool2d, node, inputs, count_include_pad=bool(attribute(node, "count_include_pad", 0)))


def _batch_norm(node: onnx.NodeProto, inputs: _Inputs) -> Tensor:
    """Normalise by the statistics that the graph has: they do not learn."""
    data, scale, bias, mean, variance = inputs
    return F.batch_norm(data, mean, variance, scale, bias, eps=attribute(node, "epsilon", 1e-5))


def _clip(_node: onnx.NodeProto, inputs: _Inputs) -> Tensor:
    data, lowest, highest = (*inputs, None, None)[:3]
    return torch.clamp(data, lowest, highest)


def _reshape(_node: onnx.NodeProto, inputs: _Inputs) -> Tensor:
    data, shape = inputs
    sizes = [data.shape[axis] if size == 0 else size for axis, size in enumerate(shape.tolist())]
    reshaped: Tensor = data.reshape(sizes)
    return reshaped


_OPERATORS: Mapping[str, Callable[[onnx.NodeProto, _Inputs], Tensor]] = {
    "Add": lambda _node, inputs: inputs[0] + inputs[1],
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": lambda node, inputs: torch.cat(inputs, attribute(node, "axis")),
    "Conv": _convolution,
    "Flatten": lambda node, inputs: inputs[0].flatten(attribute(node, "axis", 1)),
    "Gemm": _matrix,
    "GlobalAveragePool": lambda _node, inputs: inputs[0].mean((2, 3), keepdim=True),
    "MatMul": _matrix,
    "MaxPool": lambda node, inputs: _pool(F.max_pool2d, node, inputs),
    "Mul": lambda _node, inputs: inputs[0] * inputs[1],
    "Pad": _pad,
    "Relu": lambda _node, inputs: inputs[0].relu(),
    "Reshape": _reshape,
    "Sigmoid": lambda _node, inputs: inputs[0].sigmoid(),
    "Slice": _slice,
}
