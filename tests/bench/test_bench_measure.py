"""The fake engine, scored on every image and timed; in worker processes where those are what is tested."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trtbench.bench import processes, worker
from trtbench.bench.interleave import Timing
from trtbench.bench.measure import groups, measure_engines, time_again
from trtbench.bench.processes import Workers, cores
from trtbench.bench.records import Bench
from trtbench.bench.summary import latency_record, timed_ratio
from trtbench.bench.worker import serve
from trtbench.disk import file_sha256
from trtbench.engines.base import Parts, SessionFacts, place_of
from trtbench.engines.fake import FakeBackend, FakeSession
from trtbench.errors import OutOfMemoryError, RowError, SidecarError, WorkerError
from trtbench.suite import BenchConfig, LoadConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from trtbench.bench.records import EngineFile, Images, Measured

    Make = Callable[..., EngineFile]

_CONFIG = BenchConfig(batch_sizes=(1, 4), warm_up=0, duration=0.001, block_ms=5)


def _measure(engines: list[EngineFile], images: Images, folder: Path) -> list[Measured]:
    told: list[tuple[str, str, float]] = []
    found = measure_engines(
        engines, Bench(images=images, config=_CONFIG, folder=folder, progress=lambda *args: told.append(args))
    )
    assert all(0 <= share <= 1 for _, _, share in told)
    return found


def _answers(*commands: dict[str, Any]) -> list[dict[str, Any]]:
    answers = io.StringIO()
    serve([json.dumps(command) for command in commands], answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def _preparing(engine: EngineFile, images: Images) -> dict[str, Any]:
    return {"backend": place_of("fake"), "engine": str(engine.path), "images": str(images.path)}


_OPEN: dict[str, Any] = {"do": "open", "settings": {"threads": 1}}


def test_every_engine_is_scored_and_timed_at_every_batch_size_in_memory_of_its_own(
    fake_engine: Make, images: Images, tmp_path: Path
) -> None:
    ballast = np.ones(50_000_000)  # 400 MB in this process

    found = _measure([fake_engine("slow", ns_per_image=2e6), fake_engine("fast")], images, tmp_path)

    assert [(one.engine.name, one.batch_size) for one in found] == [("slow", 1), ("slow", 4), ("fast", 1), ("fast", 4)]
    for one in found:
        assert one.error is None
        assert one.accuracy is not None
        assert one.accuracy.total == len(images.labels)
        assert isinstance(one.timed, Timing)
        assert len(one.timed.samples_ns) >= 30
        assert one.host_memory_bytes is not None
        assert 5e6 < one.host_memory_bytes < 300e6 < ballast.nbytes
        assert one.device_memory_bytes is None  # unknown, and not the host's
        assert one.opening is not None
        assert one.opening.device == "simulated"
    assert found[0].predictions == found[1].predictions  # the padding of the last batch is not counted


def test_engines_that_crash_or_run_out_of_memory_end_alone_and_a_timed_one_is_tried_again(
    fake_engine: Make, images: Images, tmp_path: Path
) -> None:
    engines = [
        fake_engine("unopened", crash_at="open"),
        fake_engine("crash", crash_at="time"),
        fake_engine("big", oom=True),
        fake_engine("good"),
    ]

    unopened, _, crashed, _, big, _, good, other = _measure(engines, images, tmp_path)

    assert isinstance(unopened.error, WorkerError)
    assert isinstance(crashed.error, WorkerError)  # its script crashes again
    assert "exit code 1" in str(crashed.error)
    assert crashed.accuracy is not None
    assert isinstance(big.error, OutOfMemoryError)  # of its class on this side of the pipe
    assert good.error is other.error is None
    assert [one.is_alone for one in (crashed, big, good)] == [True, True, False]


@pytest.mark.usefixtures("workers_here")
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


def test_threads_of_a_worker_wait_as_the_suite_says_and_not_as_the_environment_does(
    fake_engine: Make, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    with Workers() as workers:
        worker = workers.start("a", log=tmp_path / "a.log", preparing=_preparing(fake_engine("a"), images))
        told = Path(f"/proc/{worker._process.pid}/environ").read_bytes().split(b"\0")

    assert [one for one in told if one.startswith(b"OMP_WAIT_POLICY=")] == [b"OMP_WAIT_POLICY=PASSIVE"]


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
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(FakeBackend, "open", exhausted)

    preparing = {"do": "prepare", **_preparing(fake_engine("good"), images)}
    assert _answers(preparing, _OPEN)[1]["error"] == "OutOfMemoryError"


def test_what_a_worker_cannot_read_or_write_is_answered(fake_engine: Make, images: Images, tmp_path: Path) -> None:
    preparing = {"do": "prepare", **_preparing(fake_engine("good"), images)}
    nowhere = str(tmp_path / "no folder" / "logits.npy")

    unread = _answers({**preparing, "images": str(tmp_path / "none.npy")})
    unwritten = _answers(preparing, _OPEN, {"do": "score", "batch": 1, "logits": nowhere})

    assert (unread[0]["error"], unwritten[2]["error"]) == ("EngineError", "StoreError")


def test_a_worker_refuses_what_is_no_command() -> None:
    unknown, private = _answers({"do": "dance"}, {"do": "_session", "batch": 1})

    assert unknown["error"] == private["error"] == "WorkerError"
    assert unknown["reason"].startswith("worker: expected a command out of prepare, open, score")
    assert "'dance'" in unknown["reason"]


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


@pytest.mark.parametrize(
    ("command", "stops", "limit_s", "words"),
    [
        ("exec sleep 60", True, 60.0, "a process that a signal has stopped"),
        ("exec sleep 60", False, 60.0, "no answer, and no computing, for"),
        ("while :; do :; done", False, 0.3, "no answer within 0 s"),
    ],
)
def test_a_worker_is_waited_for_while_it_computes_and_the_plan_allows(
    command: str, limit_s: float, words: str, monkeypatch: pytest.MonkeyPatch, *, stops: bool
) -> None:
    monkeypatch.setattr(processes, "_LOOK_S", 0.005)
    monkeypatch.setattr(processes, "_SILENT_LOOKS", 40)
    monkeypatch.setattr(processes, "_SILENT_SHARE", 0.0)
    silent = subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if stops:
            silent.send_signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError, match=words):
            processes._wait(silent, limit_s=limit_s)
    finally:
        silent.kill()
        silent.communicate()


def test_scoring_may_take_ten_times_what_the_first_inference_says() -> None:
    assert processes.scoring_limit_s(30.0, 50_000) == 15_000
    assert processes.scoring_limit_s(0.1, 10) == processes.LIMIT_S


@pytest.mark.usefixtures("workers_here")
def test_an_engine_that_another_run_replaced_is_not_measured_as_the_one_that_was_built(
    fake_engine: Make, images: Images, tmp_path: Path
) -> None:
    built = fake_engine("dense")
    meant = dataclasses.replace(built, sha256=file_sha256(built.path))
    replaced = fake_engine("dense", ns_per_image=1e6)
    assert replaced.path == built.path

    found = _measure([meant], images, tmp_path)

    assert isinstance(found[0].error, SidecarError)
    assert "let one run at a time build it" in str(found[0].error)


def test_a_timed_worker_gets_the_last_cores() -> None:
    available = sorted(os.sched_getaffinity(0))

    assert cores(1) == available[-1:]
    assert cores(2) == available[-2:]


def test_a_system_without_affinity_pins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS is."""
    for call in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, call)

    assert cores(1) == []
    assert worker._pin([0]) == []


