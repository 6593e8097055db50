"""What a plain ONNX file says of itself: what it takes and gives, its operators, whether it is quantized already."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import TensorProto, helper

from trtbench.graph.given import load_onnx
from trtbench.graph.view import QUANTIZERS, view

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """An ONNX file that no build of ours stands behind; `inputs` and `outputs` as `x: float32 (batch, 3, 32, 32)`."""

    path: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: Mapping[str, int]
    weight_bytes: int
    is_quantized: bool
    build: str


def describe_onnx(path: Path) -> Description:
    """Read what there is to say of a user's ONNX file, and the line that builds it.

    Raises:
        ConfigError: it is no ONNX file.
    """
    proto = load_onnx(path)
    seen = view(proto)
    stored = {item.name for item in proto.graph.initializer}
    operators = Counter(node.op_type for node in proto.graph.node)
    return Description(
        path=str(path),
        opset=seen.opset,
        inputs=tuple(_shown(item) for item in proto.graph.input if item.name not in stored),
        outputs=tuple(_shown(item) for item in proto.graph.output),
        operators=dict(operators.most_common()),
        weight_bytes=sum(array.nbytes for array in seen.constants.values()),
        is_quantized=bool(operators.keys() & QUANTIZERS),
        build=f"trtbench build --model onnx:{path} --data DATA --size PIXELS",
    )


def _shown(item: onnx.ValueInfoProto) -> str:
    if item.type.WhichOneof("value") != "tensor_type":
        return f"{item.name}: {item.type.WhichOneof('value') or 'no type'}"
    tensor = item.type.tensor_type
    if tensor.elem_type == TensorProto.UNDEFINED:
        return f"{item.name}: no type"
    sizes = (str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim)
    return f"{item.name}: {helper.tensor_dtype_to_np_dtype(tensor.elem_type)} ({', '.join(sizes)})"
