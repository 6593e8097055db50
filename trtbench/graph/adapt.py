"""A foreign graph's input and output in the form of our own exports: by inserting what is needed, and saying so. Pure.

Our form is one float32 input (batch, C, H, W) of normalised images and one float32 output (batch, classes), with only
the batch free, in an opset that has Q/DQ pairs by channel.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference, version_converter

from trtbench.errors import GraphError
from trtbench.graph.view import FIRST_QDQ_OPSET
from trtbench.records import AsTheyAre

if TYPE_CHECKING:
    from trtbench.records import Preprocessing

_RAISED_OPSET = 17
_PIXELS = {TensorProto.UINT8: "uint8", TensorProto.INT32: "int32"}
_HALF = TensorProto.FLOAT16
_RANK = 4


def adapted(proto: onnx.ModelProto, *, preprocessing: Preprocessing) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return an equal graph in our form, and what was done to it.

    Args:
        proto: a valid graph whose only input is its first, or has the data's tensors for inputs; it is not changed.
        preprocessing: of the data: its images' size, and their normalisation, undone before an input of whole pixels.

    Raises:
        GraphError: its opset cannot be raised.
    """
    notes: list[str] = []
    own = _raised(proto, notes)
    batch = fixed_batch(own)
    if batch is not None:
        _free_batch(own, batch, notes)
    _widen(own, notes)
    if isinstance(preprocessing, AsTheyAre):
        _fix_shapes(own, preprocessing, notes)
        return own, tuple(notes)
    input_shape = preprocessing.input_shape
    kind = own.graph.input[0].type.tensor_type.elem_type
    if is_channels_last(own, channels=input_shape[0]):
        _before_input(own, helper.make_node("Transpose", ["?"], ["?"], perm=[0, 2, 3, 1], name="to_nhwc"))
        notes.append("a Transpose before its input, which takes (batch, height, width, channels)")
    if kind in _PIXELS:
        _take_pixels(own, kind, preprocessing)
        notes.append(f"the normalisation undone before its input, which takes {_PIXELS[kind]} pixels of 0 to 255")
    source = own.graph.input[0].type.tensor_type
    source.elem_type = TensorProto.FLOAT
    if any(not dim.HasField("dim_value") for dim in source.shape.dim[1:]):
        notes.append(f"its free axes fixed to images of {' x '.join(map(str, input_shape))}")
    own.graph.input[0].CopyFrom(
        helper.make_tensor_value_info(own.graph.input[0].name, TensorProto.FLOAT, ["batch", *input_shape])
    )
    del own.graph.value_info[:]
    return own, tuple(notes)


def _fix_shapes(proto: onnx.ModelProto, preprocessing: AsTheyAre, notes: list[str]) -> None:
    """Give each input the shape of its tensor and a free batch, in place."""
    tensors = {one.name: one for one in preprocessing.tensors}
    for item in proto.graph.input:
        source = item.type.tensor_type
        if any(not dim.HasField("dim_value") for dim in source.shape.dim[1:]):
            notes.append(f"the free axes of its input {item.name} fixed to {tensors[item.name].shape}")
        shape: list[str | int | None] = ["batch", *tensors[item.name].shape]
        item.CopyFrom(helper.make_tensor_value_info(item.name, source.elem_type, shape))
    del proto.graph.value_info[:]


def flattened(proto: onnx.ModelProto) -> None:
    """Take the axes of size 1 off an output (batch, classes, 1, 1), in place."""
    (output,) = proto.graph.output
    wide = f"{output.name}.wide"
    for node in proto.graph.node:
        node.output[:] = [wide if name == output.name else name for name in node.output]
        node.input[:] = [wide if name == output.name else name for name in node.input]
    proto.graph.node.append(helper.make_node("Flatten", [wide], [output.name], axis=1, name="flat_logits"))


def fixed_batch(proto: onnx.ModelProto) -> int | None:
    """Return the batch size that a graph is fixed to; None where it is free."""
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    return int(dims[0].dim_value) if len(dims) and dims[0].dim_value > 0 else None


def is_channels_last(proto: onnx.ModelProto, *, channels: int) -> bool:
    """Whether a graph's input says that it is (batch, height, width, channels)."""
    dims = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    return len(dims) == _RANK and dims[3] == channels and dims[1] != channels


