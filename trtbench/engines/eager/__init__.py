"""PyTorch, the baseline every engine is compared with; its engine file is the checkpoint.

This module is the runtime `eager`; `cudagraph` and `compiled` run the same network (`network`) by other means.
"""

from __future__ import annotations

from trtbench.engines.eager.checkpoint import (
    PRECISIONS,
    SUFFIX,
    TAKES_OPTIONS,
    device_name,
    is_simulated,
    machine,
    runtime_version,
    usual_precisions,
)
from trtbench.engines.eager.plain import build, open_engine

__all__ = [
    "PRECISIONS",
    "SUFFIX",
    "TAKES_OPTIONS",
    "build",
    "device_name",
    "is_simulated",
    "machine",
    "open_engine",
    "runtime_version",
    "usual_precisions",
]
