"""The outlook of a run: which rows, what of them is there already, and the time and disk the rest takes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.errors import CapabilityError, RowError
from trtbench.make.engines import build_engine
from trtbench.make.makings import Makings
from trtbench.make.recipe import Absent
from trtbench.running.plan import plan_engines

if TYPE_CHECKING:
    from trtbench.make.engines import EnginePlan
    from trtbench.make.makings import Places
    from trtbench.suite import Suite

_BYTES_PER_WEIGHT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRow:
    """One row ahead, and the kinds of artefact that are still to be made for it."""

    name: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a run of a suite has ahead.

    `seconds` is what the missing artefacts took here before, plus the timing; None where one was never made here.
    `disk_bytes` counts the missing artefacts at the size of the dense network's weights.
    """

    rows: tuple[PlannedRow, ...]
    seconds: float | None
    timing_s: float
    disk_bytes: int


def outlook(suite: Suite, places: Places) -> Outlook:
    """Look at what is ahead, making nothing."""
    makings = Makings(suite, places, is_dry=True)
    engines = {engine: _missing(makings, engine) for engine in plan_engines(suite)}
    rows = tuple(
        PlannedRow(name=f"{engine.name} b{size}", missing=tuple(kind for kind, _ in missing))
        for engine, missing in engines.items()
        for size in suite.bench.batch_sizes
    )
    ahead = {one for missing in engines.values() for one in missing}
    timing_s = len(rows) * suite.bench.duration
    times = [makings.book.store.expected_seconds(kind) for kind, _ in ahead]
    known = [time for time in times if time is not None]
    return Outlook(
        rows=rows,
        seconds=sum(known) + timing_s if len(known) == len(times) else None,
        timing_s=timing_s,
        disk_bytes=len(ahead) * _weight_bytes(makings),
    )


def _missing(makings: Makings, engine: EnginePlan) -> tuple[tuple[str, str], ...]:
    """Return kind and item of what is not there yet on the way to an engine, in order.

    What cannot be made is not ahead either: its row will say why.
    """
    makings.book.missing.clear()
    with contextlib.suppress(RowError, CapabilityError):
        try:
            build_engine(makings, engine)
        except Absent:
            makings.book.missing.append(("engine", engine.name))
    return tuple(dict.fromkeys(makings.book.missing))


def _weight_bytes(makings: Makings) -> int:
    if makings.onnx_path is not None:
        return makings.onnx_path.stat().st_size
    from trtbench.models import count_params

    return _BYTES_PER_WEIGHT * count_params(makings.architecture.fresh(seed=0))
