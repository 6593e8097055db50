"""Memory of the simulated device and pinned host memory: real addresses, so that foreign code reads them as it does."""

from __future__ import annotations

import bisect
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from .faults import CUDARuntimeError, is_asked_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALIGNMENT = 256
TOTAL_BYTES = 8 << 30
_POISON = 0xCD
_POISONED_UP_TO = 64 << 20  # larger blocks stay untouched pages
Kind = Literal["device", "pinned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """One block: its first byte's address is a multiple of 256."""

    address: int
    size: int
    kind: Kind
    block: NDArray[np.uint8]


_lock = threading.RLock()
_starts: list[int] = []
_live: dict[int, Allocation] = {}


def allocate(size: int, *, kind: Kind = "device") -> Allocation:
    """Give a block of at least `size` bytes, filled with a pattern that no program should read.

    Raises:
        CUDARuntimeError: cudaErrorMemoryAllocation when the device is full.
    """
    with _lock:
        full = kind == "device" and (size > free_bytes() or is_asked_for("oom-alloc"))
        if full:
            raise CUDARuntimeError("cudaErrorMemoryAllocation", f"asked for {size} bytes")
        room = max(size, 1)
        raw = np.empty(room + ALIGNMENT, np.uint8)
        offset = -raw.ctypes.data % ALIGNMENT
        block = raw[offset : offset + room]
        if room <= _POISONED_UP_TO:
            block.fill(_POISON)
        made = Allocation(address=block.ctypes.data, size=size, kind=kind, block=block)
        bisect.insort(_starts, made.address)
        _live[made.address] = made
        return made


def release(address: int) -> None:
    """Give a block back; what still points into it is an illegal address from now on."""
    with _lock:
        if _live.pop(address, None) is not None:
            _starts.pop(bisect.bisect_left(_starts, address))


def find(address: int) -> Allocation | None:
    """Find the live block an address lies in."""
    with _lock:
        place = bisect.bisect_right(_starts, address) - 1
        if place < 0:
            return None
        found = _live[_starts[place]]
        return found if address < found.address + max(found.size, 1) else None


def region(address: int, nbytes: int, *, kind: Kind = "device") -> NDArray[np.uint8]:
    """See `nbytes` bytes from an address on, without a copy.

    Raises:
        CUDARuntimeError: cudaErrorIllegalAddress when they do not lie in one live block of that kind.
    """
    found = find(address)
    if found is None or found.kind != kind or address + nbytes > found.address + found.size:
        raise CUDARuntimeError("cudaErrorIllegalAddress", f"{nbytes} bytes from {address:#x} on are no {kind} memory")
    start = address - found.address
    return found.block[start : start + nbytes]


def free_bytes() -> int:
    """Say how much device memory is left."""
    with _lock:
        return TOTAL_BYTES - sum(each.size for each in _live.values() if each.kind == "device")
