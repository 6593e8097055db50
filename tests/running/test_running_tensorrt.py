"""A suite from end to end on TensorRT, simulated in both majors: networks, graphs, engines, workers, rows, report."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from trtbench.environment import Driver, Gpu
from trtbench.make.engines import full_batches
from trtbench.running import build_suite, outlook, run_suite
from trtbench.running.plan import plan_engines
from trtbench.suite import LoadConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from trtbench.rows import Row
    from trtbench.running import Places
    from trtbench.suite import DecisionConfig, Suite

    Make = Callable[..., Suite]

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ON_BOTH = ("fp32", "tf32", "fp16", "int8", "int8+fp16")


def test_the_usual_suite_of_a_gpu_runs_in_every_precision_that_the_major_has(
    suite: Make, places: Places, tensorrt_double: ModuleType
) -> None:
    usual = ON_BOTH if tensorrt_double.__version__.startswith("11") else (*ON_BOTH, "int8-implicit+fp16")

    report, folder = run_suite(suite("engines: [{backend: auto}]"), places, argv=["trtbench"], now=NOW)

    rows = [row for row in report.rows if row.backend == "tensorrt"]
    assert [row.precision for row in rows] == list(usual)
    assert {row.status for row in report.rows} == {"ok"}
    assert all(row.simulated for row in rows)
    assert report.decision.winner is None
    correct = {row.precision: row.accuracy.correct for row in report.rows if row.accuracy and row.backend == "tensorrt"}
    eager = next(row.accuracy.correct for row in report.rows if row.accuracy and row.backend == "eager")
    exact = next(row.accuracy.true_arithmetic_correct for row in rows if row.accuracy and row.precision == "int8")
    assert (correct["fp32"], correct["int8"]) == (eager, exact)
    assert "simulated" in (folder / "report.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("tensorrt_11_double")
def test_tensorrt_11_refuses_its_own_calibrator_in_a_row_and_builds_the_others(suite: Make, places: Places) -> None:
    built = build_suite(suite("engines: [{backend: tensorrt, precisions: [fp32, int8-implicit]}]"), places)

    assert [one.status for one in built] == ["ok", "unsupported", "ok"]
    assert "ask for 'int8'" in built[1].reason


@pytest.mark.usefixtures("tensorrt_10_double")
def test_a_run_with_repeated_builds_ends_with_a_report_of_their_median(
    suite: Make, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untrained(rows: Sequence[Row], _decision: DecisionConfig) -> tuple[str, ...]:  # at chance level nothing wins
        return tuple(row.name for row in rows if row.backend == "tensorrt")

    monkeypatch.setattr("trtbench.running.plan.finalists", untrained)
    wanted = suite("engines: [{backend: tensorrt, precisions: [fp32, tf32], builds: 3}]")

    report, folder = run_suite(wanted, places, argv=[], now=NOW)

    rows = [row for row in report.rows if row.backend == "tensorrt"]
    assert {row.status for row in rows} == {"ok"}
    assert (folder / "report.html").exists()
    assert any(len(row.builds_p50_ms) == 3 for row in rows)


class _Nvml:
    """NVML with three GPUs, of which the last counts its joules, each of them at each question."""

    NVMLError = RuntimeError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self) -> None:
        self.millijoules = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        answers: dict[str, Callable[..., Any]] = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetCount": lambda: 3,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUUID": _uuid,
            "nvmlDeviceGetTotalEnergyConsumption": self._energy,
            "nvmlDeviceGetCurrentClocksEventReasons": lambda handle: 0x04 if handle < 2 else 0,
        }
        return answers.get(name, self._unreadable)

    def _unreadable(self, *_: object) -> None:
        raise self.NVMLError

    def _energy(self, handle: int) -> int:
        if handle != 2:
            self._unreadable()
        self.millijoules += 1000
        return self.millijoules


def _uuid(number: int) -> str:
    return f"GPU-{uuid.UUID(bytes=bytes(range(number, number + 16)))}"


def test_a_suite_runs_whole_with_builds_and_streams_on_the_second_of_two_gpus_beside_a_hidden_one(
    suite: Make, places: Places, tensorrt_double: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tensorrt_double.IS_SIMULATED
    names = ("Simulated GPU", "Simulated GPU 2", "Simulated GPU 3")
    gpus = tuple(Gpu(index=n, uuid=_uuid(n), name=name, compute_capability=(8, 9)) for n, name in enumerate(names))
    driver = Driver(version="580.1", cuda=(13, 0))
    monkeypatch.setattr("trtbench.environment.overview.collect_gpus", lambda _: (driver, gpus))
    monkeypatch.setattr("trtbench.bench.telemetry._nvml", _Nvml)
    monkeypatch.setattr(
        "trtbench.running.plan.finalists", lambda rows, _: [one.name for one in rows if one.role == "candidate"]
    )
    monkeypatch.setattr("trtbench.bench.measure._ENERGY_S", 0.001)
    monkeypatch.setenv("TRTBENCH_DOUBLE_GPUS", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    wanted = suite("engines: [{backend: tensorrt, precisions: [fp32], builds: 3}]\ndevice: cuda:1")
    load = LoadConfig(streams=4, duration=0.02)
    wanted = wanted.model_copy(update={"bench": wanted.bench.model_copy(update={"load": (load,), "baselines": ()})})

    report, folder = run_suite(wanted, places, argv=["trtbench"], now=NOW)

    assert {(row.status, row.device) for row in report.rows} == {("ok", "Simulated GPU 3")}
    assert all(row.loads[0].streams == 4 and row.loads[0].n >= 4 for row in report.rows)
    assert all(row.energy_j for row in report.rows)
    assert all(row.latency is not None and not row.latency.throttled_samples for row in report.rows)
    assert any(len(row.builds_p50_ms) == 3 for row in report.rows)
    assert report.environment["cuda_visible_devices"] == _uuid(2)
    assert (folder / "report.html").exists()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,2"


@pytest.mark.usefixtures("tensorrt_10_double")
def test_an_engine_is_built_once_and_again_where_the_suite_asks_for_another_build(suite: Make, places: Places) -> None:
    wanted = "engines: [{{backend: tensorrt, precisions: [fp32]{more}}}]"
    first = build_suite(suite(wanted.format(more="")), places)[0].sidecar
    again = build_suite(suite(wanted.format(more="")), places)[0].sidecar
    other = build_suite(suite(wanted.format(more=", optimization_level: 1")), places)[0].sidecar

    assert first is not None
    assert again == first
    assert other is not None
    assert (first.options["optimization_level"], other.options["optimization_level"]) == (3, 1)
    assert other.key != first.key


@pytest.mark.usefixtures("tensorrt_rtx_double")
def test_an_engine_of_rtx_is_scored_and_timed_on_a_gpu_that_it_is_for(suite: Make, places: Places) -> None:
    wanted = suite("engines: [{backend: tensorrt-rtx, targets: [sm86, sm89], precisions: [int8]}]")

    report, _ = run_suite(wanted, places, argv=["trtbench"], now=NOW)

    rows = {row.name: row for row in report.rows if row.backend == "tensorrt-rtx"}
    assert {(row.status, row.device, row.simulated) for row in rows.values()} == {("ok", "Simulated GPU", True)}
    first = rows["dense int8 tensorrt-rtx b1"]
    assert first.latency is not None
    assert first.accuracy is not None
    assert first.accuracy.correct == first.accuracy.true_arithmetic_correct
    assert first.settings["cuda_graph"] is True
    assert any("kernels were compiled on this GPU as it was opened" in note for note in first.notes)
    assert len(list(places.engines.rglob("*.kernels"))) == 1


@pytest.mark.usefixtures("tensorrt_double")
def test_fp8_is_a_row_where_the_gpu_has_it_and_refused_elsewhere(
    suite: Make, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = suite("engines: [{backend: tensorrt, precisions: [fp8, fp8+fp16]}]")
    built = build_suite(wanted, places)

    assert [one.status for one in built if one.plan.role == "candidate"] == ["ok", "ok"]
    assert {one.sidecar.achieved for one in built if one.sidecar and one.plan.role == "candidate"} == {
        "fp8 in 8 of 9 convolutions"
    }
    monkeypatch.setenv("TRTBENCH_DOUBLE_SM", "8.6")
    refused = build_suite(wanted, places)[0]
    assert refused.status == "unsupported"
    assert "FP8 tensor cores need SM 8.9, this is SM 8.6" in refused.reason


@pytest.mark.usefixtures("tensorrt_11_double")
def test_one_dynamic_profile_serves_every_batch_size(suite: Make, places: Places) -> None:
    wanted = suite("engines: [{backend: tensorrt, precisions: [fp16], profile: [1, 2, 4]}]", batch_sizes=(1, 2))
    report, _ = run_suite(wanted, places, argv=["trtbench"], now=NOW)

    rows = [row for row in report.rows if row.backend == "tensorrt"]
    assert {row.status for row in rows} == {"ok"}
    assert len({row.engine_sha256 for row in rows}) == 1


@pytest.mark.usefixtures("tensorrt_10_double")
def test_implicit_calibration_is_fed_once_and_its_cache_is_kept_by_what_decides_it(suite: Make, places: Places) -> None:
    implicit = "engines: [{{backend: tensorrt, precisions: [int8-implicit], calibrator: {algorithm}}}]"
    build_suite(suite(implicit.format(algorithm="entropy")), places)
    caches = set(places.calibration_caches.glob("*.cache"))
    build_suite(suite(implicit.format(algorithm="minmax")), places)

    assert len(caches) == 1
    assert len(set(places.calibration_caches.glob("*.cache")) - caches) == 1


@pytest.mark.usefixtures("tensorrt_10_double")
def test_the_plan_names_what_each_precision_still_needs(suite: Make, places: Places) -> None:
    found = {row.name: row.missing for row in outlook(suite("engines: [{backend: tensorrt}]"), places).rows}

    assert found["dense fp16 tensorrt b1"] == ("dense", "graph", "manifest", "half", "engine")  # checked on images
    assert found["dense int8+fp16 tensorrt b1"] == ("dense", "graph", "manifest", "ranges", "qdq", "half", "engine")
    assert found["dense int8-implicit+fp16 tensorrt b1"] == ("dense", "graph", "manifest", "engine")


@pytest.mark.usefixtures("tensorrt_double")
def test_sparse_engines_stand_beside_dense_ones(suite: Make, places: Places) -> None:
    two = suite(
        "engines: [{backend: tensorrt, precisions: [fp16]}, {backend: tensorrt, precisions: [fp16], sparse: true}]"
    )

    names = [plan.name for plan in plan_engines(two) if plan.role == "candidate"]
    assert names == ["dense fp16 tensorrt", "dense fp16+sparse tensorrt"]
    built = {one.plan.name: one for one in build_suite(two, places)}
    plain, sparse = (built[name] for name in names)
    assert sparse.path
    assert plain.sidecar
    assert sparse.sidecar
    assert sparse.path.name == "dense.fp16+sparse.tensorrt.plan"
    assert (sparse.sidecar.precision, sparse.sidecar.sparse, plain.sidecar.sparse) == ("fp16", True, False)
    assert plain.sidecar.key != sparse.sidecar.key


@pytest.mark.usefixtures("tensorrt_10_double")
def test_a_sparse_int8_row_says_so_and_is_told_what_true_arithmetic_gets_right(suite: Make, places: Places) -> None:
    wanted = suite("engines: [{backend: tensorrt, precisions: [int8], sparse: true}]")

    report, _ = run_suite(wanted, places, argv=["trtbench"], now=NOW)

    row = next(row for row in report.rows if row.backend == "tensorrt")
    assert (row.name, row.precision, row.sparse) == ("dense int8+sparse tensorrt b1", "int8", True)
    assert row.accuracy
    assert row.accuracy.true_arithmetic_correct is not None


def test_a_profile_that_leaves_out_a_batch_size_is_refused(suite: Make) -> None:
    with pytest.raises(Exception, match=r"a profile that holds the batch sizes \[1, 2\]"):
        suite("engines: [{backend: tensorrt, profile: [1, 1, 1]}]", batch_sizes=(1, 2))


def test_pytorch_rows_come_in_the_precisions_asked_for(suite: Make, places: Places) -> None:
    wanted = suite("engines: [{backend: onnxruntime-cpu, precisions: [fp32]}]")
    bench = wanted.bench.model_copy(update={"baseline_precisions": ("fp32", "bf16")})

    report, _ = run_suite(wanted.model_copy(update={"bench": bench}), places, argv=["trtbench"], now=NOW)

    eager = {row.precision: row for row in report.rows if row.backend == "eager"}
    assert {precision: row.status for precision, row in eager.items()} == {"fp32": "ok", "bf16": "ok"}


@pytest.mark.parametrize(("images", "wanted", "batch"), [(100, 32, 25), (500, 32, 25), (12, 32, 12), (101, 32, 32)])
def test_calibration_batches_leave_no_image_out_where_they_can(images: int, wanted: int, batch: int) -> None:
    assert full_batches(images, wanted) == batch
