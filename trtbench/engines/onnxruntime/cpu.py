"""ONNX Runtime's CPU engine: the embedded default, and what CI meets.

The engine file is the graph after ONNX Runtime's hardware-independent optimisation (weights are folded to int8 there);
the kernels of this CPU are chosen when it is loaded, so `load_ms` holds that work.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.data.batches import fed
from trtbench.engines.base import (
    NO_OPTIONS,
    BackendFacts,
    BuildResult,
    Measuring,
    OpenEngine,
    SessionFacts,
    partial_path,
    refuse_precision,
)
from trtbench.engines.onnxruntime.sessions import CPU, session_options, start, weight_bytes
from trtbench.environment.host import collect_host
from trtbench.graph.reference import flat, onnxruntime
from trtbench.precision import NONE_IN_INT8
from trtbench.records import AsTheyAre, Output, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from trtbench.engines.base import Backend, BuildRequest, Scope
    from trtbench.engines.sidecar import Sidecar

_DEVICE = "cpu"
_INT8_CONVOLUTIONS = {"QLinearConv"}
# What runs in INT8 and what in float, by what people call the two together
_LAYERS = {
    "convolutions": (_INT8_CONVOLUTIONS, {"Conv", "FusedConv", "ConvTranspose"}),
    "linear layers": (
        {"QGemm", "QLinearMatMul", "MatMulIntegerToFloat"},
        {"Gemm", "FusedGemm", "MatMul", "FusedMatMul"},
    ),
}
_FUSED_MARK = "_token_"  # between a node's name and a number, where ONNX Runtime fused it with its Q/DQ nodes


class CpuBackend(Measuring):
    """ONNX Runtime's CPU provider."""

    name = "onnxruntime-cpu"
    precisions = ("fp32", "int8")
    suffix = ".onnx"

    def facts(self, options: Mapping[str, Any] = NO_OPTIONS) -> BackendFacts:  # noqa: ARG002  the same for all engines
        """Return what it is here; an engine is bound to the instruction set, as far as that decides the kernels."""
        return BackendFacts(
            version=str(onnxruntime().__version__),
            device=_DEVICE,
            machine=f"{platform.machine()} cpu {'with' if _has_int8_dot() else 'without'} int8 dot products",
            usual_precisions=("fp32", "int8"),
        )

    def build(self, request: BuildRequest) -> BuildResult:
        """Optimise the graph, write the engine file, and see what this CPU will make of it.

        On x86 without VNNI the int8 kernels add pairs of products in 16 bits and saturate; there the slower exact
        kernels are chosen by `x64quantprecision`, so that the model stays the one TensorRT gets.

        Raises:
            UnsupportedError: the precision is none of this runtime's.
            EngineError: ONNX Runtime refuses the graph.
        """
        refuse_precision(request.precision, self.name, known=self.precisions)
        settings = {"x64quantprecision": request.precision != "fp32" and not _has_int8_dot()}
        ort = onnxruntime()
        partial = partial_path(request.engine)
        try:
            options = session_options("ORT_ENABLE_BASIC", settings)
            options.optimized_model_filepath = str(partial)
            start(ort, request.source, options, providers={CPU: {}})
            fused = Counter(node.op_type for node in _fused_nodes(partial, settings))
            stored = weight_bytes(partial)
            partial.replace(request.engine)
        finally:
            partial.unlink(missing_ok=True)
        achieved, notes = _achieved(request.precision, fused)
        if settings["x64quantprecision"]:
            notes += ("this CPU has no VNNI: exact int8 kernels are used (x64quantprecision), at a cost in speed",)
        return BuildResult(achieved=achieved, weight_bytes=stored, settings=settings, notes=notes)

    def open(self, path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> OpenEngine:
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
        options = session_options("ORT_ENABLE_ALL", wanted)
        session = start(ort, path, options, providers={CPU: {}})
        logits = (Output(name=session.get_outputs()[0].name, shape=(sidecar.num_classes,)),)
        fit = sidecar.preprocessing
        taken = session.get_inputs()[0]
        picture = (Tensor(name=taken.name, dtype="float32", shape=tuple(taken.shape[1:])),)
        inputs = fit.tensors if isinstance(fit, AsTheyAre) else picture
        outputs = sidecar.outputs or logits

        def opened(batch: int) -> OnnxRuntimeSession:
            return OnnxRuntimeSession(session, batch=batch, inputs=inputs, outputs=outputs, settings=wanted)

        return OpenEngine(_DEVICE, opened)


class OnnxRuntimeSession:
    """Bound input and output buffers of one batch size."""

    def __init__(
        self,
        session: Any,
        *,
        batch: int,
        inputs: Sequence[Tensor],
        outputs: Sequence[Output],
        settings: Mapping[str, Any],
    ) -> None:
        self._settings = settings
        ort = onnxruntime()
        self._session = session
        self._inputs = {one.name: np.zeros((batch, *one.shape), dtype=one.dtype) for one in inputs}
        self._outputs = {one.name: np.zeros((batch, *one.shape), dtype=np.float32) for one in outputs}
        self._binding = session.io_binding()
        # The values share memory with the arrays above, which therefore live as long as the session.
        for name, array in self._inputs.items():
            self._binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
        for name, output in self._outputs.items():
            self._binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(output))

    def copy_in(self, images: NDArray[np.float32]) -> None:
        """Copy float32 images (batch, C, H, W) into the input buffer, or each tensor of records into its own."""
        for name, given in fed(images, next(iter(self._inputs))).items():
            np.copyto(self._inputs[name], given)

    def enqueue(self) -> None:
        """Run one inference; on the CPU it has ended when this returns."""
        self._session.run_with_iobinding(self._binding)

    def synchronize(self) -> None:
        """Nothing is in flight on the CPU."""

    def copy_out(self) -> NDArray[np.float32]:
        """Return a copy of the logits (batch, classes); of other outputs each flattened, side by side."""
        return flat(output.copy() for output in self._outputs.values())

    def time(self, samples: int, *, launches_per_sample: int = 1, scope: Scope = "device") -> NDArray[np.int64]:
        """Return `samples` durations in nanoseconds; host-to-host adds the copies in and out."""
        run, binding, clock = self._session.run_with_iobinding, self._binding, time.perf_counter_ns
        given = [(array, array.copy()) for array in self._inputs.values()]
        copies = [(output.copy(), output) for output in self._outputs.values()]
        durations = np.empty(samples, dtype=np.int64)
        for index in range(samples):
            start = clock()
            for _ in range(launches_per_sample):
                if scope == "host-to-host":
                    for array, host_in in given:
                        np.copyto(array, host_in)
                    run(binding)
                    for host_out, output in copies:
                        np.copyto(host_out, output)
                else:
                    run(binding)
            durations[index] = clock() - start
        return durations

    def time_parts(self, samples: int) -> None:
        """Return None: on the CPU there is nothing to tell apart."""

    def describe(self) -> SessionFacts:
        """Return the settings."""
        return SessionFacts(settings=self._settings)

    def close(self) -> None:
        """Free the buffers."""
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()


