"""Calibrate one graph with one tool in this very process, and print what it took: called by calibration.py.

Clock: from the creation of the session that computes the activations to the scales; images are decoded and everything
is imported before. Peak memory is the whole process's, its imports included.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray


class Stopwatch:
    """Wall and processor seconds between the first start and the last stop."""

    def __init__(self) -> None:
        self._start: tuple[float, float] | None = None
        self._stop = (0.0, 0.0)

    def start(self) -> None:
        """Begin, unless it runs already."""
        self._start = self._start or (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        """Note the time; a later call replaces it."""
        self._stop = (time.perf_counter(), time.process_time())

    def seconds(self) -> dict[str, float]:
        """Return `wall_s` and `cpu_s`."""
        assert self._start is not None, "it was started"
        return {"wall_s": self._stop[0] - self._start[0], "cpu_s": self._stop[1] - self._start[1]}


def main() -> None:
    """Measure one contender and print a JSON object."""
    options = _options()
    table = _table(options.mean, options.std)
    batches = _batches(options.images, options.count, options.batch_size, table)
    watch = Stopwatch()
    contenders: dict[str, Callable[..., dict[str, Any]]] = {
        "trtbench": trtbench,
        "onnxruntime": onnxruntime,
        "modelopt": modelopt,
    }
    tensors = contenders[options.tool](options, batches, watch)
    print(json.dumps({**tensors, **watch.seconds(), "peak_rss_bytes": _peak_rss(), "cores": _cores()}))  # noqa: T201  its answer


def trtbench(options: argparse.Namespace, batches: Iterator[NDArray[np.float32]], watch: Stopwatch) -> dict[str, Any]:
    """Collect the ranges of what TensorRT's placement quantizes."""
    import onnx

    from trtbench.calibrate.ranges import collect_histograms, thresholds
    from trtbench.engines.onnxruntime import iterate_activations
    from trtbench.graph.placement import activation_tensors, plan_qdq
    from trtbench.graph.reference import onnxruntime as load

    tensors = activation_tensors(plan_qdq(onnx.load(options.graph)))
    load()
    watch.start()
    values = iterate_activations(onnx.load(options.graph), tensors, batches)
    amax = thresholds(collect_histograms(values), method=options.method)
    watch.stop()
    return {"tensors": len(amax)}


def onnxruntime(
    options: argparse.Namespace, batches: Iterator[NDArray[np.float32]], watch: Stopwatch
) -> dict[str, Any]:
    """Run `quantize_static` with the settings TensorRT needs: Q/DQ, symmetric, int8, weights per channel."""
    from onnxruntime import quantization

    found = _watched(watch)
    methods = {
        "minmax": quantization.CalibrationMethod.MinMax,
        "entropy": quantization.CalibrationMethod.Entropy,
        "percentile": quantization.CalibrationMethod.Percentile,
    }

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(batches, None)
            return None if batch is None else {"input": batch}

    quantization.quantize_static(
        options.graph,
        options.output,
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=methods[options.method],
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )
    return {"tensors": found["tensors"]}


def modelopt(options: argparse.Namespace, batches: Iterator[NDArray[np.float32]], watch: Stopwatch) -> dict[str, Any]:
    """Run NVIDIA's `modelopt.onnx.quantization.quantize` on the CPU; it takes all images as one array."""
    from modelopt.onnx import quantization  # type: ignore[import-not-found]  # it may live in another environment

    found = _watched(watch)
    images = np.concatenate(list(batches))
    quantization.quantize(
        str(options.graph),
        quantize_mode="int8",
        calibration_data={"input": images},
        calibration_method=options.method,
        calibration_eps=["cpu"],
        output_path=str(options.output),
    )
    return {"tensors": found["tensors"]}


def _watched(watch: Stopwatch) -> dict[str, int]:
    """Let the stopwatch run while ONNX Runtime's calibrators, which ModelOpt uses too, do their work."""
    from onnxruntime.quantization import calibrate

    found: dict[str, int] = {}

    def augmented(self: Any, augment: Any) -> None:
        augment(self)
        watch.start()  # the next thing is the session

    def computed(self: Any, compute: Any) -> Any:
        result = compute(self)
        watch.stop()
        found["tensors"] = len(result.data)
        return result

    for kind in (calibrate.MinMaxCalibrater, calibrate.HistogramCalibrater):
        kind.augment_graph = functools.partialmethod(augmented, kind.augment_graph)
        kind.compute_data = functools.partialmethod(computed, kind.compute_data)
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tool", required=True, choices=["trtbench", "onnxruntime", "modelopt"])
    parser.add_argument("--method", required=True)
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True, help="uint8 (N, C, H, W) as .npy")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--mean", type=float, nargs="+", required=True)
    parser.add_argument("--std", type=float, nargs="+", required=True)
    parser.add_argument("--output", type=Path, help="the quantized graph, of the tools that write one")
    return parser.parse_args()


def _table(mean: list[float], std: list[float]) -> NDArray[np.float32]:
    """Return what each pixel value becomes: float32 (channels, 256)."""
    levels = np.arange(256) / 255
    return np.stack([(levels - m) / s for m, s in zip(mean, std, strict=True)]).astype(np.float32)


def _batches(path: Path, count: int, size: int, table: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Yield the first images, normalised, from a file that is only mapped; the same for every contender.

    It is mapped anew for each batch: the pages of a map count as this process's memory as long as it stands.
    """
    for start in range(0, count, size):
        images = np.load(path, mmap_mode="r")[start : min(start + size, count)]
        yield table[np.arange(images.shape[1])[:, None, None], images]


def _peak_rss() -> int:
    """Return the high-water mark of this process; getrusage would give the parent's where that was larger."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def _cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
