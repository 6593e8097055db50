"""`trtbench bench`: engines to rows to a report; what was measured survives raw beside it."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.measure import EngineFile, Images, Progress, measure_engines
from trtbench.bench.statistics import latency_summary, latency_verdict, paired_ratio
from trtbench.engines.base import backend
from trtbench.errors import RowError
from trtbench.pipeline.artefacts import Artefacts
from trtbench.pipeline.build import build_engines, status_of
from trtbench.pipeline.events import Event, Listener, nobody
from trtbench.records import LatencyRecord, Row
from trtbench.store import write_atomically
from trtbench.suite import DenseVariant

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.bench.latency import TimedRow
    from trtbench.bench.measure import Measured
    from trtbench.engines.sidecar import Sidecar
    from trtbench.pipeline.build import BuiltEngine
    from trtbench.pipeline.keeper import Places
    from trtbench.records import Role
    from trtbench.suite import Suite


def bench_suite(
    suite: Suite, places: Places, *, folder: Path, tell: Listener = nobody
) -> tuple[tuple[Row, ...], dict[str, TimedRow]]:
    """Score and time every engine of a suite, building first what is not there.

    Args:
        suite: the validated suite.
        places: folders.
        folder: the run's folder; raw samples go to raw/, workers' words to logs/.
        tell: told of progress.

    Returns:
        A row for each engine and batch size, the failed ones too, and the raw blocks by row name.
    """
    artefacts = Artefacts(suite, places, tell=tell)
    built = build_engines(artefacts)
    images = Images(
        path=artefacts.test_images(),
        labels=artefacts.dataset.test.labels,
        reference=_reference_or_none(artefacts),
    )
    engines = {one.plan.name: one for one in built}
    measured = measure_engines(
        [_engine_file(one) for one in built if one.status == "ok"],
        images,
        suite.bench,
        folder=folder,
        progress=_Clock(tell),
    )
    true_counts = _true_arithmetic(artefacts, built, images, _Clock(tell))
    rows = [
        measured_row(one, _sidecar(engines[one.engine.name]), role=engines[one.engine.name].plan.role)
        for one in measured
    ]
    rows = [_with_true_arithmetic(row, true_counts) for row in _with_ratios(rows, measured)]
    rows += [_absent_row(one, size) for one in built if one.status != "ok" for size in suite.bench.batch_sizes]
    for row, one in zip(rows, measured, strict=False):
        _write_raw(folder, row, one)
    pairs = zip(rows, measured, strict=False)
    blocks = {row.name: one.timed for row, one in pairs if one.timed is not None and not one.is_alone}
    return tuple(rows), blocks


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


def _reference_or_none(artefacts: Artefacts) -> NDArray[np.float32] | None:
    """Return the reference's logits; None where the dense network cannot be made, which every row then says."""
    try:
        return reference_logits(artefacts)
    except RowError:
        return None


def reference_logits(artefacts: Artefacts) -> NDArray[np.float32]:
    """Return the logits (images, classes) of the dense network, against which every drop is counted.

    Raises:
        RowError: the dense network cannot be made.
    """
    dataset = artefacts.dataset
    if artefacts.is_onnx:
        dense = DenseVariant(kind="dense", name="dense")
        return _reference_run(artefacts.graph(dense).path("model.onnx"), artefacts)
    from trtbench.train import predict

    network = artefacts.network(artefacts.dense())
    return predict(network, dataset.test.images, dataset.preprocessing, device=artefacts.device)


def _engine_file(built: BuiltEngine) -> EngineFile:
    assert built.path is not None, "an engine with status ok has a file"
    return EngineFile(name=built.plan.name, backend=built.plan.backend, path=built.path)


def _true_arithmetic(
    artefacts: Artefacts, built: Sequence[BuiltEngine], images: Images, progress: Progress
) -> dict[str, int]:
    """Count what each variant's Q/DQ graph gets right in true arithmetic, so that the kernels' share shows."""
    wanted = [one for one in built if (one.plan.precision, one.status) == ("int8", "ok")]
    counts = {}
    for index, one in enumerate(wanted):
        with contextlib.suppress(RowError):  # the row stands without this split of its drop
            logits = _reference_run(artefacts.quantized_graph(one.plan.variant).path("model.onnx"), artefacts)
            counts[one.plan.variant.name] = int((logits.argmax(axis=1) == images.labels).sum())
        progress("true arithmetic", "all int8 variants", (index + 1) / len(wanted))
    return counts


