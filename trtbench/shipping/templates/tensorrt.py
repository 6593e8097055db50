"""TensorRT as this bundle needs it: the plan on the first GPU, with CuPy; an execution context for each batch size."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


class Engine:
    """The plan, loaded."""

    def __init__(self, folder: Path, bundle: dict[str, Any]) -> None:
        self._trt: Any = importlib.import_module("tensorrt")
        self._cupy: Any = importlib.import_module("cupy")
        self._numbers = len(bundle["classes"]) or bundle["outputs"][0]["shape"][0]
        self._runtime = self._trt.Runtime(self._trt.Logger(self._trt.Logger.ERROR))
        if bundle["is_version_compatible"]:  # such a plan holds code of its own
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine((folder / bundle["engine"]).read_bytes())
        if self._engine is None:
            found = f"TensorRT {self._trt.__version__} cannot load {bundle['engine']}"
            raise RuntimeError(f"{found}: it is for {bundle['machine']}, TensorRT {bundle['backend_version']}")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        (self._input,) = [name for name in names if self._mode(name) == self._trt.TensorIOMode.INPUT]
        self._outputs = [name for name in names if name != self._input]
        self._stream = self._cupy.cuda.Stream(non_blocking=True)
        self._contexts: dict[int, Any] = {}

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return float32 logits (N, classes) of float32 images (N, C, H, W)."""
        context = self._context(images.shape)
        with self._stream:
            given = self._cupy.asarray(np.ascontiguousarray(images))
            taken = {name: self._empty(context, name) for name in self._outputs}
        for name, memory in {self._input: given, **taken}.items():
            context.set_tensor_address(name, memory.data.ptr)
        if not context.execute_async_v3(self._stream.ptr):
            raise RuntimeError(f"TensorRT did not run {len(images)} images")
        self._stream.synchronize()
        logits = [memory for memory in taken.values() if tuple(memory.shape) == (len(images), self._numbers)]
        found: np.ndarray = self._cupy.asnumpy(logits[0])
        return found

    def _context(self, shape: tuple[int, ...]) -> Any:
        """Return the context of a batch size, on the profile that is tuned for the nearest."""
        batch = shape[0]
        if batch not in self._contexts:
            ranges = [
                self._engine.get_tensor_profile_shape(self._input, index)
                for index in range(self._engine.num_optimization_profiles)
            ]
            fitting = [
                (abs(usual[0] - batch), index)
                for index, (low, usual, high) in enumerate(ranges)
                if low[0] <= batch <= high[0]
            ]
            if not fitting:
                raise ValueError(f"batch {batch} is in no profile of the engine")
            context = self._engine.create_execution_context()
            context.set_optimization_profile_async(min(fitting)[1], self._stream.ptr)
            self._stream.synchronize()
            context.set_input_shape(self._input, shape)
            self._contexts[batch] = context
        return self._contexts[batch]

    def _mode(self, name: str) -> Any:
        return self._engine.get_tensor_mode(name)

    def _empty(self, context: Any, name: str) -> Any:
        dtype = self._trt.nptype(self._engine.get_tensor_dtype(name))
        return self._cupy.empty(tuple(context.get_tensor_shape(name)), dtype)
