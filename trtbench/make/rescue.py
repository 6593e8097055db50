"""The rescue of an INT8 graph that may lose too much: what costs nothing when it runs, then layers in higher precision.

All is measured and chosen on validation images; no test image is looked at.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from trtbench.calibrate.exclusion import cheapest_exclusion, judge, lost_and_gained, noise_share
from trtbench.data import batches, spread
from trtbench.make.gains import calibration_record
from trtbench.make.graphs import GRAPH, calibrated_graph, float_graph, quantized_graph, ranges
from trtbench.make.recipe import Facts, Ingredient, recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from trtbench.graph.view import WeightClip
    from trtbench.make.makings import Makings
    from trtbench.precision import Runtime
    from trtbench.records import Preprocessing, Split
    from trtbench.rows import CalibrationRecord
    from trtbench.suite import Variant

# Below this ratio on the held-out images pruned networks lost more than 3 of 360 test images, and above it none did:
# docs/evidence/calibration-auto.json, `rescue`.
LOW_SNR_DB = 20.7
_SHARE_OF_LIMIT = 0.25  # of the accepted drop: what is proven of it on as many images takes the rest
_RANKED_ON = 256  # validation images that rank the layers: noise is known well from few
_WORDS = {"bias_correction": "corrected biases", "equalise": "equalised layers"}
_FREE = (("bias_correction",), ("equalise",), ("bias_correction", "equalise"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss(Facts):
    """What a graph gets right beside the float one: images lost and gained of `total`, and its logits' noise."""

    lost: int
    gained: int
    total: int
    snr_db: float | None

    @property
    def drop_pp(self) -> float:
        """Percentage points lost against the float graph."""
        return 100 * (self.lost - self.gained) / self.total

    @property
    def noise(self) -> float:
        """The power of the logits' difference over that of the float logits."""
        return noise_share(self.snr_db)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExclusionFacts(Facts):
    """The nodes that stay in higher precision, of how many layers, and their share of the multiply-accumulates."""

    nodes: tuple[str, ...]
    layers: int
    macs_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescue:
    """A rescued graph: the makings that make it, and what it took, in words and on validation."""

    makings: Makings
    kept: str
    before: Loss
    after: Loss

    @property
    def note(self) -> str:
        """What a row says of it."""
        return (
            f"int8, {self.kept}, chosen on {self.after.total} validation images: there it is {self.after.drop_pp:.2f} "
            f"pp below FP32, and {self.before.drop_pp:.2f} without"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    name: str
    macs: int
    only: Loss


@recipe(kind="loss", facts=Loss, content=(), packages=("onnx", "onnxruntime"), version=1)
def lost_images(
    _folder: Path,
    *,
    in_float: Ingredient,
    quantized: Ingredient,
    split: Split,
    preprocessing: Preprocessing,
    batch_size: int,
) -> Loss:
    """Count what a Q/DQ graph loses of what the float one gets right."""
    import onnx

    images = _Images(split, preprocessing, batch_size)
    reference, logits = (images.logits(onnx.load(graph.path(GRAPH))) for graph in (in_float, quantized))
    return _loss(logits, reference, split.labels)


@recipe(kind="exclusion", facts=ExclusionFacts, content=(), packages=("onnx", "onnxruntime"), version=1)
def searched(
    _folder: Path,
    *,
    in_float: Ingredient,
    quantized: Ingredient,
    ranges: Ingredient,
    runtime: Runtime,
    weights: WeightClip,
    exclude: tuple[str, ...],
    split: Split,
    preprocessing: Preprocessing,
    batch_size: int,
    max_drop_pp: float,
) -> ExclusionFacts:
    """Search the cheapest layers to keep in higher precision, as `explain-int8` does."""
    import onnx

    from trtbench.graph.ablation import Placement

    reference = onnx.load(in_float.path(GRAPH))
    amax = json.loads(ranges.path("ranges.json").read_bytes())
    made = onnx.load(quantized.path(GRAPH))
    placement = Placement(reference, made, amax, runtime=runtime, weights=weights, exclude=exclude)
    images = _Images(split, preprocessing, batch_size)
    few = spread(split.labels, count=_RANKED_ON)
    all_logits, few_logits = images.logits(reference), images.logits(reference, few)
    layers = [
        _Layer(
            name=node.name,
            macs=node.macs,
            only=_loss(images.logits(placement.only(node), few), few_logits, split.labels[few]),
        )
        for node in placement.nodes
    ]

    def measure(nodes: Sequence[str]) -> Loss:
        return _loss(images.logits(placement.graph(nodes)), all_logits, split.labels)

    found = cheapest_exclusion(layers, measure, max_drop_pp=max_drop_pp)
    return ExclusionFacts(nodes=found.nodes, layers=len(layers), macs_share=found.macs_share)


def is_in_doubt(record: CalibrationRecord | None, *, max_drop_pp: float) -> bool:
    """Say whether a graph may lose more than is accepted, by what its held-out images tell without labels.

    Either its logits are as noisy as those that lost images, or more images change their class than the accepted drop
    explains: by more than two standard deviations of that count.
    """
    if record is None:  # no Q/DQ graph
        return False
    expected = record.images * max_drop_pp / 100
    changed = 0.0 if record.agreement is None else record.images * (1 - record.agreement)
    is_noisy = record.snr_db is not None and record.snr_db < LOW_SNR_DB
    return is_noisy or changed > expected + 2 * math.sqrt(expected) + 0.5  # counts are whole


def rescue(makings: Makings, variant: Variant, *, runtime: Runtime) -> Rescue | None:
    """Return what holds a variant's INT8 graph; None where it is in no doubt, or nothing found gets more images right.

    Raises:
        RowError: a graph cannot be made.
    """
    limit = makings.suite.decision.max_drop_pp
    if not makings.suite.calibration.rescue or not makings.dataset.is_labelled:  # it counts what labels tell
        return None
    if not is_in_doubt(calibration_record(makings, variant, runtime=runtime), max_drop_pp=limit):
        return None
    before = _measured(makings, makings, variant, runtime)
    plain = Rescue(makings=makings, kept="", before=before, after=before)
    best = min((plain, *_without_cost(plain, variant, runtime)), key=_cost)
    wanted = limit * _SHARE_OF_LIMIT
    if best.after.drop_pp > wanted or best.after.noise > noise_share(LOW_SNR_DB):
        starts = (best,) if best is plain else (best, plain)  # biases are corrected anew, which may not hold
        best = min((best, *(_with_layers(one, variant, runtime, max_drop_pp=wanted) for one in starts)), key=_cost)
    return best if best.after.drop_pp < before.drop_pp else None


def _cost(found: Rescue) -> tuple[float, float]:
    return found.after.drop_pp, found.after.noise


def _without_cost(plain: Rescue, variant: Variant, runtime: Runtime) -> Iterator[Rescue]:
    """Yield what the options bring that cost nothing when the engine runs, as far as the suite has them not."""
    makings = plain.makings
    for options in _FREE:
        if not any(getattr(makings.suite.calibration, option) for option in options):
            other = makings.calibrated("-".join(options), **dict.fromkeys(options, True))
            kept = " and ".join(_WORDS[option] for option in options)
            yield replace(plain, makings=other, kept=kept, after=_measured(makings, other, variant, runtime))


def _with_layers(start: Rescue, variant: Variant, runtime: Runtime, *, max_drop_pp: float) -> Rescue:
    """Return a rescue with the cheapest layers in higher precision that bring the drop within a limit."""
    before, config = start.makings, start.makings.suite.calibration
    facts = before.book.make(
        searched,
        f"{variant.name}/int8 for {runtime}",
        in_float=calibrated_graph(before, variant),
        quantized=quantized_graph(before, variant, runtime=runtime),
        ranges=ranges(before, variant),
        runtime=runtime,
        weights=config.weights,
        exclude=config.exclude,
        split=before.dataset.validation,
        preprocessing=before.dataset.preprocessing,
        batch_size=config.batch_size,
        max_drop_pp=max_drop_pp,
    ).facts
    if not facts.nodes:
        return start
    makings = before.excluding((*config.exclude, *facts.nodes))
    beside = f", with {start.kept}" if start.kept else ""
    kept = f"{len(facts.nodes)} of {facts.layers} layers in fp32 ({100 * facts.macs_share:.1f} % of MACs{beside})"
    return replace(start, makings=makings, kept=kept, after=_measured(before, makings, variant, runtime))


class _Images:
    def __init__(self, split: Split, preprocessing: Preprocessing, batch_size: int) -> None:
        self._split, self._preprocessing, self._size = split, preprocessing, batch_size

    def logits(self, graph: onnx.ModelProto, chosen: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return a graph's logits (images, classes)."""
        from trtbench.engines.onnxruntime import iterate_activations

        output = graph.graph.output[0].name
        read = batches(self._split.images, self._preprocessing, size=self._size, chosen=chosen)
        return np.concatenate([one[output] for one in iterate_activations(graph, (output,), read)])


def _measured(makings: Makings, other: Makings, variant: Variant, runtime: Runtime) -> Loss:
    return makings.book.make(
        lost_images,
        f"{variant.name}/int8 for {runtime}",
        in_float=float_graph(makings, variant),
        quantized=quantized_graph(other, variant, runtime=runtime),
        split=makings.dataset.validation,
        preprocessing=makings.dataset.preprocessing,
        batch_size=makings.suite.calibration.batch_size,
    ).facts


def _loss(logits: NDArray[np.float32], reference: NDArray[np.float32], labels: NDArray[np.int64]) -> Loss:
    lost, gained = lost_and_gained(logits, reference, labels)
    return Loss(lost=lost, gained=gained, total=len(labels), snr_db=judge(logits, reference).snr_db)