def test_errors_of_rows_are_row_errors() -> None:
    assert issubclass(WorkerError, RowError)


def test_each_engine_is_timed_in_as_many_fresh_processes_as_asked_for(
    fake_engine: Make, images: Images, tmp_path: Path
) -> None:
    config = _CONFIG.model_copy(update={"processes": 2})

    found = measure_engines([fake_engine("a")], Bench(images=images, config=config, folder=tmp_path))

    for one in found:
        assert list(one.runs) == [0, 1]
        assert one.timed is not None
        assert set(one.timed.processes) == {0, 1}
        assert one.last_run is not None
        assert one.last_run.warm_up_inferences >= 3
    log = (tmp_path / "logs" / "a.log").read_text()
    assert "Traceback" not in log


@pytest.mark.usefixtures("workers_here")
def test_a_row_is_timed_in_every_way_the_suite_asks_for(fake_engine: Make, images: Images, tmp_path: Path) -> None:
    config = _CONFIG.model_copy(
        update={"processes": 1, "scopes": ("device", "host-to-host"), "throughput": True, "batch_sizes": (1,)}
    )
    engine = fake_engine("quick", ns_per_image=100_000)

    (found,) = measure_engines([engine], Bench(images=images, config=config, folder=tmp_path))

    plain, throughput, host = (latency_record(found, way) for way in found.ways)
    assert (plain.scope, plain.mode, plain.launches_per_sample) == ("device", "latency", 1)
    assert (host.scope, throughput.mode) == ("host-to-host", "throughput")
    assert host.p50_ms == pytest.approx(1.1 * plain.p50_ms, rel=0.05)
    assert throughput.launches_per_sample in range(9, 12)  # 1 ms of 0.1 ms
    assert throughput.p50_ms == pytest.approx(plain.p50_ms, rel=0.05)
    assert throughput.p99_ms is None


