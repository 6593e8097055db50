"""The GPUs as NVML describes them; CUDA is never initialised, so that a later fork or worker is free to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbench.environment.driver import find_driver_cuda, find_driver_version
from trtbench.environment.facts import Driver, Gpu, MigSlice, Version, as_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def collect_gpus(nvml: Any | None) -> tuple[Driver, tuple[Gpu, ...]]:
    """Describe the driver and its GPUs through NVML.

    Args:
        nvml: the module `pynvml` of nvidia-ml-py, or None where it is not installed.

    Returns:
        The driver, whose `problem` carries NVML's words where it or a GPU does not answer, and the GPUs that answer.
    """
    if nvml is None:
        return _driver_without_nvml(), ()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError_LibraryNotFound:
        return _driver_without_nvml(), ()
    except nvml.NVMLError as error:
        return _driver_without_nvml(problem=str(error)), ()
    try:
        return _initialised(nvml)
    finally:
        nvml.nvmlShutdown()


def _driver_without_nvml(*, problem: str | None = None) -> Driver:
    return Driver(version=find_driver_version(), cuda=find_driver_cuda(), problem=problem)


def _initialised(nvml: Any) -> tuple[Driver, tuple[Gpu, ...]]:
    gpus, problems = [], []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            gpus.append(_gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(index), index=index))
        except nvml.NVMLError as error:  # a GPU that fell off the bus must not hide the others
            problems.append(f"GPU {index}: {error}")
    driver = Driver(
        version=_ask(nvml, nvml.nvmlSystemGetDriverVersion),
        cuda=_driver_cuda(nvml),
        problem="; ".join(problems) or None,
    )
    return driver, tuple(gpus)


def _driver_cuda(nvml: Any) -> Version | None:
    answer = _ask(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)
    return as_version(answer) if answer else find_driver_cuda()


def _gpu(nvml: Any, handle: Any, *, index: int) -> Gpu:
    mig = _ask(nvml, nvml.nvmlDeviceGetMigMode, handle)  # [current, pending]; GPUs before A100 raise
    power_mw = _ask(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    persistence = _ask(nvml, nvml.nvmlDeviceGetPersistenceMode, handle)
    processes = _ask(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle)
    return Gpu(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        name=nvml.nvmlDeviceGetName(handle),
        compute_capability=tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)),
        memory_bytes=_memory_bytes(nvml, handle),
        mig_is_on=bool(mig and mig[0]),
        mig_slices=tuple(_slices(nvml, handle)) if mig and mig[0] else (),
        sm_clock_mhz=_ask(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
        max_sm_clock_mhz=_ask(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_SM),
        memory_clock_mhz=_ask(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
        max_memory_clock_mhz=_ask(nvml, nvml.nvmlDeviceGetMaxClockInfo, handle, nvml.NVML_CLOCK_MEM),
        power_limit_w=None if power_mw is None else power_mw / 1000,
        persistence_is_on=None if persistence is None else bool(persistence),
        compute_processes=None if processes is None else len(processes),
    )


def _slices(nvml: Any, handle: Any) -> Iterator[MigSlice]:
    for place in range(_ask(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        mig = _ask(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, place)  # an empty place raises NotFound
        if mig is not None:
            yield MigSlice(
                uuid=nvml.nvmlDeviceGetUUID(mig),
                name=nvml.nvmlDeviceGetName(mig),
                memory_bytes=_memory_bytes(nvml, mig),
            )


def _memory_bytes(nvml: Any, handle: Any) -> int | None:
    memory = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    return None if memory is None else int(memory.total)


def _ask(nvml: Any, function: Callable[..., Any], *arguments: Any) -> Any | None:
    """Return NVML's answer, or None for what this GPU, driver or user cannot read."""
    try:
        return function(*arguments)
    except nvml.NVMLError:
        return None
