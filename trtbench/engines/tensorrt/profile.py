"""Where the time of an inference goes, layer by layer: a pass of its own, never one that is timed.

With a profiler attached TensorRT marks each layer and runs no CUDA graph: the sum is more than an inference takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.engines.tensorrt.context import require_true

if TYPE_CHECKING:
    import tensorrt as trt

    from trtbench.engines.cuda.device import Operation
    from trtbench.engines.tensorrt.library import LogLines


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """The mean milliseconds of one layer in one inference; its name is TensorRT's, of all it fused."""

    name: str
    ms: float


def profile_layers(
    context: trt.IExecutionContext, launch: Operation, *, wait: Operation, iterations: int, lines: LogLines
) -> tuple[LayerTime, ...]:
    """Return the time of each layer, in the order they run.

    Args:
        context: one that nothing is timed with.
        launch: queues one inference of it.
        wait: waits for it.
        iterations: inferences to take the mean of; one before them is not counted.
        lines: of TensorRT's logger.

    Raises:
        EngineError: TensorRT reports nothing.
    """
    total_ms: dict[str, float] = {}
    launch()
    wait()
    context.profiler = _recorder(total_ms)
    context.enqueue_emits_profile = False
    for _ in range(iterations):
        launch()
        wait()
        require_true(context.report_to_profiler(), "TensorRT reports no layer times", lines=lines)
    return tuple(LayerTime(name=name, ms=ms / iterations) for name, ms in total_ms.items())


def _recorder(total_ms: dict[str, float]) -> trt.IProfiler:
    """Return a profiler that adds up the milliseconds by layer."""
    import tensorrt as trt

    class Recorder(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)  # pybind11 wants its own constructor called

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            total_ms[layer_name] = total_ms.get(layer_name, 0.0) + ms

    return Recorder()
