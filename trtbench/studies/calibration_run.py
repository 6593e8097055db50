"""`trtbench calibration-study`: INT8 accuracy by the size and the balance of the calibration set.

Every sample is nested: its first images are the smaller sample of the same seed. So each is run once, and as histograms
add up, the ranges of every size are read on the way. What is scored is kept in the store: a second call goes on where
the first one stopped.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import scipy

from trtbench.calibrate.leaks import leaking_indices
from trtbench.calibrate.manifest import SAMPLINGS, sample_balanced, sample_unbalanced
from trtbench.calibrate.ranges import Histogram, observe, thresholds
from trtbench.disk import write_atomically
from trtbench.engines.onnxruntime import iterate_activations
from trtbench.errors import ConfigError
from trtbench.graph.placement import activation_tensors, plan_qdq
from trtbench.graph.qdq import insert_qdq
from trtbench.make.graphs import GRAPH, calibrated_graph
from trtbench.make.recipe import Book, Facts, Ingredient, NoFacts, recipe
from trtbench.precision import PLACEMENTS
from trtbench.progress import Countdown
from trtbench.records import Split
from trtbench.studies.truth import INPUT, Images, TrueArithmetic, where
from trtbench.suite import CalibrationConfig, options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.make.makings import Makings
    from trtbench.precision import Runtime
    from trtbench.records import Dataset
    from trtbench.store import Artefact
    from trtbench.studies.int8_drop import Effect


BALANCED = "balanced"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPoint:
    """One calibration set, its size as images per class on average, and what its INT8 network gets right."""

    method: str
    sampling: str
    per_class: int
    seed: int
    effect: Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One method, sampling and size over all seeds: images right, and the mean signal-to-noise ratio of the logits."""

    method: str
    sampling: str
    per_class: int
    seeds: int
    mean_correct: float
    least_correct: int
    most_correct: int
    deviation: float | None
    mean_snr_db: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceEffect:
    """Images (and decibels) that class balance gains over another sampling, paired by seed.

    The interval is Student's, 95 %; None with fewer than two seeds.
    """

    method: str
    sampling: str
    per_class: int
    mean_images: float
    ci95_images: tuple[float, float] | None
    mean_db: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """INT8 accuracy in true Q/DQ arithmetic on `images` images of `split`, by calibration set.

    `leaking` of the training images stand in validation or test and were never drawn. `where` names the CPU and
    the versions.
    """

    model: str
    dataset: str
    placement: str
    split: str
    images: int
    float_correct: int
    training_images: int
    leaking: int
    points: tuple[StudyPoint, ...]
    where: Mapping[str, str]
    schema_version: int = 1


def spreads(points: Sequence[StudyPoint]) -> tuple[Spread, ...]:
    """Summarise the points of each method, sampling and size over their seeds, in the order they came."""
    return tuple(
        _spread(method, sampling, size, [point for point in points if _key(point) == (method, sampling, size)])
        for method, sampling, size in dict.fromkeys(_key(point) for point in points)
    )


def balance_effects(points: Sequence[StudyPoint]) -> tuple[BalanceEffect, ...]:
    """Compare balanced with every other sampling, seed by seed."""
    found = []
    effects = {(*_key(point), point.seed): point.effect for point in points}
    for method, sampling, size in dict.fromkeys(_key(point) for point in points):
        pairs = [
            (effects[method, BALANCED, size, seed], effect)
            for (*key, seed), effect in effects.items()
            if key == [method, sampling, size] and (method, BALANCED, size, seed) in effects
        ]
        if sampling == BALANCED or not pairs:
            continue
        images = np.array([balanced.correct - other.correct for balanced, other in pairs], np.float64)
        decibels = [
            balanced.logits_snr_db - other.logits_snr_db
            for balanced, other in pairs
            if balanced.logits_snr_db is not None and other.logits_snr_db is not None
        ]
        effect = BalanceEffect(
            method=method,
            sampling=sampling,
            per_class=size,
            mean_images=float(images.mean()),
            ci95_images=_interval(images),
            mean_db=float(np.mean(decibels)) if decibels else None,
        )
        found.append(effect)
    return tuple(found)


