"""The values inside a float graph, for calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbench.engines.onnxruntime.sessions import CPU, session_options, start
from trtbench.graph.reference import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


def iterate_activations(
    graph: Path, tensors: tuple[str, ...], batches: Iterator[NDArray[np.float32]]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Run a float graph over batches and yield the values of the tensors named, one batch at a time.

    Nothing is kept between batches, so memory does not grow with their number.
    """
    import onnx

    ort = onnxruntime()
    proto = onnx.load(graph)
    known = {output.name for output in proto.graph.output}
    inputs = {item.name for item in proto.graph.input}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in known | inputs)
    options = session_options(ort, level=ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, settings={"threads": 0})
    session = start(ort, proto.SerializeToString(), options, providers={CPU: {}})
    name = session.get_inputs()[0].name
    computed = [tensor for tensor in tensors if tensor not in inputs]
    for batch in batches:
        values = dict(zip(computed, session.run(computed, {name: batch}), strict=True))
        yield {tensor: batch if tensor == name else values[tensor] for tensor in tensors}
