"""What NVIDIA's real builder refuses, in which words: our messages and doubles are held to them.

What its parser refuses stands in `tests/graph/lint_cases.py`.
"""

from __future__ import annotations

import signal

import onnx
import pytest

from tests.graph.lint_cases import CASES
from tests.rtx.compiler import Options, compiled, compiled_together, parsed
from tests.rtx.mutations import subjects
from trtbench.graph.half import to_half

pytestmark = pytest.mark.rtx

_GRAPH = subjects()[0]


def _shapes(smallest: int, usual: int, largest: int, *, channels: int = 4, name: str = "input") -> Options:
    return Options(profile={name: [[batch, channels, 8, 8] for batch in (smallest, usual, largest)]})


def _static() -> onnx.ModelProto:
    graph = onnx.ModelProto()
    graph.CopyFrom(_GRAPH)
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    return graph


def _bf16() -> onnx.ModelProto:
    header = "net (float[1, 4] input) => (float[1, 4] out)"
    graph = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 22]> {header} {{ out = Sigmoid(input) }}')
    return to_half(graph, dtype="bf16").proto


_REFUSED = {
    "no profile": (_GRAPH, Options(profile={}), "Network has dynamic or shape inputs, but no optimization profile has"),
    "a profile of another input": (
        _GRAPH,
        _shapes(1, 1, 1, name="other"),
        "Dynamic input tensor input is missing dimensions in profile 0.",
    ),
    "a profile of other channels": (
        _GRAPH,
        _shapes(1, 1, 1, channels=3),
        "Dimension mismatch for tensor input and profile 0. At dimension axis 1, profile has min=3, opt=3, max=3 but t",
    ),
    "a profile that falls": (
        _GRAPH,
        _shapes(2, 1, 1),
        "Invalid optimization profiles for input tensors input, please ensure that the optimization profiles satisfy M",
    ),
    "another batch than the graph's": (
        _static(),
        _shapes(2, 2, 2),
        "Input tensor input has static dimensions that don't match kMIN dimensions in profile index 0.",
    ),
    "a cancelled build": (_GRAPH, Options(cancels=True), "Error Code 7: BuildCanceled (Build canceled by user"),
    "no workspace": (
        _GRAPH,
        Options(workspace_bytes=0),
        "Please increase the workspace memory provided to the builder.",
    ),
    "a workspace that is too small": (
        _GRAPH,
        Options(workspace_bytes=1024),
        "no tactics to implement the operation within workspace limit. Consider increase the allowed workspace size",
    ),
    "an FP32 Gemm for SM75": (
        _GRAPH,
        Options(targets=("SM75",)),
        "Cannot compile operation 'logits.Gemm' for Turing (SM75): FP32 GEMM is not supported.",
    ),
    "an FP32 Gemm for SM75 among others": (
        _GRAPH,
        Options(targets=("SM75", "SM89")),
        "Cannot compile operation 'logits.Gemm' for Turing (SM75): FP32 GEMM is not supported.",
    ),
    "BF16 for SM75": (
        _bf16(),
        Options(targets=("SM75",)),
        "Cannot compile for target(s) sm75, because the model contains HW-specific datatypes: b16.",
    ),
}


@pytest.mark.parametrize("case", _REFUSED)
def test_the_builder_refuses_it_in_these_words(case: str) -> None:
    graph, options, words = _REFUSED[case]

    found = compiled(graph.SerializeToString(), options)

    assert (found.exit_code, found.is_parsed, found.plan_bytes) == (0, True, 0)
    assert any(words in line for line in found.log)


def test_bytes_that_are_no_model_are_refused_and_none_at_all_are_taken() -> None:
    junk, nothing = parsed([b"\xff" * 40, b""])

    assert junk.faults[0][0].startswith("MODEL_DESERIALIZE_FAILED Assertion failed: model->ParseFromCodedStream")
    assert nothing.is_parsed


def test_a_negative_size_is_refused_by_the_binding() -> None:
    assert compiled(_GRAPH.SerializeToString(), _shapes(-1, 1, 1)).exit_code == 1


@pytest.mark.parametrize("name", ["a computed scale", "a scale that is an input"])
def test_a_scale_known_at_run_time_only_ends_the_process(name: str) -> None:
    case = next(case for case in CASES if case.name == name)

    found = compiled(case.graph.SerializeToString())

    assert (found.exit_code, found.is_parsed) == (-signal.SIGSEGV, True)


def test_a_refused_build_for_sm75_spoils_the_next_one_of_its_process() -> None:
    graph, alone = _GRAPH.SerializeToString(), compiled(_GRAPH.SerializeToString())

    refused, spoiled = compiled_together([(graph, Options(targets=("SM75",))), (graph, Options())])

    assert (refused.plan_bytes, spoiled.plan_bytes > 0) == (0, True)
    assert spoiled.log == alone.log
    assert spoiled.layers != alone.layers
