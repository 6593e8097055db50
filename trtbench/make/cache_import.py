"""A TensorRT 10 calibration cache becomes the Q/DQ graph that TensorRT 11, which has no calibrators, builds from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.calibrate.ranges import ALL_ZERO_AMAX
from trtbench.engines.tensorrt.caches import match_scales, parse_cache, thresholds
from trtbench.errors import DataError, GraphError

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.engines.tensorrt.caches import MatchedScales

_TOLD = 5  # names a note lists


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedCache:
    """What came of a cache.

    Args:
        ranges: JSON of amax by tensor, as a calibration writes it.
        graph: the bytes of the ONNX graph with Q/DQ nodes.
        tensors: how many tensors have a scale of the cache.
        algorithm: of the calibrator that wrote it.
        sha256: of the cache file.
        notes: which of its tensors the graph does not ask for, goes by another name for, or has only zeros of.
    """

    ranges: str
    graph: bytes
    tensors: int
    algorithm: str
    sha256: str
    notes: tuple[str, ...]


def import_cache(graph: Path, cache: Path) -> ImportedCache:
    """Place Q/DQ pairs in a float graph with the activation scales of a cache; weights have their own.

    Args:
        graph: the float ONNX graph that was calibrated.
        cache: the file that TensorRT's calibrator wrote.

    Raises:
        DataError: the cache cannot be read.
        GraphError: it lacks a tensor of the graph, or TensorRT would not take the graph that comes of it.
    """
    import onnx

    from trtbench.graph.lint import lint
    from trtbench.graph.placement import activation_tensors, plan_qdq
    from trtbench.graph.qdq import insert_qdq

    content = _read(cache)
    parsed = parse_cache(_decoded(content, cache), origin=cache.name)
    proto = onnx.load(graph)
    plan = plan_qdq(proto)
    matched = match_scales(parsed, activation_tensors(plan), origin=cache.name)
    amax = thresholds(matched.scales, all_zero=ALL_ZERO_AMAX)
    quantized = insert_qdq(proto, plan, amax)
    if findings := lint(quantized):
        got = "; ".join(f"{found.node}: {found.message} ({found.rule})" for found in findings[:_TOLD])
        raise GraphError(f"Q/DQ graph of {cache.name}", got=got, cure="export the model another way")
    return ImportedCache(
        ranges=json.dumps(amax, indent=1, sort_keys=True),
        graph=quantized.SerializeToString(deterministic=True),
        tensors=len(amax),
        algorithm=parsed.algorithm,
        sha256=hashlib.sha256(content).hexdigest(),
        notes=_notes(matched),
    )


def _read(cache: Path) -> bytes:
    try:
        return cache.read_bytes()
    except OSError as error:
        cure = "give the file that a calibrator's write_calibration_cache wrote"
        raise DataError(f"calibration cache {cache}", got=error.strerror or str(error), cure=cure) from error


def _decoded(content: bytes, cache: Path) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"calibration cache {cache}", expected="text", got=str(error)) from error


def _notes(matched: MatchedScales) -> tuple[str, ...]:
    zeros = [tensor for tensor, scale in matched.scales.items() if scale == 0]
    told = (
        ("tensors of the cache the placement asks no scale of", matched.unused),
        ("tensors by the cache's name", tuple(f"{ours} = {theirs}" for ours, theirs in matched.renamed.items())),
        ("tensors that were 0 on all images", tuple(zeros)),
    )
    return tuple(f"{len(names)} {what}: {_listed(names)}" for what, names in told if names)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_TOLD]) + (", ..." if len(names) > _TOLD else "")
