"""Two runs are compared by timing their engines side by side where they are at hand, else by what was stored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.records import latency_of, sidecar_of
from trtbench.bench.interleave import Timing
from trtbench.bench.records import PLAIN, EngineFile, Measured, Run
from trtbench.engines.base import BuildRequest
from trtbench.engines.fake import FAKE
from trtbench.engines.sidecar import write_sidecar
from trtbench.environment import collect_environment
from trtbench.errors import ConfigError
from trtbench.jsonable import to_jsonable
from trtbench.report.disk import read_blocks, write_raw, write_report
from trtbench.report.document import Report, read_report
from trtbench.rows import Row
from trtbench.running.again import compare_reports, decide_again, find_engines
from trtbench.suite import DecisionConfig

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = read_report(Path(__file__).parent.parent / "report" / "twenty-four-rows.json")


def _engine(path: Path, **script: Any) -> str:
    """Build a fake engine with its sidecar; return its sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix(".script")
    source.write_text(json.dumps({"jitter": 0.01, **script}))
    FAKE.build(BuildRequest(source=source, engine=path, precision="fp32", num_classes=4))
    sidecar = sidecar_of(path, backend="fake", device="simulated", weight_bytes=0)
    write_sidecar(path, sidecar)
    return sidecar.engine_sha256


def _row(sha256: str, **changes: Any) -> Row:
    plain = Row(
        variant="dense",
        precision="fp32",
        backend="fake",
        device="simulated",
        batch_size=1,
        engine_sha256=sha256,
        settings={"threads": 1},
        achieved="fp32",
        cores=(0,),
        latency=latency_of(1.0),
    )
    return replace(plain, **changes)


def _report(*rows: Row) -> Report:
    return replace(GOLDEN, rows=rows, environment=to_jsonable(collect_environment()))


@pytest.fixture
def compared(tmp_path: Path) -> Callable[..., Any]:
    def run(first: Report, second: Report, **options: Any) -> Any:
        wanted = {"engines": [tmp_path], "folder": tmp_path / "run", "pairs": 12, "process_pairs": 2, **options}
        return compare_reports(first, second, **wanted)

    return run


def test_engines_at_hand_are_timed_side_by_side(tmp_path: Path, compared: Callable[..., Any]) -> None:
    before, after = _engine(tmp_path / "a" / "e.json"), _engine(tmp_path / "b" / "e.json", ns_per_image=1_300_000)

    found, matched = compared(_report(_row(before)), _report(_row(after, latency=latency_of(0.1))))

    assert [one.verdict for one in found] == ["SLOWER"]  # what was stored says the opposite
    assert found[0].ratio == pytest.approx(1.3, rel=0.05)
    assert found[0].how.startswith("re-timed side by side: 12 pairs in 2 process pairs")
    assert matched.only_first == ()


def test_the_same_file_is_the_same_unless_it_is_to_be_timed_again(tmp_path: Path, compared: Callable[..., Any]) -> None:
    report = _report(_row(_engine(tmp_path / "e.json")))

    by_bytes, _ = compared(report, report)
    by_time, _ = compared(report, report, again=True, pairs=40)

    assert (by_bytes[0].verdict, by_bytes[0].ci95) == ("SAME", (1.0, 1.0))
    assert by_time[0].verdict == "SAME"
    assert "re-timed" in by_time[0].how


@pytest.mark.whole  # an engine that crashes takes its process with it
def test_engines_that_are_gone_or_do_not_run_leave_the_stored_samples(
    tmp_path: Path, compared: Callable[..., Any]
) -> None:
    anchor = _row("anchor", variant="anchor")
    stored = {"ratio": 1.0, "ratio_ci95": (0.99, 1.01), "anchor": anchor.name}
    slower = {**stored, "ratio": 1.2, "ratio_ci95": (1.19, 1.21)}
    crashes = _engine(tmp_path / "c" / "e.json", crash_at="time")
    works = _engine(tmp_path / "d" / "e.json")
    for before, after in (("gone", "gone too"), (works, crashes)):
        first = _report(_row(before, latency=latency_of(1.0, **stored)), anchor)
        second = _report(_row(after, latency=latency_of(1.0, **slower)), anchor)

        found, _ = compared(first, second)

        assert found[0].verdict == "SLOWER"
        assert "stored samples" in found[0].how


