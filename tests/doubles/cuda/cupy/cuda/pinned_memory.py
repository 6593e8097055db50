"""Page-locked host memory under CuPy's module name."""

from __future__ import annotations

from ._memory import PinnedMemoryPointer, alloc_pinned_memory

__all__ = ["PinnedMemoryPointer", "alloc_pinned_memory"]
