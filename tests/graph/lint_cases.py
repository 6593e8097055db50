"""Small graphs, each with the breaches that the lint finds in it and what TensorRT-RTX's real parser says of it.

The lint's own tests read the former, `tests/rtx` asks the parser and the builder: one table, so that they cannot part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ONE = np.array(0.5, np.float32)
_CLEAN: dict[str, Any] = {
    "s": ONE,
    "z": np.array(0, np.int8),
    "w": np.ones((2, 3, 1, 1), np.float32),
    "v": np.ones((3, 3, 1, 1), np.float32),
    "ws": np.array([0.1, 0.2], np.float32),
    "wz": np.zeros(2, np.int8),
    "b": np.zeros(2, np.float32),
    "e": np.ones(3, np.float32),
}
_HALF = {name: _CLEAN[name].astype(np.float16) for name in ("s", "ws", "w", "b")}
_HEADER = "net (float[batch, 3, 4, 4] input) => (float[batch, 2, 4, 4] out)"
_HALF_HEADER = "net (float16[batch, 3, 4, 4] input) => (float16[batch, 2, 4, 4] out)"
_ALIKE = "net (float[batch, 3, 4, 4] input) => (float[batch, 3, 4, 4] out)"
_INPUT = """q = QuantizeLinear(input, s, z)
    d = DequantizeLinear(q, s, z)"""
_WEIGHT = "wq = QuantizeLinear<axis = 0>(w, ws, wz) wd = DequantizeLinear<axis = 0>(wq, ws, wz)"
_GRAPH = f"""
    {_INPUT}
    {_WEIGHT}
    c = Conv(d, wd, b)
    out = Relu(c)
"""
_PAIR = ("q", "d")
_WEIGHT_PAIR = ("wq", "wd")
_UNPOSITIVE = "INVALID_NODE Assertion failed: (scaleAllPositive || allowNegativeScale): Scale coefficients must all be "
_SHIFTED = "INVALID_NODE Assertion failed: shiftIsAllZeros(zeroPoint): Non-zero zero point is not supported."
_COUNT = "INVALID_NODE Assertion failed: K == scaleSize: The number of scales is not equal to the number of output ch"
_UNLIKE = "must be of same type"
_UNKNOWN = "UNSUPPORTED_NODE false"
_CONSTANT = "INVALID_GRAPH Failed to import initializer: In node -1 with name:  and operator:  (importInitializers)"
_NO_PLUGIN = 'INVALID_NODE creator && "Plugin not found, are the plugin name, version, and namespace correct?"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One graph.

    Args:
        name: what is the matter with it.
        graph: the graph.
        breaches: the rule and the node of each, in the lint's order.
        says: words of the real parser's refusal; None where it takes the graph.
        is_built: the real builder makes an engine of it.
    """

    name: str
    graph: onnx.ModelProto
    breaches: tuple[tuple[str, str], ...]
    says: str | None
    is_built: bool


def model(body: str = _GRAPH, *, opset: int = 20, header: str = _HEADER, **constants: Any) -> onnx.ModelProto:
    """Parse a graph's text; what it reads of the clean constants, or of those given here, is stored in it."""
    domains = (
        '"" : ' + str(opset) + "".join(f', "{domain}" : 1' for domain in ("com.microsoft", "my") if domain in body)
    )
    proto = onnx.parser.parse_model(f"<ir_version: 10, opset_import: [{domains}]> {header} {{ {body} }}")
    read = {name for node in proto.graph.node for name in node.input}
    for name, value in (_CLEAN | constants).items():
        if name in read:
            proto.graph.initializer.append(numpy_helper.from_array(value, name))
    return proto


def in_place_of(old: str, new: str) -> str:
    """Return the clean graph's text with one part replaced."""
    assert old in _GRAPH
    return _GRAPH.replace(old, new)


def _case(
    name: str,
    graph: onnx.ModelProto,
    *breaches: tuple[str, tuple[str, ...]],
    says: str | None = None,
    is_built: bool = True,
) -> Case:
    flat = tuple((rule, node) for rule, nodes in breaches for node in nodes)
    return Case(name=name, graph=graph, breaches=flat, says=says, is_built=is_built and says is None)


