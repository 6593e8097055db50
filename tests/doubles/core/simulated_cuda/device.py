"""The one simulated GPU: what it calls itself and which CUDA it speaks."""

from __future__ import annotations

import os

from .faults import CUDARuntimeError, is_asked_for

NAME = "Simulated GPU"
DRIVER_CUDA = 13000
RUNTIME_CUDA = 12090
PCI_BUS_ID = "0000:01:00.0"
UUID = bytes(range(16))
MULTIPROCESSORS = 46


def count() -> int:
    """Count the devices; the fault no-device leaves none.

    Raises:
        CUDARuntimeError: as CUDA does where there is none.
    """
    if is_asked_for("no-device"):
        raise CUDARuntimeError("cudaErrorNoDevice")
    return 1


def compute_capability() -> tuple[int, int]:
    """Read it from TRTBENCH_DOUBLE_SM, so that one test can build on one GPU and load on another; 8.9 if unset."""
    major, minor = os.environ.get("TRTBENCH_DOUBLE_SM", "8.9").split(".")
    return int(major), int(minor)


def check(index: int) -> None:
    """Refuse a device that is not there.

    Raises:
        CUDARuntimeError: cudaErrorInvalidValue.
    """
    if not 0 <= index < count():
        raise CUDARuntimeError("cudaErrorInvalidValue", f"there is no device {index}")