@pytest.mark.parametrize(
    ("names", "alive", "expected"),
    [
        ("abc", None, ["abc"]),
        ("abc", 3, ["abc"]),
        ("abcde", 3, ["abd", "ace"]),
        ("abcdef", 4, ["abdf", "ace"]),
        ("abc", 2, ["ab", "ac"]),
        ("", 2, []),
    ],
)
def test_groups_are_even_and_share_the_first_engine(names: str, alive: int | None, expected: list[str]) -> None:
    assert ["".join(group) for group in groups(list(names), alive=alive)] == expected


@pytest.mark.usefixtures("workers_here")
def test_engines_of_different_groups_pair_through_the_anchor_only(
    fake_engine: Make, images: Images, tmp_path: Path
) -> None:
    config = _CONFIG.model_copy(update={"processes": 1, "alive": 2, "batch_sizes": (1,)})
    engines = [fake_engine("anchor"), fake_engine("b", ns_per_image=2e6), fake_engine("c", ns_per_image=3e6)]

    anchor, b, c = measure_engines(engines, Bench(images=images, config=config, folder=tmp_path))

    assert timed_ratio(b.timed, c.timed) is None
    for one, factor in ((b, 2), (c, 3)):
        found = timed_ratio(one.timed, anchor.timed)
        assert found is not None
        assert found.value == pytest.approx(factor, rel=0.1)
    assert all(one.accuracy is not None for one in (anchor, b, c))


@pytest.mark.usefixtures("workers_here")
def test_rows_are_timed_again_side_by_side_and_one_that_fails_then_stands_as_it_was(
    fake_engine: Make, images: Images, tmp_path: Path
) -> None:
    bench = Bench(images=images, config=_CONFIG.model_copy(update={"batch_sizes": (1,)}), folder=tmp_path)
    engines = [fake_engine("anchor"), fake_engine("other"), fake_engine("edited")]
    found = measure_engines(engines, bench)
    engines[2].path.write_text(engines[2].path.read_text() + " ")

    seconds = time_again(found, bench, number=0)

    assert 0 < seconds == list(bench.seconds.values())[-1]
    assert [len(one.runs) for one in found] == [4, 4, 3]
    assert [one.error for one in found] == [None] * 3
    ratio = timed_ratio(found[1].timed, found[0].timed)
    assert ratio is not None
    assert ratio.freedom == 3  # of four process pairs


@pytest.mark.usefixtures("workers_here")
def test_loads_and_energy_belong_to_the_row_they_were_measured_on(
    fake_engine: Make, images: Images, tmp_path: Path
) -> None:
    load = LoadConfig(streams=2, duration=0.02)
    config = _CONFIG.model_copy(update={"processes": 2, "batch_sizes": (2,), "load": (load,)})
    joules = iter(range(0, 1000, 10))
    asked: list[str] = []

    def energy_j(device: str) -> float:
        asked.append(device)
        return next(joules)

    engine = fake_engine("a", ns_per_image=50_000_000, jitter=0.0)
    (found,) = measure_engines([engine], Bench(images=images, config=config, folder=tmp_path, energy_j=energy_j))

    assert [one.streams for one in found.loads] == [2]
    assert found.energy_j == pytest.approx(10 / (11 * 2))  # ten samples of 0.1 s and one before, two images each
    assert asked == ["simulated"] * 2


