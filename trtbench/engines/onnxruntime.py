"""ONNX Runtime's CPU engine: the embedded default, and what CI meets.

The engine file is the graph after ONNX Runtime's hardware-independent optimisation (weights are folded to int8 there);
the kernels of this CPU are chosen when it is loaded, so `load_ms` holds that work.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.engines.base import BuildResult, partial_path, refuse_precision
from trtbench.environment.host import collect_host
from trtbench.errors import EngineError, OutOfMemoryError, ProviderError
from trtbench.graph.reference import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx
    from numpy.typing import NDArray

    from trtbench.engines.base import BuildRequest, Scope
    from trtbench.engines.sidecar import Sidecar

PRECISIONS = ("fp32", "int8", "int8-ort")
SUFFIX = ".onnx"
IS_SIMULATED = False
_PROVIDER = "CPUExecutionProvider"
_WORKERS = 4  # batches of activations at a time: more than counting them keeps up with would only take memory
_FLOAT_CONVOLUTIONS = {"Conv", "FusedConv"}
_INT8_CONVOLUTIONS = {"QLinearConv"}
_FUSED_MARK = "_token_"  # between a node's name and a number, where ONNX Runtime fused it with its Q/DQ nodes


def machine() -> str:
    """Return what an engine file of this runtime is bound to: the instruction set, as far as it decides the kernels."""
    return f"{platform.machine()} cpu {'with' if collect_host().cpu.has_int8_dot else 'without'} int8 dot products"


def device_name() -> str:
    """Return the device as a row names it."""
    return "cpu"


def runtime_version() -> str:
    """Return ONNX Runtime's version."""
    return str(onnxruntime().__version__)


def build(request: BuildRequest) -> BuildResult:
    """Optimise the graph, write the engine file, and see what this CPU will make of it.

    On x86 without VNNI the int8 kernels add pairs of products in 16 bits and saturate; there the slower exact kernels
    are chosen by `x64quantprecision`, so that the model stays the one TensorRT gets.

    Raises:
        UnsupportedError: the precision is none of this runtime's.
        EngineError: ONNX Runtime refuses the graph.
    """
    refuse_precision(request.precision, "onnxruntime-cpu", known=PRECISIONS)
    settings = {"x64quantprecision": request.precision != "fp32" and not collect_host().cpu.has_int8_dot}
    ort = onnxruntime()
    levels = ort.GraphOptimizationLevel
    partial = partial_path(request.engine)
    try:
        options = _options(ort, level=levels.ORT_ENABLE_BASIC, settings=settings)
        options.optimized_model_filepath = str(partial)
        _start(ort, request.source, options)
        fused = _fused_operators(partial, settings)
        weight_bytes = _weight_bytes(partial)
        partial.replace(request.engine)
    finally:
        partial.unlink(missing_ok=True)
    achieved, notes = _achieved(request.precision, fused)
    if settings["x64quantprecision"]:
        notes += ("this CPU has no VNNI: exact int8 kernels are used (x64quantprecision), at a cost in speed",)
    return BuildResult(achieved=achieved, weight_bytes=weight_bytes, settings=settings, notes=notes)


