"""Sparse variants through the pipeline: chains, zeros held in every saved file, the Q/DQ graph, rows, one step."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import safetensors.numpy
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from trtbench.compress.nm import sparse_layers
from trtbench.errors import ConfigError
from trtbench.make.graphs import float_graph, quantized_graph
from trtbench.make.makings import Makings
from trtbench.make.networks import variant_network
from trtbench.running.plan import build_suite
from trtbench.steps import SparseNetwork, sparse_network, step
from trtbench.suite import AugmentConfig, DataConfig, TrainConfig, adhoc_suite

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from trtbench.running import Places
    from trtbench.store import Artefact
    from trtbench.suite import Suite

    Make = Callable[..., Suite]

_CHAIN = """
  - {kind: weights, name: weights-80, sparsity: 0.8}
  - {kind: dense, name: weights-80-tuned, after: weights-80, fine_tune: true}
"""


def _zeros(artefact: Artefact[Any]) -> dict[str, NDArray[np.bool_]]:
    tensors = safetensors.numpy.load_file(artefact.path("model.safetensors"))
    return {name: tensor == 0 for name, tensor in tensors.items() if tensor.ndim > 1}


def test_a_variant_goes_on_from_another_and_keeps_its_zeros_through_fine_tuning(suite: Make, places: Places) -> None:
    makings = Makings(suite(variants=_CHAIN), places)

    pruned, tuned = (variant_network(makings, one) for one in makings.suite.variants)

    before, after = _zeros(pruned), _zeros(tuned)
    total = sum(zeros.size for zeros in before.values())
    assert sum(zeros.sum() for zeros in before.values()) == round(0.8 * total)
    assert all((after[name] >= zeros).all() for name, zeros in before.items())
    assert pruned.sha256 != tuned.sha256
    assert tuned.facts.fit is not None
    assert tuned.facts.fit.epochs == 1
    assert pruned.facts.sparsity == pytest.approx(0.8, abs=1e-5)
    assert tuned.facts.sparsity >= pruned.facts.sparsity
    assert pruned.path("layers.sparsity.csv").exists()
    assert pruned.path("layers.sparsity.png").exists()


def test_a_dense_variant_after_another_is_that_other_one(suite: Make, places: Places) -> None:
    text = suite(variants="[{kind: weights, name: w, sparsity: 0.5}, {kind: dense, name: same, after: w}]")
    makings = Makings(text, places)

    assert variant_network(makings, text.variants[1]).sha256 == variant_network(makings, text.variants[0]).sha256


def test_a_variant_may_only_follow_one_named_before_it(suite: Make) -> None:
    with pytest.raises(ConfigError, match="a variant named before it, but 'later' is none"):
        suite(variants="[{kind: dense, name: a, after: later, fine_tune: true}, {kind: dense, name: later}]")


def test_zero_weights_are_zero_in_the_quantized_graph(suite: Make, places: Places) -> None:
    """Symmetric codes have a zero: what the graph multiplies with after Q/DQ is zero where the weight is."""
    text = suite(variants="[{kind: weights, name: w, sparsity: 0.8}]")
    makings = Makings(text, places)
    graph = onnx.load(quantized_graph(makings, text.variants[0]).path("model.onnx"))
    weights = {one.name: numpy_helper.to_array(one) for one in graph.graph.initializer if len(one.dims) > 1}
    pairs = {node.input[0]: node for node in graph.graph.node if node.op_type == "QuantizeLinear"}

    sparse = 0
    for name, weight in weights.items():
        node = pairs[name]
        reader = next(one for one in graph.graph.node if node.output[0] in one.input)
        model = onnx.helper.make_model(
            onnx.helper.make_graph(
                [node, reader],
                "one",
                [],
                [onnx.helper.make_tensor_value_info(reader.output[0], onnx.TensorProto.FLOAT, weight.shape)],
                [one for one in graph.graph.initializer if one.name in {*node.input, *reader.input}],
            ),
            opset_imports=graph.opset_import,
        )
        (rounded,) = ReferenceEvaluator(model).run(None, {})
        assert not np.asarray(rounded)[weight == 0].any()
        sparse += int((weight == 0).sum())
    total = sum(weight.size for weight in weights.values())
    assert sparse / total == pytest.approx(0.8, abs=0.01)


def test_an_nm_pattern_is_in_the_graph_that_the_runtime_sees(suite: Make, places: Places) -> None:
    text = suite(variants="[{kind: nm, name: nm, pattern: '2:4', fine_tune: true}]")
    makings = Makings(text, places)

    network, graph = variant_network(makings, text.variants[0]), float_graph(makings, text.variants[0])

    initializers = onnx.load(graph.path("model.onnx")).graph.initializer
    weights = {one.name: numpy_helper.to_array(one) for one in initializers if len(one.dims) == 4}
    found = sparse_layers(weights, kept=2, of=4)
    assert len(found.qualified) == len(weights) - 1  # all but the first, which sees 3 channels
    assert set(network.facts.method["nm"]["qualified"]) == {name for name in network.facts.widths if name != "conv1"}


def test_the_sparsity_stands_in_every_sidecar(suite: Make, places: Places) -> None:
    text = suite(variants="[{kind: dense, name: dense}, {kind: weights, name: w, sparsity: 0.5}]")

    built = build_suite(text, places)

    found = {one.plan.variant.name: one.sidecar.sparsity for one in built if one.sidecar is not None}
    assert found["dense"] == 0
    assert found["w"] == pytest.approx(0.5, abs=1e-5)


@pytest.fixture
def sparsified(images: Path, checkpoint: Path, tmp_path: Path) -> Callable[..., SparseNetwork]:
    """Run one sparsify step on the tiny images."""

    def run(**variant: Any) -> SparseNetwork:
        suite = adhoc_suite(
            model={"name": "tiny_nets:resnet8", "checkpoint": checkpoint},
            data=DataConfig(source=f"folder:{images}", size=16, validation=0.25),
            variants={"kind": "weights", **variant},
            fine_tune=TrainConfig(epochs=1, batch_size=9, lr=0.01, augment=AugmentConfig(crop_padding=0)),
        )
        return step(suite, sparse_network, tmp_path / "sparse.safetensors")

    return run


@pytest.mark.parametrize(
    "settings", [{}, {"fine_tune": True}, {"fine_tune": True, "schedule": "iterative", "ramp": 1, "scope": "layer"}]
)
def test_a_step_counts_the_zeros_of_the_file_it_saved(
    sparsified: Callable[..., SparseNetwork], settings: dict[str, Any]
) -> None:
    found = sparsified(sparsity=0.7, **settings)

    tensors = safetensors.numpy.load_file(str(found.output))
    zeros = sum(int((tensor == 0).sum()) for tensor in tensors.values() if tensor.ndim > 1)
    assert found.zeros == zeros
    assert found.sparsity == pytest.approx(0.7, abs=0.005)
    assert found.total == 18
    with Path(found.layers_csv).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["zero_params"]) for row in rows[:-1]) == int(rows[-1]["zero_params"]) == zeros


def test_a_step_by_curvature_and_one_to_a_pattern(sparsified: Callable[..., SparseNetwork]) -> None:
    curved = sparsified(sparsity=0.7, method="second-order", steps=2, images=20)
    pattern = sparsified(kind="nm", pattern="1:4")

    assert curved.sparsity == pytest.approx(0.7, abs=0.01)
    assert any("batch norm" in note for note in curved.notes)
    assert pattern.record["nm"]["pattern"] == "1:4"
    assert pattern.sparsity == pytest.approx(0.75, abs=0.01)
