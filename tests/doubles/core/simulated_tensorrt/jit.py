"""What TensorRT for RTX has and TensorRT has not: kernels that the GPU compiles, and the builder's list of layers."""

from __future__ import annotations

import json
from typing import Any

from simulated_cuda import device

from . import callbacks, facts
from .strict import Made, kinds, strict
from .values import IHostMemory

_MAGIC = b"simulated-runtime-cache\n"
_TYPES = {"CaskConvolution": "correlation", "gemm": "gemm", "Reformat": "kgen", "CaskPooling": "maxpool"}
_DATATYPES = {"INT8": "Int8", "FP16": "Half", "BF16": "BFloat16", "FP8": "FP8", "FP32": "Float"}


@strict("IRuntimeCache")
class IRuntimeCache(Made):
    """The kernels that were compiled here, by context; of this device and version alone."""

    def _setup(self) -> None:
        self._kernels: dict[str, str] = {}

    def deserialize(self, blob: Any) -> bool:
        data = bytes(blob)
        if not data.startswith(_MAGIC):
            return False
        read = json.loads(data[len(_MAGIC) :])
        if read["place"] != _place():
            return False
        self._kernels |= read["kernels"]
        return True

    def reset(self) -> bool:
        self._kernels.clear()
        return True

    def serialize(self) -> Any:
        return IHostMemory._of(_MAGIC + json.dumps({"place": _place(), "kernels": self._kernels}).encode())


@strict("IRuntimeConfig")
class IRuntimeConfig(Made):
    """How contexts of an engine run."""

    def _setup(self) -> None:
        self.cuda_graph_strategy = kinds.CudaGraphStrategy.DISABLED
        self.dynamic_shapes_kernel_specialization_strategy = kinds.DynamicShapesKernelSpecializationStrategy.LAZY
        self._cache: Any = None
        self._strategy = kinds.ExecutionContextAllocationStrategy.STATIC

    cuda_graph_strategy: Any
    dynamic_shapes_kernel_specialization_strategy: Any

    def create_runtime_cache(self) -> Any:
        return IRuntimeCache._of()

    def get_runtime_cache(self) -> Any:
        return self._cache

    def set_runtime_cache(self, cache: Any = None) -> bool:
        self._cache = cache
        return True

    def get_execution_context_allocation_strategy(self) -> Any:
        return self._strategy

    def set_execution_context_allocation_strategy(self, strategy: Any = None) -> None:
        self._strategy = kinds.ExecutionContextAllocationStrategy.STATIC if strategy is None else strategy

    def _compile(self, engine: str) -> None:
        if self._cache is not None:
            self._cache._kernels[engine] = self.dynamic_shapes_kernel_specialization_strategy.name


def validity(header: dict[str, Any] | None) -> tuple[Any, int]:
    """Say whether an engine of this header runs here; None is that of bytes that are no engine."""
    no, why = kinds.EngineValidity.INVALID, kinds.EngineInvalidityDiagnostics
    if header is None:
        return no, int(why.MALFORMED_ENGINE)
    if header["version"] != facts.current().version:
        return no, int(why.VERSION_MISMATCH)
    here = "SM{}{}".format(*device.compute_capability())
    return (kinds.EngineValidity.VALID, 0) if here in header["targets"] else (no, int(why.UNSUPPORTED_CC))


def tell(logger: Any, layers: list[dict[str, Any]], *, weight_bytes: int) -> None:
    """Log what the builder makes, as it does without a device."""
    lines = [_line(each) for each in layers]
    callbacks.verbose(logger, "Layers:\n" + "\n".join(lines) + "\n\nI/O Tensors:\n")
    callbacks.verbose(logger, f"Total Weights Memory: {weight_bytes} bytes")


def _line(layer: dict[str, Any]) -> str:
    given, made = (", ".join(map(_tensor, layer[key])) for key in ("inputs", "outputs"))
    nodes = "".join(f"[ONNX Layer: {name}]" for name in layer["name"].split(" + "))
    kind = _TYPES.get(layer["kind"], "kgen")
    weights = _tensor({"name": "w", "shape": [1], "precision": layer["precision"]})
    return (
        f"Name: {layer['name'].split(' + ')[0]}_myl0_0, LayerType: {kind}, Inputs: [ {given}], "
        f"Constants: [ {weights}], Outputs: [ {made}], TacticName: __myelin_CASK_STUB, StreamId: 0, Metadata: {nodes}"
    )


def _tensor(tensor: dict[str, Any]) -> str:
    sizes = ",".join(map(str, tensor["shape"]))
    kind = _DATATYPES[tensor["precision"]]
    return f"{{ Name: {tensor['name']}, Dimensions: [{sizes}], Strides: [], Datatype: {kind}, Format: (Linear) x }}"


def _place() -> list[str]:
    return [facts.current().version, device.NAME, "SM{}{}".format(*device.compute_capability())]
