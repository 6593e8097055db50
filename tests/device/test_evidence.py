"""Evidence says what ran on this machine and what did not, with the reason."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from tests.device import evidence as module
from tests.device.evidence import Evidence, collect_evidence, main, usual_name, why_not, write_evidence
from tests.device.hardware_tests import MarkerTests, read_junit, run_tests
from trtbench.environment import Driver, Gpu, collect_environment, gpu_info
from trtbench.errors import ConfigError
from trtbench.running import Places
from trtbench.suite import parse_suite

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.environment import Environment
    from trtbench.running import Event

_NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
_SUITE = """
name: tiny
data: {source: digits, size: 16}
model: {name: resnet20, train: {epochs: 0}}
variants: [{kind: dense, name: dense}]
export: {exporter: torchscript}
engines: [{backend: onnxruntime-cpu, precisions: [fp32]}]
bench: {batch_sizes: [1], duration: 0.01, warm_up: 0, block_ms: 2, processes: 1}
"""
_MARKED = """
import pytest
@pytest.mark.gpu
def test_passes(): pass
@pytest.mark.gpu
def test_fails(): assert False
@pytest.mark.gpu
def test_skips(): pytest.skip("no second GPU")
@pytest.mark.gpu
def test_breaks(nowhere): pass
@pytest.mark.gpu
@pytest.mark.tensorrt
def test_of_tensorrt(): pass
def test_of_none(): assert False
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # what plugins import takes three times as long as these
    tests = tmp_path / "checkout" / "tests"
    tests.mkdir(parents=True)
    (tests / "test_marked.py").write_text(_MARKED)
    (tests.parent / "pytest.ini").write_text("[pytest]\nmarkers =\n  gpu\n  tensorrt\n")
    return tests


def _machine(*, gpus: tuple[Gpu, ...] = ()) -> Environment:
    found = replace(collect_environment(), packages=(), gpus=gpus, cuda_visible_devices=None)
    return replace(found, driver=Driver(version="580.1", cuda=(13, 0)) if gpus else Driver())


_H100 = Gpu(index=0, uuid="GPU-1", name="NVIDIA H100 80GB", compute_capability=(9, 0))


def test_tests_are_counted_by_marker(checkout: Path) -> None:
    gpu, tensorrt = (run_tests(checkout, marker=marker) for marker in ("gpu", "tensorrt"))

    assert (gpu.status, gpu.passed) == ("run", 1)
    assert [name.rpartition("::")[2] for name in gpu.failures] == ["test_fails", "test_breaks"]
    assert gpu.skipped == ("no second GPU",)
    assert tensorrt == MarkerTests(marker="tensorrt", status="run", passed=1)


def test_a_marker_that_no_test_bears_is_said(checkout: Path) -> None:
    (checkout / "test_marked.py").write_text("def test_of_none(): pass\n")

    assert run_tests(checkout, marker="gpu").status == f"not run: no test under {checkout} is marked gpu"


