"""Device memory under the module name where CuPy keeps its error."""

from __future__ import annotations

from ._memory import MemoryPointer, MemoryPool, OutOfMemoryError, UnownedMemory, alloc

__all__ = ["MemoryPointer", "MemoryPool", "OutOfMemoryError", "UnownedMemory", "alloc"]
