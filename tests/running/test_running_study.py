"""A calibration study on a suite small enough to run for real, and resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from trtbench.calibrate.manifest import sample_balanced
from trtbench.calibrate.ranges import collect_histograms, thresholds
from trtbench.data import normalise
from trtbench.engines.onnxruntime import iterate_activations
from trtbench.errors import ConfigError
from trtbench.graph.placement import activation_tensors, plan_qdq
from trtbench.graph.qdq import insert_qdq
from trtbench.make.graphs import float_graph
from trtbench.make.makings import Makings
from trtbench.studies.calibration_run import StudyConfig, study_calibration
from trtbench.studies.truth import TrueArithmetic

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbench.running import Places
    from trtbench.suite import Suite

_CONFIG = StudyConfig(per_class=(1, 3), seeds=2, methods=("minmax", "mse"))


def test_a_study_scores_every_sample_and_a_second_one_runs_nothing(suite: Callable[..., Suite], places: Places) -> None:
    makings = Makings(suite(), places)
    found = study_calibration(makings, _CONFIG)

    assert len(found.points) == 4 * 2 * 2 * 2  # samplings, seeds, methods, sizes
    assert {point.sampling for point in found.points} == {"balanced", "uniform", "long-tailed", "class-missing"}
    assert (found.split, found.images) == ("validation", len(makings.dataset.validation))
    before = len(makings.book.store.journal())
    assert study_calibration(Makings(suite(), places), _CONFIG) == found
    assert len(makings.book.store.journal()) == before


def test_ranges_read_on_the_way_are_those_of_calibrating_on_the_sample(
    suite: Callable[..., Suite], places: Places
) -> None:
    makings = Makings(suite(), places)
    config = StudyConfig(per_class=(1, 3), seeds=1, methods=("mse",), split="test")
    points = {(point.sampling, point.per_class): point.effect for point in study_calibration(makings, config).points}
    dataset = makings.dataset
    proto = onnx.load(float_graph(makings, makings.suite.variants[0]).path("model.onnx"))
    plan = plan_qdq(proto)
    truth = TrueArithmetic(makings, proto, split="test")
    for size in (1, 3):
        chosen = sample_balanced(dataset.train.labels, num_classes=3, per_class=size, seed=0)
        images = normalise(dataset.train.images[chosen], dataset.preprocessing)
        amax = thresholds(
            collect_histograms(iterate_activations(proto, activation_tensors(plan), iter(np.array_split(images, 2)))),
            method="mse",
        )
        assert points["balanced", size] == truth.effect(insert_qdq(proto, plan, amax))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"methods": ("best",)}, "method"),
        ({"placement": "int4"}, "expected tensorrt or onnxruntime-cpu"),
        ({"split": "train"}, "expected validation or test"),
    ],
)
def test_a_method_precision_or_split_that_cannot_be_is_refused(
    wrong: dict[str, str], words: str, suite: Callable[..., Suite], places: Places
) -> None:
    config = StudyConfig(**({"per_class": (1,), "seeds": 1, "methods": ("mse",)} | wrong))  # type: ignore[arg-type]  # wrong on purpose

    with pytest.raises(ConfigError, match=words):
        study_calibration(Makings(suite(), places), config)
