"""A bundle in production is held against a new run: its own row, and what the run would ship now."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from trtbench.report.disk import write_report
from trtbench.report.document import Report, read_report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.command import Answer

ROW = "dense int8 onnxruntime-cpu b2"
WINNER = "dense fp32 onnxruntime-cpu b2"


def _slower(report: Report, factor: float, *, winner: str | None) -> Report:
    """Return a later run: other bytes, the row so many times as slow, and another row to ship."""
    rows = []
    for row in report.rows:
        changed = row
        if row.name == ROW and row.latency is not None and row.latency.ratio is not None:
            ratio = row.latency.ratio * factor
            latency = replace(row.latency, ratio=ratio, ratio_ci95=(ratio * 0.999, ratio * 1.001))
            changed = replace(row, engine_sha256="f" * 64, latency=latency)
        rows.append(changed)
    return replace(report, rows=tuple(rows), decision=replace(report.decision, winner=winner))


@pytest.fixture
def quiet_bundle(bundle: Path) -> Path:
    """The bundle with a narrow interval of its ratio; nothing is retimed: its engine has no sidecar to be found by."""
    from trtbench.jsonable import to_jsonable
    from trtbench.shipping.bundle import seal

    report = read_report(bundle)
    write = json.dumps(to_jsonable(_narrow(report)))
    (bundle / "report.json").write_text(write, encoding="utf-8")
    (bundle / "engine.onnx.json").unlink()
    fields = json.loads((bundle / "bundle.json").read_bytes())
    del fields["sha256"]
    seal(bundle, fields)
    return bundle


def _narrow(report: Report) -> Report:
    rows = []
    for row in report.rows:
        assert row.latency is not None
        ratio = row.latency.ratio
        ends = None if ratio is None else (ratio * 0.999, ratio * 1.001)
        rows.append(replace(row, latency=replace(row.latency, ratio_ci95=ends)))
    return replace(report, rows=tuple(rows))


def test_a_run_is_told_beside_the_bundle_in_production(
    quiet_bundle: Path, small_run: Path, tmp_path: Path, command: Callable[..., Answer]
) -> None:
    write_report(_slower(read_report(small_run), 1.5, winner=WINNER), tmp_path / "later")

    told = command("compare", quiet_bundle, tmp_path / "later", "--json", "--fail-on", "slower:20%")

    found = told.json["comparisons"]
    assert [one["name"] for one in found] == [ROW, f"{ROW} -> {WINNER}"]
    assert (found[0]["verdict"], found[0]["ratio"]) == ("SLOWER", pytest.approx(1.5))
    assert told.code == 4
    assert "times as long (limit 20.0 %)" in told.err


def test_the_run_that_a_bundle_came_from_has_the_same_engine(
    shipped: Path, small_run: Path, command: Callable[..., Answer]
) -> None:
    told = command("compare", shipped, small_run, "--json")

    assert not told.code
    first = told.json["comparisons"][0]
    assert (first["name"], first["verdict"]) == (ROW, "SAME")


def test_a_changed_bundle_is_not_compared(bundle: Path, small_run: Path, command: Callable[..., Answer]) -> None:
    shutil.copy(small_run / "report.json", bundle / "report.json")

    told = command("compare", bundle, small_run)

    assert told.code == 2
    assert "report.json: expected sha256" in told.err
