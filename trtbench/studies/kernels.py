"""The fused engine beside true Q/DQ arithmetic: as built, with other kernels, on another CPU, and simulated.

An engine runs in a worker process. Under an emulator of another CPU (QEMU's user mode, for example) that process meets
the instruction set it is given, and ONNX Runtime takes the kernels it would take there: a VNNI machine can so measure
what saturation costs the machines without.

Simulated is what x86 CPUs without VNNI compute of a Q/DQ graph: pairs of products added in 16 bits, saturating. The
instruction is VPMADDUBSW (Intel, "64 and IA-32 Architectures Software Developer's Manual", vol. 2): it multiplies
unsigned by signed bytes and adds neighbours to an int16 that saturates. ONNX Runtime's kernels feed it the codes of one
output position in the order (row, column, channel), and signed codes shifted by 128. Everything but these sums is
computed as the standard says.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from trtbench.bench.processes import Workers, mapped, scoring_limit_s
from trtbench.calibrate.exclusion import powers, signal_to_noise_db
from trtbench.data import spread
from trtbench.engines.base import place_of
from trtbench.engines.onnxruntime.cpu import integer_convolutions
from trtbench.engines.sidecar import write_sidecar
from trtbench.graph.view import GraphView, attribute, view
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
    from trtbench.store import Artefact
    from trtbench.studies.truth import Images, TrueArithmetic


DOMAIN = "trtbench"
_INT16 = np.iinfo(np.int16)
_SIGNED_SHIFT = 128  # int8 codes become uint8 ones with this zero point
_LARGEST_CODE = 255
_EXACT = "x64quantprecision"  # ONNX Runtime: exact sums on x86 CPUs without VNNI, at a cost in speed
_BATCH = 1
_LOGITS = "logits.npy"


def saturating_matmul(codes: NDArray[np.uint8], weights: NDArray[np.int8]) -> tuple[NDArray[np.int64], int]:
    """Multiply uint8 (positions, K) by int8 (K, channels), each pair of neighbours along K added in saturating int16.

    Returns:
        The sums, int64 (positions, channels), and how many pairs saturated.
    """
    exact = np.rint(codes.astype(np.float64) @ weights.astype(np.float64)).astype(np.int64)
    even = len(weights) // 2 * 2  # a last, single product fits int16
    first, second = weights[0:even:2].astype(np.int32), weights[1:even:2].astype(np.int32)
    # Only pairs of the same sign whose magnitudes are large enough can leave int16 at all.
    can = (np.sign(first) == np.sign(second)) & (_LARGEST_CODE * np.abs(first + second) > _INT16.max)
    saturated = 0
    for pair in np.flatnonzero(can.any(axis=1)):
        channels = np.flatnonzero(can[pair])
        left, right = (codes[:, 2 * pair + offset, None].astype(np.int32) for offset in (0, 1))
        sums = left * first[pair, channels] + right * second[pair, channels]
        lost = sums - np.clip(sums, _INT16.min, _INT16.max)
        saturated += int(np.count_nonzero(lost))
        exact[:, channels] -= lost
    return exact, saturated


def saturating_graph(quantized: onnx.ModelProto, *, layers: Sequence[str]) -> onnx.ModelProto:
    """Return the graph with these layers (by first output) replaced by ones that saturate; for `run_saturating`."""
    seen = view(quantized)
    graph = onnx.ModelProto()
    graph.CopyFrom(quantized)
    del graph.graph.node[:]
    for node in quantized.graph.node:
        graph.graph.node.append(_replaced(seen, node) if node.output[0] in layers else node)
    graph.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return graph


def run_saturating(
    graph: onnx.ModelProto, batches: Iterator[Mapping[str, NDArray[Any]]]
) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Run a graph from `saturating_graph` in NumPy; yield each batch's first output and how many pairs saturated."""
    evaluator = ReferenceEvaluator(graph, new_ops=[SaturatingConv, SaturatingGemm])
    for inputs in batches:
        _Counter.pairs = 0
        (logits, *_) = evaluator.run(None, dict(inputs))
        yield np.asarray(logits, np.float32), _Counter.pairs


