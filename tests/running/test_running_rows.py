"""A row is built once, from what was measured, what its engine is, and what was measured beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.records import sidecar_of
from trtbench.bench.interleave import Timing
from trtbench.bench.records import PLAIN, EngineFile, Measured, Run
from trtbench.errors import WorkerError
from trtbench.make.engines import EnginePlan
from trtbench.rows import AccuracyRecord
from trtbench.running.plan import BuiltEngine
from trtbench.running.rows import family_of, row_of
from trtbench.suite import DenseVariant

if TYPE_CHECKING:
    from trtbench.engines.sidecar import Sidecar
    from trtbench.rows import Role
    from trtbench.running.rows import TrueCorrect

_DENSE = DenseVariant(kind="dense", name="dense")


def _sidecar(precision: str = "fp32") -> Sidecar:
    return sidecar_of(precision=precision, achieved=precision, notes=("from the sidecar",))


def _measured(name: str, ns: int, **changes: Any) -> Measured:
    samples = np.full(30, ns, np.int64) + np.arange(30)
    timed = Timing(blocks=(samples, samples), processes=(0, 0), spans=((0, 1), (1, 2)))
    accuracy = AccuracyRecord(correct=90, total=100, top1=0.9, top5=None, ci95=(0.8, 0.95), mcnemar_p=0.02)
    fields: dict[str, Any] = {"runs": {0: Run(timed={PLAIN: timed})}, "accuracy": accuracy}
    return Measured(
        engine=EngineFile(name=name, backend="onnxruntime-cpu", path=Path()), batch_size=1, **fields | changes
    )


def _built(precision: str, role: Role) -> BuiltEngine:
    plan = EnginePlan(variant=_DENSE, precision=precision, backend="onnxruntime-cpu", role=role)
    return BuiltEngine(plan=plan, status="ok", path=Path(), sidecar=_sidecar(precision))


_BUILT = (_built("fp32", "candidate"), _built("int8", "candidate"), _built("bf16", "reference"))
_ENGINES = {one.plan.name: one for one in _BUILT}


def test_a_row_knows_its_ratio_its_family_and_the_share_of_its_kernels() -> None:
    found = [_measured(name, ns) for name, ns in zip(_ENGINES, (2_000_000, 1_000_000, 500_000), strict=True)]
    true: TrueCorrect = {("dense", "onnxruntime-cpu"): 92, ("dense", "tensorrt"): 91}
    family = family_of(found, _ENGINES, throttled=lambda _timed, _device: 7, true_correct=true)

    anchor, row, reference = (
        row_of(one, _sidecar(built.plan.precision), family, role=built.plan.role)
        for one, built in zip(found, _ENGINES.values(), strict=True)
    )

    assert anchor.latency is not None
    assert row.latency is not None
    assert (row.latency.anchor, row.latency.throttled_samples) == (anchor.name, 7)
    assert row.latency.ratio == pytest.approx(0.5, rel=1e-3)
    assert anchor.latency.ratio == 1
    assert row.accuracy is not None
    assert reference.accuracy is not None
    assert row.accuracy.mcnemar_holm_p == pytest.approx(0.04)  # two candidates
    assert reference.accuracy.mcnemar_holm_p is None
    assert row.accuracy.true_arithmetic_correct == 92
    assert row.accuracy.tensorrt_graph_correct == 91
    assert row.notes == ("from the sidecar",)
    assert row.throughput_ips == pytest.approx(1000, rel=1e-3)


def test_what_was_timed_alone_or_failed_is_no_anchor() -> None:
    alone, failed, timed = (
        _measured("dense fp32 onnxruntime-cpu", 1_000_000, is_alone=True),
        _measured("dense int8 onnxruntime-cpu", 1_000_000, error=WorkerError("worker", got="died")),
        _measured("dense bf16 onnxruntime-cpu", 1_000_000),
    )

    family = family_of([alone, failed, timed], _ENGINES, throttled=lambda *_: None, true_correct={})

    assert family.anchors == {}
    assert row_of(failed, _sidecar("int8"), family).status == "failed"
    assert row_of(failed, _sidecar("int8"), family).latency is None


def test_a_row_that_was_not_reached_is_skipped() -> None:
    row = row_of(_measured("dense fp32 onnxruntime-cpu", 1, runs={}), _sidecar())

    assert (row.status, row.latency, row.throughput_ips) == ("skipped", None, None)
    assert row.accuracy is not None


def test_a_row_is_of_the_build_that_its_sidecar_says() -> None:
    again = replace(_sidecar("int8"), sparse=True, build=2)

    row = row_of(_measured("dense int8+sparse#2 onnxruntime-cpu", 1), again)

    assert (row.precision, row.sparse, row.build) == ("int8", True, 2)
    assert row.name == "dense int8+sparse#2 onnxruntime-cpu b1"
