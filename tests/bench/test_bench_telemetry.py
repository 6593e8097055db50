"""The machine is read while it is measured, and samples taken while it held back are counted."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trtbench.bench import telemetry
from trtbench.bench.interleave import Timing
from trtbench.bench.telemetry import (
    CpuReader,
    GpuReader,
    Reading,
    Watch,
    readers_here,
    summary,
    throttled_samples,
)

if TYPE_CHECKING:
    from pathlib import Path


def _stat(root: Path, *, idle: int, steal: int) -> None:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/stat").write_text(f"cpu  100 0 100 {idle} 0 0 0 {steal} 0 0\ncpu0 1 2 3\n")


def test_steal_time_is_the_share_since_the_last_look(tmp_path: Path) -> None:
    _stat(tmp_path, idle=1000, steal=0)
    (tmp_path / "proc/loadavg").write_text("1.50 1.00 0.50 2/345 999\n")
    reader = CpuReader(root=tmp_path, clock=lambda: 7)
    _stat(tmp_path, idle=1080, steal=20)

    first, second = reader.read(), reader.read()

    assert (first.steal, first.throttled) == (0.2, ("steal time",))
    assert (second.steal, second.throttled) == (None, ())  # no time passed
    assert (first.load, first.threads, first.at_ns, first.device) == (1.5, 345, 7, "cpu")


def test_the_clock_is_the_fastest_core_s(tmp_path: Path) -> None:
    _stat(tmp_path, idle=1, steal=0)
    (tmp_path / "proc/cpuinfo").write_text("model name: x\ncpu MHz\t\t: 2100.5\ncpu MHz : 2500.0\n")
    assert CpuReader(root=tmp_path).read().clock_mhz == 2500.0
    for core, khz in (("cpu0", "3000000"), ("cpu1", "3100000")):
        folder = tmp_path / f"sys/devices/system/cpu/{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(khz)
    assert CpuReader(root=tmp_path).read().clock_mhz == 3100.0


def test_where_the_system_tells_nothing_nothing_is_told(tmp_path: Path) -> None:
    found = CpuReader(root=tmp_path).read()
    assert (found.clock_mhz, found.load, found.steal, found.threads, found.throttled) == (None, None, None, None, ())


def test_this_machine_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_PERIOD_S", 0.02)
    with Watch(readers_here(None), gpu="") as watch:
        time.sleep(0.2)
    assert len(watch.readings) > 2
    assert watch.readings[-1].load is not None


class _NvmlError(Exception):
    pass


@dataclass
class _Process:
    pid: int


@dataclass
class _Nvml:
    """NVML with one GPU, as far as a reader asks it."""

    reasons: int | None = 0
    is_absent: bool = False
    processes: list[int] = field(default_factory=lambda: [10])
    NVMLError: type[Exception] = _NvmlError
    NVML_CLOCK_SM: int = 1
    NVML_CLOCK_MEM: int = 2
    NVML_TEMPERATURE_GPU: int = 0

    def nvmlInit(self) -> None:  # noqa: N802  NVML's name, as below
        if self.is_absent:
            raise _NvmlError

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"handle {index}"

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return f"GPU of {handle}"

    def nvmlDeviceGetClockInfo(self, _: str, kind: int) -> int:  # noqa: N802
        return {1: 1980, 2: 2619}[kind]

    def nvmlDeviceGetPowerUsage(self, _: str) -> int:  # noqa: N802
        return 123_456

    def nvmlDeviceGetTemperature(self, _: str, __: int) -> int:  # noqa: N802
        raise _NvmlError

    def nvmlDeviceGetCurrentClocksEventReasons(self, _: str) -> int:  # noqa: N802
        if self.reasons is None:
            raise _NvmlError
        return self.reasons

    def nvmlDeviceGetComputeRunningProcesses(self, _: str) -> list[_Process]:  # noqa: N802
        return [_Process(pid) for pid in self.processes]

    def nvmlDeviceGetTotalEnergyConsumption(self, _: str) -> int:  # noqa: N802
        return 5_000


def test_a_gpu_is_read_and_what_it_refuses_is_none() -> None:
    nvml = _Nvml(reasons=0x01 | 0x04 | 0x40)  # idle is no throttling
    reader = GpuReader(nvml, 0, clock=lambda: 9)
    nvml.processes.append(11)  # ours, started after the reader

    found = reader.read()

    assert (found.clock_mhz, found.memory_clock_mhz, found.power_w) == (1980, 2619, 123.456)
    assert found.temperature_c is None
    assert found.throttled == ("power cap", "hardware thermal slowdown")
    assert found.other_processes == 1
    assert reader.energy_j() == 5.0
    assert (found.device, found.at_ns) == ("gpu 0", 9)
    assert reader.uuid == "GPU of handle 0"


def test_what_cannot_be_read_of_throttling_is_unknown_and_not_none_of_it() -> None:
    clock = iter((100, 200)).__next__
    reader = GpuReader(_Nvml(reasons=None), 0, clock=clock)
    readings = [reader.read(), reader.read()]

    assert [one.throttled for one in readings] == [None, None]
    assert throttled_samples(_timed((110, 190)), readings, device="gpu 0") is None
    assert "throttled" not in summary(readings)["gpu 0"]
    slow = replace(readings[1], clock_mhz=1000.0)
    assert throttled_samples(_timed((110, 190)), [readings[0], slow], device="gpu 0") == 3  # its clock tells


def test_there_is_a_reader_for_each_gpu_that_answers() -> None:
    assert len(readers_here(_Nvml())) == 2
    assert len(readers_here(_Nvml(is_absent=True))) == 1


def test_real_nvml_has_every_name_the_reader_asks_for() -> None:
    import pynvml

    names = [name for name in vars(_Nvml) if name.startswith(("nvml", "NVML"))]
    assert [name for name in names if not hasattr(pynvml, name)] == []
    assert pynvml.nvmlClocksEventReasonSwPowerCap == 0x04
    assert pynvml.nvmlClocksEventReasonHwSlowdown == 0x08
    assert pynvml.nvmlClocksEventReasonSwThermalSlowdown == 0x20
    assert pynvml.nvmlClocksEventReasonHwThermalSlowdown == 0x40
    assert pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown == 0x80


def _timed(*spans: tuple[int, int]) -> Timing:
    blocks = tuple(np.ones(3, dtype=np.int64) for _ in spans)
    return Timing(blocks=blocks, processes=(0,) * len(spans), spans=spans)


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 0),
        ({"throttled": ("power cap",)}, 3),
        ({"clock_mhz": 1400.0}, 3),  # 70 % of the fastest
        ({"clock_mhz": 1600.0}, 0),
    ],
)
def test_the_samples_of_blocks_that_ran_while_the_device_held_back_are_counted(
    changes: dict[str, Any], count: int
) -> None:
    plain: dict[str, Any] = {"device": "gpu 0", "clock_mhz": 2000.0}
    readings = [
        Reading(at_ns=100, **plain),
        Reading(at_ns=200, **{**plain, **changes}),
        Reading(at_ns=300, **plain),
        Reading(at_ns=150, device="cpu", throttled=("steal time",)),
    ]

    assert throttled_samples(_timed((10, 90), (110, 190), (210, 290)), readings, device="gpu 0") == count


def test_a_watch_is_entered_again_for_the_finals_and_keeps_what_it_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_PERIOD_S", 0.001)
    watch = Watch([_Still()], gpu="")
    counts = []
    for _ in range(2):
        with watch:
            time.sleep(0.05)
        counts.append(len(watch.readings))

    assert 0 < counts[0] < counts[1]


class _Still:
    def read(self) -> Reading:
        return Reading(at_ns=0, device="cpu")


def test_without_readings_nobody_knows() -> None:
    assert throttled_samples(_timed((1, 2)), [], device="cpu") is None


def test_a_summary_tells_least_median_and_most_of_each_figure() -> None:
    readings = [Reading(device="cpu", at_ns=0, load=float(load), throttled=("steal time",)) for load in (3, 1, 2)]

    assert summary(readings) == {
        "cpu": {"readings": 3, "throttled": {"steal time": 3}, "load": {"min": 1.0, "median": 2.0, "max": 3.0}}
    }
