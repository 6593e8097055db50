"""The same engine by `trtexec` and by us: its output is read as it really looks, and what it lacks is said."""

from __future__ import annotations

import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from trtbench.bench.trtexec import (
    CrossCheck,
    Figures,
    Flags,
    crosscheck,
    find_trtexec,
    measure,
    measure_alone,
    parse_trtexec,
    run_trtexec,
    trtexec_command,
)
from trtbench.engines.fake import FakeSession
from trtbench.errors import CapabilityError, EngineError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from trtbench.engines.sidecar import Sidecar

# In the form that trtexec.cpp and sampleReporting.cpp of NVIDIA/TensorRT print it.
OUTPUT = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v101601] [b11] # trtexec --loadEngine=dense.plan --percentile=99
[11/22/2026-10:00:00] [I] === Model Options ===
[11/22/2026-10:00:00] [I] Format: *
[11/22/2026-10:00:00] [I] === Reporting Options ===
[11/22/2026-10:00:00] [I] Throughput: disabled
[11/22/2026-10:00:01] [W] * GPU compute time is unstable, with coefficient of variance = 3.1%.
[11/22/2026-10:00:04] [I] Warmup completed 2710 queries over 200 ms
[11/22/2026-10:00:04] [I] Timing trace has 8123 queries over 3.0007 s
[11/22/2026-10:00:04] [I]
[11/22/2026-10:00:04] [I] === Trace details ===
[11/22/2026-10:00:04] [I] Trace averages of 10 runs:
[11/22/2026-10:00:04] [I] Average on 10 runs - GPU latency: 0.352 ms - Host latency: 0.352 ms (enqueue 0.004 ms)
[11/22/2026-10:00:04] [I]
[11/22/2026-10:00:04] [I] === Performance summary ===
[11/22/2026-10:00:04] [I] Throughput: 2699.06 qps
[11/22/2026-10:00:04] [I] Latency: min = 0.4 ms, max = 0.6 ms, mean = 0.5 ms, median = 0.5 ms, percentile(99%) = 0.55 ms
[11/22/2026-10:00:04] [I] Enqueue Time: min = 0.0114746 ms, max = 0.0491943 ms, mean = 0.0136421 ms, \
median = 0.0130615 ms, percentile(99%) = 0.0249023 ms
[11/22/2026-10:00:04] [I] H2D Latency: min = 0 ms, max = 0 ms, mean = 0 ms, median = 0 ms, percentile(99%) = 0 ms
[11/22/2026-10:00:04] [I] GPU Compute Time: min = 0.339966 ms, max = 0.48999 ms, mean = 0.350241 ms, \
median = 0.348389 ms, percentile(99%) = 0.385986 ms
[11/22/2026-10:00:04] [I] D2H Latency: min = 0 ms, max = 0 ms, mean = 0 ms, median = 0 ms, percentile(99%) = 0 ms
[11/22/2026-10:00:04] [I] Total Host Walltime: 3.0007 s
[11/22/2026-10:00:04] [I] Total GPU Compute Time: 2.845 s
[11/22/2026-10:00:04] [I] Explanations of the performance metrics are printed in the verbose logs.
&&&& PASSED TensorRT.trtexec [TensorRT v101601] [b11] # trtexec --loadEngine=dense.plan --percentile=99
"""
_FACTS: dict[str, Any] = {
    "profiles": [{"input": [[size, 3, 8, 8]] * 3} for size in (1, 8)],
    "tensors": [
        {"name": "input", "mode": "INPUT", "shape": [-1, 3, 8, 8], "dtype": "FLOAT"},
        {"name": "logits", "mode": "OUTPUT", "shape": [-1, 4], "dtype": "FLOAT"},
    ],
}


def _script(path: Path, text: str, *, code: int = 0) -> str:
    path.write_text(f"#!/bin/sh\ncat <<'EOF'\n{text}\nEOF\nexit {code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_the_summary_is_read_and_nothing_that_looks_like_it() -> None:
    assert parse_trtexec(OUTPUT) == Figures(median_ms=0.348389, p99_ms=0.385986, batches_per_s=2699.06)


@pytest.mark.parametrize(
    "lost", ["=== Performance summary ===", "GPU Compute Time: min", "2699.06 qps", "percentile(99%) = 0.385986 ms"]
)
def test_a_summary_that_lacks_a_figure_is_refused(lost: str) -> None:
    with pytest.raises(EngineError, match="performance summary with throughput"):
        parse_trtexec(OUTPUT.replace(lost, ""))


def test_an_empty_output_is_refused() -> None:
    with pytest.raises(EngineError, match="got nothing"):
        parse_trtexec("")


def test_what_trtexec_prints_is_returned(tmp_path: Path) -> None:
    command = [_script(tmp_path / "trtexec", OUTPUT), "--loadEngine=x"]

    assert parse_trtexec(run_trtexec(command, timeout_s=60)).median_ms == 0.348389


def test_a_failure_of_trtexec_is_told_in_its_own_words(tmp_path: Path) -> None:
    text = "[11/22/2026-10:00:00] [E] Error[6]: The engine plan file is not compatible with this version of TensorRT"
    failing = _script(tmp_path / "trtexec", text, code=1)
    silent = _script(tmp_path / "silent", "", code=3)

    with pytest.raises(EngineError, match=r"not compatible with this version"):
        run_trtexec([failing], timeout_s=60)
    with pytest.raises(EngineError, match=r"exit code 3"):
        run_trtexec([silent], timeout_s=60)


def test_a_trtexec_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "trtexec"
    path.write_text("#!/bin/sh\nexec sleep 60\n")
    path.chmod(0o755)

    with pytest.raises(EngineError, match="timed out"):
        run_trtexec([str(path)], timeout_s=0.2)


def test_without_trtexec_the_cure_is_named() -> None:
    with pytest.raises(CapabilityError, match=r"not with the wheels.*PATH"):
        find_trtexec("trtexec-that-is-not-here")


def test_a_trtexec_on_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _script(tmp_path / "trtexec", OUTPUT)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_trtexec("trtexec") == made


def test_both_sides_are_told_the_same(tmp_path: Path, sidecar: Callable[..., Sidecar]) -> None:
    flags = Flags(batch=8, warm_up_ms=50, duration_s=1.5)
    ten, eleven = (sidecar(facts=_FACTS, backend_version=one) for one in ("10.16.1.11", "11.1.0.106"))

    command = trtexec_command("trtexec", tmp_path / "e.plan", ten, flags)
    plain = trtexec_command("trtexec", tmp_path / "e.plan", ten, replace(flags, cuda_graph=False, spin=False))
    of_11 = trtexec_command("trtexec", tmp_path / "e.plan", eleven, flags)
    plain_11 = trtexec_command("trtexec", tmp_path / "e.plan", eleven, replace(flags, cuda_graph=False, spin=False))

    assert of_11 == command[:-3]
    assert plain_11 == [*of_11, "--noCudaGraph", "--noSpinWait"]
    assert command[1:] == [
        f"--loadEngine={tmp_path / 'e.plan'}",
        "--useProfile=1",
        "--shapes=input:8x3x8x8",
        "--warmUp=50",
        "--duration=1.5",
        "--iterations=30",
        "--percentile=99",
        "--noDataTransfers",
        "--useCudaGraph",
        "--useSpinWait",
    ]
    assert plain == command[:-2]


def test_a_dynamic_profile_is_found_by_its_range_and_the_nearest_one_is_taken(
    tmp_path: Path, sidecar: Callable[..., Sidecar]
) -> None:
    profiles = [{"input": [[size, 3, 8, 8] for size in sizes]} for sizes in ((1, 8, 32), (1, 16, 32))]
    made = sidecar(facts={**_FACTS, "profiles": profiles})

    for batch, index in ((4, 0), (12, 0), (13, 1), (32, 1)):
        command = trtexec_command("trtexec", tmp_path / "e.plan", made, Flags(batch=batch))
        assert f"--useProfile={index}" in command
        assert f"--shapes=input:{batch}x3x8x8" in command


def test_a_fixed_engine_gets_neither_profile_nor_shapes(tmp_path: Path, sidecar: Callable[..., Sidecar]) -> None:
    tensors = [{"name": "input", "mode": "INPUT", "shape": [1, 3, 8, 8], "dtype": "FLOAT"}]
    made = sidecar(facts={"profiles": _FACTS["profiles"][:1], "tensors": tensors})

    command = trtexec_command("trtexec", tmp_path / "e.plan", made, Flags())

    assert not [part for part in command if part.startswith(("--shapes", "--useProfile"))]


def test_a_batch_size_that_the_engine_has_not_is_refused_with_those_it_has(
    tmp_path: Path, sidecar: Callable[..., Sidecar]
) -> None:
    dynamic = {"profiles": [{"input": [[2, 3, 8, 8], [4, 3, 8, 8], [8, 3, 8, 8]]}]}

    with pytest.raises(UnsupportedError, match="expected one of the engine's: 1, 8"):
        trtexec_command("trtexec", tmp_path / "e.plan", sidecar(facts=_FACTS), Flags(batch=2))
    with pytest.raises(UnsupportedError, match="expected one of the engine's: 2 to 8"):
        trtexec_command("trtexec", tmp_path / "e.plan", sidecar(facts=dynamic), Flags(batch=1))
    with pytest.raises(UnsupportedError, match="expected one of the engine's: none"):
        trtexec_command("trtexec", tmp_path / "e.plan", sidecar(), Flags(batch=1))


def test_our_side_has_a_median_of_single_launches_and_a_throughput_of_many() -> None:
    script = {"ns_per_image": 100_000, "jitter": 0.0, "seed": 0, "classes": 4}
    session = FakeSession(script, shape=(2, 3, 8, 8))

    figures = measure(session, Flags(batch=2, warm_up_ms=1, duration_s=0.02))

    assert figures.median_ms == 0.2
    assert figures.p99_ms == 0.2
    assert figures.batches_per_s == pytest.approx(5000)
    assert figures.samples == 100
    assert measure_alone(session, Flags(batch=2, warm_up_ms=1, duration_s=0.02)) == 0.2


def test_few_samples_are_taken_at_least_of_a_slow_engine() -> None:
    script = {"ns_per_image": 10**9, "jitter": 0.0, "seed": 0, "classes": 4}

    assert measure(FakeSession(script, shape=(1, 3, 8, 8)), Flags(warm_up_ms=0, duration_s=0.1)).samples == 30


@pytest.mark.parametrize(
    ("ours", "difference", "is_close"), [(1.04, 0.04, True), (1.06, 0.06, False), (0.9, -0.1, False)]
)
def test_five_percent_is_the_limit_either_way(ours: float, difference: float, is_close: bool) -> None:  # noqa: FBT001  a case
    theirs = Figures(median_ms=1.0, p99_ms=1.0, batches_per_s=1000.0)
    found = CrossCheck(
        ours=replace(theirs, median_ms=ours), theirs=theirs, flags=Flags(), settings={}, command="trtexec"
    )

    assert found.difference == pytest.approx(difference)
    assert found.is_close == is_close
    assert found.alone_difference is None


def test_what_a_report_shows_is_held_to_trtexec_too() -> None:
    same = Figures(median_ms=1.0, p99_ms=1.0, batches_per_s=1000.0, alone_ms=1.0)
    found = CrossCheck(ours=replace(same, alone_ms=1.06), theirs=same, flags=Flags(), settings={}, command="trtexec")

    assert found.difference == 0
    assert found.alone_difference == pytest.approx(0.06)
    assert not found.is_close


def test_an_engine_of_another_runtime_is_refused(tmp_path: Path, sidecar: Callable[..., Sidecar]) -> None:
    with pytest.raises(UnsupportedError, match="crosscheck of a onnxruntime-cpu engine"):
        crosscheck(tmp_path / "e.onnx", sidecar(), Flags())
