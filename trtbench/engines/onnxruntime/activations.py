"""The values inside a float graph, for calibration."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from trtbench.engines.onnxruntime.sessions import CPU, session_options, start
from trtbench.environment.host import collect_host
from trtbench.errors import EngineError
from trtbench.graph.reference import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    import onnx
    from numpy.typing import NDArray

_WORKERS = 4  # batches of activations at a time: more than counting them keeps up with would only take memory


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
    session = _session(ort, proto.SerializeToString())
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


def _session(ort: Any, graph: bytes) -> Any:
    """Open a session; where its fastest form is refused, one level below.

    On AVX-512 the highest level blocks convolutions by channels, twice as fast, and may lose an output of an odd width
    ("Failed to find node output").
    """
    settings = {"threads": 1, "x64quantprecision": not collect_host().cpu.has_int8_dot}
    levels = ort.GraphOptimizationLevel
    try:
        options = session_options(ort, level=levels.ORT_ENABLE_ALL, settings=settings)
        return start(ort, graph, options, providers={CPU: {}})
    except EngineError:
        options = session_options(ort, level=levels.ORT_ENABLE_EXTENDED, settings=settings)
        return start(ort, graph, options, providers={CPU: {}})
