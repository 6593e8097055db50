"""From a suite to rows: what is planned, what is made once and kept, what is measured."""

from __future__ import annotations

from trtbench.make.engines import EnginePlan
from trtbench.make.makings import Places
from trtbench.progress import Event
from trtbench.running.bench import bench_suite
from trtbench.running.plan import BuiltEngine, Outlook, PlannedRow, build_suite, outlook, plan_engines
from trtbench.running.run import run_suite

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
