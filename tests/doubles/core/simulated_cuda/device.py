"""The simulated GPUs: what they call themselves, which of them are seen, and which CUDA they speak."""

from __future__ import annotations

import os
import uuid

from .faults import CUDARuntimeError, is_asked_for

NAME = "Simulated GPU"
DRIVER_CUDA = 13000
RUNTIME_CUDA = 12090
PCI_BUS_ID = "0000:01:00.0"
MULTIPROCESSORS = 46


def count() -> int:
    """Count the devices; the fault no-device leaves none.

    Raises:
        CUDARuntimeError: as CUDA does where there is none.
    """
    if is_asked_for("no-device"):
        raise CUDARuntimeError("cudaErrorNoDevice")
    return len(_seen())


def _seen() -> list[int]:
    """List the GPUs by their number in the machine: TRTBENCH_DOUBLE_GPUS many, as CUDA_VISIBLE_DEVICES picks them."""
    many = os.environ.get("TRTBENCH_DOUBLE_GPUS")
    if many is None:
        return [0]
    uuids = [f"GPU-{uuid.UUID(bytes=uuid_of(number))}" for number in range(int(many))]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return list(range(int(many)))
    found = []
    for entry in visible.split(","):
        named = [n for n, one in enumerate(uuids) if entry == str(n) or (entry[:4] == "GPU-" and one.startswith(entry))]
        if not named:
            break
        found.append(named[0])
    return found


def uuid_of(number: int) -> bytes:
    """Give the UUID of a GPU by its number in the machine."""
    return bytes(range(number, number + 16))


def name(index: int) -> str:
    """Name a GPU by CUDA's number: the second of the machine is another model."""
    return f"{NAME} {number + 1}" if (number := _seen()[index]) else NAME


def uuid_at(index: int) -> bytes:
    """Give the UUID of a GPU by CUDA's number."""
    return uuid_of(_seen()[index])


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
