"""The sidecar that tests write beside an engine: of a tiny network, 4 classes of 8 x 8 pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbench.disk import file_sha256
from trtbench.engines.sidecar import Sidecar
from trtbench.records import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path


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
