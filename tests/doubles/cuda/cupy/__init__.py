"""The part of CuPy 14 that trtbench uses, on the simulated GPU. Every name here is one that CuPy has."""

from __future__ import annotations

import sys
from pathlib import Path

_CORE = str(Path(__file__).parents[2] / "core")
if _CORE not in sys.path:
    sys.path.append(_CORE)

from numpy import bool_, dtype, float16, float32, float64, int8, int32, int64, uint8, uint32

from . import cuda
from ._array import array, asarray, ascontiguousarray, asnumpy, empty, empty_like, ndarray, zeros
from ._raw import RawKernel, RawModule
from .cuda import is_available
from .cuda._memory import get_default_memory_pool, get_default_pinned_memory_pool

__version__ = "14.2.0"

__all__ = [
    "RawKernel",
    "RawModule",
    "array",
    "asarray",
    "ascontiguousarray",
    "asnumpy",
    "bool_",
    "cuda",
    "dtype",
    "empty",
    "empty_like",
    "float16",
    "float32",
    "float64",
    "get_default_memory_pool",
    "get_default_pinned_memory_pool",
    "int8",
    "int32",
    "int64",
    "is_available",
    "ndarray",
    "uint8",
    "uint32",
    "zeros",
]
