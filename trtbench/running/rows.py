"""From what was measured to rows: each with what those beside it say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from trtbench.bench.records import PLAIN, Run
from trtbench.bench.spread import NO_POOL
from trtbench.bench.statistics import holm
from trtbench.bench.summary import latency_record, pool_of_rows, timed_ratio
from trtbench.engines.base import backend
from trtbench.environment import collect_environment
from trtbench.errors import TrtbenchError
from trtbench.precision import Runtime
from trtbench.rows import FidelityRecord, Row
from trtbench.running.plan import status_of
from trtbench.suite import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trtbench.bench.interleave import Timing
    from trtbench.bench.records import Measured, Way
    from trtbench.bench.spread import Pool
    from trtbench.engines.sidecar import Sidecar
    from trtbench.rows import AccuracyRecord, LatencyRecord, Role, Status
    from trtbench.running.plan import BuiltEngine

_OF_THE_GRAPH = "scored is its graph, in exact arithmetic: the engine was not run"
# What a row has of its sidecar, under the same name
_OF_SIDECAR = (
    *("params", "macs", "widths", "sparsity", "engine_bytes", "weight_bytes", "engine_sha256", "build_s"),
    *("achieved", "calibration", "notes", "variant", "precision", "sparse", "rescued", "build", "backend"),
)
# by variant and placement: what the int8 graph gets right in true arithmetic
TrueCorrect = Mapping[tuple[str, Runtime], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What rows that were measured side by side know of one another.

    Args:
        anchors: by batch size the first candidate timed, which the others' ratios are to.
        holm_p: by engine and batch size McNemar's p-value, adjusted for all candidates of that size.
        true_correct: by variant and placement what the int8 graph gets right in true arithmetic.
        throttled: counts the samples that were taken while a device held back.
        pools: by runtime, batch size and way of timing how much processes differ.
    """

    anchors: Mapping[int, Measured] = field(default_factory=dict)
    holm_p: Mapping[tuple[str, int], float] = field(default_factory=dict)
    true_correct: TrueCorrect = field(default_factory=dict)
    throttled: Callable[[Timing, str], int | None] | None = None
    pools: Mapping[tuple[str, int, Way], Pool] = field(default_factory=dict)

    def pool(self, one: Measured, way: Way = PLAIN) -> Pool:
        """Return what rows that ran beside this one tell of its processes."""
        return self.pools.get((one.engine.backend, one.batch_size, way), NO_POOL)


ALONE = Family()


def family_of(
    found: Sequence[Measured],
    engines: Mapping[str, BuiltEngine],
    *,
    throttled: Callable[[Timing, str], int | None],
    true_correct: TrueCorrect,
) -> Family:
    """Return what the rows of one measurement know of one another."""
    candidates = [one for one in found if engines[one.engine.name].plan.role == "candidate"]
    anchors: dict[int, Measured] = {}
    for one in candidates:
        if one.error is None and one.timed is not None and not one.is_alone:
            anchors.setdefault(one.batch_size, one)
    holm_p: dict[tuple[str, int], float] = {}
    for size in {one.batch_size for one in candidates}:
        accuracies = {one.engine.name: one.accuracy for one in candidates if one.batch_size == size}
        tested = {
            (name, size): record.mcnemar_p
            for name, record in accuracies.items()
            if record is not None and record.mcnemar_p is not None
        }
        holm_p |= dict(zip(tested, holm(list(tested.values())), strict=True))
    return Family(anchors=anchors, holm_p=holm_p, true_correct=true_correct, throttled=throttled, pools=_pools(found))


def _pools(found: Sequence[Measured]) -> dict[tuple[str, int, Way], Pool]:
    timed: dict[tuple[str, int, Way], dict[str, Timing]] = {}
    for one in found:
        for way in one.ways if one.error is None and not one.is_alone else ():
            taken = one.timed_as(way)
            assert taken is not None, "a way in which it was timed"
            timed.setdefault((one.engine.backend, one.batch_size, way), {})[one.engine.name] = taken
    return {key: pool_of_rows(of_key) for key, of_key in timed.items()}


