"""The plan: which engines a suite asks for, what of them is ahead, and their building; a failed one stops no other.

TensorRT's builds of one graph differ, so one build each would rank its luck. Where the suite asks for it the winner and
the runner-up are built again, all builds are measured side by side, and each finalist is represented by its median
build: that file is shipped, and the spread of all of them decides.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trtbench.decide import choose
from trtbench.decide.ratios import p50_ms
from trtbench.engines.base import backend, resolve_backend
from trtbench.environment import using_gpu
from trtbench.errors import CapabilityError, DataError, OutOfMemoryError, RowError, TrtbenchError, UnsupportedError
from trtbench.foreign import MISFITS, read_json
from trtbench.make.engines import EnginePlan, build_engine, prepare_engine, source
from trtbench.make.images import ASSUMED, framing_proposed, overlap_notes
from trtbench.make.makings import Makings, Places
from trtbench.make.networks import variant_network
from trtbench.make.recipe import Absent
from trtbench.make.rescue import rescue
from trtbench.make.trial import trial
from trtbench.progress import Event, Listener, nobody
from trtbench.suite import BACKENDS, Proposal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from trtbench.bench.interleave import Timing
    from trtbench.engines.sidecar import Sidecar
    from trtbench.rows import Row, Status
    from trtbench.suite import DecisionConfig, EngineConfig, Suite, Variant

    # measures engines at every batch size of the suite: rows and raw blocks by row name
    Measure = Callable[[Sequence["BuiltEngine"]], tuple[Sequence[Row], Mapping[str, Timing]]]


_BYTES_PER_WEIGHT = 4
_MEASURING = ("score", "time", "true arithmetic", "graphs")  # the stages of a run that make nothing to keep
_OF_A_ROW = (RowError, CapabilityError, DataError)  # what ends a row and lets the others go on


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """One engine of the plan: its file and sidecar, or why there is none."""

    plan: EnginePlan
    status: Status
    reason: str = ""
    path: Path | None = None
    sidecar: Sidecar | None = None


def plan_engines(suite: Suite, *, anywhere: bool = False) -> tuple[EnginePlan, ...]:
    """Return every engine a suite asks for: variants by precision, and their baselines; or asks for on any machine."""
    plans: dict[str, EnginePlan] = {}
    asked = [*_asked_anywhere(suite)] if anywhere else _asked(suite)
    for variant in suite.variants:
        candidates = (
            EnginePlan(variant=variant, precision=precision, backend=name, config=config)
            for config, name, precision in asked
        )
        plans |= {engine.name: engine for engine in (*candidates, *_baselines(suite, variant))}
    return tuple(plans.values())


def _asked(suite: Suite) -> list[tuple[EngineConfig, str, str]]:
    """Return what every variant is built as: config, runtime and precision; the machine is asked once, not by each."""
    return [
        (config, name, precision)
        for config in suite.engines
        for name in [resolve_backend(config.backend)]
        for precision in config.precisions or backend(name).facts().usual_precisions
    ]


def _asked_anywhere(suite: Suite) -> Iterator[tuple[EngineConfig, str, str]]:
    """Yield what every variant may be built as on some machine: `auto` is either there, and all it can is usual."""
    for config in suite.engines:
        for name in ("tensorrt", "onnxruntime-cpu") if config.backend == "auto" else (config.backend,):
            usual = backend(name).precisions
            with contextlib.suppress(CapabilityError, RowError):
                usual = backend(name).facts().usual_precisions
            for precision in config.precisions or usual:
                yield config, name, precision


def _baselines(suite: Suite, variant: Variant) -> Iterator[EnginePlan]:
    """Yield PyTorch's rows of a variant; a network that comes as ONNX, or exists as a graph only, has none."""
    if suite.model.name.startswith("onnx:") or variant.makes == "graph":
        return
    for baseline in suite.bench.baselines:
        for precision in suite.bench.baseline_precisions:
            yield EnginePlan(variant=variant, precision=precision, backend=baseline, role="baseline")


