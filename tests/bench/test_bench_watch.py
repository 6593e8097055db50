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
        self.name = f"gpu {number}"

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


@pytest.mark.parametrize(("device", "joules"), [("cpu", None), ("cuda:1", 42.0), ("cuda:0", None), ("NVIDIA T4", None)])
def test_energy_is_told_of_the_gpu_a_row_ran_on(device: str, joules: float | None) -> None:
    assert Watch([_Cpu(), _Gpu(1)]).energy_j(device) == joules


def test_a_gpu_without_a_number_is_the_first() -> None:
    assert Watch([_Gpu(0)]).energy_j("NVIDIA T4") == 42.0


def test_this_machine_can_be_watched() -> None:
    with Watch() as watch:
        time.sleep(0.4)
    assert watch.summary()["cpu"]["readings"] >= 1
