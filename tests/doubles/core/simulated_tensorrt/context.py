"""An execution context: shapes, addresses, and what is put into a stream."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from simulated_cuda import memory, streams
from simulated_cuda.faults import CUDARuntimeError

from . import callbacks
from .strict import Made, Managed, kinds, strict
from .values import Dims

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_NUMPY = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}
_DEFAULT_STREAM = (
    "Using default stream in enqueueV3() may lead to performance issues due to additional calls to "
    "cudaStreamSynchronize() by TensorRT to ensure correct synchronization. Please use non-default stream instead."
)


@strict("IExecutionContext")
class IExecutionContext(Made, Managed):
    """Runs an engine."""

    name: str = ""
    enqueue_emits_profile: bool = True
    nvtx_verbosity: Any = kinds.ProfilingVerbosity.LAYER_NAMES_ONLY
    profiler: Any = None

    def _setup(self, engine: Any, *, is_user_managed: bool) -> None:
        self._engine, self._logger = engine, engine._logger
        self._needs_memory = is_user_managed
        self._own: memory.Allocation | None = None
        if not is_user_managed:
            self._own = memory.allocate(engine.device_memory_size_v2)
        self._profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._warm: object = None
        self._layer_ms: float | None = None
        self._take_fixed_shapes()

    def __del__(self) -> None:
        own = self.__dict__.get("_own")
        if own is not None:
            memory.release(own.address)

    def _take_fixed_shapes(self) -> None:
        shapes = {name: self._engine.get_tensor_shape(name) for name in self._engine._inputs}
        self._shapes = {name: tuple(shape) for name, shape in shapes.items() if -1 not in tuple(shape)}

    @property
    def engine(self) -> Any:
        return self._engine

    @property
    def active_optimization_profile(self) -> int:
        return self._profile

    @property
    def all_binding_shapes_specified(self) -> bool:
        return not self._missing()

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not 0 <= profile_index < self._engine.num_optimization_profiles:
            return self._error(f"there is no optimization profile {profile_index}")
        streams.queue_of(int(stream_handle))
        if profile_index != self._profile:
            self._profile, self._warm = int(profile_index), None
            self._take_fixed_shapes()
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        if name not in self._engine._inputs:
            return self._error(f"there is no input {name}")
        given = tuple(int(size) for size in shape)
        low, _, high = self._engine._profile(self._profile)[name]
        fits = len(given) == len(low) and all(a <= b <= c for a, b, c in zip(low, given, high, strict=True))
        if not fits:
            return self._error(f"Static dimension or profile mismatch: {name} {given} is not within {low} and {high}")
        if self._shapes.get(name) != given:
            self._shapes[name], self._warm = given, None
        return True

    def get_tensor_shape(self, name: str) -> Any:
        if name in self._shapes:
            return Dims(self._shapes[name])
        if name in self._engine._outputs and not self._missing():
            return Dims(self._output_shapes()[name])
        return self._engine.get_tensor_shape(name)

    def get_tensor_strides(self, name: str) -> Any:
        shape = tuple(self.get_tensor_shape(name))
        return Dims([int(np.prod(shape[place + 1 :])) for place in range(len(shape))])

    def _output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Infer them from the inputs' shapes."""
        model = onnx.ModelProto()
        model.CopyFrom(self._engine._model)
        for value in model.graph.input:
            for size, dim in zip(self._shapes.get(value.name, ()), value.type.tensor_type.shape.dim, strict=False):
                dim.dim_value = size
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        return {
            each.name: tuple(
                dim.dim_value if dim.HasField("dim_value") else -1 for dim in each.type.tensor_type.shape.dim
            )
            for each in graph.output
        }

    def _missing(self) -> list[str]:
        return [name for name in self._engine._inputs if name not in self._shapes]

    def infer_shapes(self) -> list[str]:
        return self._missing()

    def get_max_output_size(self, name: str) -> int:
        if name not in self._engine._outputs:
            return -1
        shape = self.get_tensor_shape(name)
        return int(np.prod(tuple(shape))) * int(self._engine.get_tensor_bytes_per_component(name))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._engine._io:
            return self._error(f"there is no I/O tensor {name}")
        if not memory or memory % 256:
            return self._error(f"the address {int(memory):#x} of {name} is no multiple of 256 above zero")
        self._addresses[name] = int(memory)
        return True

    def get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def set_device_memory(self, memory: int, size: int) -> None:
        if not self._needs_memory and self._own is not None:
            self._error("set_device_memory: the context has memory of its own")
        elif memory % 256 or size < self._engine.device_memory_size_v2:
            self._error(f"set_device_memory: {size} bytes at {int(memory):#x} are not enough or not aligned")
        else:
            self._needs_memory = False

    def update_device_memory_size_for_shapes(self) -> int:
        return int(self._engine.device_memory_size_v2)

    def execute_v2(self, bindings: Sequence[int]) -> bool:
        if len(bindings) != len(self._engine._io):
            return self._error(f"execute_v2: {len(bindings)} addresses for {len(self._engine._io)} tensors")
        for name, address in zip(self._engine._io, bindings, strict=True):
            if not self.set_tensor_address(name, address):
                return False
        done = self.execute_async_v3(streams.LEGACY)
        streams.synchronize(streams.LEGACY)
        return done

    def execute_async_v3(self, stream_handle: int) -> bool:
        handle = int(stream_handle)
        wrong = self._unready()
        if wrong is not None:
            return self._error(wrong)
        if handle == streams.LEGACY:
            callbacks.warning(self._logger, _DEFAULT_STREAM)
        if streams.is_capturing(handle) and not self._may_be_captured(handle):
            return False
        try:
            streams.submit(handle, self._work())
        except CUDARuntimeError as error:
            return self._error(f"Error Code 1: Cuda Runtime ({error})")
        self._warm = self._state()
        if self.profiler is not None and self.enqueue_emits_profile:
            streams.synchronize(handle)  # an attached profiler makes the enqueue synchronous
            self._report()
        else:
            self._unreported = handle
        return True

    def _state(self) -> object:
        return self._profile, tuple(sorted(self._shapes.items()))

    def _unready(self) -> str | None:
        if self._needs_memory:
            return "the context has no device memory: call set_device_memory"
        if self._missing():
            return f"shapes of {self._missing()} are not set"
        missing = [name for name in self._engine._io if name not in self._addresses]
        return f"addresses of {missing} are not set" if missing else None

    def _may_be_captured(self, handle: int) -> bool:
        if self._warm == self._state() and not (self.profiler is not None and self.enqueue_emits_profile):
            return True
        streams.spoil_capture(handle)
        return self._error("Error Code 1: Cuda Runtime (operation not permitted when stream is capturing)")

    def _work(self) -> Callable[[], None]:
        """Make what the stream will do: shapes and addresses are those of now."""
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        sizes = self._output_shapes()
        network = self._engine._computation()

        def work() -> None:
            start = time.perf_counter()
            results = network.run(
                {name: self._array(name, addresses[name], shapes[name]) for name in self._engine._inputs}
            )
            for name, values in results.items():
                self._array(name, addresses[name], sizes[name])[...] = values
            self._layer_ms = (time.perf_counter() - start) * 1e3 / max(self._engine.num_layers, 1)

        return work

    def _array(self, name: str, address: int, shape: Sequence[int]) -> NDArray[Any]:
        dtype = np.dtype(_NUMPY[self._engine.get_tensor_dtype(name).name])
        nbytes = int(np.prod(shape)) * dtype.itemsize
        return memory.region(address, nbytes).view(dtype).reshape(tuple(shape))

    def report_to_profiler(self) -> bool:
        handle = self.__dict__.pop("_unreported", None)
        if self.profiler is None or self.enqueue_emits_profile or handle is None:
            return self._error("report_to_profiler needs a profiler, enqueue_emits_profile off, and an enqueue")
        streams.synchronize(handle)
        self._report()
        return True

    def _report(self) -> None:
        spent = float(self._layer_ms or 0.0)
        for layer in self._engine._header["layers"]:
            told = functools.partial(self.profiler.report_layer_time, layer["name"], spent)
            callbacks.ask("report_layer_time", told, otherwise=None)

    def _error(self, text: str) -> bool:
        callbacks.error(self._logger, f"IExecutionContext: Error Code 3: API Usage Error ({text})")
        return False