def test_without_an_interval_the_stored_medians_are_ambiguous(compared: Callable[..., Any]) -> None:
    found, _ = compared(_report(_row("a")), _report(_row("b", latency=latency_of(3.0))))

    assert (found[0].verdict, found[0].ratio, found[0].ci95) == ("AMBIGUOUS", 3.0, None)


def test_another_runtime_then_is_not_re_timed_now(tmp_path: Path, compared: Callable[..., Any]) -> None:
    before, after = _engine(tmp_path / "a" / "e.json"), _engine(tmp_path / "b" / "e.json", ns_per_image=2_000_000)
    old = _report(_row(before))
    packages = [{**one, "version": "0.0.1"} for one in old.environment["packages"]]
    old = replace(old, environment={**old.environment, "packages": packages})

    found, _ = compared(old, _report(_row(after)))

    assert found[0].verdict == "AMBIGUOUS"


def test_unlike_machines_are_refused_unless_asked_for(compared: Callable[..., Any]) -> None:
    first = _report(_row("a"))
    host = {"cpu": {"model": "another", "logical_cores": 64}}
    second = replace(first, environment={**first.environment, "host": host})

    with pytest.raises(ConfigError, match="--across-machines"):
        compared(first, second)
    found, _ = compared(first, second, across_machines=True)
    assert len(found) == 1


def test_reports_of_other_rows_cannot_be_compared(compared: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="rows of the same names"):
        compared(_report(_row("a")), _report(_row("a", variant="other")))


def test_only_files_with_a_sidecar_are_engines(tmp_path: Path) -> None:
    sha256 = _engine(tmp_path / "e.json")
    (tmp_path / "x.bin").write_bytes(b"x")
    (tmp_path / "x.bin.json").write_text("[1, 2]")
    (tmp_path / "y.bin").write_bytes(b"y")
    (tmp_path / "y.bin.json").write_text("{ no json")

    assert find_engines([tmp_path]) == {sha256: tmp_path / "e.json"}


def _timed(ns: int) -> Timing:
    blocks = tuple(np.array([ns, ns + 1]) for _ in range(6))
    return Timing(blocks=blocks, processes=(0, 0, 0, 1, 1, 1), spans=((1, 2),) * 6)


def test_raw_samples_come_back_as_they_were(tmp_path: Path) -> None:
    row, timed = _row("a"), _timed(100)
    engine = EngineFile(name="dense", backend="fake", path=tmp_path)
    write_raw(tmp_path, row, Measured(engine=engine, batch_size=1, runs={0: Run(timed={PLAIN: timed})}))

    found = read_blocks(tmp_path, row)

    assert found is not None
    assert [block.tolist() for block in found.blocks] == [block.tolist() for block in timed.blocks]
    assert (found.processes, found.spans) == (timed.processes, timed.spans)


def test_raw_samples_that_are_absent_or_damaged_are_told_apart(tmp_path: Path) -> None:
    row = _row("a")
    path = tmp_path / "raw" / f"{row.name.replace(' ', '_')}.json"

    assert read_blocks(tmp_path, row) is None
    path.parent.mkdir()
    path.write_text('{"row": "x", "blocks_ns": []}')  # as earlier versions wrote it
    assert read_blocks(tmp_path, row) is None
    path.write_text('{"samples": {"device latency": {}}}')
    with pytest.raises(ConfigError, match="a whole file"):
        read_blocks(tmp_path, row)


def test_a_decision_made_again_takes_other_limits_and_the_raw_samples(tmp_path: Path) -> None:
    write_report(GOLDEN, tmp_path)
    rows = [row for row in GOLDEN.rows if row.batch_size == GOLDEN.decision.batch_size and row.role == "candidate"]
    for index, row in enumerate(rows):  # by the raw samples the last row is fastest by far
        engine = EngineFile(name=row.name, backend="fake", path=tmp_path)
        timed = _timed(1_000_000 - 50_000 * index)
        write_raw(tmp_path, row, Measured(engine=engine, batch_size=1, runs={0: Run(timed={PLAIN: timed})}))
    seen: list[Any] = []

    def changed(kept: Any) -> DecisionConfig:
        seen.append(kept)
        return DecisionConfig(max_drop_pp=90.0)

    found = decide_again(tmp_path, changed)

    assert found.max_drop_pp == 90.0
    assert found.winner is not None
    assert found.ratio_ci95 is not None
    assert seen == [GOLDEN.suite.get("decision", {})]
    assert decide_again(tmp_path / "report.json", changed).winner is not None
