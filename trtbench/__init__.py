"""Which compressed variant of this CNN should I ship to this GPU?

The public names, each loaded when it is first used, so that importing the package loads neither torch nor a runtime:
`run` does what `trtbench run` does, `load` opens what `ship` wrote; the others are their steps.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what stands here, type checkers see; what stands below, Python does
    from trtbench.compress import prune_channels as prune_channels
    from trtbench.data import load_dataset as load_dataset
    from trtbench.engines.sidecar import Sidecar as Sidecar
    from trtbench.engines.sidecar import read_sidecar as read_sidecar
    from trtbench.environment import Environment as Environment
    from trtbench.environment import collect_environment as collect_environment
    from trtbench.environment import gpu_info as gpu_info
    from trtbench.errors import TrtbenchError as TrtbenchError
    from trtbench.graph.export import export_onnx as export_onnx
    from trtbench.interface import RunReport as RunReport
    from trtbench.interface import run as run
    from trtbench.make.makings import Places as Places
    from trtbench.models import build_model as build_model
    from trtbench.models import load_model as load_model
    from trtbench.models import save_model as save_model
    from trtbench.progress import Event as Event
    from trtbench.records import Dataset as Dataset
    from trtbench.records import Preprocessing as Preprocessing
    from trtbench.report import Recommendation as Recommendation
    from trtbench.report import Report as Report
    from trtbench.report import read_report as read_report
    from trtbench.report import recommend as recommend
    from trtbench.report import write_report as write_report
    from trtbench.rows import AccuracyRecord as AccuracyRecord
    from trtbench.rows import LatencyRecord as LatencyRecord
    from trtbench.rows import Row as Row
    from trtbench.running import build_suite as build_suite
    from trtbench.running import run_suite as run_suite
    from trtbench.running.bench import bench_engine as bench_engine
    from trtbench.shipping import Bundle as Bundle
    from trtbench.shipping import Prediction as Prediction
    from trtbench.shipping import Predictor as Predictor
    from trtbench.shipping import Proof as Proof
    from trtbench.shipping import Shipped as Shipped
    from trtbench.shipping import load as load
    from trtbench.shipping import read_bundle as read_bundle
    from trtbench.shipping import ship_row as ship_row
    from trtbench.steps import step as step
    from trtbench.suite import BenchConfig as BenchConfig
    from trtbench.suite import DataConfig as DataConfig
    from trtbench.suite import DecisionConfig as DecisionConfig
    from trtbench.suite import ExportConfig as ExportConfig
    from trtbench.suite import Suite as Suite
    from trtbench.suite import TrainConfig as TrainConfig
    from trtbench.suite import load_suite as load_suite
    from trtbench.suite import parse_suite as parse_suite
    from trtbench.train import fit as fit
    from trtbench.train import predict as predict

__version__ = "0.1.0"

_ROOMS = {
    "compress": ("prune_channels",),
    "data": ("load_dataset",),
    "engines.sidecar": ("Sidecar", "read_sidecar"),
    "environment": ("Environment", "collect_environment", "gpu_info"),
    "errors": ("TrtbenchError",),
    "graph.export": ("export_onnx",),
    "interface": ("RunReport", "run"),
    "make.makings": ("Places",),
    "models": ("build_model", "load_model", "save_model"),
    "progress": ("Event",),
    "records": ("Dataset", "Preprocessing"),
    "report": ("Recommendation", "Report", "read_report", "recommend", "write_report"),
    "rows": ("AccuracyRecord", "LatencyRecord", "Row"),
    "running": ("build_suite", "run_suite"),
    "running.bench": ("bench_engine",),
    "shipping": ("Bundle", "Prediction", "Predictor", "Proof", "Shipped", "load", "read_bundle", "ship_row"),
    "steps": ("step",),
    "suite": (
        "BenchConfig",
        "DataConfig",
        "DecisionConfig",
        "ExportConfig",
        "Suite",
        "TrainConfig",
        "load_suite",
        "parse_suite",
    ),
    "train": ("fit", "predict"),
}
_HOMES = {name: f"trtbench.{room}" for room, names in _ROOMS.items() for name in names}
__all__ = sorted([*_HOMES, "__version__"])  # noqa: PLE0605  one list of names serves both


if not TYPE_CHECKING:  # a type checker that saw it would take any name

    def __getattr__(name: str) -> object:
        """Load a public name from the room it lives in."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return list(__all__)
