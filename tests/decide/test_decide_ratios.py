"""Ratios between rows: the best evidence there is, and which rows are compared."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtbench.decide.rank import pareto_front
from trtbench.decide.ratios import Ratio, counterpart, dense_fp32_of, dense_variant, eager_of, latency_ratio, speed_up
from trtbench.report.document import read_report

ROWS = read_report(Path(__file__).parent.parent / "report" / "twenty-four-rows.json").rows
NAMED = {row.name: row for row in ROWS}
DENSE = NAMED["dense fp32 onnxruntime-cpu b1"]
INT8 = NAMED["channels-50 int8 onnxruntime-cpu b1"]
FP32 = NAMED["channels-50 fp32 onnxruntime-cpu b1"]


def test_a_ratio_through_the_anchor_adds_both_errors_on_the_log_scale() -> None:
    assert INT8.latency
    assert FP32.latency
    first = replace(INT8, latency=replace(INT8.latency, ratio=2.0, ratio_ci95=(2 / 1.03, 2 * 1.03)))
    second = replace(FP32, latency=replace(FP32.latency, ratio=1.0, ratio_ci95=(1 / 1.04, 1.04)))
    ratio = latency_ratio(first, second)
    both = math.exp(math.hypot(math.log(1.03), math.log(1.04)))
    assert ratio
    assert ratio.value == pytest.approx(2)
    assert ratio.ci95 == pytest.approx((2 / both, 2 * both))


def test_a_ratio_to_the_anchor_itself_keeps_its_interval() -> None:
    ratio = latency_ratio(INT8, DENSE)
    assert ratio
    assert INT8.latency
    assert ratio.ci95 == pytest.approx(INT8.latency.ratio_ci95)


def test_without_an_interval_the_ratio_has_none() -> None:
    assert INT8.latency
    assert FP32.latency
    bare = replace(INT8, latency=replace(INT8.latency, ratio_ci95=None))
    ratio = latency_ratio(bare, FP32)
    assert ratio
    assert ratio.ci95 is None
    apart = replace(INT8, latency=replace(INT8.latency, anchor="another"))
    assert latency_ratio(apart, FP32) == Ratio(value=INT8.latency.p50_ms / FP32.latency.p50_ms)


def test_rows_of_two_batch_sizes_or_without_a_latency_have_no_ratio() -> None:
    assert latency_ratio(DENSE, NAMED["dense fp32 onnxruntime-cpu b32"]) is None
    assert latency_ratio(DENSE, replace(FP32, latency=None)) is None
    assert speed_up(DENSE, None) is None


def test_above_one_means_beyond_the_interval() -> None:
    assert Ratio(value=1.1, ci95=(1.01, 1.2)).is_above_one
    assert not Ratio(value=1.1, ci95=(0.99, 1.2)).is_above_one
    assert Ratio(value=1.1).is_above_one


def test_rows_are_compared_with_their_own_eager_and_the_dense_fp32_of_their_backend() -> None:
    assert eager_of(INT8, ROWS) is NAMED["channels-50 fp32 eager b1"]
    assert dense_fp32_of(INT8, ROWS) is DENSE
    assert dense_fp32_of(NAMED["channels-50 fp32 eager b32"], ROWS) is NAMED["dense fp32 eager b32"]
    assert eager_of(replace(INT8, device="cuda:0"), ROWS) is None


def test_a_sparse_row_is_compared_with_the_plain_ones_and_with_its_own_kind() -> None:
    sparse, dense_sparse = (replace(row, sparse=True) for row in (INT8, NAMED["dense int8 onnxruntime-cpu b1"]))
    rows = [dense_sparse, sparse, *ROWS]
    assert dense_fp32_of(sparse, rows) is DENSE
    assert counterpart(sparse, rows, variant="dense") is dense_sparse
    assert counterpart(INT8, rows, variant="dense") is NAMED["dense int8 onnxruntime-cpu b1"]
    assert counterpart(FP32, rows, precision="int8") is INT8


def test_the_dense_network_is_the_first_of_the_largest() -> None:
    assert dense_variant(ROWS) == "dense"
    assert dense_variant([replace(DENSE, params=None)]) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_the_front_is_every_point_no_other_beats(points: list[tuple[int, int, int]]) -> None:
    cloud = np.array(points).reshape(-1, 3)
    beaten = [bool(((cloud <= point).all(1) & (cloud < point).any(1)).any()) for point in cloud]
    assert pareto_front(points) == tuple(index for index, lost in enumerate(beaten) if not lost)
