"""FP32 ONNX to FP16 or BF16 ONNX with FP32 inputs and outputs: the types a strongly typed TensorRT network has.

A Q/DQ graph becomes INT8+FP16: the scales are FP16, and what is not INT8 computes in FP16. FP16 keeps 11 bits of a
scale, so codes are those of the rounded scale. How a runtime divides FP16 weights by FP16 scales when it folds them is
its own affair: a weight that is already code x scale gives the same code either way, for its own rounding and the
division's move it by less than 127 x 2^-10 < 0.13 of a code.

Why not ONNX Runtime's converter: it knows no BF16, moves tiny weights to 1e-7 and large ones to 1e4 without a word, and
rounds no codes. ModelOpt's AutoCast is NVIDIA's own, in an optional package.
"""

from __future__ import annotations

import tempfile
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference, version_converter

from trtbench import _optional
from trtbench.errors import CapabilityError, GraphError, UnsupportedError
from trtbench.graph.half_rules import FORMATS, has_subgraph, plan_half
from trtbench.graph.view import FIRST_HALF_QDQ_OPSET, LEVELS, QUANTIZERS, attribute, element_types, node_name, view

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from numpy.typing import NDArray

    from trtbench.graph.half_rules import HalfFormat, HalfPlan
    from trtbench.graph.view import GraphView
    from trtbench.precision import HalfType

Method = Literal["trtbench", "modelopt"]
FIRST_BF16_OPSET = 22  # convolutions and pools take BF16 since
SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)  # 2^-14; below it a scale loses bits or becomes 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfGraph:
    """A converted graph, and what of it is in half precision.

    Args:
        proto: the graph; its inputs and outputs are FP32.
        share_of_nodes: in half precision, of the nodes that compute on floats; Q/DQ nodes and casts do not count.
        kept: the nodes that stay in FP32 and why, in the order of the graph.
    """

    proto: onnx.ModelProto
    share_of_nodes: float
    kept: tuple[tuple[str, str], ...]


def to_half(proto: onnx.ModelProto, *, dtype: HalfType, method: Method = "trtbench") -> HalfGraph:
    """Convert a graph to half precision.

    Args:
        proto: a valid float or Q/DQ graph, weights inside; it is not changed. Where its opset lacks the half type
            (BF16 convolutions before 22, FP16 Q/DQ before 19) the result has a later one.
        dtype: fp16 or bf16.
        method: our rules (`half_rules`), or ModelOpt's AutoCast, an optional package.

    Raises:
        GraphError: the graph is not valid or cannot be converted.
        UnsupportedError: a Q/DQ graph in BF16 or by ModelOpt, or ModelOpt is absent.
    """
    _require_convertible(proto, dtype=dtype, method=method)
    if method == "modelopt":
        return _judged(_checked(_autocast(proto, dtype=dtype)), dtype=dtype)
    ready = _typed(_raised(_lifted(proto), dtype=dtype))
    seen, types = view(ready), element_types(ready.graph)
    plan = plan_half(seen, types, dtype=dtype)
    constants = half_constants(seen, quantizers=plan.halves) if dtype == "fp16" else {}
    halved = _Rewriter(ready, plan, types, half=FORMATS[dtype], constants=constants).rewritten()
    kept = [(node_name(seen.maker[key]), plan.kept[key]) for key in plan.computing if key in plan.kept]
    share = 1 - len(kept) / max(len(plan.computing), 1)
    return HalfGraph(proto=_checked(halved), share_of_nodes=share, kept=tuple(kept))


def _require_convertible(proto: onnx.ModelProto, *, dtype: HalfType, method: Method) -> None:
    is_quantized = _is_quantized(proto)
    if is_quantized and (dtype == "bf16" or method == "modelopt"):
        how = "BF16" if dtype == "bf16" else "by AutoCast"
        cure = "choose fp16 by our own method: INT8+FP16"
        raise UnsupportedError(f"Q/DQ graph {proto.graph.name!r} {how}", expected="a float graph", cure=cure)
    for node in proto.graph.node:
        if has_subgraph(node):
            raise GraphError(
                f"node {node_name(node)!r}",
                expected="no control flow in a graph to convert",
                got=node.op_type,
                cure="export the model without it",
            )


def _is_quantized(proto: onnx.ModelProto) -> bool:
    return any(node.op_type in QUANTIZERS for node in proto.graph.node)


