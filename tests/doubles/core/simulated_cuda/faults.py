"""What may go wrong on purpose, and the error that CUDA calls raise."""

from __future__ import annotations

import os

_DESCRIPTIONS = {
    "cudaErrorInvalidValue": (1, "invalid argument"),
    "cudaErrorMemoryAllocation": (2, "out of memory"),
    "cudaErrorNoDevice": (100, "no CUDA-capable device is detected"),
    "cudaErrorInvalidResourceHandle": (400, "invalid resource handle"),
    "cudaErrorNotReady": (600, "device not ready"),
    "cudaErrorIllegalAddress": (700, "an illegal memory access was encountered"),
    "cudaErrorStreamCaptureUnsupported": (900, "operation not permitted when stream is capturing"),
    "cudaErrorStreamCaptureInvalidated": (901, "operation failed due to a previous error during capture"),
    "cudaErrorIllegalState": (401, "the operation cannot be performed in the present state"),
}


class CUDARuntimeError(RuntimeError):
    """What a CUDA call that fails raises; `status` is CUDA's number of it."""

    def __init__(self, name: str, detail: str = "") -> None:
        self.status, text = _DESCRIPTIONS[name]
        self.name = name
        super().__init__(f"{name}: {text}" + (f" ({detail})" if detail else ""))


def is_asked_for(fault: str) -> bool:
    """Say whether TRTBENCH_DOUBLE_FAULT, names with commas between, holds the fault."""
    return fault in os.environ.get("TRTBENCH_DOUBLE_FAULT", "").split(",")
