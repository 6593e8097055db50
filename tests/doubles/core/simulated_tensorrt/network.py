"""The network a parser fills: its tensors and layers, and the ONNX graph behind them."""

from __future__ import annotations

from typing import Any

import onnx

from . import facts
from .strict import Made, Managed, kinds, strict
from .values import Dims

_DTYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "FLOAT",
    onnx.TensorProto.FLOAT16: "HALF",
    onnx.TensorProto.BFLOAT16: "BF16",
    onnx.TensorProto.INT8: "INT8",
    onnx.TensorProto.UINT8: "UINT8",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.BOOL: "BOOL",
}
_LAYERS = {
    "Conv": "CONVOLUTION",
    "Gemm": "MATRIX_MULTIPLY",
    "MatMul": "MATRIX_MULTIPLY",
    "MaxPool": "POOLING",
    "AveragePool": "POOLING",
    "GlobalAveragePool": "REDUCE",
    "Relu": "ACTIVATION",
    "Clip": "ACTIVATION",
    "Sigmoid": "ACTIVATION",
    "Add": "ELEMENTWISE",
    "Mul": "ELEMENTWISE",
    "BatchNormalization": "SCALE",
    "Cast": "CAST",
    "QuantizeLinear": "QUANTIZE",
    "DequantizeLinear": "DEQUANTIZE",
    "Softmax": "SOFTMAX",
    "Concat": "CONCATENATION",
}


def dtype_of(elem_type: int) -> Any:
    """Translate an ONNX element type."""
    return kinds.DataType.__members__[_DTYPES[elem_type]]


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Read a tensor's shape; a size without a number is -1."""
    return tuple(each.dim_value if each.HasField("dim_value") else -1 for each in value.type.tensor_type.shape.dim)


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """List the graph's inputs that are no initializers."""
    constants = {each.name for each in model.graph.initializer}
    return [each for each in model.graph.input if each.name not in constants]


@strict("ITensor")
class ITensor(Made):
    """A tensor of the network."""

    name: str
    shape: Any

    def _setup(self, value: onnx.ValueInfoProto, *, mode: str) -> None:
        self.name, self.shape = value.name, Dims(shape_of(value))
        self._dtype, self._mode = dtype_of(value.type.tensor_type.elem_type), mode

    @property
    def dtype(self) -> Any:
        return self._dtype

    @dtype.setter
    def dtype(self, dtype: Any) -> None:  # 11 has no setter
        self._dtype = dtype

    @property
    def is_network_input(self) -> bool:
        return self._mode == "input"

    @property
    def is_network_output(self) -> bool:
        return self._mode == "output"


@strict("ILayer")
class ILayer(Made):
    """A layer of the network: one ONNX node."""

    name: str
    precision: Any

    def _setup(self, node: onnx.NodeProto, tensors: dict[str, Any]) -> None:
        self.name = node.name or node.output[0]
        self._op, self._tensors = node.op_type, tensors
        self._inputs, self._outputs = list(node.input), list(node.output)
        self._precision_is_set = False

    @property
    def type(self) -> Any:
        return kinds.LayerType.__members__[_LAYERS.get(self._op, "SHUFFLE")]

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    @property
    def precision_is_set(self) -> bool:
        return self._precision_is_set

    def get_input(self, index: int) -> Any:
        return self._tensors.get(self._inputs[index]) if 0 <= index < len(self._inputs) else None

    def get_output(self, index: int) -> Any:
        return self._tensors.get(self._outputs[index]) if 0 <= index < len(self._outputs) else None


@strict("INetworkDefinition")
class INetworkDefinition(Made, Managed):
    """What a builder builds; from 11 on it is always strongly typed."""

    name: str = "Unnamed Network 0"

    def _setup(self, builder: Any, flags: int) -> None:
        self._builder, self._flags = builder, flags
        self._model: onnx.ModelProto | None = None
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._layers: list[Any] = []

    def __len__(self) -> int:
        return len(self._layers)

    def __getitem__(self, index: int) -> Any:
        return self._layers[index]

    def _fill(self, model: onnx.ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(model)
        self._model = model
        self._inputs = [ITensor._of(each, mode="input") for each in inputs_of(inferred)]
        self._outputs = [ITensor._of(each, mode="output") for each in inferred.graph.output]
        known = [each for each in inferred.graph.value_info if each.type.tensor_type.elem_type in _DTYPES]
        tensors = {each.name: ITensor._of(each, mode="inner") for each in known}
        tensors |= {each.name: each for each in (*self._inputs, *self._outputs)}
        self._layers = [ILayer._of(node, tensors) for node in model.graph.node]

    @property
    def _is_strongly_typed(self) -> bool:
        strong = 1 << int(kinds.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return facts.current().major > 10 or bool(self._flags & strong)

    @property
    def builder(self) -> Any:
        return self._builder

    @property
    def flags(self) -> int:
        return self._flags

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_flag(self, flag: Any) -> bool:
        return flag == kinds.NetworkDefinitionCreationFlag.STRONGLY_TYPED and self._is_strongly_typed

    def get_input(self, index: int) -> Any:
        return self._inputs[index] if 0 <= index < len(self._inputs) else None

    def get_output(self, index: int) -> Any:
        return self._outputs[index] if 0 <= index < len(self._outputs) else None

    def get_layer(self, index: int) -> Any:
        return self._layers[index] if 0 <= index < len(self._layers) else None

    def mark_output(self, tensor: Any) -> None:
        if tensor not in self._outputs:
            self._outputs.append(tensor)

    def unmark_output(self, tensor: Any) -> None:
        self._outputs = [each for each in self._outputs if each is not tensor]