class _Counter:
    """What an evaluation counts beside its tensors: onnx hands an operator no other place."""

    pairs: ClassVar[int] = 0


class SaturatingConv(OpRun):
    """Conv on codes: (codes, scale, zero point, weight codes, weight scales, bias)."""

    op_domain = DOMAIN

    def _run(  # noqa: PLR0917  onnx passes inputs by position
        self,
        codes: Any,
        scale: Any,
        zero: Any,
        weights: Any,
        scales: Any,
        bias: Any = None,
        *,
        group: int = 1,
        pads: Any = None,
        strides: Any = None,
    ) -> tuple[NDArray[np.float32]]:
        unsigned, shift = _unsigned(codes, zero)
        patches = _patches(
            unsigned, weights.shape[2:], pads=pads or (0, 0, 0, 0), strides=strides or (1, 1), fill=shift
        )
        batch, rows, columns = patches.shape[:3]
        outputs, inputs = len(weights) // group, weights.shape[1]
        parts = []
        for index in range(group):
            part = patches[..., index * inputs : (index + 1) * inputs].reshape(batch * rows * columns, -1)
            kernel = weights[index * outputs : (index + 1) * outputs].transpose(2, 3, 1, 0).reshape(-1, outputs)
            parts.append(_sums(part, kernel, shift))
        found = _scaled(np.concatenate(parts, axis=1), scale, scales, bias)
        return (found.reshape(batch, rows, columns, -1).transpose(0, 3, 1, 2),)


class SaturatingGemm(OpRun):
    """Gemm on codes: (codes, scale, zero point, weight codes, weight scales, bias)."""

    op_domain = DOMAIN

    def _run(  # noqa: PLR0917  onnx passes inputs by position
        self,
        codes: Any,
        scale: Any,
        zero: Any,
        weights: Any,
        scales: Any,
        bias: Any = None,
        *,
        transB: int = 0,  # noqa: N803  ONNX's name
    ) -> tuple[NDArray[np.float32]]:
        unsigned, shift = _unsigned(codes, zero)
        return (_scaled(_sums(unsigned, weights.T if transB else weights, shift), scale, scales, bias),)


def _replaced(seen: GraphView, node: onnx.NodeProto) -> onnx.NodeProto:
    data, weight = (seen.maker[tensor] for tensor in node.input[:2])
    inputs = [*data.input[:3], *weight.input[:2], *node.input[2:3]]
    kept = ("group", "pads", "strides") if node.op_type == "Conv" else ("transB",)
    attributes = {name: attribute(node, name) for name in kept if attribute(node, name) is not None}
    return helper.make_node(
        f"Saturating{node.op_type}", inputs, list(node.output), name=node.name, domain=DOMAIN, **attributes
    )


def _unsigned(codes: NDArray[Any], zero: NDArray[Any]) -> tuple[NDArray[np.uint8], int]:
    """Return codes as uint8, and their zero point."""
    if codes.dtype == np.uint8:
        return codes, int(zero)
    return (codes.astype(np.int16) + _SIGNED_SHIFT).astype(np.uint8), int(zero) + _SIGNED_SHIFT


def _patches(
    codes: NDArray[np.uint8], kernel: tuple[int, int], *, pads: Sequence[int], strides: Sequence[int], fill: int
) -> NDArray[np.uint8]:
    """Return what each output position sees: (batch, rows, columns, kernel rows, kernel columns, channels)."""
    top, left, bottom, right = pads
    padded = np.pad(codes, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(2, 3))
    return np.asarray(windows[:, :, :: strides[0], :: strides[1]].transpose(0, 2, 3, 4, 5, 1))


def _sums(codes: NDArray[np.uint8], weights: NDArray[np.int8], shift: int) -> NDArray[np.int64]:
    found, saturated = saturating_matmul(codes, weights)
    _Counter.pairs += saturated
    return np.asarray(found - shift * weights.sum(axis=0, dtype=np.int64))


