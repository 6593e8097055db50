"""A deserialised engine: what goes in and out, and the contexts it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulated_cuda import memory
from simulated_cuda.faults import is_asked_for

from . import callbacks, facts, jit
from .context import IExecutionContext
from .execution import Network
from .inspector import EngineInspector
from .network import dtype_of, inputs_of, shape_of
from .strict import Enum, Made, Managed, deprecated, kinds, strict
from .values import Dims, IHostMemory

if TYPE_CHECKING:
    import onnx

_BYTES = {"FLOAT": 4, "HALF": 2, "BF16": 2, "INT8": 1, "UINT8": 1, "BOOL": 1, "INT32": 4, "INT64": 8}


@strict("ICudaEngine")
class ICudaEngine(Made, Managed):
    """An engine."""

    def _setup(self, header: dict[str, Any], model: onnx.ModelProto, data: bytes, logger: Any) -> None:
        self._header, self._model, self._data, self._logger = header, model, data, logger
        self._inputs = {each.name: each for each in inputs_of(model)}
        self._outputs = {each.name: each for each in model.graph.output}
        self._io = {**self._inputs, **self._outputs}
        self._network: Network | None = None

    def _computation(self) -> Network:
        if self._network is None:
            self._network = Network(self._model, scales=self._header["scales"])
        return self._network

    def __getitem__(self, index: int) -> str:
        return str(self.get_tensor_name(index))

    @property
    def name(self) -> str:
        return str(self._header["name"])

    @property
    def num_io_tensors(self) -> int:
        return len(self._io)

    @property
    def num_layers(self) -> int:
        return len(self._header["layers"])

    @property
    def num_optimization_profiles(self) -> int:
        return max(len(self._header["profiles"]), 1)

    @property
    def refittable(self) -> bool:
        return "REFIT" in self._header["flags"]

    @property
    def profiling_verbosity(self) -> Any:
        return kinds.ProfilingVerbosity.__members__[self._header["verbosity"]]

    @property
    def hardware_compatibility_level(self) -> Any:
        return kinds.HardwareCompatibilityLevel.__members__[self._header["hardware"]]

    @property
    def device_memory_size(self) -> int:
        deprecated("device_memory_size_v2")
        return self.device_memory_size_v2

    @property
    def device_memory_size_v2(self) -> int:
        return int(self._header["memory"])

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return self.device_memory_size_v2 if 0 <= profile_index < self.num_optimization_profiles else 0

    def get_tensor_name(self, index: int) -> Any:
        if not 0 <= index < len(self._io):
            self._error(f"there is no I/O tensor {index}")
            return None
        return list(self._io)[index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = kinds.TensorIOMode
        return modes.INPUT if name in self._inputs else modes.OUTPUT if self._knows(name) else modes.NONE

    def get_tensor_dtype(self, name: str) -> Any:
        return dtype_of(self._io[name].type.tensor_type.elem_type) if self._knows(name) else kinds.DataType.FLOAT

    def get_tensor_shape(self, name: str) -> Any:
        return Dims(shape_of(self._io[name])) if self._knows(name) else Dims()

    def get_tensor_location(self, name: str) -> Any:
        self._knows(name)
        return kinds.TensorLocation.DEVICE

    def get_tensor_bytes_per_component(self, name: str, profile_index: int = 0) -> int:
        return _BYTES[self.get_tensor_dtype(name).name] if self._knows(name) else -1

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        if name not in self._inputs or not 0 <= profile_index < self.num_optimization_profiles:
            self._error(f"there is no profile {profile_index} of an input {name}")
            return []
        return [Dims(each) for each in self._profile(profile_index)[name]]

    def _profile(self, index: int) -> dict[str, list[list[int]]]:
        """Give smallest, usual and largest shape of every input; of a fixed one all three are its shape."""
        given = self._header["profiles"][index] if self._header["profiles"] else {}
        fixed = {name: [list(shape_of(each))] * 3 for name, each in self._inputs.items()}
        return {name: given.get(name, shapes) for name, shapes in fixed.items()}

    def is_shape_inference_io(self, name: str) -> bool:
        self._knows(name)
        return False

    def serialize(self) -> Any:
        return IHostMemory._of(self._data)

    def create_engine_inspector(self) -> Any:
        return EngineInspector._of(self)

    def create_runtime_config(self) -> Any:
        return jit.IRuntimeConfig._of()

    def create_execution_context(
        self, strategy: Any = kinds.ExecutionContextAllocationStrategy.STATIC, runtime_config: Any = None
    ) -> Any:
        config = runtime_config or (strategy if facts.current().is_rtx and not isinstance(strategy, Enum) else None)
        if config is not None:
            config._compile(self.name)
            strategy = config.get_execution_context_allocation_strategy()
        is_ours = strategy == kinds.ExecutionContextAllocationStrategy.USER_MANAGED
        needed = self.device_memory_size_v2
        if not is_ours and (is_asked_for("oom-context") or needed > memory.free_bytes()):
            callbacks.error(self._logger, f"Error Code 2: OutOfMemory (Requested size was {needed} bytes.)")
            return None
        return IExecutionContext._of(self, is_user_managed=is_ours)

    def create_execution_context_without_device_memory(self) -> Any:
        deprecated("create_execution_context")
        return IExecutionContext._of(self, is_user_managed=True)

    def _knows(self, name: str) -> bool:
        if name not in self._io:
            self._error(f"there is no I/O tensor {name}")
        return name in self._io

    def _error(self, text: str) -> None:
        callbacks.error(self._logger, f"ICudaEngine: Error Code 3: API Usage Error ({text})")
