"""The tensors of an engine that a caller sees: where each stands, its shape and its memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.engines.tensorrt.context import require_true
from trtbench.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import tensorrt as trt
    from numpy.typing import NDArray

    from trtbench.engines.cuda.device import Cuda, DeviceBuffer, Operation
    from trtbench.engines.tensorrt.library import LogLines

_REBUILD = "build it with float32 inputs and outputs: `trtbench build` keeps them by casts"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IoTensor:
    """One tensor: a page-locked array, and device memory unless TensorRT reads the tensor on the host."""

    name: str
    host: NDArray[Any]
    buffer: DeviceBuffer | None

    @property
    def address(self) -> int:
        """What TensorRT is told."""
        return int(self.host.ctypes.data) if self.buffer is None else self.buffer.ptr


@dataclass(frozen=True, slots=True, kw_only=True)
class IoTensors:
    """The images, the logits, and what else the engine puts out."""

    images: IoTensor
    logits: IoTensor
    others: tuple[IoTensor, ...]

    def __iter__(self) -> Iterator[IoTensor]:
        yield from (self.images, self.logits, *self.others)

    @property
    def device_bytes(self) -> int:
        """What they take on the device."""
        return sum(one.buffer.nbytes for one in self if one.buffer is not None)

    def free(self) -> None:
        """Free the device memory."""
        for one in self:
            if one.buffer is not None:
                one.buffer.free()


def upload(cuda: Cuda, tensor: IoTensor) -> Operation:
    """Return what queues the copy of a tensor to where TensorRT reads it."""
    return _nothing if tensor.buffer is None else cuda.upload(tensor.buffer, tensor.host)


def download(cuda: Cuda, tensor: IoTensor) -> Operation:
    """Return what queues the copy of a tensor from where TensorRT writes it."""
    return _nothing if tensor.buffer is None else cuda.download(tensor.host, tensor.buffer)


def _nothing() -> None:
    """A tensor that TensorRT reads or writes on the host is where it belongs."""


def image_input(engine: trt.ICudaEngine) -> str:
    """Return the name of an engine's only input.

    Raises:
        EngineError: it has not one, or it is not float32.
    """
    import tensorrt as trt

    inputs = [name for name in _names(engine) if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    if len(inputs) != 1:
        raise EngineError(
            "inputs of the engine", expected="one, of images", got=", ".join(inputs) or "none", cure="export it so"
        )
    _require_float(engine, inputs[0])
    return inputs[0]


def set_shape(context: trt.IExecutionContext, name: str, *, shape: tuple[int, ...], lines: LogLines) -> None:
    """Tell a context the shape of its input, after which it knows those of all others.

    Raises:
        EngineError: TensorRT refuses it, or wants to know more.
    """
    require_true(context.set_input_shape(name, shape), f"TensorRT refuses shape {shape} of input {name!r}", lines=lines)
    if missing := context.infer_shapes():
        raise EngineError("shapes of the engine", expected="all known", got=f"unknown: {', '.join(missing)}")


def allocate(engine: trt.ICudaEngine, context: trt.IExecutionContext, *, cuda: Cuda, num_classes: int) -> IoTensors:
    """Return memory for every tensor at the context's shapes.

    Args:
        engine: whose tensors.
        context: with its input's shape set.
        cuda: where the memory is taken.
        num_classes: of the logits, which are the output of this many columns.

    Raises:
        EngineError: no output is float32 (batch, classes), or one has no fixed shape.
        OutOfMemoryError: the memory does not fit.
    """
    images = image_input(engine)
    shapes = {name: _shape(context, name) for name in _names(engine)}
    outputs = [name for name in shapes if name != images]
    logits = next((name for name in outputs if shapes[name] == (shapes[images][0], num_classes)), None)
    if logits is None:
        got = ", ".join(f"{name} {shapes[name]}" for name in outputs)
        raise EngineError("outputs of the engine", expected=f"logits (batch, {num_classes})", got=got)
    _require_float(engine, logits)

    def tensor(name: str) -> IoTensor:
        return _tensor(engine, name, shape=shapes[name], cuda=cuda)

    others = tuple(tensor(name) for name in outputs if name != logits)
    return IoTensors(images=tensor(images), logits=tensor(logits), others=others)


def set_addresses(context: trt.IExecutionContext, tensors: IoTensors, *, lines: LogLines) -> None:
    """Tell a context where each tensor stands.

    Raises:
        EngineError: TensorRT refuses an address.
    """
    for one in tensors:
        is_set = context.set_tensor_address(one.name, one.address)
        require_true(is_set, f"TensorRT refuses the address {one.address:#x} of {one.name!r}", lines=lines)


def _names(engine: trt.ICudaEngine) -> list[str]:
    return [str(engine.get_tensor_name(index)) for index in range(engine.num_io_tensors)]


def _shape(context: trt.IExecutionContext, name: str) -> tuple[int, ...]:
    shape = tuple(context.get_tensor_shape(name))
    if min(shape, default=0) < 0:
        expected = "a shape that follows from the input's"
        raise EngineError(f"tensor {name!r} of the engine", expected=expected, got=str(shape), cure="export it so")
    return shape


def _tensor(engine: trt.ICudaEngine, name: str, *, shape: tuple[int, ...], cuda: Cuda) -> IoTensor:
    import tensorrt as trt

    host = cuda.pinned(shape, dtype=_dtype(engine, name))
    host.fill(0)
    on_host = engine.get_tensor_location(name) == trt.TensorLocation.HOST or engine.is_shape_inference_io(name)
    return IoTensor(name=name, host=host, buffer=None if on_host else cuda.allocate(host.nbytes))


def _dtype(engine: trt.ICudaEngine, name: str) -> np.dtype[Any]:
    """Return the NumPy type of a tensor; some of TensorRT's have none."""
    import tensorrt as trt

    dtype = engine.get_tensor_dtype(name)
    try:
        found: np.dtype[Any] = np.dtype(trt.nptype(dtype))
    except TypeError as error:
        raise EngineError(
            f"tensor {name!r} of the engine", expected="a type NumPy has", got=dtype.name, cure=_REBUILD
        ) from error
    return found


def _require_float(engine: trt.ICudaEngine, name: str) -> None:
    import tensorrt as trt

    dtype = engine.get_tensor_dtype(name)
    if dtype != trt.DataType.FLOAT:
        raise EngineError(f"tensor {name!r} of the engine", expected="FLOAT", got=dtype.name, cure=_REBUILD)