def build_suite(suite: Suite, places: Places, *, tell: Listener = nobody) -> tuple[BuiltEngine, ...]:
    """Build every engine a suite asks for, reusing what is there.

    Args:
        suite: the validated suite.
        places: folders.
        tell: told of progress.

    Raises:
        ConfigError: the suite's data or checkpoint cannot be used: no row can be made.
        CapabilityError: the suite names a GPU that is not here.
        StoreError: nothing can be written.
    """
    with Makings(suite, places, tell=tell) as makings, using_gpu(suite.device):
        for note in makings.dataset.notes:
            makings.tell(Event(stage="data", item=makings.dataset.name, state="note", detail=note))
        return tuple(built_engines(makings))


def built_engines(makings: Makings) -> Iterator[BuiltEngine]:
    """Build the engines of the plan in its order, and behind each INT8 one that is in doubt what holds it.

    One that fails says why and stops no other, as where a class has too few images to calibrate.
    """
    _ = makings.dataset  # without images there is no row
    waiting = [*plan_engines(makings.suite)]
    while waiting:
        plan = waiting.pop(0)
        try:
            path, sidecar = build_engine(makings, plan)
        except _OF_A_ROW as error:  # what this machine lacks, other runtimes may not need
            makings.tell(Event(stage="engine", item=plan.name, state="failed", detail=str(error)))
            yield BuiltEngine(plan=plan, status=status_of(error), reason=str(error))
            continue
        why_not_run = backend(plan.backend).facts(sidecar.options).why_not_run
        status: Status = "built" if why_not_run else "ok"
        yield BuiltEngine(plan=plan, status=status, reason=why_not_run, path=path, sidecar=sidecar)
        if plan.precision == "int8" and not plan.rescued and _is_rescued(makings, plan):
            waiting.insert(0, replace(plan, rescued=True))


def prepare_suite(makings: Makings, *, only: Variant | None = None, anywhere: bool = True) -> dict[str, str]:
    """Make all that the engines of a suite, or of one variant, are built from on any machine, or on ones as this.

    Returns:
        Why a variant has no network, by its name. What else cannot be made is told: the machine that asks for it
        tries again, and says so.
    """
    lost: dict[str, str] = {}
    overlap_notes(makings)
    for plan in plan_engines(makings.suite, anywhere=anywhere):
        if (only is not None and plan.variant != only) or plan.variant.name in lost:
            continue
        try:
            if makings.onnx_path is None:
                variant_network(makings, plan.variant)
        except UnsupportedError:  # which the machine that asks finds as fast, and tells as such
            continue
        except RowError as error:
            lost[plan.variant.name] = str(error)
            makings.tell(Event(stage="variant", item=plan.variant.name, state="failed", detail=str(error)))
        else:
            _prepare(makings, plan)
    return lost


def _prepare(makings: Makings, plan: EnginePlan) -> None:
    try:
        prepare_engine(makings, plan)
        if plan.precision == "int8" and _is_rescued(makings, plan):
            prepare_engine(makings, replace(plan, rescued=True))
    except _OF_A_ROW as error:
        makings.tell(Event(stage="graph", item=plan.name, state="note", detail=str(error)))


def _is_rescued(makings: Makings, plan: EnginePlan) -> bool:
    try:
        return rescue(makings, plan.variant, runtime=BACKENDS[plan.backend].placement) is not None
    except (RowError, DataError) as error:  # the row that was asked for stands
        makings.tell(Event(stage="rescue", item=plan.name, state="failed", detail=str(error)))
        return False


