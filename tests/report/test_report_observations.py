"""What the numbers say beside the recommendation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trtbench.report.document import read_report
from trtbench.report.observations import observations

ROWS = read_report(Path(__file__).parent / "twenty-four-rows.json").rows
NAMED = {row.name: row for row in ROWS}
INT8 = NAMED["channels-50 int8 onnxruntime-cpu b1"]
FP32 = NAMED["channels-50 fp32 onnxruntime-cpu b1"]


def test_what_compression_made_slower_or_larger_is_observed() -> None:
    told = observations(ROWS)
    assert len(told) == 2
    assert told[0].startswith("channels-50 int8 onnxruntime-cpu b1 is slower than its FP32 twin: it takes 1.11 times")
    swollen = [replace(row, engine_bytes=10_000_000) if row is INT8 else row for row in ROWS]
    assert (
        "channels-50 int8 onnxruntime-cpu b1 is larger than its FP32 twin: 10.0 MB against 0.289 MB."
        in observations(swollen)
    )
    assert "channels-50 int8 onnxruntime-cpu b1 is larger than dense: 10.0 MB against 0.316 MB." in observations(
        swollen
    )


def test_a_pruned_network_slower_than_the_dense_one_or_than_eager_is_observed() -> None:
    assert FP32.latency
    slow = replace(FP32, latency=replace(FP32.latency, p50_ms=90.0, ratio=50.0, ratio_ci95=(49.0, 51.0)))
    told = " ".join(observations([slow if row is FP32 else row for row in ROWS]))
    assert "channels-50 fp32 onnxruntime-cpu b1 is slower than dense, though it computes less" in told
    assert "channels-50 fp32 onnxruntime-cpu b1 is slower than PyTorch eager" in told
