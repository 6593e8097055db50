"""TensorRT's calibration caches: read, written, and matched with a graph's tensors."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.calibration_cache import format_cache
from trtbench.engines.tensorrt.caches import (
    CalibrationCache,
    match_scales,
    parse_cache,
    thresholds,
)
from trtbench.errors import DataError, GraphError

if TYPE_CHECKING:
    from collections.abc import Mapping

# The first lines of a cache that a user of TensorRT 7 published (NVIDIA/TensorRT#681).
_PUBLISHED = """TRT-7000-EntropyCalibration2
data: 3caa54fc
(Unnamed Layer* 0) [Convolution]_output: 3d6969df
(Unnamed Layer* 1) [Scale]_output: 3ac9c5e4
conv1: 3bb2132a
"""


def test_a_published_cache_is_read_as_its_big_endian_floats() -> None:
    found = parse_cache(_PUBLISHED, origin="published.cache")

    assert (found.version, found.algorithm) == ("7000", "EntropyCalibration2")
    assert list(found.scales) == [
        "data",
        "(Unnamed Layer* 0) [Convolution]_output",
        "(Unnamed Layer* 1) [Scale]_output",
        "conv1",
    ]
    # 0x3caa54fc by hand: sign 0, exponent 0x79 - 127 = -6, mantissa 0x2a54fc / 2^23.
    assert found.scales["data"] == math.ldexp(1 + 0x2A54FC / 2**23, -6)


def test_the_scale_of_pixels_to_one_is_a_127th() -> None:
    # 3c010a14 stands in many published caches: the scale of pixels in [0, 1], by bins.
    found = parse_cache("TRT-8601-EntropyCalibration2\nimages: 3c010a14\n", origin="c")

    assert found.scales["images"] == pytest.approx(1 / 127, rel=1e-3)
    assert thresholds(found.scales, all_zero=1.0)["images"] == pytest.approx(1.0, rel=1e-3)


def test_line_ends_of_windows_and_empty_lines_are_passed_over() -> None:
    found = parse_cache(_PUBLISHED.replace("\n", "\r\n") + "\r\n\r\n", origin="c")

    assert found == parse_cache(_PUBLISHED, origin="c")


_names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1).map(str.strip).filter(bool)
_scales = st.floats(0, width=32, allow_nan=False, allow_infinity=False).map(abs)


@given(st.dictionaries(_names, _scales, max_size=6))
def test_what_is_written_is_read_back(scales: Mapping[str, float]) -> None:
    cache = CalibrationCache(version="101601", algorithm="MinMaxCalibration", scales=scales)

    assert parse_cache(format_cache(cache), origin="c") == cache


@given(st.floats(1e-30, 1e30))
def test_a_scale_is_written_as_its_nearest_float32(scale: float) -> None:
    text = format_cache(CalibrationCache(version="1", algorithm="A", scales={"t": scale}))

    assert text.splitlines()[1] == f"t: {struct.pack('>f', np.float32(scale)).hex()}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: expected TRT-<version>-<algorithm>, got an empty file"),
        ("input: 3c010a14\n", "line 1"),
        ("TRT-8601\ninput: 3c010a14\n", "line 1"),
        ("TRT-8601-A\ninput 3c010a14\n", "line 2: expected <tensor>: <8 hexadecimal digits>"),
        ("TRT-8601-A\ninput: 3c010a1\n", "line 2"),
        ("TRT-8601-A\ninput: 3c010g14\n", "line 2"),
        ("TRT-8601-A\nt: 7fc00000\n", "line 2: scale of 't': expected 0 or more, got nan"),
        ("TRT-8601-A\nt: 7f800000\n", "got inf"),
        ("TRT-8601-A\nt: bc010a14\n", "got -0.00"),
        ("TRT-8601-A\nt: 3c010a14\nt: 3c010a15\n", "line 3: expected one scale of 't'"),
    ],
)
def test_garbage_is_refused_by_line(text: str, words: str) -> None:
    with pytest.raises(DataError) as raised:
        parse_cache(text, origin="old.cache")

    assert words in str(raised.value)
    assert "old.cache" in str(raised.value)


def test_a_tensor_that_stands_twice_with_one_scale_is_read_once() -> None:
    assert parse_cache("TRT-1-A\nt: 3c010a14\nt: 3c010a14\n", origin="c").scales.keys() == {"t"}


def _cache(*names: str) -> CalibrationCache:
    return CalibrationCache(version="1", algorithm="A", scales={name: 0.5 + i for i, name in enumerate(names)})


def test_tensors_match_by_name_and_by_the_documented_suffix_and_the_rest_is_told() -> None:
    found = match_scales(_cache("input", "relu_output", "pool", "relu2"), ["input", "relu"], origin="c")

    assert found.scales == {"input": 0.5, "relu": 1.5}
    assert found.renamed == {"relu": "relu_output"}
    assert found.unused == ("pool", "relu2")


def test_an_exact_name_wins_over_a_suffixed_one() -> None:
    found = match_scales(_cache("relu_output", "relu"), ["relu"], origin="c")

    assert found.scales == {"relu": 1.5}
    assert found.renamed == {}


def test_names_that_are_only_alike_do_not_match_and_the_cure_is_told() -> None:
    with pytest.raises(GraphError) as raised:
        match_scales(_cache("Relu", "relu_1", "xrelu"), ["relu", "input"], origin="old.cache")

    assert "old.cache: scales of 2 of 2 tensors: expected one of relu, input" in str(raised.value)
    assert "calibrate this very graph" in str(raised.value)


def test_a_long_list_of_missing_tensors_is_cut() -> None:
    with pytest.raises(GraphError, match=r"t0, t1, t2, t3, t4, \.\.\."):
        match_scales(_cache("x"), [f"t{i}" for i in range(9)], origin="c")


def test_a_threshold_is_127_scales_and_that_of_a_tensor_that_is_always_0_is_given() -> None:
    assert thresholds({"a": 0.5, "b": 0.0}, all_zero=1.0) == {"a": 63.5, "b": 1.0}