def status_of(error: TrtbenchError) -> Status:
    """Return the status of a row that ended with this error."""
    if isinstance(error, OutOfMemoryError):
        return "oom"
    return "unsupported" if isinstance(error, (UnsupportedError, CapabilityError)) else "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRow:
    """One row ahead, and the kinds of artefact that are still to be made for it."""

    name: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a run of a suite has ahead.

    `seconds` is what the missing artefacts took here before, and what scoring and timing a row did in an earlier run;
    None where one was never made here, or nothing was measured yet. `disk_bytes` counts the missing artefacts at the
    size of the dense network's weights.
    """

    rows: tuple[PlannedRow, ...]
    seconds: float | None
    timing_s: float
    disk_bytes: int


def outlook(suite: Suite, places: Places) -> Outlook:
    """Look at what is ahead, making nothing but what tells: one image goes through the network, once.

    Raises:
        ConfigError: the network does not take the suite's images.
    """
    makings = Makings(suite, places, is_dry=True)
    _ = makings.dataset  # without images there is no row
    with using_gpu(suite.device):
        given = makings.onnx_path
        weight_bytes = _BYTES_PER_WEIGHT * trial(makings).params if given is None else given.stat().st_size
        engines = {engine: _missing(makings, engine) for engine in plan_engines(suite)}
    rows = tuple(
        PlannedRow(name=f"{engine.name} b{size}", missing=tuple(dict.fromkeys(kind for kind, _ in missing)))
        for engine, missing in engines.items()
        for size in suite.bench.batch_sizes
    )
    ahead = {one for missing in engines.values() for one in missing}
    book = makings.book
    times = [book.store.expected_seconds(kind, label=f"{book.label}/{item}") for kind, item in ahead]
    times.append(_measuring_s(suite, places, len(rows)))
    known = [time for time in times if time is not None]
    return Outlook(
        rows=rows,
        seconds=sum(known) if len(known) == len(times) else None,
        timing_s=len(rows) * suite.bench.duration,
        disk_bytes=len(ahead) * weight_bytes,
    )


def _measuring_s(suite: Suite, places: Places, rows: int) -> float | None:
    """Return what measuring so many rows takes by an earlier run: the newest of this suite, else of any."""
    found: list[tuple[bool, str, float]] = []
    for path in places.runs.glob("*/report.json"):
        with contextlib.suppress(*MISFITS):  # no report of a run
            report = read_json(path)
            before, took = report["suite"], sum(report["stages"].get(stage, 0.0) for stage in _MEASURING)
            timed = before["bench"]["duration"] * len(report["rows"])
            beside = max(0.0, took - timed) / len(report["rows"]) + suite.bench.duration
            found.append((before["name"] == suite.name, path.parent.name, rows * beside))
    return max(found)[-1] if found else None


def _missing(makings: Makings, engine: EnginePlan) -> tuple[tuple[str, str], ...]:
    """Return kind and item of what is not there yet on the way to an engine, in order.

    What cannot be made is not ahead either: its row will say why.
    """
    makings.book.missing.clear()
    with contextlib.suppress(*_OF_A_ROW):
        try:
            if BACKENDS[engine.backend].is_baseline:  # it runs a copy of the network, which takes no time
                source(makings, engine)
            else:
                build_engine(makings, engine)
        except Absent:
            makings.book.missing.append(("engine", engine.name))
    return tuple(dict.fromkeys(makings.book.missing))


def repeat_builds(
    makings: Makings, built: Sequence[BuiltEngine], rows: Sequence[Row], *, measure: Measure
) -> tuple[dict[str, Row], dict[str, Timing]]:
    """Build the finalists again and measure all their builds: their rows by name, and the raw blocks that pair them.

    Both are empty where the suite asks for one build of each.

    Args:
        makings: of the suite.
        built: the first builds.
        rows: what they were measured at.
        measure: measures engines side by side.

    Raises:
        RowError: a finalist cannot be built again.
    """
    decision = makings.suite.decision
    chosen = finalists(rows, decision)
    again = [one for one in built if one.plan.config.builds > 1 and backend(one.plan.backend).takes_options]
    wanted = [one for one in again if _row_name(one.plan, decision) in chosen]
    if not wanted:
        return {}, {}
    builds = [build for one in wanted for build in (one, *_others(makings, one.plan))]
    measured, blocks = measure(builds)
    found: dict[str, Row] = {}
    paired: dict[str, Timing] = {}
    for one in wanted:
        of_plan = [plan.plan for plan in builds if replace(plan.plan, build=one.plan.build) == one.plan]
        names = {_row_name(plan, decision) for plan in of_plan}
        median = median_build([row for row in measured if row.name in names])
        for row in measured:
            if row.name == replace(median, batch_size=row.batch_size).name:
                name = replace(row, build=one.plan.build).name
                found[name] = _representing(row, of_plan, measured, build=one.plan.build)
                paired[name] = blocks[row.name]
    return found, paired


def finalists(rows: Sequence[Row], decision: DecisionConfig) -> tuple[str, ...]:
    """Return the names of the winner and the runner-up; simulated rows count here as if they were real."""
    ranking = choose([replace(row, simulated=False) for row in rows], decision).ranking
    ahead = (ranking.winner, ranking.runner_up) if ranking else ()
    return tuple(row.name for row in ahead if row is not None)


def median_build(rows: Sequence[Row]) -> Row:
    """Return the row with the median p50; of an even number the slower of the two in the middle."""
    timed = [row for row in rows if row.latency is not None]
    if not timed:
        raise RowError("repeated builds", expected="at least one that was timed", got="none")
    return sorted(timed, key=p50_ms)[len(timed) // 2]


def _representing(row: Row, plans: Sequence[EnginePlan], measured: Sequence[Row], *, build: int) -> Row:
    """Return the row of the median build under the engine's own name, with the spread of all builds."""
    names = {replace(row, build=plan.build).name for plan in plans}
    spread = tuple(one.latency.p50_ms for one in measured if one.name in names and one.latency is not None)
    return replace(row, build=build, builds_p50_ms=spread)


