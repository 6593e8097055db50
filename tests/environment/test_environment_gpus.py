from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from trtbench.environment import Driver, Gpu, MigSlice, gpus
from trtbench.environment.gpus import collect_gpus

GIB = 2**30


class NVMLError(Exception):
    """The root of NVML's errors."""


class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801, N818  NVML's own spelling
    """No driver on this machine."""


@dataclass
class Device:
    """What one handle answers; a name that is absent here is one the GPU does not support."""

    uuid: str
    name: str
    answers: dict[str, Any] = field(default_factory=dict)
    slices: dict[int, Device] = field(default_factory=dict)


class Nvml:
    """A stand-in for pynvml that knows exactly the names the real module has, and refuses calls outside a session."""

    NVMLError = NVMLError
    NVMLError_LibraryNotFound = NVMLError_LibraryNotFound
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2

    def __init__(self, *devices: Device | None, cuda: int = 12040) -> None:
        self.devices, self.cuda, self.sessions, self.is_open = devices, cuda, 0, False

    def nvmlInit(self) -> None:  # noqa: N802
        self.sessions, self.is_open = self.sessions + 1, True

    def nvmlShutdown(self) -> None:  # noqa: N802
        assert self.is_open
        self.is_open = False

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "550.54.14"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:  # noqa: N802
        return self.cuda or self._fail("Function Not Found")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        assert self.is_open
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:  # noqa: N802
        return self.devices[index] or self._fail("GPU is lost")

    def nvmlDeviceGetUUID(self, handle: Device) -> str:  # noqa: N802
        return handle.uuid

    def nvmlDeviceGetName(self, handle: Device) -> str:  # noqa: N802
        return handle.name

    def nvmlDeviceGetCudaComputeCapability(self, handle: Device) -> tuple[int, int]:  # noqa: N802
        return tuple(self._answer(handle, "sm"))

    def nvmlDeviceGetMemoryInfo(self, handle: Device) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=self._answer(handle, "memory"))

    def nvmlDeviceGetMigMode(self, handle: Device) -> list[int]:  # noqa: N802
        return [self._answer(handle, "mig"), 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: Device) -> int:  # noqa: N802
        return 7 if handle.slices else self._fail("Not Supported")

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Device, index: int) -> Device:  # noqa: N802
        return handle.slices.get(index) or self._fail("Not Found")

    def nvmlDeviceGetClockInfo(self, handle: Device, kind: int) -> int:  # noqa: N802
        return int(self._answer(handle, "clocks")[kind])

    def nvmlDeviceGetMaxClockInfo(self, handle: Device, kind: int) -> int:  # noqa: N802
        return int(self._answer(handle, "max_clocks")[kind])

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Device) -> int:  # noqa: N802
        return int(self._answer(handle, "power_mw"))

    def nvmlDeviceGetPersistenceMode(self, handle: Device) -> int:  # noqa: N802
        return int(self._answer(handle, "persistence"))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Device) -> list[object]:  # noqa: N802
        return list(self._answer(handle, "processes"))

    def _answer(self, handle: Device, name: str) -> Any:
        assert self.is_open
        return handle.answers[name] if name in handle.answers else self._fail("Not Supported")

    def _fail(self, words: str) -> Any:
        raise NVMLError(words)


T4 = Device(
    "GPU-t4",
    "Tesla T4",
    {
        "sm": (7, 5),
        "memory": 15 * GIB,
        "clocks": {1: 585, 2: 5001},
        "max_clocks": {1: 1590, 2: 5001},
        "power_mw": 70000,
        "persistence": 1,
        "processes": [object(), object()],
    },
)


@pytest.fixture(autouse=True)
def _no_driver_found_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "find_driver_cuda", lambda: (12, 0))
    monkeypatch.setattr(gpus, "find_driver_version", lambda: "525.60")


