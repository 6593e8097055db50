"""From a suite to rows: what is planned, what is made once and kept, what is measured."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from trtbench.make.makings import Places
from trtbench.progress import Event
from trtbench.running.plan import BuiltEngine, build_suite, outlook, plan_engines, propose

if TYPE_CHECKING:  # measuring brings SciPy, which a plan does without
    from trtbench.running.run import run_suite

__all__ = ["BuiltEngine", "Event", "Places", "build_suite", "outlook", "plan_engines", "propose", "run_suite"]


if not TYPE_CHECKING:  # a type checker that saw it would take any name

    def __getattr__(name: str) -> object:
        """Load what measures when it is first used."""
        if name != "run_suite":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return importlib.import_module(f"{__name__}.run").run_suite
