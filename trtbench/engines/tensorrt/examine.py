"""Loads a plan that was just built, as proof that it loads, and asks what it became: inputs, outputs and layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbench.engines.tensorrt.library import LogLines, create_runtime, make_logger

if TYPE_CHECKING:
    import tensorrt as trt


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What an engine is.

    Args:
        tensors: its inputs and outputs: name, mode, shape (-1 where free) and dtype.
        layers: the engine inspector's JSON.
    """

    tensors: tuple[dict[str, Any], ...]
    layers: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An engine, the runtime that must outlive it, and what its logger says from now on."""

    engine: trt.ICudaEngine
    runtime: trt.Runtime
    lines: LogLines


def load_plan(data: bytes, *, what: str, cure: str, is_version_compatible: bool) -> Loaded:
    """Deserialise a plan.

    Args:
        data: the bytes of a plan that we built ourselves: a version-compatible one holds host code that is run.
        what: how a message calls it.
        cure: what to do where it does not load.
        is_version_compatible: it was built to be.

    Raises:
        DeviceError: TensorRT finds no device.
        EngineError: it does not load; with the lines of TensorRT's logger.
        OutOfMemoryError: the device is full.
    """
    lines = LogLines()
    runtime = create_runtime(make_logger(lines), lines)  # pybind11 keeps the logger with it
    runtime.engine_host_code_allowed = is_version_compatible
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise lines.error(what, cure=cure)
    return Loaded(engine=engine, runtime=runtime, lines=lines)


def examine(engine: trt.ICudaEngine) -> Examined:
    """Ask a loaded engine for its inputs, outputs and layers."""
    import tensorrt as trt

    inspector = engine.create_engine_inspector()
    # Without shapes the inspector calls types of a free batch not applicable; memory it needs none.
    context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    if context is not None and _set_usual_shapes(engine, context):
        inspector.execution_context = context
    return Examined(
        tensors=tuple(_tensors(engine)), layers=inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    )


def _tensors(engine: trt.ICudaEngine) -> list[dict[str, Any]]:
    names = (engine.get_tensor_name(index) for index in range(engine.num_io_tensors))
    return [
        {
            "name": name,
            "mode": engine.get_tensor_mode(name).name,
            "shape": list(engine.get_tensor_shape(name)),
            "dtype": engine.get_tensor_dtype(name).name,
        }
        for name in names
    ]


def _set_usual_shapes(engine: trt.ICudaEngine, context: trt.IExecutionContext) -> bool:
    """Give the inputs the usual shapes of the first profile; say whether TensorRT took them."""
    inputs = [tensor["name"] for tensor in _tensors(engine) if tensor["mode"] == "INPUT"]
    return all(context.set_input_shape(name, engine.get_tensor_profile_shape(name, 0)[1]) for name in inputs)
