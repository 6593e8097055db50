"""Records that tests begin with: the sidecar of a tiny network, 4 classes of 8 x 8 pixels, and a steady latency; and
the arrays of a file that they read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.disk import file_sha256
from trtbench.engines.sidecar import Sidecar
from trtbench.records import Preprocessing
from trtbench.rows import LatencyRecord

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def sidecar_of(engine: Path | None = None, **changes: Any) -> Sidecar:
    """Return the sidecar of an engine file, or of one that nobody reads; keywords replace its fields."""
    fields: dict[str, Any] = {
        "key": "k",
        "variant": "dense",
        "precision": "fp32",
        "achieved": "fp32",
        "backend": "onnxruntime-cpu",
        "backend_version": "1",
        "device": "cpu",
        "machine": "any",
        "engine_sha256": "0" * 64 if engine is None else file_sha256(engine),
        "engine_bytes": 1 if engine is None else engine.stat().st_size,
        "weight_bytes": 1,
        "source_sha256": "0" * 64,
        "calibration_sha256": None,
        "preprocessing": Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), size=8),
        "model": "resnet20",
        "num_classes": 4,
        "build_s": 0.1,
    }
    return Sidecar(**fields | changes)


def latency_of(p50_ms: float, **changes: Any) -> LatencyRecord:
    """Return the latency of a row that is as fast in all samples; keywords replace its fields."""
    fields: dict[str, Any] = {
        "scope": "device",
        "p50_ms": p50_ms,
        "p90_ms": p50_ms,
        "p99_ms": None,
        "mean_ms": p50_ms,
        "cov": 0.0,
        "ms_per_image": p50_ms,
        "n": 100,
        "verdict": "stable",
    }
    return LatencyRecord(**fields | changes)


def arrays_of(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of a .npz and close it: an open one warns when it is collected, in whatever test runs then."""
    with np.load(path) as file:
        return dict(file)
