from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from trtbench.graph.lint import RULES, Finding, lint

Constants = dict[str, Any]
_ONE = np.array(0.5, np.float32)
_PER_CHANNEL = np.array([0.1, 0.2], np.float32)
_CLEAN: Constants = {
    "s": _ONE,
    "z": np.array(0, np.int8),
    "w": np.ones((2, 3, 1, 1), np.float32),
    "v": np.ones((3, 3, 1, 1), np.float32),
    "ws": _PER_CHANNEL,
    "wz": np.zeros(2, np.int8),
    "b": np.zeros(2, np.float32),
}
_HEADER = "net (float[batch, 3, 4, 4] input) => (float[batch, 2, 4, 4] out)"
_WEIGHT = "wq = QuantizeLinear<axis = 0>(w, ws, wz) wd = DequantizeLinear<axis = 0>(wq, ws, wz)"
_GRAPH = f"""
    q = QuantizeLinear(input, s, z)
    d = DequantizeLinear(q, s, z)
    {_WEIGHT}
    c = Conv(d, wd, b)
    out = Relu(c)
"""


def _model(body: str = _GRAPH, *, opset: int = 20, header: str = _HEADER, **constants: Any) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> {header} {{ {body} }}')
    read = {name for node in model.graph.node for name in node.input}
    for name, value in (_CLEAN | constants).items():
        if name in read:
            model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


def _breaches(model: onnx.ModelProto) -> list[tuple[str, str]]:
    return [(finding.rule, finding.node) for finding in lint(model)]


def test_a_clean_graph_has_no_findings() -> None:
    model = _model()
    onnx.checker.check_model(model)
    assert lint(model) == ()


def test_a_finding_names_rule_node_and_breach() -> None:
    assert lint(_model(s=np.array(-1, np.float32))) == (
        Finding(rule="bad-scale", node="q", message="scale -1; scales are positive and finite"),
        Finding(rule="bad-scale", node="d", message="scale -1; scales are positive and finite"),
    )


def test_a_named_node_is_found_by_its_name() -> None:
    model = _model(s=np.array(0, np.float32))
    model.graph.node[0].name = "input.QuantizeLinear"
    assert lint(model)[0].node == "input.QuantizeLinear"


def _in_place_of(old: str, new: str) -> str:
    assert old in _GRAPH
    return _GRAPH.replace(old, new)


_DOUBLE_ADD = """
    c = Conv(input, v)
    cq = QuantizeLinear(c, s, z)
    cd = DequantizeLinear(cq, s, z)
    iq = QuantizeLinear(input, s, z)
    id = DequantizeLinear(iq, s, z)
    out = Add(cd, id)
"""
_BROKEN: list[tuple[str, list[str], str, Constants]] = [
    ("batchnorm", ["out"], "out = BatchNormalization(input, b, b, b, b)", {}),
    ("q-operator", ["q"], "q, scale, zero = DynamicQuantizeLinear(input) out = Cast<to = 1>(q)", {}),
    ("q-operator", ["out"], "out = ConvInteger(input, w)", {}),
    ("computed-scale", ["q"], "t = Relu(s) q = QuantizeLinear(input, t, z) out = DequantizeLinear(q, s, z)", {}),
    ("bad-scale", ["wq", "wd"], _GRAPH, {"ws": np.array([0.1, 0], np.float32)}),
    ("bad-scale", ["q", "d"], _GRAPH, {"s": np.array(np.inf, np.float32)}),
    ("bad-scale", ["q", "d"], _GRAPH, {"s": np.array(np.nan, np.float32)}),
    ("asymmetric", ["q", "d"], _GRAPH, {"z": np.array(-128, np.int8)}),
    ("asymmetric", ["wq", "wd"], _GRAPH, {"wz": np.array([0, 3], np.int8)}),
    ("not-int8", ["q", "d"], _GRAPH, {"z": np.array(0, np.uint8)}),
    ("not-int8", ["q"], _in_place_of("QuantizeLinear(input, s, z)", "QuantizeLinear(input, s)"), {}),
    (
        "not-int8",
        ["d"],
        "d = DequantizeLinear(stored, s) out = Conv(input, d)",
        {"stored": np.ones((2, 3, 1, 1), np.uint8)},
    ),
    (
        "quantized-bias",
        ["bd"],
        _in_place_of("c = Conv(d, wd, b)", "bd = DequantizeLinear<axis = 0>(bq, ws, bz) c = Conv(d, wd, bd)"),
        {"bq": np.zeros(2, np.int32), "bz": np.zeros(2, np.int32)},
    ),
    ("zero-point-count", ["wq", "wd"], _GRAPH, {"wz": np.zeros(3, np.int8)}),
    ("missing-axis", ["wq"], _in_place_of("wq = QuantizeLinear<axis = 0>", "wq = QuantizeLinear"), {}),
    ("missing-axis", ["wd"], _in_place_of("wd = DequantizeLinear<axis = 0>", "wd = DequantizeLinear"), {}),
    ("scale-count", ["wq"], _in_place_of("wq = QuantizeLinear<axis = 0>", "wq = QuantizeLinear<axis = 1>"), {}),
    ("scale-count", ["wd"], _in_place_of("wd = DequantizeLinear<axis = 0>", "wd = DequantizeLinear<axis = 4>"), {}),
    (
        "per-channel-activation",
        ["q", "d"],
        _in_place_of(
            "q = QuantizeLinear(input, s, z)\n    d = DequantizeLinear(q, s, z)",
            "q = QuantizeLinear<axis = 1>(input, s, z) d = DequantizeLinear<axis = 1>(q, s, z)",
        ),
        {"s": np.ones(3, np.float32), "z": np.zeros(3, np.int8)},
    ),
    (
        "split-kernel",
        ["out"],
        _in_place_of("out = Relu(c)", "cq = QuantizeLinear(c, s, z) cd = DequantizeLinear(cq, s, z) out = Relu(cd)"),
        {},
    ),
    (
        "quantized-main-branch",
        ["out"],
        "c = Conv(input, v) cq = QuantizeLinear(c, s, z) cd = DequantizeLinear(cq, s, z) out = Add(input, cd)",
        {},
    ),
    ("quantized-twice", ["out"], _DOUBLE_ADD, {}),
]