def open_engine(path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> OnnxRuntimeEngine:
    """Load an engine file.

    Args:
        path: the engine file.
        sidecar: its sidecar, already checked.
        settings: `threads` (intra-op) and `spin`; what the build decided is in the sidecar.

    Raises:
        EngineError: the file cannot be loaded.
        ProviderError: ONNX Runtime chose another device.
    """
    ort = onnxruntime()
    wanted = {"threads": 1, "spin": False, **settings, **sidecar.settings}
    options = _options(ort, level=ort.GraphOptimizationLevel.ORT_ENABLE_ALL, settings=wanted)
    return OnnxRuntimeEngine(_start(ort, path, options), num_classes=sidecar.num_classes, settings=wanted)


class OnnxRuntimeEngine:
    """A loaded engine file; all its sessions share the loaded network."""

    def __init__(self, session: Any, *, num_classes: int, settings: Mapping[str, Any]) -> None:
        self.device = device_name()
        self.settings = settings
        self._session = session
        self._num_classes = num_classes

    def session(self, batch: int) -> OnnxRuntimeSession:
        """Return a session at this batch size."""
        return OnnxRuntimeSession(self._session, batch=batch, num_classes=self._num_classes)


class OnnxRuntimeSession:
    """Bound input and output buffers of one batch size."""

    def __init__(self, session: Any, *, batch: int, num_classes: int) -> None:
        ort = onnxruntime()
        shape = (batch, *session.get_inputs()[0].shape[1:])
        self._session = session
        self._input = np.zeros(shape, dtype=np.float32)
        self._output = np.zeros((batch, num_classes), dtype=np.float32)
        self._binding = session.io_binding()
        # The values share memory with the arrays above, which therefore live as long as the session.
        self._binding.bind_ortvalue_input(session.get_inputs()[0].name, ort.OrtValue.ortvalue_from_numpy(self._input))
        self._binding.bind_ortvalue_output(
            session.get_outputs()[0].name, ort.OrtValue.ortvalue_from_numpy(self._output)
        )

    def copy_in(self, images: NDArray[np.float32]) -> None:
        """Copy float32 images (batch, C, H, W) into the input buffer."""
        np.copyto(self._input, images)

    def enqueue(self) -> None:
        """Run one inference; on the CPU it has ended when this returns."""
        self._session.run_with_iobinding(self._binding)

    def synchronize(self) -> None:
        """Nothing is in flight on the CPU."""

    def copy_out(self) -> NDArray[np.float32]:
        """Return a copy of the logits (batch, classes)."""
        return self._output.copy()

    def time(self, samples: int, *, launches_per_sample: int = 1, scope: Scope = "device") -> NDArray[np.int64]:
        """Return `samples` durations in nanoseconds; host-to-host adds the copies in and out."""
        run, binding, clock = self._session.run_with_iobinding, self._binding, time.perf_counter_ns
        host_in, host_out = self._input.copy(), self._output.copy()
        durations = np.empty(samples, dtype=np.int64)
        for index in range(samples):
            start = clock()
            for _ in range(launches_per_sample):
                if scope == "host-to-host":
                    np.copyto(self._input, host_in)
                    run(binding)
                    np.copyto(host_out, self._output)
                else:
                    run(binding)
            durations[index] = clock() - start
        return durations

    def close(self) -> None:
        """Free the buffers."""
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()


def iterate_activations(
    graph: Path, tensors: tuple[str, ...], batches: Iterator[NDArray[np.float32]]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Run a float graph over batches and yield the values of the tensors named, one batch at a time.

    A few batches ahead are computed, a core each, while the caller looks at one. No other is kept, so memory does not
    grow with their number.
    """
    import onnx

    yield from iterate_graph_activations(onnx.load(graph), tensors, batches)


def iterate_graph_activations(
    graph: onnx.ModelProto, tensors: tuple[str, ...], batches: Iterator[NDArray[np.float32]]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Do as `iterate_activations` does, for a graph in memory; it is not changed."""
    import onnx

    ort = onnxruntime()
    proto = onnx.ModelProto()
    proto.CopyFrom(graph)
    known = {output.name for output in proto.graph.output}
    inputs = {item.name for item in proto.graph.input}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in known | inputs)
    workers = min(_WORKERS, os.cpu_count() or 1)
    options = _options(ort, level=ort.GraphOptimizationLevel.ORT_ENABLE_ALL, settings={"threads": 1})
    session = _start(ort, proto.SerializeToString(), options)
    name = session.get_inputs()[0].name
    computed = [tensor for tensor in tensors if tensor not in inputs]

    def run(batch: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        values = dict(zip(computed, session.run(computed, {name: batch}), strict=True)) if computed else {}
        return {tensor: batch if tensor == name else values[tensor] for tensor in tensors}

    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[dict[str, NDArray[np.float32]]]] = deque()
        for batch in batches:
            ahead.append(pool.submit(run, batch))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _options(ort: Any, *, level: Any, settings: Mapping[str, Any]) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = settings.get("threads", 1)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # warnings on each optimised file are no news to a user
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if settings.get("spin") else "0")
    if settings.get("x64quantprecision"):
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _start(ort: Any, source: Path | bytes, options: Any) -> Any:
    """Open a session and prove that it runs where it was asked to.

    Raises:
        ProviderError: it does not: ONNX Runtime falls back in silence.
    """
    name = source.name if isinstance(source, Path) else "the graph"
    try:
        session = ort.InferenceSession(
            str(source) if isinstance(source, Path) else source, options, providers=[_PROVIDER]
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        kind = OutOfMemoryError if "alloc" in str(error).lower() else EngineError
        raise kind(
            f"ONNX Runtime cannot load {name}", got=" ".join(str(error).split()), cure="build it again"
        ) from error
    if (used := session.get_providers()[0]) != _PROVIDER:
        raise ProviderError(f"engine {name}: provider", expected=_PROVIDER, got=used, cure="check `trtbench gpu-info`")
    return session


def integer_convolutions(engine: Path, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the convolutions of an engine file that this CPU computes in integers.

    Raises:
        EngineError: the file cannot be loaded.
    """
    nodes = (node for node in _fused_nodes(engine, settings) if node.op_type in _INT8_CONVOLUTIONS)
    return tuple(node.name.partition(_FUSED_MARK)[0] for node in nodes)


def _fused_operators(engine: Path, settings: Mapping[str, Any]) -> Counter[str]:
    """Count the operators by type that this CPU runs after all optimisations."""
    return Counter(node.op_type for node in _fused_nodes(engine, settings))


def _fused_nodes(engine: Path, settings: Mapping[str, Any]) -> list[onnx.NodeProto]:
    """Return the nodes that this CPU runs after all optimisations."""
    import onnx

    ort = onnxruntime()
    with tempfile.TemporaryDirectory() as folder:
        fused = Path(folder) / "fused.onnx"
        options = _options(ort, level=ort.GraphOptimizationLevel.ORT_ENABLE_ALL, settings=settings)
        options.optimized_model_filepath = str(fused)
        _start(ort, engine, options)
        return list(onnx.load(fused).graph.node)


def _achieved(precision: str, operators: Counter[str]) -> tuple[str, tuple[str, ...]]:
    """Say what became of the requested precision, and note it where that is not all of it."""
    if precision == "fp32":
        return precision, ()
    integer = sum(operators[name] for name in _INT8_CONVOLUTIONS)
    convolutions = integer + sum(operators[name] for name in _FLOAT_CONVOLUTIONS)
    achieved = f"int8 in {integer} of {convolutions} convolutions"
    if integer == convolutions:
        return achieved, ()
    note = (
        f"requested int8, achieved {integer} of {convolutions} convolutions: ONNX Runtime's CPU engine has no int8 "
        "kernel for TensorRT's placement of the others, so they run in float and pay for Q/DQ"
    )
    return achieved, (note,)


def _weight_bytes(engine: Path) -> int:
    import onnx

    return sum(onnx.numpy_helper.to_array(item).nbytes for item in onnx.load(engine).graph.initializer)