def _reference_run(graph: Path, artefacts: Artefacts) -> NDArray[np.float32]:
    import onnx

    from trtbench.data import normalise
    from trtbench.graph.reference import run_reference_batches

    dataset, size = artefacts.dataset, artefacts.suite.calibration.batch_size
    batches = (
        {"input": normalise(dataset.test.images[start : start + size], dataset.preprocessing)}
        for start in range(0, len(dataset.test), size)
    )
    return np.concatenate([next(iter(found.values())) for found in run_reference_batches(onnx.load(graph), batches)])


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
    opening = measured.opening
    row = Row(
        variant=sidecar.variant,
        precision=sidecar.precision,
        backend=sidecar.backend,
        device=opening.device if opening else sidecar.device,
        batch_size=measured.batch_size,
        role=role,
        simulated=backend(sidecar.backend).IS_SIMULATED,
        params=sidecar.params,
        macs=sidecar.macs,
        sparsity=sidecar.sparsity,
        engine_bytes=sidecar.engine_bytes,
        weight_bytes=sidecar.weight_bytes,
        engine_sha256=sidecar.engine_sha256,
        build_s=sidecar.build_s,
        load_ms=opening.load_ms if opening else None,
        first_inference_ms=opening.first_inference_ms if opening else None,
        accuracy=measured.accuracy,
        memory_bytes=measured.memory_bytes,
        settings={
            "achieved": sidecar.achieved,
            **(opening.settings if opening else {}),
            **({"cores": list(measured.cores)} if measured.cores else {}),
        },
        notes=sidecar.notes,
    )
    if measured.error is not None:
        return replace(row, status=status_of(measured.error), reason=str(measured.error))
    assert measured.timed is not None, "a row without an error was timed"
    latency = _latency(measured.timed, batch_size=measured.batch_size)
    return replace(row, latency=latency, throughput_ips=1000 / latency.ms_per_image)


def _latency(timed: TimedRow, *, batch_size: int) -> LatencyRecord:
    summary = latency_summary(timed.samples_ns, batch_size=batch_size)
    return LatencyRecord(scope="device", verdict=latency_verdict(timed.samples_ns), **asdict(summary))


def _with_ratios(rows: Sequence[Row], measured: Sequence[Measured]) -> list[Row]:
    """Give each timed row its paired ratio to the anchor: the first candidate timed at that batch size."""
    anchors: dict[int, tuple[Row, TimedRow]] = {}
    for row, one in zip(rows, measured, strict=True):
        if one.timed is not None and row.role == "candidate" and not one.is_alone:
            anchors.setdefault(row.batch_size, (row, one.timed))
    return [
        _with_ratio(row, None if one.is_alone else one.timed, anchors.get(row.batch_size))
        for row, one in zip(rows, measured, strict=True)
    ]


def _with_ratio(row: Row, timed: TimedRow | None, anchor: tuple[Row, TimedRow] | None) -> Row:
    if timed is None or anchor is None or row.latency is None:
        return row
    base, base_timed = anchor
    pairs = min(len(timed.blocks), len(base_timed.blocks))
    if pairs < 2:  # noqa: PLR2004  an interval needs two
        return row
    ratio, low, high = paired_ratio(timed.block_medians_ns[:pairs], base_timed.block_medians_ns[:pairs])
    return replace(row, latency=replace(row.latency, ratio=ratio, ratio_ci95=(low, high), anchor=base.name))


def _absent_row(built: BuiltEngine, batch_size: int) -> Row:
    plan = built.plan
    return Row(
        variant=plan.variant.name,
        precision=plan.precision,
        backend=plan.backend,
        device=backend(plan.backend).device_name(),
        batch_size=batch_size,
        role=plan.role,
        status=built.status,
        reason=built.reason,
    )


def _write_raw(folder: Path, row: Row, measured: Measured) -> None:
    blocks: list[list[int]] = [] if measured.timed is None else [block.tolist() for block in measured.timed.blocks]
    raw: dict[str, Any] = {"row": row.name, "blocks_ns": blocks, "predictions": measured.predictions}
    write_atomically(folder / "raw" / f"{row.name.replace(' ', '_')}.json", json.dumps(raw))
