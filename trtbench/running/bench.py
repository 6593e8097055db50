"""`trtbench bench`: engines to rows to a report; what was measured survives raw beside it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.measure import measure_engines
from trtbench.bench.measured import EngineFile, Images, Progress
from trtbench.bench.statistics import holm
from trtbench.bench.summary import latency_record, timed_ratio
from trtbench.bench.telemetry import Watch
from trtbench.engines.base import backend
from trtbench.environment import collect_environment
from trtbench.errors import RowError, TrtbenchError
from trtbench.make.calibration import test_pixels
from trtbench.make.graphs import GRAPH, float_graph, quantized_graph
from trtbench.make.makings import Makings
from trtbench.make.networks import dense, load_network
from trtbench.progress import Event, Listener, nobody
from trtbench.report.raw import write_raw
from trtbench.rows import Row
from trtbench.running.finalists import hold_finals
from trtbench.running.plan import build_engines, status_of
from trtbench.suite import BACKENDS, DenseVariant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.bench.latency import TimedRow
    from trtbench.bench.measured import Measured
    from trtbench.engines.sidecar import Sidecar
    from trtbench.make.makings import Places
    from trtbench.rows import Role
    from trtbench.running.plan import BuiltEngine
    from trtbench.suite import Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What a measurement left: a row for each engine and batch size, and the raw blocks by row name.

    `finals` are the blocks of repeated builds, which pair with one another only. `telemetry` is what the devices did
    meanwhile; `is_interrupted` says that someone stopped it, and the rows that were not reached are skipped.
    """

    rows: tuple[Row, ...]
    blocks: Mapping[str, TimedRow]
    telemetry: Mapping[str, Any]
    finals: Mapping[str, TimedRow]
    is_interrupted: bool = False


def bench_suite(suite: Suite, places: Places, *, folder: Path, tell: Listener = nobody) -> Results:
    """Score and time every engine of a suite, building first what is not there.

    Args:
        suite: the validated suite.
        places: folders.
        folder: the run's folder; raw samples go to raw/, workers' words to logs/.
        tell: told of progress.
    """
    makings = Makings(suite, places, tell=tell)
    built = build_engines(makings)
    images = Images(
        path=test_pixels(makings),
        labels=makings.dataset.test.labels,
        reference=_reference_or_none(makings),
        classes=makings.dataset.classes,
    )
    watch = Watch()
    measured: list[Measured] = []
    is_interrupted = False
    try:
        with watch:
            engines = [_engine_file(one, suite) for one in built if one.status == "ok"]
            measure_engines(
                engines,
                images,
                suite.bench,
                folder=folder,
                progress=_Clock(tell),
                found=measured,
                energy_j=watch.energy_j,
            )
        true_counts = _true_arithmetic(makings, built, images, _Clock(tell))
    except KeyboardInterrupt:
        is_interrupted, true_counts = True, {}
    rows = _rows(built, measured, watch=watch, batch_sizes=suite.bench.batch_sizes)
    rows = tuple(_with_true_arithmetic(row, true_counts) for row in rows)
    for row, one in zip(rows, measured, strict=False):
        write_raw(folder, row, one)
    blocks = _blocks(rows, measured)
    finals = None
    with contextlib.suppress(RowError):  # the first builds stand, each as one build
        if not is_interrupted:
            finals = hold_finals(makings, built, rows, measure=_Measure(makings, images, watch, folder, tell))
    if finals is not None:
        rows = tuple(_with_true_arithmetic(finals.rows.get(row.name, row), true_counts) for row in rows)
    watch.write(folder)
    return Results(
        rows=rows,
        blocks=blocks,
        telemetry=watch.summary(),
        finals=finals.blocks if finals is not None else {},
        is_interrupted=is_interrupted,
    )


def _blocks(rows: Sequence[Row], measured: Sequence[Measured]) -> dict[str, TimedRow]:
    """Return the raw blocks of what was timed beside others, by row name."""
    pairs = zip(rows, measured, strict=False)
    return {row.name: one.timed for row, one in pairs if one.timed is not None and not one.is_alone}


@dataclass(frozen=True, slots=True)
class _Measure:
    """Measures more engines of the same suite; their raw samples go where those of the others are."""

    makings: Makings
    images: Images
    watch: Watch
    folder: Path
    tell: Listener

    def __call__(self, built: Sequence[BuiltEngine]) -> tuple[tuple[Row, ...], dict[str, TimedRow]]:
        suite = self.makings.suite
        with self.watch:
            measured = measure_engines(
                [_engine_file(one, suite) for one in built],
                self.images,
                suite.bench,
                folder=self.folder,
                progress=_Clock(self.tell),
                energy_j=self.watch.energy_j,
            )
        rows = _rows(built, measured, watch=self.watch, batch_sizes=suite.bench.batch_sizes)
        for row, one in zip(rows, measured, strict=True):
            write_raw(self.folder, row, one)
        return rows, _blocks(rows, measured)


