"""The machine under the numbers: hardware, driver, versions, and the verdicts of gpu-info.

Nothing here needs a package beyond the standard library, so that `python -m trtbench.environment` can name the
fitting extra before anything is installed.
"""

from __future__ import annotations

from trtbench.environment.capabilities import CAPABILITIES, Capability, capabilities
from trtbench.environment.collection import collect_environment
from trtbench.environment.conflicts import Conflict, conflicts
from trtbench.environment.demands import REQUIREMENTS, demand, missing, missing_for_tensorrt
from trtbench.environment.driver import find_driver_cuda, fitting_extra
from trtbench.environment.facts import Cpu, Driver, Environment, GitState, Gpu, Host, MigSlice, Package
from trtbench.environment.overview import GpuInfo, GpuReport, gpu_info

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
]
