"""Graphs of a suite in true arithmetic on one split: each is run once, and what it got right is kept in the store."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping  # noqa: TC003  pydantic resolves the fields of facts at run time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from trtbench import __version__
from trtbench._optional import version
from trtbench.calibrate.exclusion import powers, signal_to_noise_db
from trtbench.data import batches, spread
from trtbench.environment.host import collect_host
from trtbench.graph.reference import exact_logits, run_reference_batches
from trtbench.make.recipe import Book, Facts, Given, NoFacts, recipe
from trtbench.studies.int8_drop import Effect, effect_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from trtbench.make.makings import Makings
    from trtbench.make.recipe import Ingredient
    from trtbench.records import Preprocessing, Split

    Graph = Given[onnx.ModelProto]

SplitName = Literal["validation", "test"]
INPUT = "input"
_LOGITS = "logits.npy"
_SNR_IMAGES = 64  # inner tensors have many values an image: their power is known well from few


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Images as a graph reads them, batch by batch."""

    split: Split
    preprocessing: Preprocessing
    batch_size: int

    def batches(self, chosen: NDArray[np.int64] | None = None) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Yield the inputs of these images, or of all."""
        found = batches(self.split.images, self.preprocessing, size=self.batch_size, chosen=chosen)
        return ({INPUT: one} for one in found)

    def logits(self, graph: onnx.ModelProto) -> NDArray[np.float32]:
        """Return what a graph computes of all images, (images, classes)."""
        return exact_logits(graph, self.split.images, self.preprocessing, size=self.batch_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseFacts(Facts):
    """Signal-to-noise ratios by tensor; None where there is no noise."""

    snr_db: Mapping[str, float | None]


@recipe(kind="logits", facts=NoFacts, content=(_LOGITS,), packages=("onnx", "onnxruntime"), version=1)
def computed(folder: Path, *, graph: Graph, images: Images) -> NoFacts:
    """Run a graph in true arithmetic."""
    with (folder / _LOGITS).open("wb") as file:
        np.save(file, images.logits(graph.value))
    return NoFacts()


@recipe(kind="effect", facts=Effect, content=(), packages=("onnx", "onnxruntime"), version=1)
def compared(_folder: Path, *, graph: Graph, reference: Ingredient, images: Images) -> Effect:
    """Run a graph in true arithmetic and keep what it gets right beside the float one, whose logits are `reference`."""
    return effect_of(images.logits(graph.value), np.load(reference.path(_LOGITS)), images.split.labels)


@recipe(kind="snr", facts=NoiseFacts, content=(), packages=("onnx", "onnxruntime"), version=1)
def measured(_folder: Path, *, graph: Graph, reference: Graph, tensors: tuple[str, ...], images: Images) -> NoiseFacts:
    """Compare inner tensors of a graph with those of the float one, on a class-balanced few of the images."""
    few = spread(images.split.labels, count=_SNR_IMAGES)
    sums = {tensor: np.zeros(2) for tensor in tensors}
    models = (reference.value, graph.value)
    pairs = (run_reference_batches(model, images.batches(few), outputs=tensors) for model in models)
    for wanted, found in zip(*pairs, strict=True):
        for tensor in tensors:
            sums[tensor] += powers(wanted[tensor], found[tensor])
    return NoiseFacts(snr_db={tensor: signal_to_noise_db(*sums[tensor].tolist()) for tensor in tensors})


class TrueArithmetic:
    """What graphs compute beside one float graph, each node as the standard defines it.

    Args:
        makings: whose store keeps the results and whose images are run.
        reference: the float graph.
        split: the images; results on validation may steer a search, those on test may not.
    """

    def __init__(self, makings: Makings, reference: onnx.ModelProto, *, split: SplitName) -> None:
        self._book = Book(makings.book.store)  # there are hundreds: nobody is told of each
        self._reference = given_graph(reference)
        self.split: Split = getattr(makings.dataset, split)
        fit, size = makings.dataset.preprocessing, makings.suite.calibration.batch_size
        self.images = Images(split=self.split, preprocessing=fit, batch_size=size)
        self.is_kept = False  # whether the last answer was there already

    @functools.cached_property
    def float_logits(self) -> NDArray[np.float32]:
        """The float graph's logits, (images, classes)."""
        return self.logits(self._reference.value)

    @functools.cached_property
    def float_correct(self) -> int:
        """How many images the float graph gets right."""
        return int((self.float_logits.argmax(axis=1) == self.split.labels).sum())

    def logits(self, graph: onnx.ModelProto) -> NDArray[np.float32]:
        """Return a graph's logits (images, classes); they are kept."""
        made = self._book.make(computed, "", graph=given_graph(graph), images=self.images)
        found: NDArray[np.float32] = np.load(made.path(_LOGITS))
        return found

    def effect(self, graph: onnx.ModelProto) -> Effect:
        """Return what a graph gets right beside the float one; only the counts are kept."""
        reference = self._book.make(computed, "", graph=self._reference, images=self.images)
        given = given_graph(graph)
        self.is_kept = self._book.find(compared, graph=given, reference=reference, images=self.images) is not None
        return self._book.make(compared, "", graph=given, reference=reference, images=self.images).facts

    def tensor_snr_db(self, graph: onnx.ModelProto, tensors: Sequence[str]) -> dict[str, float | None]:
        """Return the signal-to-noise ratio of inner tensors, by name, on a class-balanced few; it is kept."""
        made = self._book.make(
            measured,
            "",
            graph=given_graph(graph),
            reference=self._reference,
            tensors=tuple(tensors),
            images=self.images,
        )
        return dict(made.facts.snr_db)


def where() -> dict[str, str]:
    """Return what true arithmetic and the kernels ran on: the CPU, the runtime and this version."""
    cpu = collect_host().cpu
    return {
        "cpu": f"{cpu.model}, {'with' if cpu.has_int8_dot else 'without'} int8 dot products",
        "onnxruntime": str(version("onnxruntime")),
        "trtbench": __version__,
    }


def given_graph(graph: onnx.ModelProto) -> Graph:
    """Return a graph in memory as an argument of a recipe, keyed by its bytes."""
    return Given(graph, key=hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest())