def test_a_pytest_that_does_not_run_is_refused(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = checkout / "python"
    script.write_text("#!/bin/sh\necho No module named pytest\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))

    with pytest.raises(ConfigError, match=r"expected a run of pytest, got No module named pytest; .*--no-tests"):
        run_tests(checkout, marker="gpu")


def test_junit_without_a_reason_or_a_class_is_read() -> None:
    text = (
        '<testsuites><testsuite><testcase name="a"><skipped/></testcase><testcase name="b"/></testsuite></testsuites>'
    )

    assert read_junit(text, marker="gpu") == MarkerTests(marker="gpu", status="run", passed=1, skipped=("",))


def test_what_a_machine_lacks_is_said_for_each() -> None:
    found = why_not(_machine())

    assert found["gpu"] == "not run: no CUDA device"
    assert found["tensorrt"].startswith("not run: no CUDA device; ")


def test_a_machine_with_a_gpu_runs_cuda() -> None:
    found = why_not(_machine(gpus=(_H100,)))

    assert found["gpu"] == ""
    assert found["tensorrt"].startswith("not run: ")


def test_evidence_is_named_by_day_suite_and_gpu() -> None:
    assert usual_name(_machine(), suite="tiny", now=_NOW) == "20261121-tiny-cpu"
    assert usual_name(_machine(gpus=(_H100,)), suite="tiny", now=_NOW) == "20261121-tiny-nvidia-h100-80gb"


@pytest.mark.slow
def test_without_a_gpu_the_rows_are_there_and_the_rest_is_said_not_to_have_run(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made, places = parse_suite(_SUITE, origin="tiny.yaml"), Places(runs=tmp_path / "runs", engines=tmp_path / "engines")
    monkeypatch.setattr(module, "collect_environment", _machine)
    found = collect_evidence(made, places, argv=["evidence"], now=_NOW, tests=checkout)
    path = write_evidence(found, tmp_path / "evidence")

    read = json.loads(path.read_bytes())
    assert path.name == "20261121-tiny-cpu.json"
    assert read["cuda"] == "not run: no CUDA device"
    assert [one["status"] for one in read["tests"]] == [read["cuda"], read["tensorrt"]]
    assert {row["status"] for row in read["rows"]} == {"ok"}
    assert {row["backend"] for row in read["rows"]} == {"onnxruntime-cpu", "eager"}
    assert read["suite"]["name"] == "tiny"
    assert read["machine"]["host"]["cpu"]["model"]
    assert read["answer"]
    assert read["schema_version"] == 1


def test_with_a_gpu_the_tests_of_a_checkout_run_and_tell(checkout: Path) -> None:
    told: list[Event] = []

    found = module._tests(checkout, "gpu", "", told.append)

    assert (found.status, found.passed, len(found.failures)) == ("run", 1, 2)
    assert [(event.item, event.state, event.detail) for event in told] == [
        ("gpu", "started", ""),
        ("gpu", "failed", "1 passed, 2 failed, 1 skipped"),
    ]


@pytest.mark.parametrize("tests", [None, "nowhere"])
def test_without_a_checkout_no_test_runs(tmp_path: Path, tests: str | None) -> None:
    folder = None if tests is None else tmp_path / tests

    found = module._tests(folder, "gpu", "", lambda _: None)

    assert found == MarkerTests(marker="gpu", status="not run: no checkout with tests at hand")


def _evidence(*tests: MarkerTests) -> Evidence:
    return Evidence(
        name="mine",
        created="2026-11-21T12:00:00+00:00",
        trtbench="0.1.0",
        git={},
        cuda="run",
        tensorrt="not run: no TensorRT",
        machine=gpu_info(_machine(gpus=(_H100,))),
        tests=tests,
        suite={"name": "tiny"},
        rows=(),
        answer="No row qualifies.",
    )


def _command(monkeypatch: pytest.MonkeyPatch, folder: Path, found: Evidence, *options: str) -> int:
    """Run the command on evidence that is there already, and return its exit code."""
    asked: dict[str, object] = {}

    def collected(*_: object, **named: object) -> Evidence:
        asked.update(named)
        return found

    monkeypatch.setattr(module, "collect_evidence", collected)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["evidence", "--to", "kept", "--quiet", *options])
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert (asked["tests"] is None) == ("--no-tests" in options)
    return code


def test_the_command_writes_the_file_and_says_what_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = MarkerTests(marker="gpu", status="run", passed=3, skipped=("no second GPU",))
    not_run = MarkerTests(marker="tensorrt", status="not run: no TensorRT")

    assert _command(monkeypatch, tmp_path, _evidence(ran, not_run)) == 0

    assert capsys.readouterr().out.splitlines() == [
        "cuda: run",
        "tensorrt: not run: no TensorRT",
        "tests marked gpu: 3 passed, 0 failed, 1 skipped",
        "tests marked tensorrt: not run: no TensorRT",
        "suite tiny: 0 of 0 rows measured. No row qualifies.",
        "Evidence: kept/mine.json",
    ]
    assert json.loads((tmp_path / "kept" / "mine.json").read_bytes())["tests"][0]["passed"] == 3


def test_a_failed_test_is_named_and_ends_the_command_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = MarkerTests(marker="gpu", status="run", failures=("tests.gpu::test_graph",))

    assert _command(monkeypatch, tmp_path, _evidence(failed)) == 3
    assert "  failed: tests.gpu::test_graph" in capsys.readouterr().out


def test_without_tests_none_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _command(monkeypatch, tmp_path, _evidence(), "--no-tests") == 0
