"""Tensors that meet in a Concat have one scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from trtbench.graph.lint import lint
from trtbench.graph.placement import activation_tensors, plan_qdq
from trtbench.graph.qdq import insert_qdq
from trtbench.graph.reference import run_reference
from trtbench.graph.view import constants

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.graph.placement import QdqPlan

_HALVES = """
    x = Relu(input)
    left = Conv(x, w)
    a = Relu(left)
    b = Conv(x, w)
    both = Concat<axis = 1>(a, b)
    out = Conv(both, wide)
"""


def _model(body: str) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    signature = "net (float[batch, 4, 8, 8] input) => (float[batch, c, h, v] out)"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {signature} {{ {body} }}')
    for name, shape in {"w": (4, 4, 1, 1), "wide": (4, 8, 1, 1), "wider": (4, 12, 1, 1)}.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    return model


def _scales(model: onnx.ModelProto, plan: QdqPlan, amax: dict[str, float]) -> dict[str, float]:
    """Return the scale that each quantized activation is rounded by."""
    quantized = insert_qdq(model, plan, amax)
    arrays = constants(quantized.graph)
    pairs = [node for node in quantized.graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in arrays]
    return {node.input[0]: float(arrays[node.input[1]]) for node in pairs}


def test_the_inputs_of_a_concat_and_its_output_have_the_largest_of_their_ranges() -> None:
    model = _model(_HALVES)
    plan = plan_qdq(model)
    assert activation_tensors(plan) == ("x", "a", "b", "both")
    assert plan.joined == {"both": ("a", "b", "both")}
    scales = _scales(model, plan, {"x": 1.0, "a": 2.0, "b": 5.0, "both": 4.0})
    assert scales == pytest.approx({"x": 1 / 127, "a": 5 / 127, "b": 5 / 127, "both": 5 / 127})
    assert not lint(insert_qdq(model, plan, {"x": 1.0, "a": 2.0, "b": 5.0, "both": 4.0}))


def test_rounding_behind_the_concat_changes_nothing_more() -> None:
    model = _model(_HALVES)
    images = np.random.default_rng(1).normal(size=(2, 4, 8, 8)).astype(np.float32)
    quantized = insert_qdq(model, plan_qdq(model), dict.fromkeys(("x", "a", "b", "both"), 3.0))
    parts = ["a.dequantized", "b.dequantized"]
    found = run_reference(quantized, {"input": images}, outputs=[*parts, "both.dequantized"])
    np.testing.assert_array_equal(found["both.dequantized"], np.concatenate([found[part] for part in parts], axis=1))


def test_a_concat_that_only_float_operators_read_stays_float() -> None:
    plan = plan_qdq(_model(_HALVES.replace("out = Conv(both, wide)", "out = Sigmoid(both)")))
    assert activation_tensors(plan) == ("x",)
    assert not plan.joined


def test_an_excluded_concat_reads_float_and_only_its_output_is_quantized() -> None:
    model = _model(_HALVES)
    name = next(node for node in model.graph.node if node.op_type == "Concat")
    name.name = "cat"
    plan = plan_qdq(model, exclude=["cat"])
    assert activation_tensors(plan) == ("x", "both")
    assert not plan.joined


def test_concats_that_share_an_input_share_one_scale() -> None:
    body = """
        a = Relu(input)
        b = Conv(a, w)
        one = Concat<axis = 1>(a, b)
        c = Conv(one, wide)
        two = Concat<axis = 1>(a, b, c)
        out = Conv(two, wider)
    """
    plan = plan_qdq(_model(body))
    assert plan.joined == {"two": ("a", "b", "one", "c", "two")}
    assert {point.range_of for point in plan.activations} == {"two"}


def test_codes_are_unsigned_only_where_no_part_of_a_concat_is_negative() -> None:
    halves = _HALVES.replace("out = Conv(both, wide)", "c = Conv(both, wide) d = Relu(c) out = Flatten(d)")
    signed = plan_qdq(_model(halves), runtime="onnxruntime-cpu")
    assert {point.tensor for point in signed.activations if point.is_unsigned} == {"x", "d"}
    body = halves.replace("b = Conv(x, w)", "right = Conv(x, w) b = Relu(right)")
    unsigned = plan_qdq(_model(body), runtime="onnxruntime-cpu")
    assert all(point.is_unsigned for point in unsigned.activations)


def test_a_negative_value_elsewhere_in_the_group_keeps_its_sign() -> None:
    # The group's last tensor holds none, but the first Concat does.
    body = """
        a = Relu(input)
        d = Conv(a, w)
        one = Concat<axis = 1>(a, d)
        c = Conv(one, wide)
        e = Relu(c)
        two = Concat<axis = 1>(a, e)
        f = Conv(two, wide)
        out = Flatten(f)
    """
    plan = plan_qdq(_model(body), runtime="onnxruntime-cpu")
    assert not any(point.is_unsigned for point in plan.activations)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "concats"), [("squeezenet1_1", 8), ("googlenet", 9)])
def test_every_concat_of_a_published_network_runs_on_one_scale(name: str, concats: int, tmp_path: Path) -> None:
    import torch

    from trtbench.graph.export import export_onnx
    from trtbench.models import build_model
    from trtbench.suite import ExportConfig

    torch.manual_seed(0)
    network = build_model(f"torchvision:{name}", num_classes=10).eval()
    path = tmp_path / "model.onnx"
    export_onnx(network, path, input_shape=(3, 64, 64), config=ExportConfig(exporter="torchscript"))
    model = onnx.load(path)
    plan = plan_qdq(model)
    amax: dict[str, Any] = {tensor: 1.0 + index for index, tensor in enumerate(activation_tensors(plan))}
    scales = _scales(model, plan, amax)
    nodes = [node for node in model.graph.node if node.op_type == "Concat"]
    assert len(nodes) == concats
    for node in nodes:
        assert len({scales[tensor] for tensor in (*node.input, node.output[0])}) == 1
    assert not lint(insert_qdq(model, plan, amax))