def _external() -> onnx.ModelProto:
    graph = model()
    weight = next(item for item in graph.graph.initializer if item.name == "w")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="absent.bin")
    return graph


def _typed(operator: str, kind: int, *, opset: int = 22) -> onnx.ModelProto:
    shape = "1, 1" if operator.startswith("Global") else "4, 4"
    header = f"net (float[batch, 3, 4, 4] input) => (float[batch, 3, {shape}] out)"
    body = f"h = Cast<to = {kind}>(input) r = {operator}(h) out = Cast<to = 1>(r)"
    return model(body, opset=opset, header=header)


def _stored_as(kind: int) -> onnx.ModelProto:
    """Return a graph that dequantizes a stored weight of another type."""
    graph = model("d = DequantizeLinear(stored, s) out = Conv(input, d)", opset=21)
    graph.graph.initializer.append(helper.make_tensor("stored", kind, [2, 3, 1, 1], [0] * 6))
    return graph


def _unread(kind: int) -> onnx.ModelProto:
    graph = model()
    graph.graph.initializer.append(helper.make_tensor("unread", kind, [1], [0]))
    return graph


def _twice(name: str) -> onnx.ModelProto:
    graph = model()
    graph.graph.initializer.append(next(item for item in graph.graph.initializer if item.name == name))
    return graph


_PER_CHANNEL_INPUT = in_place_of(
    _INPUT, "q = QuantizeLinear<axis = 1>(input, s, z) d = DequantizeLinear<axis = 1>(q, s, z)"
)
_COMPUTED = "t = ReduceMax<keepdims = 0>(input) q = QuantizeLinear(input, t, z) d = DequantizeLinear(q, t, z)"
_NO_AXIS = in_place_of(_WEIGHT, _WEIGHT.replace("<axis = 0>", ""))

