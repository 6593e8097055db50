"""A run measures every engine of a suite, decides, and leaves a report that can be read again."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trtbench.errors import ConfigError, StoreError, WorkerError
from trtbench.make.graphs import float_graph
from trtbench.make.makings import Makings
from trtbench.report.disk import read_blocks
from trtbench.report.document import read_report
from trtbench.report.remarks import observations
from trtbench.running import Event, Places, run_suite
from trtbench.running.again import paired_from
from trtbench.running.bench import bench_engine
from trtbench.running.run import _run_folder, point_latest
from trtbench.steps import accuracy, calibration, step
from trtbench.suite import BenchConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbench.bench.records import Bench, Measured
    from trtbench.suite import Suite

    Make = Callable[..., Suite]

_NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.whole
def test_a_run_leaves_a_report_with_every_row(suite: Make, tmp_path: Path) -> None:
    """In folders whose names every shell and every path must be careful with."""
    place = tmp_path / "of mine \\ 'ï'"
    places = Places(runs=place / "my runs", engines=place / "my engines", calib=place / "my images")
    told: list[Event] = []

    report, folder = run_suite(suite(), places, argv=["trtbench", "run"], now=_NOW, tell=told.append)

    assert [row.status for row in report.rows] == ["ok"] * 3
    assert {row.role for row in report.rows} == {"candidate", "baseline"}
    assert read_report(places.runs / "latest") == read_report(folder)
    assert (folder / "report.md").exists()
    assert list((folder / "plots").glob("*.png"))
    int8 = next(row for row in report.rows if row.precision == "int8")
    assert int8.accuracy is not None
    assert int8.accuracy.true_arithmetic_correct is not None
    assert int8.accuracy.tensorrt_graph_correct is not None
    assert int8.calibration is not None
    assert (int8.calibration.method, int8.calibration.images) == ("minmax", 15)
    assert {row.calibration for row in report.rows if row.precision == "fp32"} == {None}
    fp32 = next(row for row in report.rows if (row.precision, row.backend) == ("fp32", "onnxruntime-cpu"))
    assert fp32.accuracy is not None
    assert fp32.accuracy.drop_pp == 0
    assert fp32.latency is not None
    assert fp32.latency.ratio == pytest.approx(1.0)
    raw = json.loads((folder / "raw" / f"{fp32.name.replace(' ', '_')}.json").read_text())
    assert sum(map(len, raw["samples"]["device latency"]["blocks_ns"])) == fp32.latency.n >= 30
    assert len(raw["predictions"]) == 18
    assert not list(folder.glob(".*"))
    assert report.decision.sentence
    blocks = {row.name: read_blocks(folder, row) for row in report.rows}
    assert report.observations == observations(report.rows, paired=paired_from(report.rows, blocks))
    assert folder.name == "20260102-030405-tiny"
    assert {"score", "time"} <= {event.stage for event in told}


def test_a_row_that_fails_is_told_and_the_others_are_measured(
    suite: Make, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtbench.bench import measure

    honest = measure.score_engine

    def crash(workers: Any, rows: list[Measured], bench: Bench) -> None:
        if rows[0].engine.backend == "eager":
            for one in rows:
                one.error = WorkerError("worker of eager", got="exit code -9")
            return
        honest(workers, rows, bench)

    monkeypatch.setattr(measure, "score_engine", crash)

    report, _ = run_suite(suite(), places, argv=[], now=_NOW)

    failed = [row for row in report.rows if row.status == "failed"]
    assert {row.backend for row in failed} == {"eager"}
    assert failed[0].reason == "worker of eager: got exit code -9"
    assert report.decision.sentence


def test_an_engine_that_was_not_built_is_a_row_with_its_reason(
    suite: Make, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtbench.engines.pytorch import TorchBackend
    from trtbench.errors import UnsupportedError

    def refuse(*_: object) -> None:
        raise UnsupportedError("this device", cure="use another")

    monkeypatch.setattr(TorchBackend, "build", refuse)

    report, _ = run_suite(suite(batch_sizes=(1, 2)), places, argv=[], now=_NOW)

    absent = [row for row in report.rows if row.status == "unsupported"]
    assert [(row.backend, row.batch_size) for row in absent] == [("eager", 1), ("eager", 2)]


def test_a_network_given_as_onnx_is_compared_with_its_own_float_arithmetic(suite: Make, places: Places) -> None:

    text = suite()
    graph = float_graph(Makings(text, places), text.variants[0]).path("model.onnx")
    model = text.model.model_copy(update={"name": f"onnx:{graph}", "checkpoint": None})

    report, _ = run_suite(text.model_copy(update={"model": model, "name": "given"}), places, argv=[], now=_NOW)

    fp32 = next(row for row in report.rows if row.precision == "fp32")
    assert fp32.accuracy is not None
    assert fp32.accuracy.agreement == 1.0
    assert {row.role for row in report.rows} == {"candidate"}


def test_evaluate_counts_what_the_network_gets_right(suite: Make) -> None:
    found = step(suite(), accuracy, None)

    assert found.total == 18
    assert 0 <= found.correct <= 18
    assert found.top1 == found.correct / 18


def test_calibrate_writes_manifest_ranges_and_graph(suite: Make, tmp_path: Path) -> None:
    found = step(suite(), calibration, tmp_path / "out")

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "manifest.json",
        "model.qdq.onnx",
        "ranges.json",
    ]
    assert found.images == 12


def test_one_engine_file_is_measured_with_the_preprocessing_of_its_sidecar(
    suite: Make, places: Places, images: Path, tmp_path: Path
) -> None:
    from trtbench.running import build_suite

    text = suite()
    built = build_suite(text, places)
    assert built[0].path is not None
    config = BenchConfig(batch_sizes=(1,), duration=0.01, warm_up=0, block_ms=2)

    rows = bench_engine(built[0].path, f"folder:{images}", config, out=tmp_path)

    assert [row.status for row in rows] == ["ok"]
    assert rows[0].accuracy is not None
    assert rows[0].accuracy.correct == step(text, accuracy, None).correct


def test_an_engine_is_not_scored_on_images_of_other_classes(suite: Make, places: Places, tmp_path: Path) -> None:
    from trtbench.running import build_suite

    built = build_suite(suite(), places)
    assert built[0].path is not None

    with pytest.raises(ConfigError, match="expected images of 3 classes, got 10 in digits"):
        bench_engine(built[0].path, "digits", BenchConfig(), out=tmp_path)


def test_a_run_that_is_interrupted_leaves_a_whole_report_of_what_it_had(suite: Make, places: Places) -> None:
    def stop(event: Event) -> None:
        if event.stage == "time" and event.item == "batch 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_suite(suite(batch_sizes=(1, 2)), places, argv=[], now=_NOW, tell=stop)

    report = read_report(places.runs / "latest")
    by_size = {size: {row.status for row in report.rows if row.batch_size == size} for size in (1, 2)}
    assert by_size == {1: {"ok"}, 2: {"skipped"}}
    assert all(row.accuracy is not None for row in report.rows)
    assert report.notes[0].startswith("The run was interrupted")
    assert report.decision.sentence


def test_what_was_measured_before_nothing_more_could_be_written_is_reported(suite: Make, places: Places) -> None:
    def block(event: Event) -> None:
        if event.stage == "time":
            (folder,) = places.runs.glob("2026*")
            (folder / "raw").touch()  # where the folder of the samples should be
            (folder / "report.json").mkdir(exist_ok=True)

    with pytest.raises(StoreError, match=r"report\.json: .*what was measured is kept in ") as refused:
        run_suite(suite(), places, argv=[], now=_NOW, tell=block)

    report = read_report(Path(refused.value.cure.removeprefix("what was measured is kept in ").partition(";")[0]))
    assert {row.status for row in report.rows} == {"ok"}
    assert "raw" in report.notes[0]


def test_two_runs_that_begin_in_one_second_have_a_folder_each_and_leave_none_that_is_empty(places: Places) -> None:
    with _run_folder(places.runs, "now") as first, _run_folder(places.runs, "now") as second:
        (first / "report.json").touch()

    assert (first.name, second.name) == ("now", "now-2")
    assert list(places.runs.iterdir()) == [first]


@pytest.mark.slow
def test_two_runs_of_one_suite_at_once_leave_a_whole_report_each_of_the_same_engines(
    suite: Make, places: Places
) -> None:
    if (other := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            run_suite(suite(), places, argv=[], now=_NOW)
            os._exit(0)
        os._exit(1)
    run_suite(suite(), places, argv=[], now=_NOW)
    assert os.waitpid(other, 0)[1] == 0

    reports = [read_report(folder) for folder in sorted(places.runs.glob("2026*"))]
    assert [report.run_id for report in reports] == ["20260102-030405-tiny", "20260102-030405-tiny-2"]
    assert {row.status for report in reports for row in report.rows} == {"ok"}
    one, two = ([(row.name, row.engine_sha256, row.accuracy) for row in report.rows] for report in reports)
    assert one == two
    assert read_report(places.runs / "latest") in reports


def test_a_folder_where_the_link_to_the_newest_run_belongs_is_found_at_the_start(places: Places) -> None:
    (places.runs / "latest").mkdir(parents=True)

    with pytest.raises(StoreError, match="latest: expected a link"), _run_folder(places.runs, "now"):
        pytest.fail("it began to measure")


def test_a_file_system_without_links_keeps_the_run_and_says_that_none_points_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")  # as exFAT does, on Linux and on macOS

    monkeypatch.setattr(os, "symlink", refuse)

    point_latest(tmp_path, tmp_path / "now")

    assert list(tmp_path.iterdir()) == []
    assert "no symbolic links" in caplog.text


def test_a_report_holds_what_was_watched_and_the_family_of_tests(suite: Make, places: Places) -> None:
    twice = suite()
    twice = twice.model_copy(update={"bench": twice.bench.model_copy(update={"processes": 2})})

    report, folder = run_suite(twice, places, argv=[], now=_NOW)

    assert report.telemetry["cpu"]["readings"] >= 1
    assert (folder / "raw" / "telemetry.json").exists()
    for row in report.rows:
        assert row.accuracy is not None
        assert row.latency is not None
        assert row.latency.throttled_samples is not None
        assert row.latency.p50_ci95_ms is not None
        assert len(row.latency.p50_by_process_ms) == 2
        assert (row.accuracy.mcnemar_holm_p is None) == (row.role != "candidate")
        if row.backend != "eager":
            assert row.widths[:2] == (16, 16)
