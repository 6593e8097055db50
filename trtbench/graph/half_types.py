"""Rewrite a graph's types: half constants, and a cast wherever a half tensor meets a float one. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from trtbench.graph.half_rules import HalfFormat, HalfPlan


def rewrite_types(
    proto: onnx.ModelProto,
    plan: HalfPlan,
    types: Mapping[str, int],
    *,
    half: HalfFormat,
    constants: Mapping[tuple[str, int], NDArray[Any]],
) -> onnx.ModelProto:
    """Return the graph in which the plan's operands are half; inputs and outputs stay float.

    Args:
        proto: the float graph; it is not changed.
        plan: what becomes half.
        types: the element type of every tensor.
        half: the format.
        constants: values for single constant operands (first output, input index) in place of the rounded ones.
    """
    return _Rewriter(proto, plan, types, half=half, constants=constants).rewritten()


class _Rewriter:
    """One pass over the nodes; knows each tensor's name in either type."""

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
        result = onnx.ModelProto()
        result.CopyFrom(self._proto)
        for field in (result.graph.node, result.graph.initializer, result.graph.value_info):
            del field[:]
        result.graph.node.extend(node for original in self._proto.graph.node for node in self._nodes(original))
        result.graph.initializer.extend(self._initializers.values())
        return result

    def _nodes(self, original: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Yield the casts a node needs, the node, and the casts of the graph's outputs it makes."""
        node = onnx.NodeProto()
        node.CopyFrom(original)
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
