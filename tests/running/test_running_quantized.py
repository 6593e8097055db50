"""The kinds of fewer bits flow through a suite like any other; nothing goes on from a graph."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch

from trtbench.graph.qdq import insert_qdq
from trtbench.make.graphs import float_graph, quantized_graph, ranges
from trtbench.make.makings import Makings, Places
from trtbench.models import build_model, save_model
from trtbench.running import build_suite
from trtbench.suite import load_suite

if TYPE_CHECKING:
    from pathlib import Path

_SUITE = """
name: tiny
data: {source: digits, size: 16}
model: {name: resnet20, checkpoint: net.safetensors}
variants:
  - {kind: fixed_point, name: four, bits: 4, images: 16}
  - {kind: codec, name: shared, after: four, clusters: 8, half: true}
  - {kind: dynamic_int8, name: dynamic, after: shared}
  - {kind: qat, name: qat}
  - {kind: codec, name: late, after: qat}
fine_tune: {epochs: 1, lr: 0.001, augment: {flip: false}}
export: {exporter: torchscript, opset: 17}
calibration: {per_class: 1, method: minmax}
bench: {batch_sizes: [1], baselines: [eager]}
decision: {batch_size: 1}
"""


@pytest.mark.slow
def test_every_kind_is_built_from_a_suite_and_nothing_goes_on_from_a_graph(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("resnet20", num_classes=10).eval()
    save_model(tmp_path / "net.safetensors", network, name="resnet20", num_classes=10, metadata={})
    (tmp_path / "tiny.yaml").write_text(_SUITE)
    suite = load_suite(str(tmp_path / "tiny.yaml"))
    places = Places(runs=tmp_path / "runs", engines=tmp_path / "engines", calib=tmp_path / "calib")

    built = build_suite(suite, places)

    status = {(one.plan.variant.name, one.plan.precision, one.plan.backend): one.status for one in built}
    assert {name: one for (name, precision, _), one in status.items() if precision == "int8"} == {
        "four": "ok",
        "shared": "ok",
        "dynamic": "failed",  # it is quantized already
        "qat": "ok",
        "late": "unsupported",
    }
    assert status["dynamic", "fp32", "onnxruntime-cpu"] == "ok"
    assert ("four", "fp32", "eager") in status
    assert ("qat", "fp32", "eager") not in status  # PyTorch has no network of a graph
    notes = {one.plan.variant.name: one.sidecar.notes for one in built if one.sidecar is not None}
    assert "bits a weight" in " ".join(notes["four"])
    assert "times less than in float32" in " ".join(notes["shared"])
    assert "touches 640 of" in " ".join(notes["dynamic"])
    makings = Makings(suite, places)
    _the_graph_learnt_with_its_own_ranges(makings)


def _the_graph_learnt_with_its_own_ranges(makings: Makings) -> None:
    from trtbench.graph.placement import plan_qdq

    variant = next(one for one in makings.suite.variants if one.name == "qat")
    learnt = onnx.load(float_graph(makings, variant).path("model.onnx"))
    amax = json.loads(ranges(makings, variant).path("ranges.json").read_bytes())
    ours = insert_qdq(learnt, plan_qdq(learnt), amax)
    exported = onnx.load(quantized_graph(makings, variant).path("model.onnx"))
    assert ours.SerializeToString(deterministic=True) == exported.SerializeToString(deterministic=True)
    assert np.isfinite(list(amax.values())).all()
