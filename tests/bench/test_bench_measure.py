"""Real worker processes of the fake engine: scored on every image, timed, and alone in their failures."""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trtbench.bench.latency import TimedRow
from trtbench.bench.measure import EngineFile, Images, Measured, cores, measure_engines
from trtbench.bench.worker import serve
from trtbench.bench.workers import Workers
from trtbench.errors import OutOfMemoryError, RowError, SidecarError, WorkerError
from trtbench.suite import BenchConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    Make = Callable[..., EngineFile]

_CONFIG = BenchConfig(batch_sizes=(1, 4), warm_up=0, duration=0.001, block_ms=5)


def _measure(engines: list[EngineFile], images: Images, folder: Path) -> list[Measured]:
    told: list[tuple[str, str, float]] = []
    found = measure_engines(engines, images, _CONFIG, folder=folder, progress=lambda *args: told.append(args))
    assert all(0 <= share <= 1 for _, _, share in told)
    return found


def _answers(*commands: dict[str, Any]) -> list[dict[str, Any]]:
    return list(serve(io.StringIO("".join(json.dumps(command) + "\n" for command in commands))))


def _opening(engine: EngineFile, images: Images) -> dict[str, Any]:
    return {
        "do": "open",
        "backend_name": "fake",
        "engine": str(engine.path),
        "images": str(images.path),
        "settings": {"threads": 1},
    }


def test_every_engine_is_scored_and_timed_at_every_batch_size(
    fake_engine: Make, images: Images, tmp_path: Path
) -> None:
    found = _measure([fake_engine("slow", ns_per_image=2e6), fake_engine("fast")], images, tmp_path)

    assert [(one.engine.name, one.batch_size) for one in found] == [("slow", 1), ("slow", 4), ("fast", 1), ("fast", 4)]
    for one in found:
        assert one.error is None
        assert one.accuracy is not None
        assert one.accuracy.total == len(images.labels)
        assert isinstance(one.timed, TimedRow)
        assert len(one.timed.samples_ns) >= 30
        assert one.memory_bytes is not None
        assert one.memory_bytes > 1e6
        assert one.opening is not None
        assert one.opening.device == "simulated"
    assert found[0].predictions == found[1].predictions  # the padding of the last batch is not counted


def test_an_engine_that_crashes_ends_alone(fake_engine: Make, images: Images, tmp_path: Path) -> None:
    found = _measure([fake_engine("crash", crash_at="open"), fake_engine("good")], images, tmp_path)

    assert [type(one.error) for one in found] == [WorkerError, WorkerError, type(None), type(None)]


def test_a_worker_that_dies_while_it_is_timed_is_measured_again_alone(
    fake_engine: Make, images: Images, tmp_path: Path
) -> None:
    found = _measure([fake_engine("crash", crash_at="time"), fake_engine("good")], images, tmp_path)

    assert isinstance(found[0].error, WorkerError)  # its script crashes again
    assert found[0].accuracy is not None
    assert found[2].error is None
    assert "exit code 1" in str(found[0].error)


def test_running_out_of_memory_keeps_its_class_across_the_process(
    fake_engine: Make, images: Images, tmp_path: Path
) -> None:
    found = _measure([fake_engine("big", oom=True)], images, tmp_path)

    assert isinstance(found[0].error, OutOfMemoryError)


def test_an_engine_whose_bytes_changed_is_not_run(fake_engine: Make, images: Images, tmp_path: Path) -> None:
    engine = fake_engine("edited")
    engine.path.write_text(engine.path.read_text() + " ")

    found = _measure([engine], images, tmp_path)

    assert isinstance(found[0].error, SidecarError)


def test_a_worker_killed_between_commands_is_told_with_its_log(
    fake_engine: Make, images: Images, tmp_path: Path
) -> None:
    engine = fake_engine("good")
    opening = _opening(engine, images)
    del opening["do"]
    with Workers() as workers:
        worker, _ = workers.start("good", log=tmp_path / "logs" / "good.log", opening=opening)
        os.kill(worker._process.pid, 9)

        with pytest.raises(WorkerError, match=r"worker of good during 'score'.*see .*good\.log"):
            worker.ask("score", batch=1, logits=str(tmp_path / "l.npy"))
        workers.drop("good")
        workers.drop("never started")
        assert workers.alive("good") is None


def test_leaving_by_an_error_kills_the_workers(fake_engine: Make, images: Images, tmp_path: Path) -> None:
    opening = _opening(fake_engine("good"), images)
    del opening["do"]
    workers = Workers()
    worker, _ = workers.start("good", log=tmp_path / "good.log", opening=opening)

    workers.__exit__(KeyError, KeyError(), None)

    assert worker._process.poll() is not None


def test_commands_are_answered_in_order_and_errors_are_answers(
    fake_engine: Make, images: Images, tmp_path: Path
) -> None:
    logits = tmp_path / "logits.npy"
    affinity = os.sched_getaffinity(0)
    try:
        answers = _answers(
            {"do": "score", "batch": 1, "logits": str(logits)},
            _opening(fake_engine("good"), images),
            {"do": "score", "batch": 3, "logits": str(logits)},
            {"do": "warm_up", "batch": 3, "warm_up_ms": 20, "cores": sorted(affinity)},
            {"do": "warm_up", "batch": 3, "warm_up_ms": 0, "cores": []},
            {"do": "time", "batch": 3, "samples": 5, "scope": "host-to-host"},
            {"do": "close"},
        )
    finally:
        os.sched_setaffinity(0, affinity)

    assert answers[0]["error"] == "WorkerError"
    assert answers[1]["load_ms"] > 0
    assert answers[2] == {"images": 10, "is_finite": True}
    assert np.load(logits).shape == (10, 4)
    assert answers[3]["inference_ns"] == pytest.approx(3e6, rel=0.3)
    assert answers[4]["n"] == 3
    assert len(answers[5]["ns"]) == 5
    assert answers[6] == {}


def test_running_out_of_host_memory_is_answered(
    fake_engine: Make, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtbench.engines import fake

    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(fake, "open_engine", exhausted)

    assert _answers(_opening(fake_engine("good"), images))[0]["error"] == "OutOfMemoryError"


def test_a_timed_worker_gets_the_last_cores() -> None:
    available = sorted(os.sched_getaffinity(0))

    assert cores(1) == available[-1:]
    assert cores(2) == available[-2:]


def test_errors_of_rows_are_row_errors() -> None:
    assert issubclass(WorkerError, RowError)