def test_every_field_of_a_gpu_is_read() -> None:
    nvml = Nvml(T4)

    driver, found = collect_gpus(nvml)

    assert driver == Driver(version="550.54.14", cuda=(12, 4))
    assert found == (
        Gpu(
            index=0,
            uuid="GPU-t4",
            name="Tesla T4",
            compute_capability=(7, 5),
            memory_bytes=15 * GIB,
            sm_clock_mhz=585,
            max_sm_clock_mhz=1590,
            memory_clock_mhz=5001,
            max_memory_clock_mhz=5001,
            power_limit_w=70.0,
            persistence_is_on=True,
            compute_processes=2,
        ),
    )
    assert (nvml.sessions, nvml.is_open) == (1, False)


def test_what_a_gpu_does_not_support_is_none() -> None:
    _, found = collect_gpus(Nvml(Device("GPU-1", "GeForce GTX 1080", {"sm": (6, 1)})))

    assert found == (Gpu(index=0, uuid="GPU-1", name="GeForce GTX 1080", compute_capability=(6, 1)),)


def test_the_slices_of_a_gpu_in_mig_mode_are_listed() -> None:
    slices = {0: Device("MIG-a", "H100 MIG 1g.10gb", {"memory": 10 * GIB}), 3: Device("MIG-b", "H100 MIG 2g.20gb")}

    _, (found,) = collect_gpus(Nvml(Device("GPU-h", "H100", {"sm": (9, 0), "mig": 1}, slices)))

    assert found.mig_is_on
    assert found.mig_slices == (
        MigSlice(uuid="MIG-a", name="H100 MIG 1g.10gb", memory_bytes=10 * GIB),
        MigSlice(uuid="MIG-b", name="H100 MIG 2g.20gb"),
    )


def test_mig_mode_without_a_slice_leaves_nothing_usable() -> None:
    _, (found,) = collect_gpus(Nvml(Device("GPU-h", "H100", {"sm": (9, 0), "mig": 1})))

    assert found.mig_slices == ()
    assert not found.is_usable


def test_a_gpu_that_could_do_mig_but_does_not_has_no_slices() -> None:
    _, (found,) = collect_gpus(Nvml(Device("GPU-h", "H100", {"sm": (9, 0), "mig": 0}, {0: Device("MIG-a", "stale")})))

    assert not found.mig_is_on
    assert found.mig_slices == ()
    assert found.is_usable


def test_a_lost_gpu_does_not_hide_the_others() -> None:
    nvml = Nvml(None, T4)

    driver, found = collect_gpus(nvml)

    assert [gpu.index for gpu in found] == [1]
    assert driver.problem == "GPU 0: GPU is lost"
    assert not nvml.is_open


def test_a_driver_that_does_not_tell_its_cuda_is_asked_otherwise() -> None:
    driver, _ = collect_gpus(Nvml(T4, cuda=0))

    assert driver.cuda == (12, 0)


def test_without_nvml_the_driver_is_found_otherwise() -> None:
    assert collect_gpus(None) == (Driver(version="525.60", cuda=(12, 0)), ())


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (NVMLError_LibraryNotFound("not found"), None),
        (NVMLError("Driver/library version mismatch"), "Driver/library version mismatch"),
    ],
)
def test_a_driver_that_is_broken_is_told_from_one_that_is_absent(error: NVMLError, problem: str | None) -> None:
    class Broken(Nvml):
        def nvmlInit(self) -> None:  # noqa: N802
            raise error

    assert collect_gpus(Broken(T4)) == (Driver(version="525.60", cuda=(12, 0), problem=problem), ())


def test_the_session_is_closed_when_reading_breaks() -> None:
    class Breaking(Nvml):
        def nvmlDeviceGetCount(self) -> int:  # noqa: N802
            raise RuntimeError("boom")

    nvml = Breaking(T4)

    with pytest.raises(RuntimeError, match="boom"):
        collect_gpus(nvml)
    assert not nvml.is_open


def test_the_stand_in_has_only_names_that_nvidia_ml_py_has() -> None:
    pynvml: Any = pytest.importorskip("pynvml")
    names = [name for name in vars(Nvml) if name.startswith(("nvml", "NVML"))]

    assert len(names) > 15
    assert [name for name in names if not hasattr(pynvml, name)] == []
    assert (pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM) == (Nvml.NVML_CLOCK_SM, Nvml.NVML_CLOCK_MEM)
    assert issubclass(pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError)
