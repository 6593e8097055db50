"""Engines of TensorRT for RTX beside engines that run here: built, shown, and never ranked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trtbench.decide.limits import assess, is_decided_on_cpu
from trtbench.errors import ConfigError
from trtbench.report.tables import built_table, failure_table
from trtbench.running.bench import bench_suite

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbench.make.makings import Places
    from trtbench.suite import Suite

pytestmark = pytest.mark.rtx

_ENGINES = """
engines:
- {backend: tensorrt-rtx, targets: [sm89], precisions: [fp16, int8]}
- {backend: onnxruntime-cpu, precisions: [fp32]}
"""


def test_an_engine_for_an_absent_gpu_is_built_and_not_ranked(suite: Callable[..., Suite], places: Places) -> None:
    asked = suite(_ENGINES)
    found = bench_suite(asked, places, folder=places.runs / "one")

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
    assert [cells[1] for cells in built_table(found.rows).cells] == ["fp16", "int8"]
    assert not failure_table(found.rows).cells
    obstacles = {one.row.name: one.obstacle for one in assess(found.rows, asked.decision)}
    assert obstacles[built.name] == "status"
    assert is_decided_on_cpu(found.rows)  # an engine that was built alone takes no row of this machine out of the race


def test_targets_are_of_tensorrt_rtx_alone(suite: Callable[..., Suite]) -> None:
    with pytest.raises(ConfigError, match="targets with backend tensorrt-rtx"):
        suite("engines: [{backend: onnxruntime-cpu, targets: [sm89]}]")
    with pytest.raises(ConfigError, match="sm90"):
        suite("engines: [{backend: tensorrt-rtx, targets: [sm90]}]")
