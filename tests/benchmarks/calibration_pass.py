"""What a calibration pass costs beside the bare forward pass: processor time, in turn in one process.

    SHARED=DIR python -m tests.benchmarks.calibration_pass --out DIR

The bare pass is ONNX Runtime's fastest session, of the same thread count, over the same images and batches; ours ends
with the thresholds. `DIR/calibration-pass.json` has the median ratio over the rounds by model and method, the tensors
that are calibrated, and how much the process grew from the first 250 images to the last of 5,000.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from tests.benchmarks.subjects import shared_folder
from trtbench.calibrate.ranges import collect_histograms, thresholds
from trtbench.data import batches, load_dataset
from trtbench.disk import write_atomically
from trtbench.engines.onnxruntime import iterate_activations
from trtbench.engines.onnxruntime.sessions import CPU, session_options, start
from trtbench.environment.host import collect_host
from trtbench.graph.placement import activation_tensors, plan_qdq
from trtbench.graph.reference import onnxruntime
from trtbench.make.graphs import GRAPH, float_graph
from trtbench.make.makings import Makings, Places
from trtbench.suite import CalibrationConfig, DataConfig, Method, adhoc_suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

_MODELS = {
    "akamaster-resnet20": ("resnet20_a", "akamaster-resnet20-12fca82f.th"),
    "akamaster-resnet56": ("resnet56_a", "akamaster-resnet56-4bfd9763.th"),
}
_METHODS: tuple[Method, ...] = ("minmax", "entropy", "mse")
_IMAGES, _FEW, _MANY = 512, 250, 5000
_BATCH = CalibrationConfig().batch_size


def main() -> int:
    """Measure both models and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    shared = shared_folder()
    data = DataConfig(source=f"folder:{shared / 'data' / 'cifar10-lossless.tar.xz'}")
    dataset = load_dataset(data)
    images = np.concatenate(list(batches(dataset.train.images, dataset.preprocessing, size=512)))
    found: dict[str, Any] = {"images": _IMAGES, "batch_size": _BATCH, "cpu": collect_host().cpu.model, "models": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, (model, checkpoint) in _MODELS.items():
            weights = shared / "weights" / checkpoint
            suite = adhoc_suite(model={"name": model, "checkpoint": weights}, data=data)
            makings = Makings(suite, Places(runs=Path(folder), engines=Path(folder)))
            graph = float_graph(makings, suite.variants[0]).path(GRAPH)
            found["models"][name] = _measured(graph, images, rounds=options.rounds)
    write_atomically(options.out / "calibration-pass.json", json.dumps(found, indent=1) + "\n")
    return 0


def _measured(graph: Path, images: NDArray[np.float32], *, rounds: int) -> dict[str, Any]:
    tensors = activation_tensors(plan_qdq(onnx.load(graph)))
    forward = _forward(graph)

    def calibrate(method: Method, count: int = _IMAGES) -> None:
        values = iterate_activations(onnx.load(graph), tensors, _read(images, count))
        thresholds(collect_histograms(values), method=method)

    seconds: dict[str, list[float]] = {name: [] for name in ("forward", *_METHODS)}
    for _ in range(rounds):
        seconds["forward"].append(_cpu_s(lambda: forward(images)))
        for method in _METHODS:
            seconds[method].append(_cpu_s(lambda method=method: calibrate(method)))  # type: ignore[misc]
    calibrate("entropy", _FEW)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    calibrate("entropy", _MANY)
    ratios = {
        name: statistics.median(own / bare for own, bare in zip(seconds[name], seconds["forward"], strict=True))
        for name in _METHODS
    }
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return {"tensors": len(tensors), "cpu_over_forward": ratios, "grown_bytes": grown, "cpu_s": seconds}


def _forward(graph: Path) -> Callable[[NDArray[np.float32]], None]:
    ort = onnxruntime()
    options = session_options("ORT_ENABLE_ALL")
    session = start(ort, graph, options, providers={CPU: {}})

    def run(images: NDArray[np.float32]) -> None:
        for batch in _read(images, _IMAGES):
            session.run(None, {"input": batch})

    return run


def _read(images: NDArray[np.float32], count: int) -> Iterator[NDArray[np.float32]]:
    """Yield batches, from the first image again where there are too few."""
    for start_at in range(0, count, _BATCH):
        first = start_at % (len(images) - _BATCH)
        yield images[first : first + _BATCH]


def _cpu_s(call: Callable[[], None]) -> float:
    start_s = time.process_time()
    call()
    return time.process_time() - start_s


if __name__ == "__main__":
    sys.exit(main())
