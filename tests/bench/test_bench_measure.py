"""Real worker processes of the fake engine: scored on every image, timed, and alone in their failures."""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trtbench.bench.latency import TimedRow
from trtbench.bench.measure import measure_engines
from trtbench.bench.measured import EngineFile, Images, Measured
from trtbench.bench.timing import cores
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


def _preparing(engine: EngineFile, images: Images) -> dict[str, Any]:
    return {"backend_name": "fake", "engine": str(engine.path), "images": str(images.path)}


_OPEN: dict[str, Any] = {"do": "open", "settings": {"threads": 1}}


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
    assert (found[0].is_alone, found[2].is_alone) == (True, False)
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
    with Workers() as workers:
        worker = workers.start("good", log=tmp_path / "logs" / "good.log", preparing=_preparing(engine, images))
        os.kill(worker._process.pid, 9)

        with pytest.raises(WorkerError, match=r"worker of good during 'score'.*see .*good\.log"):
            worker.ask("score", batch=1, logits=str(tmp_path / "l.npy"))
        workers.drop("good")
        workers.drop("never started")
        assert workers.alive("good") is None


def test_leaving_by_an_error_kills_the_workers(fake_engine: Make, images: Images, tmp_path: Path) -> None:
    workers = Workers()
    preparing = _preparing(fake_engine("good"), images)
    worker = workers.start("good", log=tmp_path / "good.log", preparing=preparing)

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
            {"do": "prepare", **_preparing(fake_engine("good"), images)},
            _OPEN,
            {"do": "score", "batch": 3, "logits": str(logits)},
            {"do": "warm_up", "batch": 3, "warm_up_ms": 20, "cores": sorted(affinity)},
            {"do": "warm_up", "batch": 3, "warm_up_ms": 0, "cores": []},
            {"do": "time", "batch": 3, "samples": 5, "scope": "host-to-host"},
            {"do": "close"},
        )
    finally:
        os.sched_setaffinity(0, affinity)

    assert answers[0]["error"] == "WorkerError"
    assert answers[1] == {}
    assert answers[2]["load_ms"] > 0
    assert answers[3] == {"images": 10, "is_finite": True}
    assert np.load(logits).shape == (10, 4)
    assert answers[4]["inference_ns"] == pytest.approx(3e6, rel=0.3)
    assert answers[4]["cores"] == sorted(affinity)
    assert (answers[5]["n"], answers[5]["cores"]) == (3, [])
    assert len(answers[6]["ns"]) == 5
    assert answers[7] == {}


def test_running_out_of_host_memory_is_answered(
    fake_engine: Make, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtbench.engines import fake

    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(fake, "open_engine", exhausted)

    preparing = {"do": "prepare", **_preparing(fake_engine("good"), images)}
    assert _answers(preparing, _OPEN)[1]["error"] == "OutOfMemoryError"


def test_what_a_worker_cannot_read_or_write_is_answered(fake_engine: Make, images: Images, tmp_path: Path) -> None:
    preparing = {"do": "prepare", **_preparing(fake_engine("good"), images)}
    nowhere = str(tmp_path / "no folder" / "logits.npy")

    unread = _answers({**preparing, "images": str(tmp_path / "none.npy")})
    unwritten = _answers(preparing, _OPEN, {"do": "score", "batch": 1, "logits": nowhere})

    assert (unread[0]["error"], unwritten[2]["error"]) == ("EngineError", "EngineError")


def test_the_memory_of_a_worker_is_its_own_and_not_its_parents(
    fake_engine: Make, images: Images, tmp_path: Path
) -> None:
    ballast = np.ones(50_000_000)  # 400 MB in this process

    found = _measure([fake_engine("small")], images, tmp_path)

    assert ballast.nbytes > 300e6
    assert found[0].memory_bytes is not None
    assert 5e6 < found[0].memory_bytes < 300e6


def test_a_worker_asked_for_when_the_run_is_over_is_not_started(
    fake_engine: Make, images: Images, tmp_path: Path
) -> None:
    preparing = _preparing(fake_engine("late"), images)
    workers = Workers()
    workers.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)

    with pytest.raises(WorkerError, match="the run is over"):
        workers.start("late", log=tmp_path / "late.log", preparing=preparing)
    assert workers.alive("late") is None


def test_an_answer_cut_by_the_workers_death_is_its_death(fake_engine: Make, images: Images, tmp_path: Path) -> None:
    import subprocess

    with Workers() as workers:
        preparing = _preparing(fake_engine("good"), images)
        worker = workers.start("good", log=tmp_path / "good.log", preparing=preparing)
        worker.kill()
        worker._process = subprocess.Popen(
            ["/bin/sh", "-c", "read line; printf '{\"ns\": [1, 2'"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

        with pytest.raises(WorkerError, match="during 'time'"):
            worker.ask("time")
        workers.drop("good")


def test_a_timed_worker_gets_the_last_cores() -> None:
    available = sorted(os.sched_getaffinity(0))

    assert cores(1) == available[-1:]
    assert cores(2) == available[-2:]


def test_errors_of_rows_are_row_errors() -> None:
    assert issubclass(WorkerError, RowError)
