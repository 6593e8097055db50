from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import numpy_helper

from trtbench.graph.reference import run_reference
from trtbench.studies.kernels import run_saturating, saturating_graph, saturating_matmul


def _transcribed(codes: list[int], weights: list[int]) -> tuple[int, int]:
    """VPMADDUBSW followed by a sum, one pair at a time, as Intel's manual writes it."""
    total = saturated = 0
    for start in range(0, len(codes), 2):
        products = [a * b for a, b in zip(codes[start : start + 2], weights[start : start + 2], strict=True)]
        pair = max(-32768, min(32767, sum(products)))
        saturated += pair != sum(products)
        total += pair
    return total, saturated


def test_two_large_products_stop_at_the_end_of_int16() -> None:
    codes = np.array([[255, 255, 3]], np.uint8)
    weights = np.array([[127, -127], [127, -127], [2, 2]], np.int8)

    found, saturated = saturating_matmul(codes, weights)

    assert found.tolist() == [[32767 + 6, -32768 + 6]]
    assert saturated == 2


@given(
    st.integers(1, 9).flatmap(
        lambda depth: st.tuples(
            arrays(np.uint8, (3, depth)), arrays(np.int8, (depth, 2), elements=st.integers(-127, 127))
        )
    )
)
def test_sums_are_those_of_the_instruction(case: tuple[np.ndarray, np.ndarray]) -> None:
    codes, weights = case
    expected = [
        [_transcribed(row.tolist(), weights[:, channel].tolist()) for channel in range(weights.shape[1])]
        for row in codes
    ]

    found, saturated = saturating_matmul(codes, weights)

    assert found.tolist() == [[total for total, _ in row] for row in expected]
    assert saturated == sum(pairs for row in expected for _, pairs in row)


def _graph(*, amplitude: float, group: int = 1, code: str = "uint8") -> onnx.ModelProto:
    """A convolution with a ReLU and a linear layer, in Q/DQ form; codes of the input are uint8 or int8."""
    channels = 4
    proto = onnx.parser.parse_model(f"""
    <ir_version: 10, opset_import: ["" : 20]>
    net (float[batch, 4, 5, 5] input) => (float[batch, 2] out)
    <float scale = {{0.01}}, {code} zero = {{0}}, float half = {{0.02}}, uint8 none = {{0}},
     float[4] scales = {{0.01, 0.02, 0.01, 0.02}}, int8[4] zeros = {{0, 0, 0, 0}},
     float[4] bias = {{0.1, -0.2, 0.3, 0.0}},
     float[2] steps = {{0.01, 0.01}}, int8[2] blanks = {{0, 0}}>
    {{
      codes = QuantizeLinear(input, scale, zero)
      data = DequantizeLinear(codes, scale, zero)
      kernel_codes = QuantizeLinear <axis = 0> (kernel, scales, zeros)
      kernel_data = DequantizeLinear <axis = 0> (kernel_codes, scales, zeros)
      conv = Conv <pads = [1, 1, 1, 1], strides = [2, 2], group = {group}> (data, kernel_data, bias)
      relu = Relu(conv)
      relu_codes = QuantizeLinear(relu, half, none)
      relu_data = DequantizeLinear(relu_codes, half, none)
      pooled = GlobalAveragePool(relu_data)
      flat = Flatten(pooled)
      flat_codes = QuantizeLinear(flat, half, none)
      flat_data = DequantizeLinear(flat_codes, half, none)
      head_codes = QuantizeLinear <axis = 0> (head, steps, blanks)
      head_data = DequantizeLinear <axis = 0> (head_codes, steps, blanks)
      out = Gemm <transB = 1> (flat_data, head_data)
    }}
    """)
    random = np.random.default_rng(0)
    for name, shape in (("kernel", (channels, channels // group, 3, 3)), ("head", (2, channels))):
        values = random.uniform(-amplitude, amplitude, shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    return proto


def _images() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(1).uniform(0, 1.27, (3, 4, 5, 5)).astype(np.float32)


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("code", ["uint8", "int8"])
def test_where_no_pair_saturates_the_sums_are_exact(group: int, code: str) -> None:
    graph = _graph(amplitude=0.6, group=group, code=code)  # codes of at most 60: two products stay within int16
    layers = ("conv", "out")

    found, pairs = next(run_saturating(saturating_graph(graph, layers=layers), iter([{"input": _images()}])))

    assert pairs == 0
    assert np.allclose(found, run_reference(graph, {"input": _images()})["out"], atol=1e-5)


def test_large_weights_on_large_codes_lose_part_of_their_sums() -> None:
    graph = _graph(amplitude=1.27, code="int8")

    found, pairs = next(run_saturating(saturating_graph(graph, layers=["conv"]), iter([{"input": _images()}])))

    assert pairs > 0
    assert not np.allclose(found, run_reference(graph, {"input": _images()})["out"], atol=1e-2)
