"""`trtbench bench`: engines to rows to a report; what was measured survives raw beside it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from trtbench.bench.accuracy import judge_of
from trtbench.bench.measure import measure_engines, time_again
from trtbench.bench.processes import mapped
from trtbench.bench.records import Bench, EngineFile, Images, Progress
from trtbench.bench.telemetry import Watch
from trtbench.data.batches import fed
from trtbench.decide import choose
from trtbench.decide.rank import objective_ratio, processes_needed
from trtbench.engines.base import backend
from trtbench.engines.sidecar import read_sidecar
from trtbench.errors import ConfigError, RowError, StoreError
from trtbench.graph.reference import parted
from trtbench.make.engines import source
from trtbench.make.graphs import GRAPH, float_graph, outputs_of, quantized_graph
from trtbench.make.images import overlap_notes
from trtbench.make.networks import dense, load_network
from trtbench.precision import PLACEMENTS
from trtbench.progress import Clock, Listener, nobody
from trtbench.report.disk import write_raw
from trtbench.running.again import paired_from
from trtbench.running.plan import repeat_builds
from trtbench.running.rows import absent_row, family_of, row_of
from trtbench.suite import BACKENDS, DataConfig, DenseVariant, options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.bench.interleave import Timing
    from trtbench.bench.records import Measured, Score
    from trtbench.decide.rank import Ranking
    from trtbench.decide.ratios import PairedRatio
    from trtbench.make.makings import Makings
    from trtbench.precision import Runtime
    from trtbench.rows import AccuracyRecord, FidelityRecord, Row
    from trtbench.running.plan import BuiltEngine
    from trtbench.running.rows import TrueCorrect
    from trtbench.suite import BenchConfig, DecisionConfig, Suite

_HALF_AGAIN = 0.5  # of what the plan took, where the suite has no budget of its own


class Session:
    """Measures the engines of one suite, now and again: on the same images, watched by the same sampler.

    Args:
        makings: of the suite.
        built: its engines.
        folder: the run's folder; raw samples go to raw/, workers' words to logs/.
        images: the file of the test images.
    """

    def __init__(self, makings: Makings, built: Sequence[BuiltEngine], folder: Path, *, images: Path) -> None:
        self._makings, self._built = makings, built
        reference = None
        with contextlib.suppress(RowError):  # the dense network cannot be made, which every row then says
            reference = reference_logits(makings)
        made = makings.brought.get("made")
        brought = (f"Networks and graphs were made on {made}.",) if made else ()
        self.notes = (*makings.dataset.notes, *brought, *overlap_notes(makings))
        self.watch = Watch()
        self.bench = Bench(
            images=Images(
                path=images,
                labels=makings.dataset.test.labels,
                reference=reference,
                classes=makings.dataset.classes,
                outputs=outputs_of(makings),
                score=score_of(makings),
            ),
            config=makings.suite.bench,
            folder=folder,
            progress=Clock(makings.tell),
            energy_j=self.watch.energy_j,
        )
        self.found: list[Measured] = []
        self.stopped: KeyboardInterrupt | StoreError | None = None  # someone, or a full disk
        self._true_correct: TrueCorrect = {}
        self._repeated: tuple[dict[str, Row], dict[str, Timing]] = ({}, {})
        self._graphs: dict[str, AccuracyRecord | FidelityRecord] = {}
        self._measured: dict[str, tuple[Row, Measured]] = {}

    def score_exactly(self) -> None:
        """Score in exact arithmetic what tells drops apart, and the graphs of the engines that are not run here."""
        self._true_correct = _true_arithmetic(self._makings, self._built, Clock(self._makings.tell))
        judge, progress = judge_of(self.bench.images), Clock(self._makings.tell)
        waiting = [one.plan for one in self._built if one.status == "built"]
        for index, plan in enumerate(waiting):
            with contextlib.suppress(RowError):  # the row stands without a score
                logits = true_logits(source(self._makings, plan).path(GRAPH), self._makings)
                self._graphs[plan.name] = judge(logits)
            progress("graphs", "of engines that are not run", (index + 1) / len(waiting))

    def sample_on(self, rows: Sequence[Row], blocks: Mapping[str, Timing]) -> None:
        """Time more processes where the choice is open."""
        with self.watch:
            sample_on(self.found, rows, self.bench, self._makings.suite.decision, paired=paired_from(rows, blocks))

    def build_again(self, rows: Sequence[Row]) -> None:
        """Build the finalists again, where the suite asks for it, and measure their builds beside one another."""
        with contextlib.suppress(RowError):  # the first builds stand, each as one build
            self._repeated = repeat_builds(self._makings, self._built, rows, measure=self._again)

    def rows(
        self, built: Sequence[BuiltEngine], found: Sequence[Measured]
    ) -> tuple[tuple[Row, ...], dict[str, Timing]]:
        """Return the rows of what was measured, then of the engines that are not there; and the blocks that pair."""
        engines = {one.plan.name: one for one in built}
        family = family_of(found, engines, throttled=self.watch.throttled, true_correct=self._true_correct)
        rows, blocks = [], {}
        for one in found:
            engine = engines[one.engine.name]
            assert engine.sidecar is not None, "an engine with status ok has a sidecar"
            row = row_of(one, engine.sidecar, family, role=engine.plan.role)
            self._measured[row.name] = (row, one)
            rows.append(row)
            if one.timed is not None and not one.is_alone:
                blocks[row.name] = one.timed
        sizes = self._makings.suite.bench.batch_sizes
        rows += [
            absent_row(one, size, graph=self._graphs.get(one.plan.name))
            for one in built
            if one.status != "ok"
            for size in sizes
        ]
        return tuple(rows), blocks

    def final(self) -> tuple[tuple[Row, ...], dict[str, Timing], dict[str, Timing]]:
        """Return rows, the blocks that pair, and those of repeated builds; keep raw samples and what was watched."""
        rows, blocks = self.rows(self._built, self.found)
        try:
            for row, one in self._measured.values():
                write_raw(self.bench.folder, row, one)
            self.watch.write(self.bench.folder)
        except StoreError as error:
            self.stopped = error
        again, repeated = self._repeated
        return tuple(again.get(row.name, row) for row in rows), blocks, repeated

    def _again(self, built: Sequence[BuiltEngine]) -> tuple[tuple[Row, ...], dict[str, Timing]]:
        with self.watch:
            found = measure_engines(engine_files(built, self._makings.suite), self.bench)
        return self.rows(built, found)


def score_of(makings: Makings) -> Score | None:
    """Return the suite's own score of all outputs side by side, (images, numbers); None where it has none.

    Its callable is told each output by its name, and the paths of the test images, or each tensor by its name.

    Raises:
        ConfigError: it cannot be imported; when called, it fails or returns other than a finite number for each image.
    """
    name, test = makings.suite.score, makings.dataset.test
    if name is None:
        return None
    from trtbench.models.zoo import attribute

    module, _, own = name.partition(":")
    what = f"score {name}"
    function = attribute(own, module_name=module, what=what)
    outputs = outputs_of(makings)
    images = fed(test.images) if test.images.dtype.names else list(makings.dataset.test_paths)

    def score(found: NDArray[np.float32]) -> NDArray[np.float64]:
        cure = "mend the callable: it is told outputs by name and the images, and returns an array (images,)"
        try:
            values = np.asarray(function(parted(found, outputs), images), np.float64)
        except Exception as error:  # the user's own code may raise anything
            got = f"{type(error).__name__}: {error}"
            raise ConfigError(what, expected="a number for each image", got=got, cure=cure) from error
        if values.shape != (len(test),) or not np.isfinite(values).all():
            got = f"shape {values.shape}" if values.shape != (len(test),) else "NaN or infinity"
            raise ConfigError(what, expected=f"a finite number for each of {len(test)} images", got=got, cure=cure)
        return values

    return score


def reference_logits(makings: Makings) -> NDArray[np.float32]:
    """Return the logits (images, classes) of the dense network, against which every drop is counted.

    Raises:
        RowError: the dense network cannot be made.
    """
    dataset = makings.dataset
    if makings.onnx_path is not None:
        variant = DenseVariant(kind="dense", name="dense")
        return true_logits(float_graph(makings, variant).path(GRAPH), makings)
    from trtbench.train import predict

    network = load_network(makings, dense(makings))
    return predict(network, dataset.test.images, dataset.preprocessing, device=makings.computing.device)


def engine_files(built: Sequence[BuiltEngine], suite: Suite) -> list[EngineFile]:
    """Return the files of the engines that are there, each with the settings of the suite that its runtime knows."""
    return [
        EngineFile(
            name=one.plan.name,
            backend=one.plan.backend,
            path=one.path,
            settings={key: getattr(suite.bench, key) for key in BACKENDS[one.plan.backend].settings},
            sha256=one.sidecar.engine_sha256,
            code=suite.model.code,
        )
        for one in built
        if one.status == "ok" and one.path is not None and one.sidecar is not None
    ]


def _true_arithmetic(makings: Makings, built: Sequence[BuiltEngine], progress: Progress) -> TrueCorrect:
    """Count what each variant's Q/DQ graphs get right in true arithmetic: the kernels' share, and a forecast."""
    ran = [one.plan for one in built if one.status == "ok" and makings.dataset.is_labelled]
    plans = [plan for plan in ran if plan.precision == "int8" and not plan.rescued]
    variants = {plan.variant.name: plan.variant for plan in plans}
    asked = {(plan.variant.name, BACKENDS[plan.backend].placement) for plan in plans}
    asked |= {(name, "tensorrt") for name in variants}  # the forecast
    wanted = [(one, runtime) for one in variants.values() for runtime in PLACEMENTS if (one.name, runtime) in asked]
    counts: dict[tuple[str, Runtime], int] = {}
    for index, (variant, runtime) in enumerate(wanted):
        with contextlib.suppress(RowError):  # the row stands without this split of its drop
            logits = true_logits(quantized_graph(makings, variant, runtime=runtime).path(GRAPH), makings)
            counts[variant.name, runtime] = int((logits.argmax(axis=1) == makings.dataset.test.labels).sum())
        progress("true arithmetic", "all int8 variants", (index + 1) / len(wanted))
    return counts


def true_logits(graph: Path, makings: Makings) -> NDArray[np.float32]:
    """Return the logits (images, classes) of a graph on the test split, each node computed as the standard has it."""
    import onnx

    from trtbench.graph.half_rules import rounding_graph
    from trtbench.graph.reference import exact_logits

    dataset, size = makings.dataset, makings.suite.calibration.batch_size
    proto = rounding_graph(onnx.load(graph))  # half precision as a GPU computes it; other graphs as they are
    return exact_logits(proto, dataset.test.images, dataset.preprocessing, size=size)


def bench_engine(
    engine: Path, source: str, config: BenchConfig, *, out: Path, tell: Listener = nobody
) -> tuple[Row, ...]:
    """Score and time one engine file on a test split, with the preprocessing of its sidecar.

    Raises:
        ConfigError: there is no such file, or it tells other classes apart than the images have.
        SidecarError: its sidecar is absent or does not fit.
    """
    from trtbench.data import load_dataset

    if not engine.is_file():
        raise ConfigError(f"engine {engine}", expected="an engine file", got="nothing there", cure="`trtbench build`")
    sidecar = read_sidecar(engine)
    backend(sidecar.backend)
    fit = sidecar.preprocessing
    if sidecar.outputs or not options(DataConfig, source=source).is_labelled:
        raise ConfigError(
            f"engine {engine}",
            expected="a classifier, and images with labels",
            got="outputs that are compared with the float network's" if sidecar.outputs else f"no labels in {source}",
            cure="compare it by its suite: `trtbench run` or `trtbench bench --suite`",
        )
    framing = fit.framing if source.startswith("folder:") else {"size": fit.size}
    dataset = load_dataset(options(DataConfig, source=source, mean=fit.mean, std=fit.std, **framing))
    if dataset.num_classes != sidecar.num_classes:
        raise ConfigError(
            f"engine {engine}",
            expected=f"images of {sidecar.num_classes} classes",
            got=f"{dataset.num_classes} in {source}",
            cure="give the --data it was trained on",
        )
    with mapped(dataset.test.images, out) as images:
        name = f"{sidecar.variant} {sidecar.shown_precision} {sidecar.backend}"
        settings = {key: getattr(config, key) for key in BACKENDS[sidecar.backend].settings}
        bench = Bench(
            images=Images(path=images, labels=dataset.test.labels), config=config, folder=out, progress=Clock(tell)
        )
        measured = measure_engines(
            [EngineFile(name=name, backend=sidecar.backend, path=engine, settings=settings)], bench
        )
    return tuple(row_of(one, sidecar) for one in measured)


def sample_on(
    found: Sequence[Measured], rows: Sequence[Row], bench: Bench, decision: DecisionConfig, *, paired: PairedRatio
) -> bool:
    """Time more processes of the winner and of the rows that the choice is open against; say whether any were.

    How many is settled once, by the spread that was seen (`processes_needed`). Simulated rows count as if they were
    real.

    Args:
        found: what was measured; the new processes are added to it.
        rows: the rows of it.
        bench: of the measurement so far, whose seconds the budget is held against.
        decision: of the suite.
        paired: the ratios of rows.
    """
    ranking = choose([replace(row, simulated=False) for row in rows], decision, paired=paired).ranking
    if ranking is None or not ranking.undecided:
        return False
    undecided = _undecided(found, ranking)
    spent, number = sum(bench.seconds.values()), 0
    budget = bench.config.budget_s or (1 + _HALF_AGAIN) * spent
    ratios = (objective_ratio(row, ranking.winner, decision, paired=paired) for row in ranking.undecided)
    wanted = max(processes_needed(ratio, bench.config.processes, margin=decision.margin) for ratio in ratios)
    # What one more takes is as much of what the last one took as there are rows in it.
    last = list(bench.seconds.values())[-1] * len(undecided) / len(found)
    while number < wanted - bench.config.processes and spent + last <= budget:
        last = time_again(undecided, bench, number=number)
        spent, number = spent + last, number + 1
    return number > 0


def _undecided(found: Sequence[Measured], ranking: Ranking) -> list[Measured]:
    """Return what is undecided; the anchor runs beside it, so that ratios to it tell the same."""
    names = {row.name for row in (ranking.winner, *ranking.undecided)}
    anchor = found[0].engine.name
    return [
        one
        for one in found
        if one.batch_size == ranking.winner.batch_size
        and one.error is None
        and (one.engine.name == anchor or f"{one.engine.name} b{one.batch_size}" in names)
    ]