def _raised(proto: onnx.ModelProto, notes: list[str]) -> onnx.ModelProto:
    version = next((item.version for item in proto.opset_import if item.domain in {"", "ai.onnx"}), 0)
    if version < FIRST_QDQ_OPSET:
        try:
            raised = version_converter.convert_version(proto, _RAISED_OPSET)
        except Exception as error:  # the converter raises what its C++ does
            raise GraphError(
                "the graph's opset",
                expected=f"{FIRST_QDQ_OPSET} or more, or one that onnx's converter raises",
                got=f"{version}: {' '.join(str(error).split())[:200]}",
                cure=f"export it with opset {_RAISED_OPSET}",
            ) from error
        notes.append(f"opset {version} raised to {_RAISED_OPSET}")
        return raised
    return deepcopy(proto)


def _free_batch(proto: onnx.ModelProto, batch: int, notes: list[str]) -> None:
    """Free the batch axis: of the input, and of what constant shapes say of it."""
    inferred = shape_inference.infer_shapes(proto).graph
    first = {
        item.name: item.type.tensor_type.shape.dim[0].dim_value
        for item in (*inferred.input, *inferred.value_info)
        if len(item.type.tensor_type.shape.dim)
    }
    stored = {item.name: item for item in proto.graph.initializer}
    stored |= {node.output[0]: node.attribute[0].t for node in proto.graph.node if node.op_type == "Constant"}
    for index, node in enumerate(proto.graph.node):
        shape = stored.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is None or first.get(node.input[0]) != batch:
            continue
        sizes = numpy_helper.to_array(shape).copy()
        if len(sizes) and sizes[0] == batch:
            sizes[0] = 0 if -1 in sizes else -1  # 0 copies the size of the data
            node.input[1] = f"{node.output[0]}.freed{index}"
            proto.graph.initializer.append(numpy_helper.from_array(sizes, node.input[1]))
    notes.append(f"its batch, fixed to {batch}, freed")


def _widen(proto: onnx.ModelProto, notes: list[str]) -> None:
    """Turn FP16 numbers into FP32: whoever wants FP16 gets it by our own rules, as from any float graph."""
    tensors = [*proto.graph.initializer]
    for node in proto.graph.node:
        for item in node.attribute:
            if item.type == onnx.AttributeProto.TENSOR:
                tensors.append(item.t)
            elif node.op_type == "Cast" and item.name == "to" and item.i == _HALF:
                item.i = TensorProto.FLOAT
    shown = (*proto.graph.input, *proto.graph.output)
    half = [one for one in tensors if one.data_type == _HALF]
    if not half and all(one.type.tensor_type.elem_type != _HALF for one in shown):
        return
    for one in half:
        one.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(one).astype(np.float32), one.name))
    for value in shown:
        if value.type.tensor_type.elem_type == _HALF:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    notes.append("its FP16 numbers widened to FP32")


def _take_pixels(proto: onnx.ModelProto, kind: int, preprocessing: Preprocessing) -> None:
    """Put the steps from a normalised image back to its pixels before the input."""
    _before_input(proto, helper.make_node("Cast", ["?"], ["?"], to=kind, name="to_pixels"))
    _before_input(proto, helper.make_node("Clip", ["?", "pixels.low", "pixels.high"], ["?"], name="pixels.clip"))
    _before_input(proto, helper.make_node("Round", ["?"], ["?"], name="pixels.round"))
    _before_input(proto, helper.make_node("Add", ["?", "pixels.mean"], ["?"], name="pixels.shift"))
    _before_input(proto, helper.make_node("Mul", ["?", "pixels.std"], ["?"], name="pixels.scale"))
    along = (1, -1, 1, 1)
    numbers: dict[str, Any] = {
        "pixels.low": np.float32(0),
        "pixels.high": np.float32(255),
        "pixels.mean": np.reshape(np.multiply(preprocessing.mean, 255), along),
        "pixels.std": np.reshape(np.multiply(preprocessing.std, 255), along),
    }
    for name, value in numbers.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))


def _before_input(proto: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Let a node stand between the graph's input and all that read it."""
    name = proto.graph.input[0].name
    node.input[0], node.output[0] = name, f"{node.name}.out"
    for reader in proto.graph.node:
        reader.input[:] = [node.output[0] if one == name else one for one in reader.input]
    proto.graph.node.insert(0, node)
