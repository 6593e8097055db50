"""What the machine did while it was measured: read now and then in a thread, never changed.

A reader is asked for one `Reading`; there is one for the CPU (/proc and /sys) and one for each GPU (NVML). Samples
taken while the machine was throttled stay, and are counted.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from trtbench.disk import write_atomically
from trtbench.environment import collect_environment
from trtbench.environment.overview import nvml_here as _nvml

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trtbench.bench.interleave import Timing

_PERIOD_S = 0.25
_STEAL = 0.05  # share of the time that a hypervisor took away, from which on samples are flagged
_SLOW_CLOCK = 0.75  # share of the fastest clock seen, below which samples are flagged (NVBench --throttle-threshold)
# Bits of nvmlDeviceGetCurrentClocksEventReasons that mean less speed than asked for (nvml.h, nvmlClocksEventReason*).
_THROTTLING = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look at one device, at `at_ns` of the monotonic clock; None for what it does not tell.

    `steal` is the share of the time since the last look that a hypervisor gave to others. `throttled` are the reasons
    for which the device held back, None where it does not tell. `other_processes` are those on a GPU beside ours.
    """

    device: str
    at_ns: int
    clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    load: float | None = None
    steal: float | None = None
    threads: int | None = None
    other_processes: int | None = None
    throttled: tuple[str, ...] | None = ()


_FIGURES = tuple(one.name for one in fields(Reading) if one.name not in {"device", "at_ns", "throttled"})


class Reader(Protocol):
    """Looks at one device."""

    def read(self) -> Reading:
        """Return what it does now."""
        ...


