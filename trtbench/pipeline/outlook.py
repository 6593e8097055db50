"""The outlook of a run: which rows, what of them is there already, and the time and disk the rest takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trtbench.errors import CapabilityError, RowError
from trtbench.pipeline.artefacts import Artefacts
from trtbench.pipeline.build import existing_engine, identify
from trtbench.pipeline.keeper import Absent
from trtbench.pipeline.plan import made_from, needs_calibration, plan_engines, source

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbench.pipeline.keeper import Places
    from trtbench.pipeline.plan import EnginePlan
    from trtbench.suite import Suite

_ONCE = {"dense", "manifest"}  # one for all variants
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
    artefacts = Artefacts(suite, places, is_dry=True)
    engines = {engine: _missing(artefacts, engine) for engine in plan_engines(suite)}
    rows = tuple(
        PlannedRow(name=f"{engine.name} b{size}", missing=missing)
        for engine, missing in engines.items()
        for size in suite.bench.batch_sizes
    )
    ahead = {(kind, engine.variant.name) for engine, missing in engines.items() for kind in missing}
    shared = {kind for kind, _ in ahead if kind in _ONCE}
    kinds = [*shared, *(kind for kind, _ in ahead if kind not in _ONCE)]
    timing_s = len(rows) * suite.bench.duration
    times = [artefacts.store.expected_seconds(kind) for kind in kinds]
    known = [time for time in times if time is not None]
    return Outlook(
        rows=rows,
        seconds=sum(known) + timing_s if len(known) == len(times) else None,
        timing_s=timing_s,
        disk_bytes=len(kinds) * _weight_bytes(suite, artefacts),
    )


def _missing(artefacts: Artefacts, engine: EnginePlan) -> tuple[str, ...]:
    """Return the kinds of artefact between here and the engine that are not there yet, in order."""
    steps: list[tuple[str, Callable[[], object]]] = []
    if not artefacts.is_onnx:
        steps += [("dense", artefacts.dense)]
        if not engine.variant.is_identity:
            steps += [("variant", lambda: artefacts.variant(engine.variant))]
    kind = made_from(engine)
    if kind != "variant":
        steps += [("graph", lambda: artefacts.graph(engine.variant))]
    if needs_calibration(engine.precision):
        steps += [("manifest", lambda: artefacts.manifest)]
    if needs_calibration(engine.precision) and kind != "graph":
        steps += [("ranges", lambda: artefacts.ranges(engine.variant))]
    if kind in {"half", "qdq"}:
        steps += [(kind, lambda: source(artefacts, engine))]
    steps += [("engine", lambda: _engine(artefacts, engine))]
    return tuple(kind for kind, look_up in steps if _is_absent(look_up))


def _engine(artefacts: Artefacts, engine: EnginePlan) -> None:
    """Look for an engine file.

    Raises:
        Absent: it, or what it is built from, is not there.
    """
    path, key, identity = identify(artefacts, engine, source(artefacts, engine))
    if existing_engine(path, key, machine=identity["machine"]) is None:
        raise Absent("engine")


def _is_absent(look_up: Callable[[], object]) -> bool:
    """Say whether something is still to be made; what cannot be made is not ahead either: its row will say why."""
    try:
        look_up()
    except Absent:
        return True
    except (RowError, CapabilityError):
        return False
    return False


def _weight_bytes(suite: Suite, artefacts: Artefacts) -> int:
    if artefacts.is_onnx:
        return Path(suite.model.name.removeprefix("onnx:")).stat().st_size
    from trtbench.models import build_model, count_params

    network = build_model(suite.model.name, num_classes=artefacts.dataset.num_classes)
    return _BYTES_PER_WEIGHT * count_params(network)