def test_a_worker_tells_the_parts_of_an_inference_where_its_session_can(
    fake_engine: Make, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparing = {"do": "prepare", **_preparing(fake_engine("good"), images)}
    ask = {"do": "parts", "batch": 1, "samples": 2}
    assert _answers(preparing, _OPEN, ask)[2] == {"ns": {}}

    def parts(_: object, samples: int) -> Parts:
        one, two, three, four = (np.full(samples, number) for number in (1, 2, 3, 4))
        return Parts(h2d=one, enqueue=two, compute=three, d2h=four)

    monkeypatch.setattr(FakeSession, "time_parts", parts)
    assert _answers(preparing, _OPEN, ask)[2] == {
        "ns": {"h2d": [1, 1], "enqueue": [2, 2], "compute": [3, 3], "d2h": [4, 4]}
    }


@pytest.mark.parametrize(("device", "again"), [("simulated", 20), ("cpu", 1)])
def test_a_gpu_that_stood_idle_is_given_time_to_raise_its_clocks(
    fake_engine: Make, images: Images, monkeypatch: pytest.MonkeyPatch, device: str, again: int
) -> None:
    asked: list[int] = []
    time_, clock = FakeSession.time, iter(range(10**9, 10**12, 10**9)).__next__

    def timed(self: FakeSession, samples: int, **how: Any) -> Any:
        asked.append(samples)
        return time_(self, samples, **how)

    monkeypatch.setattr(FakeSession, "time", timed)
    monkeypatch.setattr("trtbench.engines.fake._DEVICE", device)
    monkeypatch.setattr("trtbench.bench.worker.time.monotonic_ns", clock)

    _answers(
        {"do": "prepare", **_preparing(fake_engine("a", ns_per_image=10**6, jitter=0.0), images)},
        _OPEN,
        {"do": "time", "batch": 1, "samples": 5, "scope": "device"},
    )

    assert asked == [*[1] * again, 5]


def test_a_row_says_what_its_session_says_of_itself(
    fake_engine: Make, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = SessionFacts(settings={"cuda_graph": False}, clock="cuda-events", memory_bytes=7, notes=("no CUDA graph",))
    monkeypatch.setattr(FakeSession, "describe", lambda _: told)

    answers = _answers(
        {"do": "prepare", **_preparing(fake_engine("good"), images)},
        _OPEN,
        {"do": "warm_up", "batch": 1, "warm_up_ms": 0, "cores": []},
        {"do": "time", "batch": 1, "samples": 1, "scope": "device"},
    )

    assert answers[1]["settings"] == {"cuda_graph": False}
    assert (answers[2]["clock"], answers[2]["settings"], answers[2]["notes"]) == (
        "cuda-events",
        {"cuda_graph": False},
        ["no CUDA graph"],
    )
    assert answers[3]["device_memory_bytes"] == 7
    assert answers[3]["host_memory_bytes"] > 1e6


@pytest.mark.usefixtures("workers_here")
def test_what_is_known_when_someone_interrupts_is_kept(fake_engine: Make, images: Images, tmp_path: Path) -> None:
    found: list[Measured] = []

    def interrupt(stage: str, _: str, share: float) -> None:
        if stage == "time" and share > 0.5:
            raise KeyboardInterrupt

    config = _CONFIG.model_copy(update={"processes": 2, "batch_sizes": (1,)})
    with pytest.raises(KeyboardInterrupt):
        measure_engines(
            [fake_engine("a")], Bench(images=images, config=config, folder=tmp_path, progress=interrupt), found=found
        )

    assert found[0].accuracy is not None
    assert found[0].timed is not None
    assert set(found[0].timed.processes) == {0}


def test_noise_stands_in_for_images_that_are_only_timed(fake_engine: Make) -> None:
    preparing = {"backend": place_of("fake"), "engine": str(fake_engine("good").path), "images": None}
    answers = _answers(
        {"do": "prepare", **preparing}, _OPEN, {"do": "warm_up", "batch": 100, "warm_up_ms": 0, "cores": []}
    )
    assert answers[2]["n"] == 3


@pytest.mark.usefixtures("workers_here")
@pytest.mark.parametrize("command", ["load", "parts"])
def test_a_worker_that_fails_after_it_was_timed_is_an_error_of_its_row(
    command: str,
    *,
    fake_engine: Make,
    images: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from short_cuts import WorkerHere

    honest = WorkerHere.ask

    def failing(worker: WorkerHere, do: str, **arguments: Any) -> dict[str, Any]:
        if do == command and worker.name == "bad":
            raise SidecarError("engine bad", got=f"a failure of {command}")
        return honest(worker, do, **arguments)

    monkeypatch.setattr(WorkerHere, "ask", failing)
    load = LoadConfig(duration=0.01)
    config = _CONFIG.model_copy(update={"processes": 1, "batch_sizes": (1,), "load": (load,)})
    engines = [fake_engine("bad"), fake_engine("good")]

    bad, good = measure_engines(engines, Bench(images=images, config=config, folder=tmp_path))

    assert f"a failure of {command}" in str(bad.error)
    assert good.error is None
    assert len(good.loads) == 1


@pytest.mark.usefixtures("workers_here")
def test_an_engine_that_opens_once_but_not_again_fails(
    fake_engine: Make, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtbench.bench import measure

    honest = measure._open
    opened: list[str] = []

    def once(worker: Any, engine: EngineFile, bench: Any) -> dict[str, Any]:
        opened.append(engine.name)
        if len(opened) > 1:
            raise SidecarError("engine a", got="other bytes by now")
        return honest(worker, engine, bench)

    monkeypatch.setattr(measure, "_open", once)
    config = _CONFIG.model_copy(update={"processes": 2, "batch_sizes": (1,)})

    (found,) = measure_engines([fake_engine("a")], Bench(images=images, config=config, folder=tmp_path))

    assert isinstance(found.error, SidecarError)