class CpuReader:
    """Reads clocks, load, steal time and threads as Linux tells them; elsewhere little is told.

    Args:
        root: the folder that stands for "/".
        clock: the monotonic clock in nanoseconds.
    """

    def __init__(self, *, root: Path = Path("/"), clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._root = root
        self._clock = clock
        self._ticks = self._cpu_ticks()

    def read(self) -> Reading:
        """Return what the processor does now."""
        before, self._ticks = self._ticks, self._cpu_ticks()
        steal = _steal_share(before, self._ticks)
        load, threads = self._load()
        return Reading(
            device="cpu",
            at_ns=self._clock(),
            clock_mhz=self._clock_mhz(),
            load=load,
            steal=steal,
            threads=threads,
            throttled=("steal time",) if steal is not None and steal > _STEAL else (),
        )

    def _cpu_ticks(self) -> tuple[int, ...]:
        """Return the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal (proc(5))."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            line = (self._root / "proc/stat").read_text(encoding="ascii").splitlines()[0]
            return tuple(int(part) for part in line.split()[1:9])
        return ()

    def _load(self) -> tuple[float | None, int | None]:
        with contextlib.suppress(OSError, ValueError, IndexError):
            parts = (self._root / "proc/loadavg").read_text(encoding="ascii").split()
            return float(parts[0]), int(parts[3].partition("/")[2])
        return None, None

    def _clock_mhz(self) -> float | None:
        """Return the fastest core's clock, as cpufreq tells it, else /proc/cpuinfo."""
        pattern = "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"
        found = []
        for path in self._root.glob(pattern):
            with contextlib.suppress(OSError, ValueError):
                found.append(int(path.read_text(encoding="ascii")) / 1000)
        if not found:
            with contextlib.suppress(OSError, ValueError):
                lines = (self._root / "proc/cpuinfo").read_text(encoding="utf-8").splitlines()
                found = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
        return max(found, default=None)


class GpuReader:
    """Reads one GPU through NVML.

    Args:
        nvml: the module `pynvml`, initialised.
        index: of the GPU in NVML's order.
        clock: the monotonic clock in nanoseconds.
    """

    def __init__(self, nvml: Any, index: int, *, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)
        self.name = f"gpu {index}"
        self.uuid = str(nvml.nvmlDeviceGetUUID(self._handle))
        self._clock = clock
        self._strangers = self._processes()

    def read(self) -> Reading:
        """Return what the GPU does now."""
        nvml = self._nvml
        power_mw = self._ask(nvml.nvmlDeviceGetPowerUsage)
        reasons = self._ask(nvml.nvmlDeviceGetCurrentClocksEventReasons)
        return Reading(
            device=self.name,
            at_ns=self._clock(),
            clock_mhz=self._ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            memory_clock_mhz=self._ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
            power_w=None if power_mw is None else power_mw / 1000,
            temperature_c=self._ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
            other_processes=None if self._strangers is None else len(self._strangers & (self._processes() or set())),
            throttled=None if reasons is None else tuple(words for bit, words in _THROTTLING.items() if reasons & bit),
        )

    def energy_j(self) -> float | None:
        """Return the joules the board took since the driver was loaded; Volta and later tell."""
        found = self._ask(self._nvml.nvmlDeviceGetTotalEnergyConsumption)
        return None if found is None else found / 1000

    def _processes(self) -> set[int] | None:
        """Return who computes on the GPU; those who did before the run are others than ours."""
        found = self._ask(self._nvml.nvmlDeviceGetComputeRunningProcesses)
        return None if found is None else {process.pid for process in found}

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any | None:
        """Return NVML's answer, or None for what this GPU, driver or user cannot read."""
        try:
            return function(self._handle, *arguments)
        except self._nvml.NVMLError:
            return None


def readers_here(nvml: Any | None) -> list[Reader]:
    """Return a reader for the CPU and for each GPU that answers; `nvml` is None where there is none."""
    found: list[Reader] = [CpuReader()]
    if nvml is None:
        return found
    try:
        nvml.nvmlInit()
        for index in range(nvml.nvmlDeviceGetCount()):
            with contextlib.suppress(nvml.NVMLError):
                found.append(GpuReader(nvml, index))
    except nvml.NVMLError:  # no driver here, or one that does not answer
        return found
    return found


def throttled_samples(timed: Timing, readings: Sequence[Reading], *, device: str) -> int | None:
    """Count the samples of a row in blocks during which its device was throttled; None where nobody could tell.

    A reading speaks for the time since the one before it. Beside the reasons a device gives, a clock below 75 % of the
    fastest one seen counts.
    """
    own = [one for one in readings if one.device == device]
    if not own:
        return None
    fastest = max((one.clock_mhz for one in own if one.clock_mhz is not None), default=0.0)
    since = own[0].at_ns
    slow = []
    for one in own:
        if one.throttled or (one.clock_mhz is not None and one.clock_mhz < _SLOW_CLOCK * fastest):
            slow.append((since, one.at_ns))
        since = one.at_ns
    found = sum(
        len(block)
        for block, (begin, end) in zip(timed.blocks, timed.spans, strict=True)
        if any(begin <= until and since <= end for since, until in slow)
    )
    return found if found or all(one.throttled is not None for one in own) else None


def summary(readings: Sequence[Reading]) -> dict[str, dict[str, Any]]:
    """Return, by device, how often it was read, least, median and most of each figure, and the reasons it held back."""
    found: dict[str, dict[str, Any]] = {}
    for device in dict.fromkeys(one.device for one in readings):
        own = [one for one in readings if one.device == device]
        told: dict[str, Any] = {"readings": len(own)}
        if all(one.throttled is not None for one in own):
            told["throttled"] = _reasons(own)
        for figure in _FIGURES:
            values = sorted(value for one in own if (value := getattr(one, figure)) is not None)
            if values:
                told[figure] = {"min": values[0], "median": values[len(values) // 2], "max": values[-1]}
        found[device] = told
    return found


def _reasons(readings: Sequence[Reading]) -> dict[str, int]:
    reasons = [reason for one in readings for reason in one.throttled or ()]
    return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}


def _steal_share(before: tuple[int, ...], after: tuple[int, ...]) -> float | None:
    if len(before) != len(after) or not after:
        return None
    passed = sum(after) - sum(before)
    return (after[-1] - before[-1]) / passed if passed > 0 else None


class Watch:
    """Reads this machine's devices every quarter of a second and at the end of its context; it may be entered again.

    Args:
        readers: of the devices; those of this machine by default.
        gpu: the UUID of the GPU that rows run on; by default that of the first that CUDA sees from this process.
    """

    def __init__(self, readers: Sequence[Reader] | None = None, *, gpu: str | None = None) -> None:
        self._readers = readers_here(_nvml()) if readers is None else readers
        self._gpu = _gpu_in_use() if gpu is None else gpu
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._readings: list[Reading] = []

    def __enter__(self) -> Self:
        self._over.clear()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        is_over = False
        while not is_over:  # the last time at the end, which may come before the first period has passed
            is_over = self._over.wait(_PERIOD_S)
            self._readings += [reader.read() for reader in self._readers]

    @property
    def readings(self) -> tuple[Reading, ...]:
        """What was read so far, oldest first."""
        return tuple(self._readings)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return what each device did, as the report keeps it."""
        return summary(self.readings)

    def throttled(self, timed: Timing, device: str) -> int | None:
        """Count the samples of a row that were taken while its device held back."""
        return throttled_samples(timed, self.readings, device=self._as_read(device))

    def energy_j(self, device: str) -> float | None:
        """Return the joules a device took so far; None where nothing counts them, as on CPUs."""
        reader = None if _is_cpu(device) else self._reader_in_use()
        return None if reader is None else reader.energy_j()

    def _as_read(self, device: str) -> str:
        """Return what a reader calls a row's device; "" where none reads it."""
        if _is_cpu(device):
            return "cpu"
        reader = self._reader_in_use()
        return "" if reader is None else reader.name

    def _reader_in_use(self) -> GpuReader | None:
        gpus = [one for one in self._readers if isinstance(one, GpuReader)]
        return next((one for one in gpus if one.uuid == self._gpu), None)

    def write(self, folder: Path) -> None:
        """Keep every reading beside the raw samples.

        Raises:
            StoreError: the folder cannot be written.
        """
        readings = [asdict(reading) for reading in self._readings]
        write_atomically(folder / "raw" / "telemetry.json", json.dumps(readings))


def _gpu_in_use() -> str | None:
    """Return the UUID of the first GPU that CUDA sees; of a slice, that of its GPU, whose clocks and power they are."""
    gpus = collect_environment().usable_gpus
    return gpus[0].uuid if gpus else None


def _is_cpu(device: str) -> bool:
    return device.lower().startswith("cpu")