def _key(point: StudyPoint) -> tuple[str, str, int]:
    return (point.method, point.sampling, point.per_class)


def _spread(method: str, sampling: str, size: int, found: Sequence[StudyPoint]) -> Spread:
    correct = [point.effect.correct for point in found]
    ratios = [point.effect.logits_snr_db for point in found if point.effect.logits_snr_db is not None]
    return Spread(
        method=method,
        sampling=sampling,
        per_class=size,
        seeds=len(found),
        mean_correct=float(np.mean(correct)),
        least_correct=min(correct),
        most_correct=max(correct),
        deviation=float(np.std(correct, ddof=1)) if len(correct) > 1 else None,
        mean_snr_db=float(np.mean(ratios)) if ratios else None,
    )


def _interval(differences: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float] | None:
    """Return Student's 95 % interval of the mean; the mean itself where all differences are the same."""
    count = len(differences)
    if count < 2:  # noqa: PLR2004  a spread needs two
        return None
    mean, error = float(differences.mean()), float(scipy.stats.sem(differences))
    half = float(scipy.stats.t.ppf(0.975, count - 1)) * error
    return mean - half, mean + half


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyConfig:
    """What a study varies: images per class, ascending; how many seeds; methods; and on which split it scores."""

    per_class: tuple[int, ...]
    seeds: int
    methods: tuple[str, ...]
    placement: Runtime = "tensorrt"
    split: str = "validation"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaksFacts(Facts):
    """The training images that stand in validation or test, ascending."""

    indices: tuple[int, ...]


@recipe(kind="leaks", facts=LeaksFacts, content=(), packages=("numpy",), version=1)
def repeated(_folder: Path, *, dataset: Dataset) -> LeaksFacts:
    """Find the training images that no sample may have."""
    return LeaksFacts(indices=tuple(leaking_indices(dataset, np.arange(len(dataset.train))).tolist()))


@recipe(
    kind="study-ranges", facts=NoFacts, content=("ranges.json",), packages=("onnx", "onnxruntime", "numpy"), version=1
)
def chained(
    folder: Path,
    *,
    graph: Ingredient,
    images: Images,
    sizes: tuple[int, ...],
    methods: tuple[str, ...],
    percentile: float,
    runtime: Runtime,
    exclude: tuple[str, ...],
) -> NoFacts:
    """Find the ranges of the first images of a sample, for each size and method, in one pass over them."""
    proto = onnx.load(graph.path(GRAPH))
    tensors = activation_tensors(plan_qdq(proto, exclude=exclude, runtime=runtime))
    ranges: dict[str, dict[int, dict[str, float]]] = {method: {} for method in methods}
    histograms: dict[str, Histogram] = {}
    for start, size in zip((0, *sizes), sizes, strict=False):
        split = Split(images=images.split.images[start:size], labels=images.split.labels[start:size])
        batches = (batch[INPUT] for batch in replace(images, split=split).batches())
        for values in iterate_activations(proto, tensors, batches):
            for tensor in tensors:
                histograms[tensor] = observe(histograms.get(tensor, Histogram()), values[tensor], tensor=tensor)
        for method in methods:
            found = thresholds(histograms, method=method, percentile=percentile)  # type: ignore[arg-type]  # checked
            ranges[method][size] = found
    write_atomically(folder / "ranges.json", json.dumps(ranges))
    return NoFacts()


def study_calibration(makings: Makings, config: StudyConfig) -> Study:
    """Score the INT8 network of a suite's first variant for every sampling, size, seed and method.

    Args:
        makings: of the suite, with a listener for progress. Of its calibration only `weights` and `equalise` count.
        config: what is varied. Sizes are images per class; an unbalanced sample has as many images in all.

    Raises:
        ConfigError: a method, the placement or the split cannot be, or the images have no labels.
        DataError: a class, or the training split, has too few images.
    """
    _check(config)
    makings.require_labels("what a calibration set is worth")
    study = _Study(makings, config)
    chains = [(sampling, seed) for sampling in (BALANCED, *SAMPLINGS) for seed in range(config.seeds)]
    total = len(chains) * (1 + len(config.methods) * len(config.per_class))
    progress = Countdown(makings.tell, stage="study", total=total)
    points = tuple(point for chain in chains for point in study.points(*chain, progress))
    progress.end(f"{len(points)} calibration sets, {config.split}")
    return Study(
        model=makings.suite.model.name,
        dataset=makings.dataset.name,
        placement=config.placement,
        split=config.split,
        images=len(study.truth.split),
        float_correct=study.truth.float_correct,
        training_images=len(makings.dataset.train),
        leaking=len(study.leaking),
        points=points,
        where=where(),
    )