def row_of(measured: Measured, sidecar: Sidecar, family: Family = ALONE, *, role: Role = "candidate") -> Row:
    """Return the row of one engine at one batch size.

    Args:
        measured: what was learnt of it.
        sidecar: what it is.
        family: of what was measured beside it.
        role: in the decision.
    """
    opening, run = measured.opening, measured.last_run or Run()
    device = opening.device if opening else sidecar.device
    status, reason = _status(measured)
    latencies = [
        latency_record(measured, way, pool=family.pool(measured, way)) for way in measured.ways if status == "ok"
    ]
    if latencies:
        latencies[0] = _beside(latencies[0], measured, family, device)
    opened = opening.notes if opening else ()
    best = min((one.ms_per_image for one in latencies if one.scope == "device"), default=None)
    return Row(
        device=device,
        batch_size=measured.batch_size,
        role=role,
        status=status,
        reason=reason,
        simulated=backend(sidecar.backend).is_simulated(),
        engine_path=str(measured.engine.path),
        load_ms=opening.load_ms if opening else None,
        first_inference_ms=opening.first_inference_ms if opening else None,
        accuracy=_accuracy(measured, sidecar, family),
        fidelity=measured.fidelity,
        latency=latencies[0] if latencies else None,
        other_latencies=tuple(latencies[1:]),
        throughput_ips=1000 / best if best else None,
        device_memory_bytes=measured.device_memory_bytes,
        host_memory_bytes=measured.host_memory_bytes,
        energy_j=measured.energy_j,
        loads=measured.loads,
        cores=run.cores,
        settings={**(opening.settings if opening else {}), **run.settings},
        **_of_sidecar(sidecar) | {"notes": tuple(dict.fromkeys((*sidecar.notes, *opened, *run.notes)))},
    )


def _of_sidecar(sidecar: Sidecar) -> dict[str, Any]:
    return {name: getattr(sidecar, name) for name in _OF_SIDECAR}


def _status(measured: Measured) -> tuple[Status, str]:
    if measured.error is not None:
        return status_of(measured.error), str(measured.error)
    if measured.timed is None:
        return "skipped", "interrupted before it was timed"
    return "ok", ""


def _accuracy(measured: Measured, sidecar: Sidecar, family: Family) -> AccuracyRecord | None:
    """Adjust what was scored for its family; an int8 row has beside it what true arithmetic gets right."""
    scored = measured.accuracy
    if scored is None:
        return None
    adjusted = family.holm_p.get((measured.engine.name, measured.batch_size))
    record = replace(scored, mcnemar_holm_p=adjusted)
    if sidecar.precision != "int8" or sidecar.rescued:
        return record
    exact = family.true_correct.get((sidecar.variant, BACKENDS[sidecar.backend].placement))
    forecast = family.true_correct.get((sidecar.variant, "tensorrt"))
    return replace(record, true_arithmetic_correct=exact, tensorrt_graph_correct=forecast)


def _beside(latency: LatencyRecord, measured: Measured, family: Family, device: str) -> LatencyRecord:
    """Add to the plain latency its ratio to the anchor, and how many samples were throttled."""
    timed = measured.timed
    if family.throttled is not None and timed is not None:
        latency = replace(latency, throttled_samples=family.throttled(timed, device))
    anchor = family.anchors.get(measured.batch_size)
    if anchor is None:
        return latency
    found = timed_ratio(timed, anchor.timed, pools=(family.pool(measured), family.pool(anchor)))
    if found is None:
        return latency
    name = f"{anchor.engine.name} b{anchor.batch_size}"
    return replace(latency, ratio=found.value, ratio_ci95=(found.low, found.high), anchor=name)


def absent_row(built: BuiltEngine, batch_size: int, *, graph: AccuracyRecord | FidelityRecord | None = None) -> Row:
    """Return the row of an engine that is not there, or whose GPU is not; `graph` is the score of its graph."""
    plan, sidecar = built.plan, built.sidecar
    row = Row(
        variant=plan.variant.name,
        precision=plan.precision,
        sparse=plan.config.sparse,
        rescued=plan.rescued,
        build=plan.build,
        backend=plan.backend,
        device=_device_of(plan.backend) if sidecar is None else sidecar.device,
        batch_size=batch_size,
        role=plan.role,
        status=built.status,
        reason=built.reason,
    )
    if sidecar is None:
        return row
    row = replace(row, engine_path=str(built.path), **_of_sidecar(sidecar))
    if graph is None:
        return row
    row = replace(row, notes=(*row.notes, _OF_THE_GRAPH))
    return replace(row, fidelity=graph) if isinstance(graph, FidelityRecord) else replace(row, accuracy=graph)


def _device_of(runtime: str) -> str:
    """Name the device that a runtime would use; a row may be absent because there is none."""
    try:
        return backend(runtime).facts().device
    except TrtbenchError:  # what cannot be asked needs a GPU; the driver may know one
        gpus = collect_environment().usable_gpus
        return gpus[0].name if gpus else "no device"
