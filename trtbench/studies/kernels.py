"""The fused engine beside true Q/DQ arithmetic: as built, with other kernels, on another CPU, and simulated.

An engine runs in a worker process. Under an emulator of another CPU (QEMU's user mode, for example) that process meets
the instruction set it is given, and ONNX Runtime takes the kernels it would take there: a VNNI machine can so measure
what saturation costs the machines without.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from trtbench.bench.processes import Workers, scoring_limit_s
from trtbench.calibrate.exclusion import powers, signal_to_noise_db
from trtbench.data import spread
from trtbench.engines.base import place_of
from trtbench.engines.onnxruntime.cpu import integer_convolutions
from trtbench.engines.sidecar import write_sidecar
from trtbench.graph.saturation import run_saturating, saturating_graph
from trtbench.make.engines import build_engine
from trtbench.make.graphs import GRAPH, quantized_graph
from trtbench.make.recipe import Book, Facts, Given, recipe
from trtbench.records import Split
from trtbench.studies.int8_drop import KernelEffect, effect_of
from trtbench.studies.truth import given_graph
from trtbench.suite import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from trtbench.engines.sidecar import Sidecar
    from trtbench.make.engines import EnginePlan
    from trtbench.make.makings import Makings
    from trtbench.studies.truth import Images, TrueArithmetic

_EXACT = "x64quantprecision"  # ONNX Runtime: exact sums on x86 CPUs without VNNI, at a cost in speed
_BATCH = 1
_LOGITS = "logits.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelConfig:
    """Which kernels to compare.

    `under` is the command of an emulator, split into words; () for none. `simulate` computes saturating sums in NumPy.
    Both take a while, so they see `images` test images, class-balanced.
    """

    under: tuple[str, ...] = ()
    simulate: bool = False
    images: int = 256


def kernel_effects(
    makings: Makings, plan: EnginePlan, truth: TrueArithmetic, config: KernelConfig
) -> Iterator[tuple[str, KernelEffect]]:
    """Yield the precision an engine achieved with each way to run it, as built first.

    Args:
        makings: of the suite; the engine is built where it is missing.
        plan: the engine.
        truth: true arithmetic on the test images.
        config: which kernels.

    Raises:
        EngineError: the engine cannot be built or run, or not under the emulator.
    """
    path, sidecar = build_engine(makings, plan)
    graph = onnx.load(quantized_graph(makings, plan.variant, runtime=BACKENDS[plan.backend].placement).path(GRAPH))
    every = np.arange(len(truth.split))
    few = spread(truth.split.labels, count=config.images)
    compare = _Comparison(truth, truth.logits(graph))
    runs = _Runs(makings, path, sidecar, truth)
    yield sidecar.achieved, compare(f"{plan.backend}, as built here", runs(every), every)
    if plan.backend != "onnxruntime-cpu":
        return
    if config.under:
        where = " ".join((Path(config.under[0]).name, *config.under[1:]))
        for is_exact in (True, False):
            logits = runs(few, under=config.under, settings={_EXACT: is_exact})
            yield sidecar.achieved, compare(f"{where}, {_EXACT} {'on' if is_exact else 'off'}", logits, few)
    integer = set(integer_convolutions(path, sidecar.settings))
    layers = tuple(node.output[0] for node in graph.graph.node if node.name in integer)
    if config.simulate and layers:
        logits, saturated = _simulated(makings, graph, truth, few, layers=layers)
        how = "saturating int16 pairs, simulated in NumPy"
        yield sidecar.achieved, replace(compare(how, logits, few), saturated_pairs=saturated)


class _Comparison:
    """Compares logits of some images with the float network's and with true arithmetic's."""

    def __init__(self, truth: TrueArithmetic, true_logits: NDArray[np.float32]) -> None:
        self._truth = truth
        self._true = true_logits

    def __call__(self, how: str, logits: NDArray[np.float32], indices: NDArray[np.int64]) -> KernelEffect:
        true, reference = self._true[indices], self._truth.float_logits[indices]
        labels = self._truth.split.labels[indices]
        return KernelEffect(
            how=how,
            effect=effect_of(logits, reference, labels),
            true=effect_of(true, reference, labels),
            against_true_snr_db=signal_to_noise_db(*powers(true, logits)),
            differing_predictions=int((logits.argmax(axis=1) != true.argmax(axis=1)).sum()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts(Facts):
    """How many pairs of products saturated; None of an engine, which does not tell."""

    saturated: int | None = None


@recipe(kind="engine-logits", facts=RunFacts, content=(_LOGITS,), version=1)
def run_engine(
    folder: Path,
    *,
    engine: Given[tuple[Path, Sidecar]],
    settings: Mapping[str, Any],
    under: tuple[str, ...],
    split: Split,
) -> RunFacts:
    """Let a worker process score an engine on images, with settings that its sidecar does not have."""
    path, sidecar = engine.value
    with tempfile.TemporaryDirectory(prefix="trtbench-") as scratch:
        copy = Path(scratch) / path.name
        shutil.copyfile(path, copy)
        write_sidecar(copy, replace(sidecar, settings=settings))
        images = Path(scratch) / "images.npy"
        np.save(images, split.images)
        _work(copy, sidecar.backend, images, count=len(split), logits=folder / _LOGITS, under=under)
    return RunFacts()


@recipe(kind="saturated-logits", facts=RunFacts, content=(_LOGITS,), packages=("onnx", "onnxruntime"), version=1)
def saturate(folder: Path, *, graph: Given[onnx.ModelProto], layers: tuple[str, ...], images: Images) -> RunFacts:
    """Run a graph with the saturating sums of CPUs without VNNI in these layers."""
    found = list(run_saturating(saturating_graph(graph.value, layers=layers), images.batches()))
    with (folder / _LOGITS).open("wb") as file:
        np.save(file, np.concatenate([logits for logits, _ in found]))
    return RunFacts(saturated=sum(pairs for _, pairs in found))


class _Runs:
    """Runs one engine in worker processes; its logits are kept in the store."""

    def __init__(self, makings: Makings, path: Path, sidecar: Sidecar, truth: TrueArithmetic) -> None:
        self._book = Book(makings.book.store)
        runtime = (sidecar.backend, sidecar.backend_version, sidecar.machine, platform.processor())
        self._engine = Given((path, sidecar), key=[sidecar.engine_sha256, *runtime])
        self._settings = sidecar.settings
        self._truth = truth

    def __call__(
        self, indices: NDArray[np.int64], *, under: Sequence[str] = (), settings: Mapping[str, Any] | None = None
    ) -> NDArray[np.float32]:
        split = _chosen(self._truth.split, indices)
        wanted = {**self._settings, **(settings or {})}
        made = self._book.make(run_engine, "", engine=self._engine, settings=wanted, under=tuple(under), split=split)
        found: NDArray[np.float32] = np.load(made.path(_LOGITS))
        return found


def _work(engine: Path, backend: str, images: Path, *, count: int, logits: Path, under: Sequence[str]) -> None:
    """Let a worker score an engine on so many images.

    Raises:
        EngineError: the emulator is not there, or the worker says why it cannot.
        WorkerError: it died.
    """
    preparing = {"backend": place_of(backend), "engine": str(engine), "images": str(images)}
    with Workers(under=under) as workers:
        worker = workers.start(engine.name, log=engine.with_suffix(".log"), preparing=preparing)
        opened = worker.ask("open", settings={"threads": 1, "spin": False})
        limit_s = scoring_limit_s(opened["first_inference_ms"], count)
        worker.ask("score", limit_s=limit_s, batch=_BATCH, logits=str(logits))


def _simulated(
    makings: Makings,
    graph: onnx.ModelProto,
    truth: TrueArithmetic,
    indices: NDArray[np.int64],
    *,
    layers: tuple[str, ...],
) -> tuple[NDArray[np.float32], int]:
    """Return the logits of saturating sums, and how many pairs saturated; both are kept."""
    images = replace(truth.images, split=_chosen(truth.split, indices))
    made = Book(makings.book.store).make(saturate, "", graph=given_graph(graph), layers=layers, images=images)
    logits: NDArray[np.float32] = np.load(made.path(_LOGITS))
    return logits, made.facts.saturated or 0


def _chosen(split: Split, indices: NDArray[np.int64]) -> Split:
    return Split(images=split.images[indices], labels=split.labels[indices])