class _Study:
    """The float graph, its plan, and what both are asked for again and again."""

    def __init__(self, makings: Makings, config: StudyConfig) -> None:
        self._makings = makings
        self._config = config
        self._graph = calibrated_graph(makings, makings.suite.variants[0])
        self._float = onnx.load(self._graph.path(GRAPH))
        self._plan = plan_qdq(self._float, exclude=makings.suite.calibration.exclude, runtime=config.placement)
        self.truth = TrueArithmetic(makings, self._float, split=config.split)  # type: ignore[arg-type]  # checked

    @functools.cached_property
    def leaking(self) -> tuple[int, ...]:
        """Training images that stand in validation or test: no sample has them."""
        dataset = self._makings.dataset
        return self._makings.book.make(repeated, dataset.name, dataset=dataset).facts.indices

    def points(self, sampling: str, seed: int, progress: Countdown) -> Iterator[StudyPoint]:
        """Yield every point of one chain, which is a nested sample."""
        found = self._ranges(self._order(sampling, seed))
        ranges: Mapping[str, Any] = json.loads(found.path("ranges.json").read_bytes())
        classes = self._makings.dataset.num_classes
        progress.step(f"ranges of {sampling} {seed}", is_kept=found.is_cached)
        for method in self._config.methods:
            for size in self._config.per_class:
                clip = self._makings.suite.calibration.weights
                graph = insert_qdq(self._float, self._plan, ranges[method][str(size * classes)], weights=clip)
                effect = self.truth.effect(graph)
                item = f"{method} {sampling} {seed}, {size} per class"
                progress.step(item, is_kept=self.truth.is_kept)
                yield StudyPoint(method=method, sampling=sampling, per_class=size, seed=seed, effect=effect)

    def _ranges(self, order: NDArray[np.int64]) -> Artefact[NoFacts]:
        config, dataset = self._makings.suite.calibration, self._makings.dataset
        return Book(self._makings.book.store).make(
            chained,
            "",
            graph=self._graph,
            images=Images(
                split=Split(images=dataset.train.images[order], labels=dataset.train.labels[order]),
                preprocessing=dataset.preprocessing,
                batch_size=config.batch_size,
            ),
            sizes=tuple(size * dataset.num_classes for size in self._config.per_class),
            methods=self._config.methods,
            percentile=config.percentile,
            runtime=self._config.placement,
            exclude=config.exclude,
        )

    def _order(self, sampling: str, seed: int) -> NDArray[np.int64]:
        """Return the images of a chain, in the order of drawing."""
        dataset, largest = self._makings.dataset, self._config.per_class[-1]
        labels, classes = dataset.train.labels, dataset.num_classes
        if sampling == BALANCED:
            return sample_balanced(labels, num_classes=classes, per_class=largest, seed=seed, exclude=self.leaking)
        return sample_unbalanced(
            labels,
            sampling=sampling,  # type: ignore[arg-type]  # one of SAMPLINGS
            num_classes=classes,
            total=largest * classes,
            seed=seed,
            exclude=self.leaking,
        )


def _check(config: StudyConfig) -> None:
    for method in config.methods:
        options(CalibrationConfig, method=method)
    if config.placement not in PLACEMENTS:
        raise ConfigError("placement", expected=" or ".join(PLACEMENTS), got=repr(config.placement), cure="choose one")
    if config.split not in {"validation", "test"}:
        raise ConfigError("split", expected="validation or test", got=repr(config.split), cure="choose one of these")
