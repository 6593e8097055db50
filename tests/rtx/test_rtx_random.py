"""Networks drawn at random: our placement, our lint, ONNX's reference and NVIDIA's real compiler agree on them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from tests.rtx.compiler import compiled, parsed
from tests.rtx.networks import fp8_graphs, graphs
from tests.rtx.random_networks import SIZE, random_network
from trtbench.engines.tensorrt.inspector import report_layers
from trtbench.engines.tensorrt_rtx.build import inspector_json
from trtbench.graph.lint import lint
from trtbench.graph.reference import run_reference

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

pytestmark = pytest.mark.rtx

_QUICK = 2


@pytest.mark.parametrize(
    "seed", [seed if seed < _QUICK else pytest.param(seed, marks=pytest.mark.slow) for seed in range(200)]
)
def test_a_random_network_is_exported_quantized_and_compiled_as_planned(seed: int, tmp_path: Path) -> None:
    made, plan = graphs(random_network(seed), tmp_path, size=SIZE)

    assert {precision: lint(graph) for precision, graph in made.items() if lint(graph)} == {}
    images = np.random.default_rng(seed).standard_normal((1, 3, SIZE, SIZE), dtype=np.float32)
    expected: Any = ReferenceEvaluator(made["fp32"]).run(None, {"input": images})
    assert np.abs(run_reference(made["fp32"], {"input": images})["logits"] - expected[0]).max() < 1e-3
    assert [one.faults for one in parsed([graph.SerializeToString() for graph in made.values()])] == [()] * len(made)
    for precision in ("int8", "bf16"):
        found = compiled(made[precision].SerializeToString())
        assert found.plan_bytes, found.log
        if precision == "int8":
            planned = [layer.node for layer in plan.layers if layer.is_quantized]
            layers = report_layers(inspector_json(found.layers), convolutions=planned).convolutions
            assert {name for name, kind in layers.items() if kind != "int8"} <= _tiny_gates(made["fp32"])


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.slow) if seed != 7 else 7 for seed in range(40)])
def test_a_random_network_in_fp8_is_compiled_as_planned(seed: int, tmp_path: Path) -> None:
    made, _ = graphs(random_network(seed, widths=(16, 32, 48)), tmp_path, size=SIZE)
    eights, plan = fp8_graphs(made["fp32"])

    planned = [layer.node for layer in plan.layers if layer.is_quantized]
    for graph in eights.values():
        assert lint(graph) == ()
        found = compiled(graph.SerializeToString())
        assert found.plan_bytes, found.log
        layers = report_layers(inspector_json(found.layers), convolutions=planned).convolutions
        assert not planned or layers == dict.fromkeys(planned, "fp8")


def _tiny_gates(graph: onnx.ModelProto) -> set[str]:
    """Return what the compiler makes a pointwise kernel of, in floats: up to 4 x 4 channels of an image of 1 x 1."""
    sizes = {item.name: math.prod(item.dims) for item in graph.graph.initializer}
    return {node.name for node in graph.graph.node if node.name.endswith("squeeze") and sizes[node.input[1]] <= 4 * 4}
