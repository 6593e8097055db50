"""Over batch sizes: the knee of the throughput, and where a variant overtakes the dense network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trtbench.decide.rank import knee, sweeps
from trtbench.report.document import read_report
from trtbench.rows import LatencyRecord, Row

REPORT = read_report(Path(__file__).parent.parent / "report" / "twenty-four-rows.json")


@pytest.mark.parametrize(
    ("rates", "expected"), [((100, 180, 195, 200), 2), ((100, 100, 100, 100), 1), ((1, 2, 3, 4), 8)]
)
def test_the_knee_is_the_smallest_batch_with_nine_tenths_of_the_best(rates: tuple[float, ...], expected: int) -> None:
    assert knee((1, 2, 4, 8), rates) == expected


def _row(variant: str, batch_size: int, ratio: float, *, params: int) -> Row:
    template = next(row for row in REPORT.rows if row.latency is not None)
    assert isinstance(template.latency, LatencyRecord)
    latency = replace(
        template.latency,
        p50_ms=ratio,
        ratio=ratio,
        ratio_ci95=(0.99 * ratio, 1.01 * ratio),
        anchor=f"anchor b{batch_size}",
    )
    rate = 1000 * batch_size / ratio
    return replace(
        template,
        variant=variant,
        precision="fp32",
        backend="onnxruntime-cpu",
        batch_size=batch_size,
        params=params,
        latency=latency,
        throughput_ips=rate,
    )


@pytest.mark.parametrize(
    ("ratios", "breaks_even"),
    [((1.0, 0.8, 0.5), 8), ((0.9, 0.8, 0.5), 1), ((0.5, 1.2, 0.5), 32), ((0.5, 0.5, 1.0), None)],
)
def test_a_variant_breaks_even_where_it_is_faster_from_there_on(
    ratios: tuple[float, ...], breaks_even: int | None
) -> None:
    sizes = (1, 8, 32)
    rows = [_row("dense", size, 1.0, params=100) for size in sizes]
    rows += [_row("small", size, ratio, params=50) for size, ratio in zip(sizes, ratios, strict=True)]

    dense, small = sweeps(rows)

    assert (dense.breaks_even, small.breaks_even) == (None, breaks_even)
    assert small.batch_sizes == sizes
    assert tuple(row.latency.p50_ms for row in small.rows if row.latency) == ratios
