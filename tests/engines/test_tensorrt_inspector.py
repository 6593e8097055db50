"""What the engine inspector tells, in the schema of either major, and what it does not tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trtbench.engines.tensorrt.inspector import achieved, report_layers
from trtbench.engines.tensorrt_rtx.build import inspector_json

_INT8 = "Thirty-two wide channel vectorized row major Int8 format"
_FP32 = "Row major linear FP32"
_UNTOLD = "N/A due to dynamic shapes"


def _ten(name: str, kind: str, given: str, made: str, **more: Any) -> dict[str, Any]:
    """A layer as TensorRT 10 tells it."""
    tensors = {"Inputs": [{"Name": "i", "Format/Datatype": given}], "Outputs": [{"Name": "o", "Format/Datatype": made}]}
    return {"Name": name, "LayerType": kind, **tensors, **more}


def _eleven(name: str, kind: str, given: str, made: str, **more: Any) -> dict[str, Any]:
    """A layer as TensorRT 11 tells it."""
    one = {"Name": "i", "Format": "CHW32", "Datatype": given}
    return {"Name": name, "LayerType": kind, "Inputs": [one], "Outputs": [{**one, "Datatype": made}], **more}


def _text(*layers: Any, **more: Any) -> str:
    return json.dumps({"Layers": list(layers), **more})


_CONVOLUTION = {"ParameterType": "Convolution"}
_OF_TEN = _text(
    _ten("input_QuantizeLinear", "Reformat", _FP32, _INT8, Origin="QDQ"),
    _ten("conv1 + relu1", "CaskConvolution", _INT8, _INT8, **_CONVOLUTION, Weights={"Type": "Int8", "Count": 432}),
    _ten("Reformatting CopyNode for Input Tensor 0 to conv2", "Reformat", _INT8, _FP32, Origin="REFORMAT"),
    _ten("conv2", "CaskConvolution", _FP32, _FP32, **_CONVOLUTION, Weights={"Type": "Float", "Count": 10}),
    _ten("fc.bias", "Constant", _FP32, _FP32),
    _ten("pool", "CaskPooling", _FP32, _FP32, ParameterType="Pooling"),
    Bindings=["input", "logits"],
)
_OF_ELEVEN = _text(
    _eleven("input_QuantizeLinear", "Quantize", "Float", "Int8"),
    _eleven("conv1_myl0_1", "conv", "Int8", "Int8", Metadata="[ONNX Layer: conv1]\x1e[ONNX Layer: relu1]"),
    _eleven("to_conv2", "Reformat", "Int8", "Float"),
    _eleven("conv2", "CaskConvolution", "Float", "Float", **_CONVOLUTION),
    _eleven("fc.bias", "Constant", "Float", "Float"),
    _eleven("pool", "CaskPooling", "Float", "Float"),
    **{"I/O Tensors": [{"Name": "input", "IOMode": "Input"}]},
)


@pytest.mark.parametrize("text", [_OF_TEN, _OF_ELEVEN], ids=["10", "11"])
def test_both_schemas_tell_the_same(text: str) -> None:
    report = report_layers(text, convolutions=("conv1", "conv2"))

    assert report.convolutions == {"conv1": "int8", "conv2": "fp32"}
    assert report.by_precision == {"int8": 1, "fp32": 2}
    assert (report.layers, report.reformats, report.unfused) == (6, 1, 1)
    assert report.is_detailed


def test_weights_are_counted_where_every_convolution_lists_its_own() -> None:
    assert report_layers(_OF_TEN).weight_bytes == 432 + 4 * 10
    assert report_layers(_OF_ELEVEN).weight_bytes is None


def test_without_the_graphs_names_the_layers_that_are_convolutions_count() -> None:
    assert report_layers(_OF_TEN).convolutions == {"conv1 + relu1": "int8", "conv2": "fp32"}


def test_layers_of_later_profiles_are_not_counted_again() -> None:
    layer = _ten("conv1", "CaskConvolution", _INT8, _INT8, **_CONVOLUTION)
    text = _text(layer, {**layer, "Name": "conv1 [profile 1]"}, {**layer, "Name": "conv1 [profile 12]"})

    report = report_layers(text, convolutions=("conv1",))

    assert (report.layers, report.by_precision) == (1, {"int8": 1})


def test_weights_tell_the_precision_where_types_are_hidden_by_a_free_batch() -> None:
    layer = _ten("conv1", "CaskConvolution", _UNTOLD, _UNTOLD, **_CONVOLUTION, Weights={"Type": "Half", "Count": 8})

    assert report_layers(_text(layer), convolutions=("conv1",)).convolutions == {"conv1": "fp16"}


@pytest.mark.parametrize(
    ("tactic", "precision"),
    [
        ("sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32kcrs_vect_c_32", "int8"),
        ("sm80_xmma_fprop_implicit_gemm_indexed_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128", "fp16"),
        ("sm80_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc", "bf16"),
        ("sm80_xmma_fprop_implicit_gemm_indexed_tf32f32_tf32f32_f32_nhwckrsc_nhwc", "tf32"),
        ("sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nhwckrsc_nhwc", "fp32"),
        ("a kernel without a word of it", "unknown"),
    ],
)
def test_the_kernels_name_tells_the_precision_where_nothing_else_does(tactic: str, precision: str) -> None:
    layer = _ten("conv1", "CaskConvolution", _UNTOLD, _UNTOLD, **_CONVOLUTION, TacticName=tactic)

    assert report_layers(_text(layer), convolutions=("conv1",)).convolutions == {"conv1": precision}


def test_tf32_is_seen_although_its_tensors_are_fp32() -> None:
    tactic = "sm80_xmma_fprop_implicit_gemm_indexed_tf32f32_tf32f32_f32_nhwckrsc_nhwc"
    layer = _ten("conv1", "CaskConvolution", _FP32, _FP32, **_CONVOLUTION, TacticName=tactic)

    report = report_layers(_text(layer), convolutions=("conv1",))

    assert report.convolutions == {"conv1": "tf32"}
    assert achieved(report, precision="fp32", target="fp32")[0] == "fp32 in 0 of 1 convolutions"


@pytest.mark.parametrize(
    ("spelling", "precision"),
    [("Row major linear BFloat16 format", "bf16"), ("Half", "fp16"), ("UInt8", "unknown"), ("FP8", "fp8")],
)
def test_types_that_end_alike_are_told_apart(spelling: str, precision: str) -> None:
    layer = _ten("conv1", "CaskConvolution", spelling, spelling, **_CONVOLUTION)

    assert report_layers(_text(layer), convolutions=("conv1",)).convolutions == {"conv1": precision}


def test_a_convolution_layer_tells_more_of_a_node_than_a_copy_that_names_it_too() -> None:
    copy = _ten("__myl_Move", "kgen", "Float", "Float", Metadata="[ONNX Layer: conv1]")
    layer = _ten("conv1_myl3", "CaskConvolution", "Int8", "Int8", **_CONVOLUTION, Metadata="[ONNX Layer: conv1]")

    for text in (_text(copy, layer), _text(layer, copy)):
        assert report_layers(text, convolutions=("conv1",)).convolutions == {"conv1": "int8"}


def test_a_convolution_inside_a_fused_region_is_unknown() -> None:
    region = _ten("{ForeignNode[conv1...fc]}", "Myelin", _FP32, _FP32)

    report = report_layers(_text(region), convolutions=("conv1",))

    assert report.convolutions == {"conv1": "unknown"}
    words, notes = achieved(report, precision="int8", target="int8")
    assert words == "int8, unproven"
    assert notes == ("requested int8: the engine inspector does not tell what was achieved",)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"Layers": ["conv1", "conv2"]}', '{"Layers": "cut'])
def test_an_inspector_that_tells_nothing_proves_nothing(text: str) -> None:
    report = report_layers(text, convolutions=("conv1",))

    assert not report.is_detailed
    assert achieved(report, precision="fp16", target="fp16")[0] == "fp16, unproven"


def test_tensors_of_odd_shape_are_passed_over() -> None:
    layers = ({"Name": "a", "LayerType": "x", "Inputs": "b", "Outputs": ["c"]}, {"LayerType": "y"})

    assert report_layers(_text(*layers)).by_precision == {"unknown": 2}


def test_all_convolutions_in_the_requested_precision_are_worth_no_note() -> None:
    layers = [_ten(f"conv{index}", "CaskConvolution", "Half", "Half", **_CONVOLUTION) for index in range(3)]
    report = report_layers(_text(*layers))

    assert achieved(report, precision="fp16", target="fp16") == ("fp16", ())
    assert achieved(report_layers(_OF_TEN, convolutions=("conv1",)), precision="int8+fp16", target="int8") == (
        "int8 in 1 of 1 convolutions",
        (),
    )


def test_what_was_left_in_another_precision_is_said_and_named() -> None:
    names = [f"conv{index}" for index in range(21)]
    layers = [
        _ten(name, "CaskConvolution", *(2 * [_FP32 if index < 7 else _INT8]), **_CONVOLUTION)
        for index, name in enumerate(names)
    ]

    words, notes = achieved(report_layers(_text(*layers), convolutions=names), precision="int8", target="int8")

    assert words == "int8 in 14 of 21 convolutions"
    assert notes == (
        "requested int8, achieved 14 of 21 convolutions (7 fp32): conv0, conv1, conv2, conv3, conv4 and 2 more",
    )


@pytest.mark.parametrize(
    ("other", "words"),
    [("", "fp32: int8 in 0 of 2 convolutions"), (_INT8, "int8 in 0 of 2 convolutions")],
    ids=["nothing", "products that are no convolutions"],
)
def test_int8_of_no_layer_is_called_the_float_that_it_is(other: str, words: str) -> None:
    names = ["conv0", "conv1"]
    layers = [_ten(name, "CaskConvolution", _FP32, _FP32, **_CONVOLUTION) for name in names]
    layers += [_ten("fc", "gemm", other, other)] if other else []

    report = report_layers(_text(*layers), convolutions=names)

    assert achieved(report, precision="int8", target="int8")[0] == words


# What TensorRT for RTX 1.7.1.116 logged of `tests/rtx/mutations.subjects()[0]`, built for SM89 at batch 1.
_REAL = (Path(__file__).parent / "layers-tensorrt-rtx-1.7.txt").read_text(encoding="utf-8")
_PRODUCTS = ("s.Conv", "m.Conv", "d.Conv", "w.Conv", "logits.Gemm")


def _reversed(text: str) -> str:
    return json.dumps({"Layers": json.loads(text)["Layers"][::-1]})


@pytest.mark.parametrize(
    "text", [inspector_json(_REAL), _reversed(inspector_json(_REAL))], ids=["as logged", "reversed"]
)
def test_real_layers_of_myelin_tell_that_every_convolution_is_int8(text: str) -> None:
    report = report_layers(text, convolutions=_PRODUCTS)

    assert report.convolutions == dict.fromkeys(_PRODUCTS, "int8")
    assert (report.layers, report.by_precision) == (12, {"int8": 6, "fp32": 6})
    assert achieved(report, precision="int8", target="int8") == ("int8", ())


def test_real_layers_of_myelin_list_their_weights() -> None:
    weights = 8 * 4 * 9 + 8 * 8 * 9 + 8 * 4 * 9 + 16 * 8 + 16 * 4  # a depthwise kernel and a Gemm of 3 are padded to 4
    found = report_layers(inspector_json(_REAL)).weight_bytes

    assert found is not None
    assert weights < found < weights + 600  # with two FP32 scales for each output channel


def test_without_names_the_correlations_are_the_convolutions() -> None:
    assert len(report_layers(inspector_json(_REAL)).convolutions) == 4


def test_a_product_of_int8_weights_and_half_activations_is_not_int8() -> None:
    layer = _eleven(
        "c", "correlation", "Half", "Half", Constants=[{"Name": "w", "Dimensions": [8], "Datatype": "Int8"}]
    )

    assert report_layers(_text({**layer, "Metadata": "[ONNX Layer: conv1]"}), convolutions=("conv1",)).convolutions == {
        "conv1": "fp16"
    }


def test_a_pointwise_kernel_that_reads_int8_alone_proves_nothing() -> None:
    layer = _eleven("k", "kgen", "Int8", "Int8", Metadata="[ONNX Layer: conv1]")

    assert report_layers(_text(layer), convolutions=("conv1",)).convolutions == {"conv1": "unknown"}
