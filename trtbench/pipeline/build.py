"""`trtbench build`: every engine of a suite, each once, with its sidecar; a failed one does not stop the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.errors import CapabilityError, OutOfMemoryError, RowError, UnsupportedError
from trtbench.make.engines import build_engine
from trtbench.make.makings import Makings
from trtbench.pipeline.plan import plan_engines
from trtbench.progress import Event, Listener, nobody

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.engines.sidecar import Sidecar
    from trtbench.make.engines import EnginePlan
    from trtbench.make.makings import Places
    from trtbench.rows import Status
    from trtbench.suite import Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """One engine of the plan: its file and sidecar, or why there is none."""

    plan: EnginePlan
    status: Status
    reason: str = ""
    path: Path | None = None
    sidecar: Sidecar | None = None


def build_suite(suite: Suite, places: Places, *, tell: Listener = nobody) -> tuple[BuiltEngine, ...]:
    """Build every engine a suite asks for, reusing what is there.

    Args:
        suite: the validated suite.
        places: folders.
        tell: told of progress.

    Raises:
        ConfigError: the suite's data or checkpoint cannot be used: no row can be made.
        StoreError: nothing can be written.
    """
    return build_engines(Makings(suite, places, tell=tell))


def build_engines(makings: Makings) -> tuple[BuiltEngine, ...]:
    """Build every engine of the suite of these makings, as `build_suite` does."""
    return tuple(_built(makings, plan) for plan in plan_engines(makings.suite))


def status_of(error: RowError | CapabilityError) -> Status:
    """Return the status of a row that ended with this error."""
    if isinstance(error, OutOfMemoryError):
        return "oom"
    return "unsupported" if isinstance(error, (UnsupportedError, CapabilityError)) else "failed"


def _built(makings: Makings, plan: EnginePlan) -> BuiltEngine:
    try:
        path, sidecar = build_engine(makings, plan)
    except (RowError, CapabilityError) as error:  # what this machine lacks, other runtimes may not need
        makings.tell(Event(stage="engine", item=plan.name, state="failed", detail=str(error)))
        return BuiltEngine(plan=plan, status=status_of(error), reason=str(error))
    return BuiltEngine(plan=plan, status="ok", path=path, sidecar=sidecar)
