"""Memory, streams, events, graphs and devices, as CuPy names them."""

from __future__ import annotations

from simulated_cuda import device as _device
from simulated_cuda.faults import CUDARuntimeError as _CUDARuntimeError

from . import compiler, device, graph, memory, pinned_memory, runtime, stream
from ._memory import (
    MemoryPointer,
    MemoryPool,
    PinnedMemoryPointer,
    UnownedMemory,
    alloc,
    alloc_pinned_memory,
)
from .device import Device
from .graph import Graph
from .stream import Event, ExternalStream, Stream, get_current_stream, get_elapsed_time

__all__ = [
    "Device",
    "Event",
    "ExternalStream",
    "Graph",
    "MemoryPointer",
    "MemoryPool",
    "PinnedMemoryPointer",
    "Stream",
    "UnownedMemory",
    "alloc",
    "alloc_pinned_memory",
    "compiler",
    "device",
    "get_current_stream",
    "get_elapsed_time",
    "graph",
    "is_available",
    "memory",
    "pinned_memory",
    "runtime",
    "stream",
]


def is_available() -> bool:
    """Say whether there is a device."""
    try:
        return _device.count() > 0
    except _CUDARuntimeError:
        return False