def integer_convolutions(engine: Path, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the convolutions of an engine file that this CPU computes in integers.

    Raises:
        EngineError: the file cannot be loaded.
    """
    nodes = (node for node in _fused_nodes(engine, settings) if node.op_type in _INT8_CONVOLUTIONS)
    return tuple(node.name.partition(_FUSED_MARK)[0] for node in nodes)


def _fused_nodes(engine: Path, settings: Mapping[str, Any]) -> list[onnx.NodeProto]:
    """Return the nodes that this CPU runs after all optimisations."""
    import onnx

    ort = onnxruntime()
    with tempfile.TemporaryDirectory() as folder:
        fused = Path(folder) / "fused.onnx"
        options = session_options("ORT_ENABLE_ALL", settings)
        options.optimized_model_filepath = str(fused)
        start(ort, engine, options, providers={CPU: {}})
        return list(onnx.load(fused).graph.node)


def _achieved(precision: str, operators: Counter[str]) -> tuple[str, tuple[str, ...]]:
    """Say what became of the requested precision, and note it where that is not all of it."""
    if precision == "fp32":
        return precision, ()
    counts = {
        kind: (sum(operators[name] for name in integer), sum(operators[name] for name in integer | floats))
        for kind, (integer, floats) in _LAYERS.items()
    }
    kind = max(counts, key=lambda name: counts[name][1])  # of a transformer the linear layers tell what it computes in
    integer, total = counts[kind]
    if integer == total:
        return f"int8 in {integer} of {total} {kind}", ()
    note = (
        f"requested int8, achieved {integer} of {total} {kind}: the others are kept in float, or ONNX "
        "Runtime's CPU engine has no int8 kernel for where their Q/DQ pairs stand"
    )
    words = f"int8 in {integer} of {total} {kind}" if integer else f"fp32{NONE_IN_INT8}{total} {kind}"
    return words, (note,)


def _has_int8_dot() -> bool:
    return collect_host().cpu.has_int8_dot


ONNXRUNTIME_CPU: Backend = CpuBackend()
