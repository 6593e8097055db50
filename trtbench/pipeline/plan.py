"""The plan: which engines and rows a suite asks for, and what of them is there already."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trtbench.engines.base import resolve_backend
from trtbench.pipeline.artefacts import Absent, Artefacts

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbench.pipeline.artefacts import Places
    from trtbench.records import Role
    from trtbench.store import Artefact
    from trtbench.suite import Suite, Variant


_ONCE = {"dense", "manifest"}  # one for all variants
_BYTES_PER_WEIGHT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """One engine to build: a variant at a precision on a runtime."""

    variant: Variant
    precision: str
    backend: str
    role: Role = "candidate"

    @property
    def name(self) -> str:
        """The engine's name as people say it, unique within a suite."""
        return f"{self.variant.name} {self.precision} {self.backend}"


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


def plan_engines(suite: Suite) -> tuple[EnginePlan, ...]:
    """Return every engine a suite asks for: variants by precision, their baselines, and the placement reference."""
    plans: dict[str, EnginePlan] = {}
    has_eager = not suite.model.name.startswith("onnx:")
    for variant in suite.variants:
        engines = [
            EnginePlan(variant=variant, precision=precision, backend=resolve_backend(config.backend))
            for config in suite.engines
            for precision in config.precisions
        ]
        if has_eager:
            engines += [
                EnginePlan(variant=variant, precision="fp32", backend=baseline, role="baseline")
                for baseline in suite.bench.baselines
            ]
        plans |= {engine.name: engine for engine in engines}
    return tuple(_with_reference(list(plans.values())) if suite.bench.ort_placement else plans.values())


def _with_reference(plans: list[EnginePlan]) -> list[EnginePlan]:
    """Put the placement that ONNX Runtime's CPU fuses right behind the first int8 engine there, once."""
    for index, plan in enumerate(plans):
        if (plan.precision, plan.backend) == ("int8", "onnxruntime-cpu"):
            reference = replace(plan, precision="int8-ort", role="reference")
            return [*plans[: index + 1], reference, *plans[index + 1 :]]
    return plans


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


def source(artefacts: Artefacts, engine: EnginePlan) -> Artefact:
    """Return the artefact an engine is built from."""
    if engine.backend == "eager":
        return artefacts.variant(engine.variant)
    if engine.precision == "fp32":
        return artefacts.graph(engine.variant)
    return artefacts.quantized_graph(engine.variant, precision=engine.precision)


def _missing(artefacts: Artefacts, engine: EnginePlan) -> tuple[str, ...]:
    """Return the kinds of artefact between here and the engine that are not there yet, in order."""
    steps: list[tuple[str, Callable[[], object]]] = []
    if not artefacts.is_onnx:
        steps += [("dense", artefacts.dense)]
        if engine.variant.kind != "dense" or engine.variant.fine_tune:
            steps += [("variant", lambda: artefacts.variant(engine.variant))]
    if engine.backend != "eager":
        steps += [("graph", lambda: artefacts.graph(engine.variant))]
    if engine.precision != "fp32":
        steps += [
            ("manifest", lambda: artefacts.manifest),
            ("ranges", lambda: artefacts.ranges(engine.variant)),
            ("qdq", lambda: artefacts.quantized_graph(engine.variant, precision=engine.precision)),
        ]
    return tuple(kind for kind, look_up in steps if _is_absent(look_up))


def _is_absent(look_up: Callable[[], object]) -> bool:
    try:
        look_up()
    except Absent:
        return True
    return False


def _weight_bytes(suite: Suite, artefacts: Artefacts) -> int:
    if artefacts.is_onnx:
        return Path(suite.model.name.removeprefix("onnx:")).stat().st_size
    from trtbench.models import build_model, count_params

    network = build_model(suite.model.name, num_classes=artefacts.dataset.num_classes)
    return _BYTES_PER_WEIGHT * count_params(network)
