"""The driver and the GPUs, through NVML or without any package, and the extra of trtbench that fits them.

CUDA is never initialised, so that a later fork or worker is free to.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench.environment.facts import Driver, Gpu, MigSlice, Version, as_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# first driver branch -> CUDA it runs (CUDA Toolkit release notes, "Minimum Required Driver Version")
_BRANCHES = ((580, (13, 0)), (525, (12, 0)), (450, (11, 0)))
# CUDA 13.0 dropped Maxwell, Pascal and Volta (its release notes, "Deprecated Architectures")
FIRST_SM_OF_CUDA_13 = (7, 5)
_SMI_ROW = re.compile(r"^(\d[\d.]*), (\d+)\.(\d+)$", re.MULTILINE)


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
    cuda = _ask(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)
    driver = Driver(
        version=_ask(nvml, nvml.nvmlSystemGetDriverVersion),
        cuda=as_version(cuda) if cuda else find_driver_cuda(),
        problem="; ".join(problems) or None,
    )
    return driver, tuple(gpus)


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


def fitting_extra(driver_cuda: Version | None, *, lowest_sm: Version | None = None) -> str:
    """Name the extra of trtbench that fits a driver: "", "cu12", "cu13", or "cu12-base" for GPUs before SM 7.5.

    CUDA 12 wheels run on drivers from 525 on, CUDA 13 wheels from 580 on. GPUs before SM 7.5 have neither CUDA 13 nor
    a supported TensorRT, whatever their driver.

    Args:
        driver_cuda: the highest CUDA of the driver; None without a driver.
        lowest_sm: the lowest compute capability of the GPUs, where it is known.
    """
    if driver_cuda is None or driver_cuda < (12, 0):
        return ""
    if lowest_sm is not None and lowest_sm < FIRST_SM_OF_CUDA_13:
        return "cu12-base"
    return "cu13" if driver_cuda >= (13, 0) else "cu12"


def extra_here() -> str:
    """Name the extra that fits this machine's driver, for `make setup` to install."""
    return fitting_extra(find_driver_cuda(), lowest_sm=min((sm for _, sm in ask_nvidia_smi()), default=None))


def find_driver_cuda(*, root: Path = Path("/"), load: Callable[[str], Any] = ctypes.CDLL) -> Version | None:
    """Return the highest CUDA that the driver runs, or None without a driver; no device is opened.

    Asks libcuda first, which knows of a forward-compatibility package, then reads the kernel module's version.
    """
    return _asked_of_libcuda(load) or cuda_of_driver(find_driver_version(root=root))


def find_driver_version(*, root: Path = Path("/")) -> str | None:
    """Return the version of the loaded kernel module, or what nvidia-smi says, or None."""
    try:
        text = (root / "proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return next((version for version, _ in ask_nvidia_smi()), None)
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found.group(1) if found else None


def cuda_of_driver(version: str | None) -> Version | None:
    """Return the lowest CUDA of the major version that a driver branch runs: "550.54.14" is (12, 0)."""
    if version is None:
        return None
    branch = int(version.partition(".")[0])
    return next((cuda for first, cuda in _BRANCHES if branch >= first), None)


def ask_nvidia_smi(command: str = "nvidia-smi") -> tuple[tuple[str, Version], ...]:
    """Return (driver version, compute capability) of each GPU; nothing where the command is absent or fails."""
    if shutil.which(command) is None:  # looking is a hundredth of a try to start it
        return ()
    query = [command, "--query-gpu=driver_version,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple((version, (int(major), int(minor))) for version, major, minor in _SMI_ROW.findall(answer.stdout))


def _asked_of_libcuda(load: Callable[[str], Any]) -> Version | None:
    version = ctypes.c_int()
    try:
        status = load("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    # The toolkit's stub library answers with an error; a library without a kernel module says 0.
    return as_version(version.value) if status == 0 and version.value else None
