"""What calibration came to: how near an INT8 graph is to the float one, and what each option brought on validation."""

from __future__ import annotations

import json
from collections.abc import Mapping  # noqa: TC003  pydantic resolves the fields of facts at run time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.calibrate.exclusion import Judgement
from trtbench.disk import write_atomically
from trtbench.jsonable import to_jsonable
from trtbench.make.calibration import judges, manifest
from trtbench.make.graphs import GRAPH, calibrated_graph, float_graph, quantized_graph, ranges
from trtbench.make.recipe import Facts, Ingredient, recipe
from trtbench.precision import PRECISIONS
from trtbench.rows import CalibrationRecord
from trtbench.suite import CalibrationConfig

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.make.calibration import CalibrationSet
    from trtbench.make.makings import Makings
    from trtbench.precision import Runtime
    from trtbench.records import Preprocessing, Split
    from trtbench.store import Artefact
    from trtbench.suite import Variant

OPTIONS = ("weights", "equalise", "rounding", "bias_correction")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score(Facts):
    """Images that a graph gets right, and the squared error of its logits against the float graph's."""

    correct: int
    logits_mse: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GainsFacts(Facts):
    """The scores of the float graph, of the INT8 graph with all options, and by option of that without it."""

    total: int
    in_float: Score
    with_all: Score
    without: Mapping[str, Score]


@recipe(kind="gains", facts=GainsFacts, content=("gains.json",), packages=("onnxruntime",), version=1)
def counted(
    folder: Path,
    *,
    in_float: Ingredient,
    with_all: Ingredient,
    without: Mapping[str, Ingredient],
    split: Split,
    preprocessing: Preprocessing,
    batch_size: int,
) -> GainsFacts:
    """Count what Q/DQ graphs get right in true arithmetic."""
    import onnx

    from trtbench.graph.reference import exact_logits

    def logits(graph: Ingredient) -> NDArray[np.float32]:
        return exact_logits(onnx.load(graph.path(GRAPH)), split.images, preprocessing, size=batch_size)

    reference = logits(in_float)
    facts = GainsFacts(
        total=len(split),
        in_float=_score(reference, reference, split),
        with_all=_score(logits(with_all), reference, split),
        without={name: _score(logits(graph), reference, split) for name, graph in without.items()},
    )
    write_atomically(folder / "gains.json", json.dumps(to_jsonable(facts), indent=1))
    return facts


@recipe(kind="judgement", facts=Judgement, content=(), packages=("onnx", "onnxruntime"), version=2)
def weighed(_folder: Path, *, in_float: Ingredient, quantized: Ingredient, judges: CalibrationSet) -> Judgement:
    """Compare the logits of an INT8 graph with those of the float one on images that did not calibrate."""
    import onnx

    (found,) = judges.judge([onnx.load(quantized.path(GRAPH))], onnx.load(in_float.path(GRAPH)))
    return found


def calibration_record(makings: Makings, variant: Variant, *, runtime: Runtime) -> CalibrationRecord:
    """Return by which method a Q/DQ graph is calibrated, and how near it comes to the float one."""
    found = makings.book.make(
        weighed,
        f"{variant.name}/int8 for {runtime}",
        in_float=calibrated_graph(makings, variant),
        quantized=quantized_graph(makings, variant, runtime=runtime),
        judges=judges(makings),
    ).facts
    by = ranges(makings, variant).facts
    return CalibrationRecord(
        method=by.method,
        mse_tensors=by.given_way,
        snr_db=found.snr_db,
        agreement=found.agreement,
        images=found.images,
    )


def option_gains(makings: Makings, variant: Variant, *, runtime: Runtime) -> Artefact[GainsFacts] | None:
    """Return what a Q/DQ graph gets right with all of a suite's options and without each; None where none is on."""
    config, plain = makings.suite.calibration, CalibrationConfig()
    chosen = [name for name in OPTIONS if getattr(config, name) != getattr(plain, name)]
    if not chosen or not makings.dataset.is_labelled:
        return None
    others = {name: quantized_graph(makings.without(name), variant, runtime=runtime) for name in chosen}
    return makings.book.make(
        counted,
        f"{variant.name}/int8 for {runtime}",
        in_float=float_graph(makings, variant),
        with_all=quantized_graph(makings, variant, runtime=runtime),
        without=others,
        split=makings.dataset.validation,
        preprocessing=makings.dataset.preprocessing,
        batch_size=config.batch_size,
    )


def calibration_notes(makings: Makings, variant: Variant, *, precision: str, runtime: Runtime) -> tuple[str, ...]:
    """Return what an int8 row has to say of its calibration: short classes, and what each option brought."""
    short = manifest(makings).facts.notes
    # TensorRT's own calibrator knows none of the options
    gains = None if PRECISIONS[precision].calibrates_itself else option_gains(makings, variant, runtime=runtime)
    if gains is None:
        return short
    facts = gains.facts
    brought = (
        f"calibration.{name}: {facts.with_all.correct} of {facts.total} validation images right, "
        f"{without.correct} without it, {facts.in_float.correct} in FP32; squared error of the logits "
        f"{facts.with_all.logits_mse:.3g}, {without.logits_mse:.3g} without it"
        for name, without in facts.without.items()
    )
    return (*short, *brought)


def _score(logits: Any, reference: Any, split: Split) -> Score:
    correct = int((logits.argmax(axis=1) == split.labels).sum())
    return Score(correct=correct, logits_mse=float(np.square(logits - reference).mean()))
