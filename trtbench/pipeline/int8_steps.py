"""`trtbench qat` and `dynamic-int8` as plain functions: a network to an INT8 graph file, scored as ONNX runs it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.accuracy import score
from trtbench.pipeline.artefacts import Artefacts
from trtbench.pipeline.events import Listener, nobody
from trtbench.pipeline.keeper import Places
from trtbench.store import storing

if TYPE_CHECKING:
    from trtbench.pipeline.networks import Networks
    from trtbench.suite import Suite, TrainConfig

_BATCH = 64


def learn_int8_model(suite: Suite, budget: TrainConfig, *, output: Path, tell: Listener = nobody) -> dict[str, Any]:
    """Calibrate a suite's dense network, train it under its Q/DQ roundings and write what comes of it to `output`.

    The folder gets model.onnx (float, learnt), model.qdq.onnx and ranges.json.

    Returns:
        `correct`, `total`, `top1` of the Q/DQ graph on the test split, `before` (correct, without the training),
        `epochs`, `best_epoch`, `placement`, `output`, `notes`.
    """
    from trtbench.pipeline.graph_methods import before
    from trtbench.suite import QatVariant

    variant = QatVariant(kind="qat", name="qat")
    asked = suite.model_copy(update={"variants": (variant,), "fine_tune": budget})
    with tempfile.TemporaryDirectory() as folder:
        artefacts = Artefacts(asked, Places(runs=Path(folder), calib=Path(folder) / "calib"), tell=tell)
        calibrated = artefacts.quantized_graph(before(variant))
        learnt, quantized = artefacts.graph(variant), artefacts.quantized_graph(variant)
        files = {
            "model.onnx": learnt.path("model.onnx"),
            "model.qdq.onnx": quantized.path("model.onnx"),
            "ranges.json": artefacts.ranges(variant).path("ranges.json"),
        }
        with storing(output):
            output.mkdir(parents=True, exist_ok=True)
            for name, source in files.items():
                (output / name).write_bytes(source.read_bytes())
        start = score_graph(calibrated.path("model.onnx"), artefacts)
        found = score_graph(output / "model.qdq.onnx", artefacts)
    fit = learnt.facts["fit"]
    return {
        **found,
        "before": start["correct"],
        "epochs": fit["epochs"],
        "best_epoch": fit["best_epoch"],
        "placement": quantized.facts["placement"],
        "output": str(output),
        "notes": learnt.facts["notes"],
    }


def dynamic_int8_model(suite: Suite, *, output: Path) -> dict[str, Any]:
    """Write a suite's dense network as ONNX with its linear layers in dynamic INT8.

    Returns:
        `correct`, `total`, `top1` of that graph on the test split, `bytes` of the file, `share` of the weights that are
        INT8, `weights`, `total_weights`, `layers`, `output`, `notes`.
    """
    from trtbench.suite import DynamicInt8Variant

    variant = DynamicInt8Variant(kind="dynamic_int8", name="dynamic-int8")
    with tempfile.TemporaryDirectory() as folder:
        artefacts = Artefacts(suite.model_copy(update={"variants": (variant,)}), Places(runs=Path(folder)))
        made = artefacts.graph(variant)
        with storing(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_bytes(made.path("model.onnx").read_bytes())
        found = score_graph(output, artefacts)
    size = output.stat().st_size
    return {**found, "bytes": size, **made.facts["dynamic_int8"], "output": str(output), "notes": made.facts["notes"]}


def score_graph(path: Path, networks: Networks) -> dict[str, Any]:
    """Count a graph's right answers on the test split, each node computed as the standard defines it."""
    import onnx

    from trtbench.data import batches
    from trtbench.graph.reference import run_reference_batches

    test, preprocessing = networks.dataset.test, networks.dataset.preprocessing
    inputs = ({"input": one} for one in batches(test.images, preprocessing, size=_BATCH))
    parts = [found["logits"] for found in run_reference_batches(onnx.load(path), inputs)]
    counted = score(np.concatenate(parts), test.labels)
    return {"correct": counted.correct, "total": counted.total, "top1": counted.top1}
