"""`trtbench qat` and `dynamic-int8` as plain functions: a network to an INT8 graph file, scored as ONNX runs it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.accuracy import score
from trtbench.jsonable import to_jsonable
from trtbench.make.graphs import GRAPH, before, float_graph, notes_of, quantized_graph, ranges
from trtbench.make.makings import Makings, Places
from trtbench.progress import Listener, nobody
from trtbench.store import storing

if TYPE_CHECKING:
    from trtbench.suite import Suite, TrainConfig

_BATCH = 64


def learn_int8_model(suite: Suite, budget: TrainConfig, *, output: Path, tell: Listener = nobody) -> dict[str, Any]:
    """Calibrate a suite's dense network, train it under its Q/DQ roundings and write what comes of it to `output`.

    The folder gets model.onnx (float, learnt), model.qdq.onnx and ranges.json.

    Returns:
        `correct`, `total`, `top1` of the Q/DQ graph on the test split, `before` (correct, without the training),
        `epochs`, `best_epoch`, `placement`, `output`, `notes`.
    """
    from trtbench.suite import QatVariant

    variant = QatVariant(kind="qat", name="qat")
    asked = suite.model_copy(update={"variants": (variant,), "fine_tune": budget})
    with tempfile.TemporaryDirectory() as folder:
        makings = Makings(asked, Places(runs=Path(folder), calib=Path(folder) / "calib"), tell=tell)
        calibrated = quantized_graph(makings, before(variant))
        learnt, quantized = float_graph(makings, variant), quantized_graph(makings, variant)
        files = {
            "model.onnx": learnt.path(GRAPH),
            "model.qdq.onnx": quantized.path(GRAPH),
            "ranges.json": ranges(makings, variant).path("ranges.json"),
        }
        with storing(output):
            output.mkdir(parents=True, exist_ok=True)
            for name, source in files.items():
                (output / name).write_bytes(source.read_bytes())
        start = score_graph(calibrated.path(GRAPH), makings)
        found = score_graph(output / "model.qdq.onnx", makings)
    fit = learnt.facts.fit
    assert fit is not None, "such a graph was trained"
    return {
        **found,
        "before": start["correct"],
        "epochs": fit.epochs,
        "best_epoch": fit.best_epoch,
        "placement": quantized.facts.placement,
        "output": str(output),
        "notes": list(notes_of(makings, variant)),
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
        makings = Makings(suite.model_copy(update={"variants": (variant,)}), Places(runs=Path(folder)))
        made = float_graph(makings, variant)
        with storing(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_bytes(made.path(GRAPH).read_bytes())
        found, notes = score_graph(output, makings), notes_of(makings, variant)
    size = output.stat().st_size
    return {**found, "bytes": size, **to_jsonable(made.facts.dynamic_int8), "output": str(output), "notes": list(notes)}


def score_graph(path: Path, makings: Makings) -> dict[str, Any]:
    """Count a graph's right answers on the test split, each node computed as the standard defines it."""
    import onnx

    from trtbench.data import batches
    from trtbench.graph.reference import run_reference_batches

    test, preprocessing = makings.dataset.test, makings.dataset.preprocessing
    inputs = ({"input": one} for one in batches(test.images, preprocessing, size=_BATCH))
    parts = [found["logits"] for found in run_reference_batches(onnx.load(path), inputs)]
    counted = score(np.concatenate(parts), test.labels)
    return {"correct": counted.correct, "total": counted.total, "top1": counted.top1}
