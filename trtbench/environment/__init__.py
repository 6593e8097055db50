"""The machine under the numbers: hardware, driver, versions, and the verdicts of gpu-info.

Nothing here needs a package beyond the standard library, so that `python -m trtbench.environment` can name the
fitting extra before anything is installed.
"""

from __future__ import annotations

from trtbench.environment.facts import Cpu, Driver, Environment, GitState, Gpu, Host, MigSlice, Package
from trtbench.environment.gpus import find_driver_cuda, fitting_extra
from trtbench.environment.overview import (
    GpuInfo,
    GpuReport,
    collect_environment,
    gpu_info,
    number_gpus_by_bus,
    using_gpu,
)
from trtbench.environment.verdicts import (
    CAPABILITIES,
    REQUIREMENTS,
    Capability,
    Conflict,
    capabilities,
    conflicts,
    demand,
    missing,
    missing_for_tensorrt,
)

__all__ = [
    "CAPABILITIES",
    "REQUIREMENTS",
    "Capability",
    "Conflict",
    "Cpu",
    "Driver",
    "Environment",
    "GitState",
    "Gpu",
    "GpuInfo",
    "GpuReport",
    "Host",
    "MigSlice",
    "Package",
    "capabilities",
    "collect_environment",
    "conflicts",
    "demand",
    "find_driver_cuda",
    "fitting_extra",
    "gpu_info",
    "missing",
    "missing_for_tensorrt",
    "number_gpus_by_bus",
    "using_gpu",
]