def _lifted(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with its Constant nodes as initializers, so that each reader can have its own type of them."""
    lifted = deepcopy(proto)
    del lifted.graph.node[:]
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            lifted.graph.initializer.append(node.attribute[0].t)
            lifted.graph.initializer[-1].name = node.output[0]
        else:
            lifted.graph.node.append(node)
    return lifted


def _raised(proto: onnx.ModelProto, *, dtype: HalfType) -> onnx.ModelProto:
    """Return the graph at an opset that has the half type for what stands in it."""
    opset = view(proto).opset
    wanted = FIRST_BF16_OPSET if dtype == "bf16" else FIRST_HALF_QDQ_OPSET if _is_quantized(proto) else opset
    if opset >= wanted:
        return proto
    try:
        return version_converter.convert_version(proto, wanted)
    except (RuntimeError, ValueError) as error:
        raise GraphError(
            f"graph {proto.graph.name!r} in {dtype}",
            expected=f"opset {wanted} or more",
            got=f"opset {opset}, and {error}",
            cure=f"export it again with export.opset: {wanted}",
        ) from error


def _typed(proto: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError) as error:
        raise _invalid(proto, error) from error


def _checked(proto: onnx.ModelProto) -> onnx.ModelProto:
    typed = _typed(proto)
    try:
        onnx.checker.check_model(typed, full_check=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as error:
        raise _invalid(proto, error) from error
    return typed


def _invalid(proto: onnx.ModelProto, error: Exception) -> GraphError:
    return GraphError(
        f"graph {proto.graph.name!r} in half precision",
        expected="a graph that ONNX's checker takes",
        got=" ".join(str(error).split()),
        cure="set engines.half to the other converter, or ask for fp32",
    )


def _judged(proto: onnx.ModelProto, *, dtype: HalfType) -> HalfGraph:
    types, half = element_types(proto.graph), FORMATS[dtype].element
    floats = {TensorProto.FLOAT, half}
    computing = [
        node
        for node in proto.graph.node
        if node.op_type != "Cast" and {types.get(name) for name in (*node.input, *node.output)} & floats
    ]
    kept = [node for node in computing if half not in {types.get(name) for name in node.output}]
    return HalfGraph(
        proto=proto,
        share_of_nodes=1 - len(kept) / max(len(computing), 1),
        kept=tuple((node_name(node), "AutoCast keeps it") for node in kept),
    )


class _Rewriter:
    """One pass over the nodes, which makes the plan's operands half; knows each tensor's name in either type.

    Inputs and outputs of the graph stay float. `constants` are values for single constant operands (first output, input
    index) in place of the rounded ones.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        plan: HalfPlan,
        types: Mapping[str, int],
        *,
        half: HalfFormat,
        constants: Mapping[tuple[str, int], NDArray[Any]],
    ) -> None:
        self._proto, self._plan, self._types, self._half, self._constants = proto, plan, types, half, constants
        self._suffix = TensorProto.DataType.Name(half.element).lower()
        self._stored = {item.name: item for item in proto.graph.initializer}
        self._outputs = {item.name for item in proto.graph.output}
        self._names: dict[tuple[str, bool], str] = {(item.name, False): item.name for item in proto.graph.input}
        self._initializers: dict[str, onnx.TensorProto] = {}

    def rewritten(self) -> onnx.ModelProto:
        result = deepcopy(self._proto)
        for field in (result.graph.node, result.graph.initializer, result.graph.value_info):
            del field[:]
        result.graph.node.extend(node for original in self._proto.graph.node for node in self._nodes(original))
        result.graph.initializer.extend(self._initializers.values())
        return result

    def _nodes(self, original: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Yield the casts a node needs, the node, and the casts of the graph's outputs it makes."""
        node = deepcopy(original)
        operands = self._plan.halves.get(original.output[0])
        for index, tensor in enumerate(original.input):
            is_half = operands is not None and index in operands.inputs
            if tensor in self._stored:
                node.input[index] = self._constant(original, index, is_half=is_half)
            elif self._types.get(tensor) == TensorProto.FLOAT:
                if (tensor, is_half) not in self._names:
                    yield self._cast(tensor, to_half=is_half)
                node.input[index] = self._names[tensor, is_half]
        returned = []
        for index, tensor in enumerate(original.output):
            if operands is not None and index in operands.outputs:
                node.output[index] = self._names[tensor, True] = self._half_name(tensor)
                returned += [tensor] if tensor in self._outputs else []
            else:
                self._names[tensor, False] = tensor
        yield node
        yield from (self._cast(tensor, to_half=False) for tensor in returned)

    def _half_name(self, tensor: str) -> str:
        """Name a tensor that is made in half: its own name, which a graph's output keeps for the float one."""
        return f"{tensor}.{self._suffix}" if tensor in self._outputs else tensor

    def _cast(self, tensor: str, *, to_half: bool) -> onnx.NodeProto:
        source = self._names[tensor, not to_half]
        suffix = self._suffix if to_half else "float"
        target = tensor if not to_half and tensor in self._outputs else f"{tensor}.{suffix}"
        self._names[tensor, to_half] = target
        element = self._half.element if to_half else TensorProto.FLOAT
        return helper.make_node("Cast", [source], [target], name=f"{tensor}.to_{suffix}", to=element)

    def _constant(self, reader: onnx.NodeProto, index: int, *, is_half: bool) -> str:
        """Return the name of a constant in the type its reader wants, and keep the tensor."""
        tensor = str(reader.input[index])
        stored = self._stored[tensor]
        if not is_half:
            self._initializers[tensor] = stored
            return tensor
        rounded = self._constants.get((reader.output[0], index))
        if rounded is None:
            rounded = numpy_helper.to_array(stored).astype(self._half.numpy)
        return self._kept(numpy_helper.from_array(rounded, f"{tensor}.{self._suffix}"))

    def _kept(self, item: onnx.TensorProto) -> str:
        """Keep a tensor once; one of another value gets a name of its own."""
        name, number = item.name, 1
        while name in self._initializers and self._initializers[name].raw_data != item.raw_data:
            number += 1
            name = f"{item.name}.{number}"
        item.name = name
        self._initializers[name] = item
        return name


def half_scale(scale: NDArray[Any]) -> NDArray[np.float16]:
    """Round scales to FP16, raised to its smallest normal number: what underflows is a dead channel's."""
    raised: NDArray[np.float16] = np.maximum(scale, SMALLEST_NORMAL).astype(np.float16)
    return raised


def half_weight(weight: NDArray[Any], scale: NDArray[Any], *, axis: int | None) -> NDArray[np.float16]:
    """Return code x scale in FP16, with codes in [-127, 127] of the FP16 scale.

    Args:
        weight: float32, of any shape.
        scale: positive FP16, one, or one for each slice along `axis`.
        axis: None for one scale.
    """
    shape = [1] * weight.ndim
    if axis is not None and scale.size > 1:
        shape[axis] = -1
    step = scale.astype(np.float64).reshape(shape if scale.size > 1 else ())
    codes = np.clip(np.rint(weight.astype(np.float64) / step), -LEVELS, LEVELS)
    return (codes * step).astype(np.float16)


def half_constants(seen: GraphView, *, quantizers: Collection[str]) -> Mapping[tuple[str, int], NDArray[np.float16]]:
    """Return the FP16 value of each constant that a Q or DQ node reads, by its first output and the input's index.

    Args:
        seen: the graph.
        quantizers: the first outputs of the nodes that become half; others are passed over.
    """
    found: dict[tuple[str, int], NDArray[np.float16]] = {}
    for node in seen.nodes:
        if node.op_type not in QUANTIZERS or node.output[0] not in quantizers or node.input[1] not in seen.constants:
            continue
        scale = half_scale(seen.constants[node.input[1]])
        found[node.output[0], 1] = scale
        if node.op_type == "QuantizeLinear" and node.input[0] in seen.constants:
            weight, axis = seen.constants[node.input[0]], attribute(node, "axis", 1)
            found[node.output[0], 0] = half_weight(weight, scale, axis=axis)
    return found


def _autocast(proto: onnx.ModelProto, *, dtype: HalfType) -> onnx.ModelProto:
    try:
        module = _optional.load("modelopt.onnx.autocast")
    except CapabilityError as error:
        cure = "pip install 'trtbench[modelopt]', or use our own converter"
        raise UnsupportedError("half precision by ModelOpt", got=error.got, cure=cure) from error
    with tempfile.TemporaryDirectory(prefix="trtbench-") as folder:
        path = Path(folder) / "float.onnx"
        onnx.save(proto, path)
        try:
            found: onnx.ModelProto = module.convert_to_mixed_precision(
                onnx_path=str(path),
                low_precision_type=dtype,
                keep_io_types=True,
                providers=["cpu"],
            )
        except Exception as error:  # AutoCast's errors share no base but Exception
            what = f"graph {proto.graph.name!r} by AutoCast"
            raise GraphError(what, got=" ".join(str(error).split()), cure="use our own converter") from error
    return found