CASES = (
    _case("clean", model()),
    _case(
        "stored codes",
        model("d = DequantizeLinear<axis = 0>(k, ws, wz) out = Conv(input, d)", k=np.ones((2, 3, 1, 1), np.int8)),
    ),
    _case("no output", onnx.ModelProto(), ("no-output", ("",)), is_built=False),
    _case("opset 8", model("out = Relu(input)", opset=8, header=_ALIKE)),
    _case("opset 25", model("out = Relu(input)", opset=25, header=_ALIKE)),
    _case("Q/DQ in opset 12", model(opset=12), ("opset", ("net",))),
    _case("external data", _external(), ("external-data", ("w",)), says="INVALID_GRAPH Failed to import initializer"),
    _case(
        "a free axis",
        model("out = Relu(input)", header="net (float[batch, 3, h, 4] input) => (float[batch, 3, h, 4] out)"),
        ("free-dimension", ("input", "out")),
    ),
    _case("batchnorm", model("out = BatchNormalization(input, e, e, e, e)", header=_ALIKE)),
    _case(
        "batchnorm behind a convolution",
        model("c = Conv(input, v) out = BatchNormalization(c, e, e, e, e)", header=_ALIKE),
        ("batchnorm", ("out",)),
    ),
    _case("Unique", model("u = Unique(input) out = Identity(u)"), ("operator", ("u",)), says=_UNKNOWN),
    _case(
        "DynamicQuantizeLinear",
        model("q, t, p = DynamicQuantizeLinear(input) out = Cast<to = 1>(q)"),
        ("operator", ("q",)),
        says=_UNKNOWN,
    ),
    _case("ConvInteger", model("out = ConvInteger(input, w)"), ("operator", ("out",)), says=_UNKNOWN),
    _case(
        "QLinearAdd",
        model("out = com.microsoft.QLinearAdd(input, s, z, input, s, z, s, z)"),
        ("operator", ("out",)),
        says=_NO_PLUGIN,
    ),
    _case("a custom operator", model("out = my.Foo(input)"), ("operator", ("out",)), says=_NO_PLUGIN),
    _case("HardSwish in FP16", _typed("HardSwish", TensorProto.FLOAT16)),
    *(
        _case(
            f"{operator} in BF16",
            _typed(operator, TensorProto.BFLOAT16),
            ("bf16-operator", ("r",)),
            says="The current type",
        )
        for operator in ("HardSwish", "Mish", "GlobalLpPool")
    ),
    _case(
        "LpNormalization in BF16",
        _typed("LpNormalization", TensorProto.BFLOAT16),
        ("bf16-operator", ("r",)),
        says="INVALID_NODE Assertion failed: (dt == DataType::kFLOAT || dt == DataType::kHALF)",
    ),
    _case(
        "Mul of FP32 and FP16",
        model("h = Cast<to = 10>(input) out = Mul(h, input)", header=_ALIKE),
        ("mixed-operands", ("out",)),
        says="must have same input types. But they are of types",
    ),
    _case(
        "Pow of FP32 and FP16",
        model("out = Pow(input, h)", header=_ALIKE, h=np.array(2, np.float16)),
    ),
    _case(
        "FP16 values, FP32 scales",
        model(header=_HALF_HEADER, w=_HALF["w"], b=_HALF["b"]),
        ("mixed-operands", ("c",)),
        ("mixed-types", ("q", "wq")),
        says=_UNLIKE,
    ),
    _case(
        "FP16 values, FP32 scales in opset 23",
        model(header=_HALF_HEADER, opset=23, w=_HALF["w"], b=_HALF["b"]),
        ("mixed-operands", ("c",)),
        says=_UNLIKE,
    ),
    _case(
        "a computed scale",
        model(in_place_of(_INPUT, _COMPUTED)),
        ("computed-scale", _PAIR),
        is_built=False,
    ),
    _case(
        "a scale that is an input",
        model(
            _GRAPH.replace("input, s", "input, t").replace("q, s", "q, t"),
            header="net (float[batch, 3, 4, 4] input, float t) => (float[batch, 2, 4, 4] out)",
        ),
        ("computed-scale", _PAIR),
        is_built=False,
    ),
    _case("a zero scale", model(s=np.array(0, np.float32)), ("bad-scale", _PAIR), says=_UNPOSITIVE),
    _case("a negative scale", model(s=np.array(-1, np.float32)), ("bad-scale", _PAIR), says=_UNPOSITIVE),
    _case("a scale that is NaN", model(s=np.array(np.nan, np.float32)), ("bad-scale", _PAIR), says=_UNPOSITIVE),
    _case(
        "a zero scale of one channel",
        model(ws=np.array([0.1, 0], np.float32)),
        ("bad-scale", _WEIGHT_PAIR),
        says=_UNPOSITIVE,
    ),
    _case("an infinite scale", model(s=np.array(np.inf, np.float32)), ("infinite-scale", _PAIR)),
    _case(
        "a scale of shape (1, 1)",
        model(s=ONE.reshape(1, 1), z=np.zeros((1, 1), np.int8)),
        ("scale-shape", _PAIR),
        says="INetworkDefinition::addQuantize(ITensor&, ITensor&, DataType): Error Code 3",
    ),
    _case(
        "scales of the weight's rank",
        model(ws=_CLEAN["ws"].reshape(2, 1, 1, 1), wz=np.zeros((2, 1, 1, 1), np.int8)),
        ("scale-shape", _WEIGHT_PAIR),
        says="INVALID_NODE Assertion failed: scaleDims.d[i] == inputDims.d[i]",
    ),
    _case(
        "no scale",
        model(ws=np.zeros(0, np.float32), wz=np.zeros(0, np.int8)),
        ("scale-shape", _WEIGHT_PAIR),
        says="INVALID_NODE Assertion failed: scale.count() > 0: Cannot have scale with no coefficients.",
    ),
    _case("scalars written (1,)", model(s=ONE.reshape(1), z=np.zeros(1, np.int8))),
    _case("a scalar and a (1,)", model(z=np.zeros(1, np.int8))),
    _case("a weight with one scale", model(ws=ONE, wz=np.array(0, np.int8))),
    _case("a zero point of -128", model(z=np.array(-128, np.int8)), ("asymmetric", _PAIR), says=_SHIFTED),
    _case(
        "a zero point of one channel",
        model(wz=np.array([0, 3], np.int8)),
        ("asymmetric", _WEIGHT_PAIR),
        says=_SHIFTED,
    ),
    _case("a uint8 zero point of 0", model(z=np.array(0, np.uint8)), ("misread-type", _PAIR)),
    _case("an int32 zero point of 0", model(z=np.array(0, np.int32)), ("misread-type", _PAIR)),
    _case(
        "no zero point",
        model(in_place_of("QuantizeLinear(input, s, z)", "QuantizeLinear(input, s)")),
        ("misread-type", ("q",)),
    ),
    _case(
        "no zero point, but a type",
        model(in_place_of("QuantizeLinear(input, s, z)", "QuantizeLinear<output_dtype = 3>(input, s)"), opset=21),
    ),
    _case(
        "stored uint8 codes",
        _stored_as(TensorProto.UINT8),
        ("stored-uint8", ("d",)),
        says="UNSUPPORTED_NODE Assertion failed: status.is_success(): Found unsupported input type of UINT8",
    ),
    _case(
        "an int16 zero point",
        model(z=np.array(0, np.int16), opset=21),
        ("constant-type", ("z",)),
        says=_CONSTANT,
    ),
    _case(
        "a constant of uint16 that nobody reads",
        _unread(TensorProto.UINT16),
        ("constant-type", ("unread",)),
        says=_CONSTANT,
    ),
    _case(
        "two constants of one name",
        _twice("s"),
        ("duplicate-name", ("s",)),
        says="INVALID_GRAPH Failed to import initializer: ONNX graph has duplicate tensor name: s",
    ),
    _case(
        "UINT8 asked for",
        model(in_place_of("QuantizeLinear(input, s, z)", "QuantizeLinear<output_dtype = 2>(input, s)"), opset=21),
        ("output-type", ("q",)),
        says="INVALID_NODE Assertion failed: dtype == DataType::kFP8 || dtype == DataType::kINT8",
    ),
    _case(
        "FP8 asked for, zero point of int8",
        model(in_place_of("QuantizeLinear(input, s, z)", "QuantizeLinear<output_dtype = 17>(input, s, z)"), opset=21),
        ("output-type", ("q",)),
        says="Mismatch between attribute output_dtype float8 and zero-point data type int8.",
    ),
    _case("stored INT4 codes", _stored_as(TensorProto.INT4), ("other-code", ("d",))),
    _case(
        "FP8",
        model("q = QuantizeLinear<output_dtype = 17>(input, s) d = DequantizeLinear(q, s) out = Relu(d)", opset=21),
    ),
    _case(
        "DequantizeLinear of floats",
        model("d = DequantizeLinear(input, s, z) out = Conv(d, v)", header=_ALIKE),
        ("operand-type", ("d",)),
        says="input has type Float but must have type FP8, FP4, Int4, Int8, or UInt8",
    ),
    _case(
        "QuantizeLinear of codes",
        model(in_place_of(" d = DequantizeLinear(q", " p = QuantizeLinear(q, s, z) d = DequantizeLinear(p")),
        ("operand-type", ("p",)),
        says="input has type Int8 but must have type Float, Half, or BFloat16",
    ),
    _case(
        "Conv of codes",
        model("q = QuantizeLinear(input, s, z) out = Conv(q, v)", header=_ALIKE),
        ("mixed-operands", ("out",)),
        says=_UNLIKE,
    ),
    _case(
        "an int32 bias",
        model(
            in_place_of("c = Conv(d, wd, b)", "bd = DequantizeLinear<axis = 0>(bq, ws, bz) c = Conv(d, wd, bd)"),
            bq=np.zeros(2, np.int32),
            bz=np.zeros(2, np.int32),
        ),
        ("quantized-bias", ("bd",)),
        says="input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8",
    ),
    _case(
        "three zero points for two scales",
        model(wz=np.zeros(3, np.int8)),
        ("zero-point-count", _WEIGHT_PAIR),
        says="INVALID_NODE Assertion failed: zeroPointSize == scaleSize: The scale and zero point must have",
    ),
    _case(
        "no axis, where axis 1 has another size",
        model(_NO_AXIS),
        ("missing-axis", _WEIGHT_PAIR),
        ("scale-count", _WEIGHT_PAIR),
        says=_COUNT,
    ),
    _case(
        "no axis, where axis 1 has the same size",
        model(
            _NO_AXIS,
            w=np.ones((2, 2, 1, 1), np.float32),
            header="net (float[batch, 2, 4, 4] input) => (float[batch, 2, 4, 4] out)",
        ),
        ("missing-axis", _WEIGHT_PAIR),
    ),
    _case("another axis", model(_GRAPH.replace("0>", "1>")), ("scale-count", _WEIGHT_PAIR), says=_COUNT),
    _case("a negative axis", model(_GRAPH.replace("0>", "-4>"))),
    _case(
        "an axis out of range",
        model(_GRAPH.replace("0>", "7>")),
        ("scale-count", _WEIGHT_PAIR),
        says="UNSUPPORTED_NODE Assertion failed: (axis >= 0 && axis <= nbDims): Axis must be in the range",
    ),
    _case("an axis of one scale", model(in_place_of("QuantizeLinear(input", "QuantizeLinear<axis = 7>(input"))),
    _case(
        "an activation per channel",
        model(_PER_CHANNEL_INPUT, s=np.ones(3, np.float32), z=np.zeros(3, np.int8)),
        ("per-channel-activation", _PAIR),
    ),
    _case(
        "an activation with too many scales",
        model(_PER_CHANNEL_INPUT, s=np.ones(4, np.float32), z=np.zeros(4, np.int8)),
        ("scale-count", _PAIR),
        ("per-channel-activation", _PAIR),
        says=_COUNT,
    ),
    _case("FP16 scales", model(opset=19, header=_HALF_HEADER, **_HALF)),
    _case(
        "FP16 scales below opset 19",
        model(opset=18, header=_HALF_HEADER, **_HALF),
        ("half-scale", (*_PAIR, *_WEIGHT_PAIR)),
    ),
    _case(
        "an FP16 scale of FP32 values",
        model("q = QuantizeLinear(input, s, z) d = DequantizeLinear(q, u, z) out = Relu(d)", s=_HALF["s"], u=ONE),
        ("mixed-types", ("q",)),
    ),
    _case(
        "an FP16 scale of FP32 values in opset 23",
        model(
            "q = QuantizeLinear(input, s, z) d = DequantizeLinear(q, u, z) out = Relu(d)",
            opset=23,
            s=_HALF["s"],
            u=ONE,
        ),
    ),
    _case(
        "a subnormal FP16 scale",
        model(header=_HALF_HEADER, **(_HALF | {"ws": np.array([6e-5, 1], np.float16)})),
        ("subnormal-scale", _WEIGHT_PAIR),
    ),
    _case(
        "a pair between Conv and Relu",
        model(
            in_place_of("Relu(c)", "Relu(cd)").replace(
                "out =", "cq = QuantizeLinear(c, s, z) cd = DequantizeLinear(cq, s, z) out ="
            )
        ),
        ("split-kernel", ("out",)),
    ),
    _case(
        "a pair between Conv and Add",
        model(
            "c = Conv(input, v) cq = QuantizeLinear(c, s, z) cd = DequantizeLinear(cq, s, z) out = Add(input, cd)",
            header=_ALIKE,
        ),
        ("quantized-main-branch", ("out",)),
    ),
    _case(
        "both inputs of an Add",
        model(
            """
            c = Conv(input, v)
            cq = QuantizeLinear(c, s, z) cd = DequantizeLinear(cq, s, z)
            iq = QuantizeLinear(input, s, z) id = DequantizeLinear(iq, s, z)
            out = Add(cd, id)
            """,
            header=_ALIKE,
        ),
        ("quantized-twice", ("out",)),
    ),
    _case(
        "a pair behind the convolution of a downsampling branch",
        model(
            """
            main = Conv(input, v)
            short = Conv(input, v)
            sq = QuantizeLinear(short, s, z) sd = DequantizeLinear(sq, s, z)
            out = Add(main, sd)
            """,
            header=_ALIKE,
        ),
    ),
)