def _rows(
    built: Sequence[BuiltEngine], measured: Sequence[Measured], *, watch: Watch, batch_sizes: Sequence[int]
) -> tuple[Row, ...]:
    """Return the rows of what was measured, in its order, then of the engines that are not there."""
    engines = {one.plan.name: one for one in built}
    rows = [
        measured_row(one, _sidecar(engines[one.engine.name]), role=engines[one.engine.name].plan.role)
        for one in measured
    ]
    rows = [_watched(row, one, watch) for row, one in zip(_with_ratios(rows, measured), measured, strict=True)]
    rows = _with_holm(rows)
    return (*rows, *(_absent_row(one, size) for one in built if one.status != "ok" for size in batch_sizes))


def _watched(row: Row, measured: Measured, watch: Watch) -> Row:
    """Tell of a row how many of its samples were taken while its device held back."""
    if row.latency is None or measured.timed is None:
        return row
    return replace(row, latency=replace(row.latency, throttled_samples=watch.throttled(measured.timed, row.device)))


def _with_holm(rows: Sequence[Row]) -> list[Row]:
    """Adjust McNemar's p-values for the family of all candidates of a batch size."""
    adjusted: dict[str, float] = {}
    for size in {row.batch_size for row in rows}:
        family = {
            row.name: row.accuracy.mcnemar_p
            for row in rows
            if row.batch_size == size and row.role == "candidate" and row.accuracy is not None
        }
        tested = {name: value for name, value in family.items() if value is not None}
        adjusted |= dict(zip(tested, holm(list(tested.values())), strict=True))
    return [
        replace(row, accuracy=replace(row.accuracy, mcnemar_holm_p=adjusted[row.name]))
        if row.accuracy is not None and row.name in adjusted
        else row
        for row in rows
    ]


class _Clock:
    """Passes progress on as events, and tells what a thing took when it is done."""

    def __init__(self, tell: Listener) -> None:
        self._tell = tell
        self._since = time.monotonic()

    def __call__(self, stage: str, item: str, share: float) -> None:
        """Tell that this share of a stage is done; with the last one, what it took since the one before."""
        self._tell(Event(stage=stage, item=item, state="progress", share=share))
        if share >= 1:
            now = time.monotonic()
            self._tell(
                Event(stage=stage, item="all" if stage == "score" else item, state="done", seconds=now - self._since)
            )
            self._since = now


def _reference_or_none(makings: Makings) -> NDArray[np.float32] | None:
    """Return the reference's logits; None where the dense network cannot be made, which every row then says."""
    try:
        return reference_logits(makings)
    except RowError:
        return None


def reference_logits(makings: Makings) -> NDArray[np.float32]:
    """Return the logits (images, classes) of the dense network, against which every drop is counted.

    Raises:
        RowError: the dense network cannot be made.
    """
    dataset = makings.dataset
    if makings.onnx_path is not None:
        variant = DenseVariant(kind="dense", name="dense")
        return _reference_run(float_graph(makings, variant).path(GRAPH), makings)
    from trtbench.train import predict

    network = load_network(makings, dense(makings))
    return predict(network, dataset.test.images, dataset.preprocessing, device=makings.device)


def _engine_file(built: BuiltEngine, suite: Suite) -> EngineFile:
    assert built.path is not None, "an engine with status ok has a file"
    settings = {key: getattr(suite.bench, key) for key in BACKENDS[built.plan.backend].settings}
    return EngineFile(name=built.plan.name, backend=built.plan.backend, path=built.path, settings=settings)


def _true_arithmetic(
    makings: Makings, built: Sequence[BuiltEngine], images: Images, progress: Progress
) -> dict[str, int]:
    """Count what each variant's Q/DQ graph gets right in true arithmetic, so that the kernels' share shows."""
    wanted = [one for one in built if (one.plan.precision, one.status) == ("int8", "ok")]
    counts = {}
    for index, one in enumerate(wanted):
        with contextlib.suppress(RowError):  # the row stands without this split of its drop
            logits = _reference_run(quantized_graph(makings, one.plan.variant).path(GRAPH), makings)
            counts[one.plan.variant.name] = int((logits.argmax(axis=1) == images.labels).sum())
        progress("true arithmetic", "all int8 variants", (index + 1) / len(wanted))
    return counts


def _reference_run(graph: Path, makings: Makings) -> NDArray[np.float32]:
    import onnx

    from trtbench.data import batches
    from trtbench.graph.reference import run_reference_batches

    dataset, size = makings.dataset, makings.suite.calibration.batch_size
    inputs = ({"input": one} for one in batches(dataset.test.images, dataset.preprocessing, size=size))
    return np.concatenate([next(iter(found.values())) for found in run_reference_batches(onnx.load(graph), inputs)])


