"""The machine is watched during a run: rows tell what was throttled, and each reading is kept."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trtbench.bench.interleave import Timing
from trtbench.bench.telemetry import GpuReader, Reading, Watch
from trtbench.environment import Environment, Gpu
from trtbench.environment.host import collect_host

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class _Cpu:
    """A processor that is always throttled."""

    def read(self) -> Reading:
        return Reading(device="cpu", at_ns=time.monotonic_ns(), load=1.0, throttled=("steal time",))


class _Gpu(GpuReader):
    """A GPU that took 42 joules."""

    def __init__(self, number: int) -> None:
        self.name, self.uuid = f"gpu {number}", f"GPU-{number}"

    def read(self) -> Reading:
        return Reading(device=self.name, at_ns=time.monotonic_ns(), power_w=100.0)

    def energy_j(self) -> float | None:
        return 42.0


def test_what_was_read_is_summed_up_counted_and_kept(tmp_path: Path) -> None:
    since = time.monotonic_ns()
    watch = Watch([_Cpu()])
    with watch:
        time.sleep(0.7)
    timed = Timing(blocks=(np.ones(3, dtype=np.int64),), processes=(0,), spans=((since, time.monotonic_ns()),))

    watch.write(tmp_path)

    assert watch.summary()["cpu"]["throttled"] == {"steal time": watch.summary()["cpu"]["readings"]}
    assert watch.throttled(timed, "cpu") == 3
    assert watch.throttled(timed, "cuda:0") is None
    kept = json.loads((tmp_path / "raw" / "telemetry.json").read_text())
    assert {reading["device"] for reading in kept} == {"cpu"}


def test_what_ends_before_the_first_period_was_watched_too() -> None:
    watch = Watch([_Cpu()], gpu="")
    for entered in (1, 2):
        with watch:
            pass
        assert watch.summary()["cpu"]["readings"] == entered


@pytest.mark.parametrize(
    ("device", "in_use", "joules"),
    [("cpu", "GPU-1", None), ("NVIDIA T4", "GPU-1", 42.0), ("cuda:0", "GPU-1", 42.0), ("NVIDIA T4", "GPU-0", None)],
)
def test_energy_is_told_of_the_gpu_that_rows_run_on(device: str, in_use: str, joules: float | None) -> None:
    assert Watch([_Cpu(), _Gpu(1)], gpu=in_use).energy_j(device) == joules


def test_the_gpu_that_rows_run_on_is_the_first_that_cuda_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (Gpu(index=n, uuid=f"GPU-{n}", name="T4", compute_capability=(7, 5)) for n in (0, 1))
    found = Environment(host=collect_host(), gpus=(one, other), cuda_visible_devices="1")
    monkeypatch.setattr("trtbench.bench.telemetry.collect_environment", lambda: found)
    timed = Timing(blocks=(np.ones(3, dtype=np.int64),), processes=(0,), spans=((0, time.monotonic_ns()),))
    with Watch([_Gpu(0), _Gpu(1)]) as watch:
        time.sleep(0.3)

    assert watch.energy_j("T4") == 42.0
    assert watch.throttled(timed, "T4") == 0
    assert Watch([_Gpu(0)]).energy_j("T4") is None  # NVML's first is another GPU


def test_this_machine_can_be_watched() -> None:
    with Watch() as watch:
        time.sleep(0.4)
    assert watch.summary()["cpu"]["readings"] >= 1
