"""`trtbench calibration-study`: INT8 accuracy by the size and the balance of the calibration set.

Every sample is nested: its first images are the smaller sample of the same seed. So each is run once, and as histograms
add up, the ranges of every size are read on the way. What is scored is kept in the store: a second call goes on where
the first one stopped.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from trtbench import __version__
from trtbench._optional import version
from trtbench.bench.study import BALANCED, StudyPoint
from trtbench.calibrate.leaks import leaking_indices
from trtbench.calibrate.ranges import Histogram, observe, thresholds
from trtbench.calibrate.sampler import sample_balanced
from trtbench.calibrate.unbalanced import SAMPLINGS, sample_unbalanced
from trtbench.data import batches
from trtbench.engines.onnxruntime import iterate_graph_activations
from trtbench.errors import ConfigError
from trtbench.graph.placement import activation_tensors, plan_qdq
from trtbench.graph.qdq import insert_qdq
from trtbench.jsonable import to_jsonable
from trtbench.pipeline.artefacts import PLACEMENTS
from trtbench.pipeline.countdown import Countdown
from trtbench.pipeline.truth import TrueArithmetic, where
from trtbench.report.study import Study
from trtbench.store import write_atomically
from trtbench.suite import CalibrationConfig, options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.pipeline.artefacts import Artefacts
    from trtbench.store import Artefact


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyConfig:
    """What a study varies: images per class, ascending; how many seeds; methods; and on which split it scores."""

    per_class: tuple[int, ...]
    seeds: int
    methods: tuple[str, ...]
    precision: str = "int8"
    split: str = "validation"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chain:
    """One nested sample: its sampling and its seed."""

    sampling: str
    seed: int


def study_calibration(artefacts: Artefacts, config: StudyConfig) -> Study:
    """Score the INT8 network of a suite's first variant for every sampling, size, seed and method.

    Args:
        artefacts: of the suite, with a listener for progress. Of its calibration only `weights` and `equalise` count.
        config: what is varied. Sizes are images per class; an unbalanced sample has as many images in all.

    Raises:
        ConfigError: a method, the precision or the split cannot be.
        DataError: a class, or the training split, has too few images.
    """
    _check(config)
    study = _Study(artefacts, config)
    chains = [
        _Chain(sampling=sampling, seed=seed) for sampling in (BALANCED, *SAMPLINGS) for seed in range(config.seeds)
    ]
    total = len(chains) * (1 + len(config.methods) * len(config.per_class))
    progress = Countdown(artefacts.tell, stage="study", total=total)
    points = tuple(point for chain in chains for point in study.points(chain, progress))
    progress.end(f"{len(points)} calibration sets, {config.split}")
    return Study(
        model=artefacts.suite.model.name,
        dataset=artefacts.dataset.name,
        precision=config.precision,
        split=config.split,
        images=len(study.truth.split),
        float_correct=study.truth.float_correct,
        training_images=len(artefacts.dataset.train),
        leaking=len(study.leaking),
        points=points,
        where=where(),
    )


class _Study:
    """The float graph, its plan, and what both are asked for again and again."""

    def __init__(self, artefacts: Artefacts, config: StudyConfig) -> None:
        self._artefacts = artefacts
        self._config = config
        self._graph = artefacts.calibrated_graph(artefacts.suite.variants[0])
        self._float = onnx.load(self._graph.path("model.onnx"))
        self._plan = plan_qdq(
            self._float, exclude=artefacts.suite.calibration.exclude, runtime=PLACEMENTS[config.precision]
        )
        self.truth = TrueArithmetic(artefacts, self._float, split=config.split)  # type: ignore[arg-type]  # checked

    @functools.cached_property
    def leaking(self) -> tuple[int, ...]:
        """Training images that stand in validation or test: no sample has them."""
        dataset = self._artefacts.dataset

        def find(_folder: Path) -> Mapping[str, Any]:
            return {"indices": leaking_indices(dataset, np.arange(len(dataset.train))).tolist()}

        inputs = {"dataset": dataset.sha256, "trtbench": __version__}
        found = self._artefacts.make("leaks", dataset.name, inputs, find, content=()).facts["indices"]
        return tuple(found)

    def points(self, chain: _Chain, progress: Countdown) -> Iterator[StudyPoint]:
        """Yield every point of one chain."""
        found = self._ranges(chain)
        ranges: Mapping[str, Any] = json.loads(found.path("ranges.json").read_bytes())
        progress.step(f"ranges of {chain.sampling} {chain.seed}", is_kept=found.is_cached)
        for method in self._config.methods:
            for size in self._config.per_class:
                clip = self._artefacts.suite.calibration.weights
                graph = insert_qdq(self._float, self._plan, ranges[method][str(size)], weights=clip)
                effect = self.truth.effect(graph)
                item = f"{method} {chain.sampling} {chain.seed}, {size} per class"
                progress.step(item, is_kept=self.truth.is_kept)
                yield StudyPoint(method=method, sampling=chain.sampling, per_class=size, seed=chain.seed, effect=effect)

    def _ranges(self, chain: _Chain) -> Artefact:
        """Return the ranges of every method and size of one chain, from one pass over its images."""
        config, dataset = self._artefacts.suite.calibration, self._artefacts.dataset
        inputs = {
            "graph": self._graph.sha256,
            "dataset": dataset.sha256,
            "preprocessing": dataset.preprocessing.fingerprint,
            "chain": to_jsonable(chain),
            "study": [self._config.precision, self._config.per_class, self._config.methods],
            "exclude": config.exclude,
            "percentile": config.percentile,
            "batch_size": config.batch_size,
            "onnxruntime": version("onnxruntime-gpu") or version("onnxruntime"),
            "trtbench": __version__,
        }

        def collect(folder: Path) -> Mapping[str, Any]:
            ranges: dict[str, dict[int, dict[str, float]]] = {method: {} for method in self._config.methods}
            for size, histograms in self._observed(self._order(chain)):
                for method in self._config.methods:
                    ranges[method][size] = thresholds(
                        histograms,
                        method=method,  # type: ignore[arg-type]  # checked
                        percentile=config.percentile,
                    )
            write_atomically(folder / "ranges.json", json.dumps(ranges))
            return {}

        return self._artefacts.store.make("study-ranges", inputs, collect, content=("ranges.json",))

    def _observed(self, order: NDArray[np.int64]) -> Iterator[tuple[int, Mapping[str, Histogram]]]:
        """Yield each size with the histograms of the images up to it; they grow from one to the next."""
        classes = self._artefacts.dataset.num_classes
        histograms: dict[str, Histogram] = {}
        tensors = activation_tensors(self._plan)
        start = 0
        for size in self._config.per_class:
            images = self._batches(order[start : size * classes])
            for values in iterate_graph_activations(self._float, tensors, images):
                for tensor in tensors:
                    histograms[tensor] = observe(histograms.get(tensor, Histogram()), values[tensor], tensor=tensor)
            start = size * classes
            yield size, histograms

    def _batches(self, indices: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        dataset, size = self._artefacts.dataset, self._artefacts.suite.calibration.batch_size
        return batches(dataset.train.images, dataset.preprocessing, size=size, chosen=indices)

    def _order(self, chain: _Chain) -> NDArray[np.int64]:
        """Return the images of a chain, in the order of drawing."""
        dataset, largest = self._artefacts.dataset, self._config.per_class[-1]
        labels, classes = dataset.train.labels, dataset.num_classes
        if chain.sampling == BALANCED:
            return sample_balanced(
                labels, num_classes=classes, per_class=largest, seed=chain.seed, exclude=self.leaking
            )
        return sample_unbalanced(
            labels,
            sampling=chain.sampling,  # type: ignore[arg-type]  # one of SAMPLINGS
            num_classes=classes,
            total=largest * classes,
            seed=chain.seed,
            exclude=self.leaking,
        )


def _check(config: StudyConfig) -> None:
    for method in config.methods:
        options(CalibrationConfig, method=method)
    if config.precision not in PLACEMENTS:
        raise ConfigError("precision", expected=" or ".join(PLACEMENTS), got=repr(config.precision), cure="choose one")
    if config.split not in {"validation", "test"}:
        raise ConfigError("split", expected="validation or test", got=repr(config.split), cure="choose one of these")