def _scaled(sums: NDArray[np.int64], scale: Any, scales: Any, bias: Any) -> NDArray[np.float32]:
    values = sums * (np.float64(scale) * np.asarray(scales, np.float64).reshape(-1))
    return (values if bias is None else values + np.asarray(bias, np.float64)).astype(np.float32)


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
    few = spread(truth.split.labels, count=config.images)
    every = np.arange(len(truth.split))
    chosen = Split(images=truth.split.images[few], labels=truth.split.labels[few])
    book, all_true = Book(makings.book.store), truth.logits(graph)
    runtime = (sidecar.backend, sidecar.backend_version, sidecar.machine, platform.processor())
    engine = Given((path, sidecar), key=[sidecar.engine_sha256, *runtime])

    def run(split: Split, *, under: tuple[str, ...] = (), **settings: Any) -> Artefact[RunFacts]:
        wanted = {**sidecar.settings, **settings}
        return book.make(run_engine, "", engine=engine, settings=wanted, under=under, split=split)

    def compare(how: str, made: Artefact[RunFacts], indices: NDArray[np.int64]) -> tuple[str, KernelEffect]:
        logits: NDArray[np.float32] = np.load(made.path(_LOGITS))
        true, reference, labels = all_true[indices], truth.float_logits[indices], truth.split.labels[indices]
        found = KernelEffect(
            how=how,
            effect=effect_of(logits, reference, labels),
            true=effect_of(true, reference, labels),
            against_true_snr_db=signal_to_noise_db(*powers(true, logits)),
            differing_predictions=int((logits.argmax(axis=1) != true.argmax(axis=1)).sum()),
            saturated_pairs=made.facts.saturated,
        )
        return sidecar.achieved, found

    yield compare(f"{plan.backend}, as built here", run(truth.split), every)
    if plan.backend != "onnxruntime-cpu":
        return
    if config.under:
        where = " ".join((Path(config.under[0]).name, *config.under[1:]))
        for is_exact in (True, False):
            made = run(chosen, under=config.under, **{_EXACT: is_exact})
            yield compare(f"{where}, {_EXACT} {'on' if is_exact else 'off'}", made, few)
    integer = set(integer_convolutions(path, sidecar.settings))
    layers = tuple(node.output[0] for node in graph.graph.node if node.name in integer)
    if config.simulate and layers:
        images = replace(truth.images, split=chosen)
        made = book.make(saturate, "", graph=given_graph(graph), layers=layers, images=images)
        yield compare("saturating int16 pairs, simulated in NumPy", made, few)


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
    with (
        tempfile.TemporaryDirectory(prefix="trtbench-") as scratch,
        mapped(split.images, Path(scratch)) as images,
    ):
        copy = Path(scratch) / path.name
        shutil.copyfile(path, copy)
        write_sidecar(copy, replace(sidecar, settings=settings))
        _work(copy, sidecar.backend, images, count=len(split), logits=folder / _LOGITS, under=under)
    return RunFacts()


@recipe(kind="saturated-logits", facts=RunFacts, content=(_LOGITS,), packages=("onnx", "onnxruntime"), version=1)
def saturate(folder: Path, *, graph: Given[onnx.ModelProto], layers: tuple[str, ...], images: Images) -> RunFacts:
    """Run a graph with the saturating sums of CPUs without VNNI in these layers."""
    found = list(run_saturating(saturating_graph(graph.value, layers=layers), images.batches()))
    with (folder / _LOGITS).open("wb") as file:
        np.save(file, np.concatenate([logits for logits, _ in found]))
    return RunFacts(saturated=sum(pairs for _, pairs in found))


def _work(engine: Path, backend: str, images: Path, *, count: int, logits: Path, under: Sequence[str]) -> None:
    preparing = {"backend": place_of(backend), "engine": str(engine), "images": str(images)}
    with Workers(under=under) as workers:
        worker = workers.start(engine.name, log=engine.with_suffix(".log"), preparing=preparing)
        opened = worker.ask("open", settings={"threads": 1, "spin": False})
        limit_s = scoring_limit_s(opened["first_inference_ms"], count)
        worker.ask("score", limit_s=limit_s, batch=_BATCH, logits=str(logits))