def _with_true_arithmetic(row: Row, counts: dict[str, int]) -> Row:
    """Split an int8 row's drop into what quantization costs and what this machine's kernels cost."""
    if row.precision != "int8" or row.accuracy is None or row.variant not in counts:
        return row
    exact = counts[row.variant]
    by_kernel = exact - row.accuracy.correct
    than = f"{abs(by_kernel)} {'fewer' if by_kernel > 0 else 'more'} than" if by_kernel else "as many as"
    note = f"this machine's kernels get {than} true Q/DQ arithmetic, which gets {exact} of {row.accuracy.total}"
    return replace(row, accuracy=replace(row.accuracy, true_arithmetic_correct=exact), notes=(*row.notes, note))


def _sidecar(built: BuiltEngine) -> Sidecar:
    assert built.sidecar is not None, "an engine with status ok has a sidecar"
    return built.sidecar


def measured_row(measured: Measured, sidecar: Sidecar, *, role: Role = "candidate") -> Row:
    """Return the row of one engine at one batch size, from what was measured and what its sidecar says."""
    opening, run = measured.opening, measured.last_run
    row = Row(
        variant=sidecar.variant,
        precision=sidecar.precision,
        sparse=sidecar.sparse,
        build=sidecar.build,
        backend=sidecar.backend,
        device=opening.device if opening else sidecar.device,
        batch_size=measured.batch_size,
        role=role,
        simulated=backend(sidecar.backend).is_simulated(),
        params=sidecar.params,
        macs=sidecar.macs,
        channels=sidecar.channels,
        sparsity=sidecar.sparsity,
        engine_bytes=sidecar.engine_bytes,
        weight_bytes=sidecar.weight_bytes,
        engine_sha256=sidecar.engine_sha256,
        build_s=sidecar.build_s,
        load_ms=opening.load_ms if opening else None,
        first_inference_ms=opening.first_inference_ms if opening else None,
        accuracy=measured.accuracy,
        memory_bytes=measured.memory_bytes,
        energy_j=measured.energy_j,
        loads=measured.loads,
        achieved=sidecar.achieved,
        cores=run.cores if run is not None else (),
        settings={**(opening.settings if opening else {}), **(run.settings if run is not None else {})},
        notes=tuple(dict.fromkeys((*sidecar.notes, *(run.notes if run is not None else ())))),
    )
    if measured.error is not None:
        return replace(row, status=status_of(measured.error), reason=str(measured.error))
    if measured.timed is None:
        return replace(row, status="skipped", reason="interrupted before it was timed")
    latency, *others = (latency_record(measured, way) for way in measured.ways)
    best = min(one.ms_per_image for one in (latency, *others) if one.scope == "device")
    return replace(row, latency=latency, other_latencies=tuple(others), throughput_ips=1000 / best)


def _with_ratios(rows: Sequence[Row], measured: Sequence[Measured]) -> list[Row]:
    """Give each timed row its paired ratio to the anchor: the first candidate timed at that batch size."""
    anchors: dict[int, tuple[Row, TimedRow | None]] = {}
    for row, one in zip(rows, measured, strict=True):
        if row.latency is not None and row.role == "candidate" and not one.is_alone:
            anchors.setdefault(row.batch_size, (row, one.timed))
    return [_with_ratio(row, one.timed, anchors.get(row.batch_size)) for row, one in zip(rows, measured, strict=True)]


def _with_ratio(row: Row, timed: TimedRow | None, anchor: tuple[Row, TimedRow | None] | None) -> Row:
    if anchor is None or row.latency is None:
        return row
    base, base_timed = anchor
    found = timed_ratio(timed, base_timed)
    if found is None:
        return row
    ratio, low, high = found
    return replace(row, latency=replace(row.latency, ratio=ratio, ratio_ci95=(low, high), anchor=base.name))


def _absent_row(built: BuiltEngine, batch_size: int) -> Row:
    plan = built.plan
    return Row(
        variant=plan.variant.name,
        precision=plan.precision,
        sparse=plan.config.sparse,
        build=plan.build,
        backend=plan.backend,
        device=_device_of(plan.backend),
        batch_size=batch_size,
        role=plan.role,
        status=built.status,
        reason=built.reason,
    )


def _device_of(runtime: str) -> str:
    """Name the device that a runtime would use; a row may be absent because there is none."""
    try:
        return backend(runtime).facts().device
    except TrtbenchError:  # what cannot be asked needs a GPU; the driver may know one
        gpus = collect_environment().usable_gpus
        return gpus[0].name if gpus else "no device"
