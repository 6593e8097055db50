"""ONNX Runtime's one door, and a graph's true arithmetic: each node as the standard defines it, nothing fused.

Nothing here imports torch: worker processes come through this door too.
"""

from __future__ import annotations

import contextlib
import os
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from trtbench.data.batches import batches, fed
from trtbench.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import ModuleType

    from numpy.typing import NDArray

    from trtbench.records import Output, Preprocessing

_PROVIDER = "CPUExecutionProvider"


def onnxruntime() -> ModuleType:
    """Import ONNX Runtime with its telemetry off.

    Official Linux builds since 1.29 send usage data, from a thread of their own that disturbs a benchmark, unless the
    environment says no before the import.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort

    module: ModuleType = ort
    return module


def run_reference(
    proto: onnx.ModelProto, inputs: Mapping[str, NDArray[Any]], *, outputs: Sequence[str] = ()
) -> dict[str, NDArray[np.float32]]:
    """Run a graph on one CPU thread with every optimisation off, so that Q/DQ nodes round exactly where they stand.

    Args:
        proto: the graph, weights inside; it is not changed.
        inputs: one array for each graph input.
        outputs: the tensors wanted, inner ones included; by default the graph's outputs.

    Returns:
        The arrays by tensor name, in the order asked for.

    Raises:
        GraphError: ONNX Runtime refuses the graph or the inputs.
    """
    return next(run_reference_batches(proto, iter([inputs]), outputs=outputs))


def run_reference_batches(
    proto: onnx.ModelProto, given: Iterator[Mapping[str, NDArray[Any]]], *, outputs: Sequence[str] = ()
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Run a graph as `run_reference` does, batch after batch in one session.

    Raises:
        GraphError: ONNX Runtime refuses the graph or the inputs.
    """
    session = None
    wanted = list(outputs) or [item.name for item in proto.graph.output]
    for inputs in given:
        computed = [name for name in wanted if name not in inputs]
        with _refusals(proto):
            session = session or plain_session(_exposing(proto, computed), plain_options("ORT_DISABLE_ALL"))
            values = dict(zip(computed, session.run(computed, dict(inputs)) if computed else (), strict=True))
        yield {name: values[name] if name in values else inputs[name] for name in wanted}


def exact_logits(
    proto: onnx.ModelProto, images: NDArray[np.uint8], preprocessing: Preprocessing, *, size: int
) -> NDArray[np.float32]:
    """Return the logits (images, classes) of a graph run as `run_reference` does, `size` images at once."""
    inputs = (fed(one) for one in batches(images, preprocessing, size=size))
    return np.concatenate([flat(found.values()) for found in run_reference_batches(proto, inputs)])


def flat(outputs: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return what a network gives, (images, numbers): each output flattened, side by side in the order of the graph."""
    found = [one.reshape(len(one), -1) for one in outputs]
    return found[0] if len(found) == 1 else np.concatenate(found, axis=1)


def parted(found: NDArray[np.float32], outputs: Sequence[Output]) -> dict[str, NDArray[np.float32]]:
    """Return each output by its name, (images, ...), of what `flat` put side by side."""
    parts = np.split(found, np.cumsum([one.size for one in outputs])[:-1], axis=1)
    return {one.name: part.reshape(-1, *one.shape) for one, part in zip(outputs, parts, strict=True)}


@contextlib.contextmanager
def _refusals(proto: onnx.ModelProto) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        raise GraphError(
            f"ONNX Runtime cannot run graph {proto.graph.name!r}",
            got=" ".join(str(error).split()),
            cure="`trtbench.graph.lint` names the nodes at fault; check names and shapes of the inputs",
        ) from error


def plain_options(level: str, *, threads: int = 1, severity: int = 3) -> Any:
    """Return the options of a session at a level of optimisation, as ONNX Runtime names it.

    One thread stands between operators. Below `severity` nothing is logged: errors come back as exceptions, and
    warnings on each optimised file are no news to a user.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = severity
    return options


def plain_session(proto: onnx.ModelProto, options: Any) -> Any:
    """Return a session of a graph on the CPU."""
    return onnxruntime().InferenceSession(proto.SerializeToString(), options, providers=[_PROVIDER])


def _exposing(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return the graph with these inner tensors among its outputs."""
    known = {item.name for item in proto.graph.output}
    if hidden := [name for name in names if name not in known]:
        copy = deepcopy(proto)
        copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in hidden)
        return copy
    return proto
