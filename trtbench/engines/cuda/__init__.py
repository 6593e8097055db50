"""CUDA as every runtime on a GPU uses it: memory, copies, events, graphs and timed loops on one stream of ours.

Here it is opened, by whichever package is here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbench.engines.cuda.cupy import open_cupy
from trtbench.engines.cuda.pycuda import open_pycuda
from trtbench.errors import CapabilityError, DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbench.engines.cuda.device import Cuda


def open_cuda(device: int = 0) -> Cuda:
    """Return the device by CuPy, or by PyCUDA where CuPy is absent or sees no device.

    Raises:
        DeviceError: neither works; the message says why for each, and what mends it.
    """
    openers: tuple[Callable[[int], Cuda], ...] = (open_cupy, open_pycuda)
    problems = []
    for opener in openers:
        try:
            return opener(device)
        except (CapabilityError, DeviceError) as error:
            problems.append(f"{error.what}: {error.got}")
    raise DeviceError(
        f"CUDA device {device}",
        expected="CuPy or PyCUDA, with a device",
        got="; ".join(problems),
        cure="`trtbench gpu-info` names the extra that fits this driver",
    )
