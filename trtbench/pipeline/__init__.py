"""From a suite to rows: what is planned, what is made once and kept, what is measured."""

from __future__ import annotations

from trtbench.make.engines import EnginePlan
from trtbench.make.makings import Places
from trtbench.pipeline.bench import bench_suite
from trtbench.pipeline.build import BuiltEngine, build_suite
from trtbench.pipeline.outlook import Outlook, PlannedRow, outlook
from trtbench.pipeline.plan import plan_engines
from trtbench.pipeline.run import run_suite
from trtbench.progress import Event

__all__ = [
    "BuiltEngine",
    "EnginePlan",
    "Event",
    "Outlook",
    "Places",
    "PlannedRow",
    "bench_suite",
    "build_suite",
    "outlook",
    "plan_engines",
    "run_suite",
]
