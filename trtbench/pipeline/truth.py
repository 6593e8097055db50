"""Graphs of a suite in true arithmetic on one split: each is run once, and what it got right is kept in the store."""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trtbench import __version__
from trtbench._optional import version
from trtbench.bench.explain import Effect, effect_of, powers, signal_to_noise_db
from trtbench.data import batches, spread
from trtbench.environment.host import collect_host
from trtbench.graph.reference import run_reference_batches

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from trtbench.pipeline.artefacts import Artefacts
    from trtbench.records import Split

SplitName = Literal["validation", "test"]

_INPUT = "input"
_SNR_IMAGES = 64  # inner tensors have many values an image: their power is known well from few


class TrueArithmetic:
    """What graphs compute beside one float graph, each node as the standard defines it.

    Args:
        artefacts: whose store keeps the results and whose images are run.
        reference: the float graph.
        split: the images; results on validation may steer a search, those on test may not.
    """

    def __init__(self, artefacts: Artefacts, reference: onnx.ModelProto, *, split: SplitName) -> None:
        self._artefacts = artefacts
        self._reference = reference
        self.split: Split = getattr(artefacts.dataset, split)
        self.is_kept = False  # whether the last answer was there already

    @functools.cached_property
    def float_logits(self) -> NDArray[np.float32]:
        """The float graph's logits, (images, classes)."""
        return self.logits(self._reference)

    @functools.cached_property
    def float_correct(self) -> int:
        """How many images the float graph gets right."""
        return int((self.float_logits.argmax(axis=1) == self.split.labels).sum())

    def logits(self, graph: onnx.ModelProto) -> NDArray[np.float32]:
        """Return a graph's logits (images, classes); they are kept."""

        def run(folder: Path) -> Mapping[str, Any]:
            with (folder / "logits.npy").open("wb") as file:
                np.save(file, self._run(graph))
            return {}

        made = self._artefacts.store.make("logits", self._inputs(graph), run, content=("logits.npy",))
        found: NDArray[np.float32] = np.load(made.path("logits.npy"))
        return found

    def effect(self, graph: onnx.ModelProto) -> Effect:
        """Return what a graph gets right beside the float one; only the counts are kept."""
        inputs = self._inputs(graph) | {"reference": _sha256(self._reference), "labels": self.split.sha256}
        self.is_kept = self._artefacts.store.find("effect", inputs) is not None

        def run(_folder: Path) -> Mapping[str, Any]:
            found = effect_of(self._run(graph), self.float_logits, self.split.labels)
            return {name: getattr(found, name) for name in Effect.__slots__}

        return Effect(**self._artefacts.store.make("effect", inputs, run, content=()).facts)

    def tensor_snr_db(self, graph: onnx.ModelProto, tensors: Sequence[str]) -> dict[str, float | None]:
        """Return the signal-to-noise ratio of inner tensors, by name, on a class-balanced few; it is kept."""
        few = spread(self.split.labels, count=_SNR_IMAGES)
        inputs = self._inputs(graph) | {"reference": _sha256(self._reference), "tensors": list(tensors)}
        inputs |= {"few": few.tolist()}

        def run(_folder: Path) -> Mapping[str, Any]:
            sums = {tensor: np.zeros(2) for tensor in tensors}
            models = (self._reference, graph)
            pairs = (run_reference_batches(model, self._batches(few), outputs=tensors) for model in models)
            for wanted, found in zip(*pairs, strict=True):
                for tensor in tensors:
                    sums[tensor] += powers(wanted[tensor], found[tensor])
            return {tensor: signal_to_noise_db(*sums[tensor].tolist()) for tensor in tensors}

        return dict(self._artefacts.store.make("snr", inputs, run, content=()).facts)

    def _run(self, graph: onnx.ModelProto) -> NDArray[np.float32]:
        found = run_reference_batches(graph, self._batches())
        return np.concatenate([next(iter(values.values())) for values in found])

    def _batches(self, chosen: NDArray[np.int64] | None = None) -> Iterator[dict[str, NDArray[np.float32]]]:
        size, fit = self._artefacts.suite.calibration.batch_size, self._artefacts.dataset.preprocessing
        return ({_INPUT: inputs} for inputs in batches(self.split.images, fit, size=size, chosen=chosen))

    def _inputs(self, graph: onnx.ModelProto) -> dict[str, Any]:
        return {
            "graph": _sha256(graph),
            "images": self.split.sha256,
            "preprocessing": self._artefacts.dataset.preprocessing.fingerprint,
            "batch_size": self._artefacts.suite.calibration.batch_size,
            "onnxruntime": version("onnxruntime-gpu") or version("onnxruntime"),
        }


def where() -> dict[str, str]:
    """Return what true arithmetic and the kernels ran on: the CPU, the runtime and this version."""
    cpu = collect_host().cpu
    return {
        "cpu": f"{cpu.model}, {'with' if cpu.has_int8_dot else 'without'} int8 dot products",
        "onnxruntime": str(version("onnxruntime-gpu") or version("onnxruntime")),
        "trtbench": __version__,
    }


def _sha256(graph: onnx.ModelProto) -> str:
    return hashlib.sha256(graph.SerializeToString(deterministic=True)).hexdigest()
