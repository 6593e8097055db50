"""Which compressed variant of this CNN should I ship to this GPU?

The public names, each loaded when it is first used, so that importing the package loads neither torch nor a runtime:
`run_suite` does what `trtbench run` does; the others are its steps.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Bundle": "trtbench.shipping",
    "Dataset": "trtbench.records",
    "Places": "trtbench.make.makings",
    "Prediction": "trtbench.shipping",
    "Predictor": "trtbench.shipping",
    "Preprocessing": "trtbench.records",
    "Report": "trtbench.report",
    "Row": "trtbench.rows",
    "Suite": "trtbench.suite",
    "TrtbenchError": "trtbench.errors",
    "bench_engine": "trtbench.running.bench",
    "build_model": "trtbench.models",
    "build_suite": "trtbench.running",
    "collect_environment": "trtbench.environment",
    "export_onnx": "trtbench.graph.export",
    "fit": "trtbench.train",
    "gpu_info": "trtbench.environment",
    "load": "trtbench.shipping",
    "load_dataset": "trtbench.data",
    "load_model": "trtbench.models",
    "load_suite": "trtbench.suite",
    "parse_suite": "trtbench.suite",
    "predict": "trtbench.train",
    "prune_channels": "trtbench.compress",
    "read_bundle": "trtbench.shipping",
    "read_report": "trtbench.report",
    "recommend": "trtbench.report",
    "run_suite": "trtbench.running",
    "save_model": "trtbench.models",
    "ship_row": "trtbench.shipping",
    "step": "trtbench.steps",
    "write_report": "trtbench.report",
}
__all__ = sorted([*_HOMES, "__version__"])  # noqa: PLE0605  one list of names serves both


def __getattr__(name: str) -> Any:
    """Load a public name from the room it lives in."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return list(__all__)