def _others(makings: Makings, plan: EnginePlan) -> list[BuiltEngine]:
    found = []
    for number in range(2, plan.config.builds + 1):
        again = replace(plan, build=number)
        path, sidecar = build_engine(makings, again)
        found.append(BuiltEngine(plan=again, status="ok", path=path, sidecar=sidecar))
    return found


def _row_name(plan: EnginePlan, decision: DecisionConfig) -> str:
    return f"{plan.name} b{decision.batch_size}"


_TRIED = 64  # images that a checkpoint is tried on


def propose(suite: Suite) -> Proposal:
    """Open the images and the weights of a suite, and say by them what it leaves open of its data; nothing is kept.

    Raises:
        ConfigError: there are none, the network does not take such images, or its classes are others.
    """
    data, reasons = framing_proposed(suite)
    with tempfile.TemporaryDirectory() as scratch:
        places = Places(runs=Path(scratch), calib=Path(scratch) / "calib")
        makings = Makings(suite.model_copy(update={"data": suite.data.model_copy(update=data)}), places)
        dataset = makings.dataset
        seen, width, is_quantized = _try(makings)
    counts = f"{len(dataset.train)} images to train on, {len(dataset.validation)} to validate on"
    reasons["source"] = f"{counts}, {len(dataset.test)} to score on; {dataset.num_classes} classes"
    if suite.data.mean is None and "mean" not in data:
        data |= {"mean": dataset.preprocessing.mean, "std": dataset.preprocessing.std}
        reasons["mean"] = dataset.normalisation
        if "measured" in dataset.normalisation and suite.model.train is None:
            reasons["mean"] += ": if the network was trained with others, write those"
    classes = Counter(dataset.train.labels.tolist()).values()
    return Proposal(
        suite=suite.model_copy(update={"data": suite.data.model_copy(update=data)}),
        reasons=reasons,
        per_class=max(1, min(50, min(classes) * 4 // 5)),  # some are left to judge by
        width=width,
        is_quantized=is_quantized,
        notes=(*(note for note in dataset.notes if not note.startswith(ASSUMED)), seen),
    )


def _try(makings: Makings) -> tuple[str, int | None, bool]:
    """Let one image go through the network, a few through weights that were given.

    Returns what was seen, the channels of the narrowest layer, and whether a graph came with Q/DQ pairs of its own.
    """
    if makings.onnx_path is not None:
        from trtbench.make.graphs import float_graph

        graph = float_graph(makings, makings.suite.variants[0])
        return "one image went through the graph", None, graph.facts.is_quantized
    trial(makings)
    held, given = makings.dataset.validation, makings.checkpoint
    from trtbench.data.batches import spread
    from trtbench.models.counts import conv_widths
    from trtbench.train import predict

    if given is None:
        widths = conv_widths(makings.architecture.fresh(seed=0)).values()
        return "one image went through the network", min(widths, default=None), False
    chosen = spread(held.labels, count=_TRIED)
    network = makings.architecture.load(given.value, weights_from=makings.suite.model.weights_from).model
    logits = predict(network, held.images[chosen], makings.dataset.preprocessing)
    right = int((logits.argmax(1) == held.labels[chosen]).sum())
    seen = f"{right} of {len(chosen)} validation images are told right by the checkpoint"
    share = 1 / makings.dataset.num_classes
    if right <= len(chosen) * share + 2 * math.sqrt(len(chosen) * share * (1 - share)):  # two deviations of guessing
        seen += ": no more than guessing may; is this its network, its mean and std, its order of classes?"
    return seen, min(conv_widths(network).values(), default=None), False
