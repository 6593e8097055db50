"""A calibration cache as TensorRT writes it, for tests of what reads one."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trtbench.engines.tensorrt.caches import CalibrationCache


def format_cache(cache: CalibrationCache) -> str:
    """Write a cache as TensorRT does; scales are rounded to float32."""
    lines = [f"{tensor}: {struct.pack('>f', scale).hex()}" for tensor, scale in cache.scales.items()]
    return "\n".join([f"TRT-{cache.version}-{cache.algorithm}", *lines, ""])
