"""Computes an engine's network with ONNX Runtime on the CPU. bfloat16 is computed in float32 on rounded weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_BF16 = onnx.TensorProto.BFLOAT16
_FP32 = onnx.TensorProto.FLOAT


class Network:
    """One network, ready to compute.

    Args:
        model: the ONNX graph as parsed.
        scales: of implicit INT8, by tensor: inputs that have one are rounded to it.
        keeps: names of further tensors to give back: what calibration watches.
    """

    def __init__(
        self, model: onnx.ModelProto, *, scales: Mapping[str, float] | None = None, keeps: tuple[str, ...] = ()
    ) -> None:
        proto = _without_bfloat16(model)
        for name in keeps:
            proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self._session: Any = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._scales = dict(scales or {})
        self.outputs = tuple(each.name for each in self._session.get_outputs())

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute all outputs."""
        given = {name: self._rounded(name, values) for name, values in inputs.items()}
        return dict(zip(self.outputs, self._session.run(None, given), strict=True))

    def _rounded(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        scale = self._scales.get(name)
        if scale is None or values.dtype != np.float32:
            return values
        return np.asarray(np.clip(np.round(values / scale), -128, 127) * scale, np.float32)


def _without_bfloat16(model: onnx.ModelProto) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    for place, tensor in enumerate(proto.graph.initializer):
        if tensor.data_type == _BF16:
            proto.graph.initializer[place].CopyFrom(_as_float32(tensor))
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == _BF16:
                attribute.i = _FP32
            if attribute.name == "value" and attribute.t.data_type == _BF16:
                attribute.t.CopyFrom(_as_float32(attribute.t))
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        if value.type.tensor_type.elem_type == _BF16:
            value.type.tensor_type.elem_type = _FP32
    return proto


def _as_float32(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
