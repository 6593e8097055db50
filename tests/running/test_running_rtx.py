"""Engines of TensorRT for RTX beside engines that run here: built, shown, and never ranked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from trtbench.decide.limits import assess, is_decided_on_cpu
from trtbench.errors import ConfigError
from trtbench.report.tables import built_table, failure_table
from trtbench.running.plan import build_suite
from trtbench.running.run import run_suite

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbench.make.makings import Places
    from trtbench.suite import Suite

pytestmark = pytest.mark.rtx

_ENGINES = """
engines:
- {backend: tensorrt-rtx, targets: [sm89], precisions: [fp16, int8, fp8]}
- {backend: onnxruntime-cpu, precisions: [fp32]}
"""


def test_an_engine_for_an_absent_gpu_is_built_and_not_ranked(suite: Callable[..., Suite], places: Places) -> None:
    asked = suite(_ENGINES)
    found, _ = run_suite(asked, places, argv=[], now=datetime(2026, 1, 2, tzinfo=UTC))

    rows = {row.name: row for row in found.rows}
    built = rows["dense int8 tensorrt-rtx b1"]
    assert {row.status for row in found.rows} == {"built", "ok"}
    assert (built.status, built.device, built.achieved) == ("built", "RTX sm89", "int8")
    assert "not run" in built.reason
    assert built.latency is None
    assert built.engine_bytes
    assert built.weight_bytes
    assert built.accuracy is not None
    assert any("scored is its graph, in exact arithmetic" in note for note in built.notes)
    exact = rows["dense fp16 tensorrt-rtx b1"].accuracy
    assert exact is not None
    assert exact.agreement is not None
    assert exact.agreement > 0.8
    assert [cells[1] for cells in built_table(found.rows).cells] == ["fp16", "int8", "fp8"]
    eight = rows["dense fp8 tensorrt-rtx b1"]
    assert eight.achieved == "fp8 in 8 of 9 convolutions"  # the first has three channels
    assert eight.accuracy is not None
    assert not failure_table(found.rows).cells
    obstacles = {one.row.name: one.obstacle for one in assess(found.rows, asked.decision)}
    assert obstacles[built.name] == "status"
    assert is_decided_on_cpu(found.rows)  # an engine that was built alone takes no row of this machine out of the race


_KINDS = """[
  {kind: dense, name: dense},
  {kind: channels, name: half, ratio: 0.5, round_to: 8, fine_tune: false},
  {kind: weights, name: sparse, sparsity: 0.5, fine_tune: false},
  {kind: nm, name: pattern, pattern: '2:4', fine_tune: false},
  {kind: fixed_point, name: eight, bits: 8, images: 16},
  {kind: codec, name: shared, clusters: 8},
  {kind: qat, name: learnt},
  {kind: dynamic_int8, name: dynamic},
]"""


@pytest.mark.slow
def test_every_kind_of_network_is_built_in_every_precision(suite: Callable[..., Suite], places: Places) -> None:
    precisions = "[fp32, fp16, bf16, int8, int8+fp16]"
    engines = f"engines: [{{backend: tensorrt-rtx, targets: [sm89, sm120], precisions: {precisions}}}]"

    built = build_suite(suite(engines, variants=_KINDS), places)

    engines_of_rtx = [one for one in built if one.plan.backend == "tensorrt-rtx"]
    assert len(engines_of_rtx) == 8 * 5
    for one in engines_of_rtx:
        if one.plan.variant.kind == "dynamic_int8":  # its ranges are taken at run time, by operators of ONNX Runtime's
            assert "TensorRT's parser does not know DynamicQuantizeLinear" in one.reason
            continue
        assert (one.status, one.plan.name) == ("built", one.plan.name), one.reason
        assert one.sidecar is not None
        target = "int8" if one.plan.precision.startswith("int8") else one.plan.precision
        assert set(one.sidecar.facts["layers"]["convolutions"].values()) == {target}


def test_targets_are_of_tensorrt_rtx_alone(suite: Callable[..., Suite]) -> None:
    with pytest.raises(ConfigError, match="targets with backend tensorrt-rtx"):
        suite("engines: [{backend: onnxruntime-cpu, targets: [sm89]}]")
    with pytest.raises(ConfigError, match="sm90"):
        suite("engines: [{backend: tensorrt-rtx, targets: [sm90]}]")
