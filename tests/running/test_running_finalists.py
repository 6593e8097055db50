"""Finalists are built several times: the spread of builds ranks them, and the median build is shipped."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.records import latency_of
from trtbench.bench.interleave import Timing
from trtbench.decide.rank import builds_overlap
from trtbench.engines.sidecar import read_sidecar
from trtbench.make.makings import Makings
from trtbench.rows import AccuracyRecord, Row
from trtbench.running.plan import build_suite, median_build, repeat_builds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trtbench.running import Places
    from trtbench.running.plan import BuiltEngine
    from trtbench.suite import Suite

    Make = Callable[..., Suite]


def _row(p50_ms: float) -> Row:
    accuracy = AccuracyRecord(
        correct=90, total=100, top1=0.9, top5=None, ci95=(0.8, 0.95), drop_pp=0.0, drop_upper_pp=1.0
    )
    row = Row(variant="dense", precision="fp16", backend="tensorrt", device="gpu", batch_size=1, engine_bytes=1)
    return replace(row, latency=latency_of(p50_ms), accuracy=accuracy, simulated=True)


class _Scripted:
    """Measures nothing: each build has the p50 that the script holds for its precision, and the sha256 of its file."""

    def __init__(self, p50_ms: Mapping[str, float]) -> None:
        self._p50_ms = p50_ms

    def __call__(self, built: Sequence[BuiltEngine]) -> tuple[list[Row], dict[str, Timing]]:
        rows = []
        for one in built:
            assert one.sidecar is not None
            row = _row(self._p50_ms[one.plan.shown_precision])
            named = replace(row, precision=one.plan.precision, build=one.plan.build)
            rows.append(replace(named, engine_sha256=one.sidecar.engine_sha256))
        samples = np.ones(2, np.int64)
        return rows, {
            row.name: Timing(blocks=(samples, samples), processes=(0, 0), spans=((0, 1), (1, 2))) for row in rows
        }


@pytest.mark.usefixtures("tensorrt_10_double")
def test_the_median_build_of_each_finalist_stands_for_it_by_its_sha256(suite: Make, places: Places) -> None:
    wanted = suite("engines: [{backend: tensorrt, precisions: [fp32, tf32, fp16], builds: 3}]")
    makings = Makings(wanted, places)
    built = [one for one in build_suite(makings.suite, places) if one.plan.role == "candidate"]
    first, _ = _Scripted({"fp32": 3.0, "tf32": 2.0, "fp16": 1.0})(built)
    again = {"tf32": 2.0, "tf32#2": 1.8, "tf32#3": 2.4, "fp16": 1.0, "fp16#2": 1.9, "fp16#3": 1.2}

    finals, blocks = repeat_builds(makings, built, first, measure=_Scripted(again))

    rows = {row.precision: row for row in finals.values()}
    assert set(rows) == {"tf32", "fp16"}
    assert rows["fp16"].builds_p50_ms == (1.0, 1.9, 1.2)
    median = read_sidecar(places.engines / "tiny" / "dense.fp16#3.tensorrt.plan")
    assert (median.precision, median.build, rows["fp16"].build) == ("fp16", 3, 1)
    assert (rows["fp16"].engine_sha256, rows["fp16"].latency) == (median.engine_sha256, _row(1.2).latency)
    assert set(blocks) == set(finals) == {rows["tf32"].name, rows["fp16"].name}


def test_one_build_of_each_holds_no_finals(suite: Make, places: Places) -> None:
    makings = Makings(suite("engines: [{backend: onnxruntime-cpu, precisions: [fp32], builds: 3}]"), places)
    built = [one for one in build_suite(makings.suite, places) if one.plan.role == "candidate"]
    rows = [replace(_row(1.0), precision="fp32", backend="onnxruntime-cpu")]

    assert repeat_builds(makings, built, rows, measure=_Scripted({})) == ({}, {})


def test_of_three_builds_the_middle_one_is_taken_and_of_two_the_slower() -> None:
    assert median_build([_row(3.0), _row(1.0), _row(2.0)]) == _row(2.0)
    assert median_build([_row(1.0), _row(2.0)]) == _row(2.0)


def test_engines_whose_builds_overlap_are_not_told_apart() -> None:
    fast, slow = _row(1.0), _row(1.2)

    assert builds_overlap(replace(fast, builds_p50_ms=(0.9, 1.0, 1.3)), replace(slow, builds_p50_ms=(1.1, 1.2, 1.4)))
    assert not builds_overlap(replace(fast, builds_p50_ms=(0.9, 1.0)), replace(slow, builds_p50_ms=(1.1, 1.2)))
    assert not builds_overlap(fast, slow)