@pytest.mark.parametrize(("rule", "nodes", "body", "constants"), _BROKEN)
def test_a_broken_graph_is_found_by_its_rule_alone(
    rule: str, nodes: list[str], body: str, constants: Constants
) -> None:
    found = _breaches(_model(body, **constants))
    if rule in {"missing-axis", "scale-count"}:  # a lost axis means axis 1, where the count is wrong too
        found = [breach for breach in found if breach[0] == rule]
    assert found == [(rule, node) for node in nodes]


def test_an_opset_without_per_channel_scales_is_found() -> None:
    assert _breaches(_model("out = Relu(input)", opset=12)) == [("opset", "net")]


_HALF: Constants = {name: _CLEAN[name].astype(np.float16) for name in ("s", "ws", "w")}
_HALF_HEADER = "net (float16[batch, 3, 4, 4] input) => (float16[batch, 2, 4, 4] out)"


@pytest.mark.parametrize(("opset", "nodes"), [(18, ["q", "d", "wq", "wd"]), (19, [])])
def test_fp16_scales_need_opset_19(opset: int, nodes: list[str]) -> None:
    model = _model(opset=opset, header=_HALF_HEADER, b=np.zeros(2, np.float16), **_HALF)
    assert _breaches(model) == [("half-scale", node) for node in nodes]


@pytest.mark.parametrize(("opset", "breaches"), [(19, [("mixed-types", "q")]), (23, [])])
def test_below_opset_23_a_scale_is_of_the_type_of_what_it_scales(opset: int, breaches: list[tuple[str, str]]) -> None:
    assert _breaches(_model(opset=opset, s=_ONE.astype(np.float16))) == breaches


def test_a_subnormal_fp16_scale_is_found() -> None:
    scales = np.array([6e-5, 1], np.float16)
    model = _model(header=_HALF_HEADER, b=np.zeros(2, np.float16), **(_HALF | {"ws": scales}))
    assert _breaches(model) == [("subnormal-scale", "wq"), ("subnormal-scale", "wd")]


def test_free_dimensions_other_than_the_batch_are_found() -> None:
    header = "net (float[batch, 3, h, 4] input) => (float[batch, n] out)"
    assert _breaches(_model("out = Flatten(input)", header=header)) == [
        ("free-dimension", "input"),
        ("free-dimension", "out"),
    ]


def test_external_data_is_found_without_the_other_file() -> None:
    model = _model()
    weight = next(item for item in model.graph.initializer if item.name == "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="absent.bin")
    assert ("external-data", "w") in _breaches(model)


def test_a_downsampling_branch_is_quantized_behind_its_convolution_by_right() -> None:
    body = """
        main = Conv(input, v)
        short = Conv(input, v)
        sq = QuantizeLinear(short, s, z)
        sd = DequantizeLinear(sq, s, z)
        out = Add(main, sd)
    """
    assert lint(_model(body)) == ()


def test_stored_int8_weights_are_clean() -> None:
    body = "d = DequantizeLinear<axis = 0>(stored, ws, wz) out = Conv(input, d)"
    assert lint(_model(body, stored=np.ones((2, 3, 1, 1), np.int8))) == ()


def test_every_rule_has_a_broken_graph() -> None:
    elsewhere = {"opset", "half-scale", "mixed-types", "subnormal-scale", "free-dimension", "external-data"}
    assert {rule for rule, *_ in _BROKEN} | elsewhere == set(RULES)
