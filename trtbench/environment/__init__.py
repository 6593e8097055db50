"""The machine under the numbers: hardware, driver, versions, and the verdicts of gpu-info.

Nothing here needs a package beyond the standard library, so that `python -m trtbench.environment` can name the
fitting extra before anything is installed.
"""

from __future__ import annotations

from trtbench.environment.facts import Cpu as Cpu
from trtbench.environment.facts import Driver as Driver
from trtbench.environment.facts import Environment as Environment
from trtbench.environment.facts import Gpu as Gpu
from trtbench.environment.facts import Host as Host
from trtbench.environment.facts import MigSlice as MigSlice
from trtbench.environment.facts import Package as Package
from trtbench.environment.gpus import find_driver_cuda as find_driver_cuda
from trtbench.environment.gpus import fitting_extra as fitting_extra
from trtbench.environment.overview import GpuInfo as GpuInfo
from trtbench.environment.overview import collect_environment as collect_environment
from trtbench.environment.overview import gpu_info as gpu_info
from trtbench.environment.overview import using_gpu as using_gpu
from trtbench.environment.verdicts import CAPABILITIES as CAPABILITIES
from trtbench.environment.verdicts import capabilities as capabilities
from trtbench.environment.verdicts import conflicts as conflicts
from trtbench.environment.verdicts import demand as demand
from trtbench.environment.verdicts import missing as missing
from trtbench.environment.verdicts import missing_for_tensorrt as missing_for_tensorrt
