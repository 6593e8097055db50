"""TensorRT 10's calibration cache as text, to and from scales, and which of them a graph's tensors have. Pure.

NVIDIA does not document the text: a header `TRT-<version>-<algorithm>`, then for each tensor a line of its name and the
eight hexadecimal digits of its scale, a big-endian float32 (NVIDIA/TensorRT#2036). The scale is amax / 127.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.errors import DataError, GraphError
from trtbench.graph.weights import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_HEADER = re.compile(r"TRT-(?P<version>\d+)-(?P<algorithm>\w+)")
_LINE = re.compile(r"(?P<tensor>.+): (?P<scale>[0-9a-fA-F]{8})")
# TensorRT calls the output of a layer `<layer>_output` where the parser gave it no name (NVIDIA/TensorRT#681).
_SUFFIXES = ("_output",)
_TOLD = 5  # names a message lists
_CURE = "give the file that a calibrator's write_calibration_cache wrote"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationCache:
    """What a cache says: the version as it writes it (8601 is 8.6.1), the algorithm and the scales by tensor."""

    version: str
    algorithm: str
    scales: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedScales:
    """The scales of a graph's tensors.

    Args:
        scales: by the graph's names.
        renamed: the graph's name to the cache's, where they differ.
        unused: tensors of the cache that the graph's placement does not ask for.
    """

    scales: Mapping[str, float]
    renamed: Mapping[str, str]
    unused: tuple[str, ...]


def parse_cache(text: str, *, origin: str) -> CalibrationCache:
    """Read a cache.

    Args:
        text: its content.
        origin: what messages call it.

    Raises:
        DataError: it has no header, a line is none of a cache's, a tensor stands twice with different scales, or a
            scale is no number that a scale can be. A scale of 0 is one: of a tensor that was 0 everywhere.
    """
    lines = text.splitlines()
    header = _HEADER.fullmatch(lines[0].strip()) if lines else None
    if header is None:
        got = repr(lines[0][:60]) if lines else "an empty file"
        raise DataError(f"{origin}: line 1", expected="TRT-<version>-<algorithm>", got=got, cure=_CURE)
    scales: dict[str, float] = {}
    for number, line in enumerate(lines[1:], start=2):
        if line.strip():
            tensor, scale = _entry(line, where=f"{origin}: line {number}")
            if scales.setdefault(tensor, scale) != scale:
                raise DataError(f"{origin}: line {number}", expected=f"one scale of {tensor!r}", got="a second one")
    return CalibrationCache(version=header["version"], algorithm=header["algorithm"], scales=scales)


def _entry(line: str, *, where: str) -> tuple[str, float]:
    found = _LINE.fullmatch(line.rstrip())
    if found is None:
        raise DataError(where, expected="<tensor>: <8 hexadecimal digits>", got=repr(line[:60]), cure=_CURE)
    (scale,) = struct.unpack(">f", bytes.fromhex(found["scale"]))
    if not (math.isfinite(scale) and scale >= 0):
        raise DataError(f"{where}: scale of {found['tensor']!r}", expected="0 or more", got=str(scale), cure=_CURE)
    return found["tensor"], scale


def format_cache(cache: CalibrationCache) -> str:
    """Write a cache as TensorRT does; scales are rounded to float32."""
    lines = [f"{tensor}: {struct.pack('>f', scale).hex()}" for tensor, scale in cache.scales.items()]
    return "\n".join([f"TRT-{cache.version}-{cache.algorithm}", *lines, ""])


def match_scales(cache: CalibrationCache, tensors: Iterable[str], *, origin: str) -> MatchedScales:
    """Return the scale of each tensor, by its exact name or the name TensorRT gives an output that has none.

    No other likeness counts: a scale of the wrong tensor is worse than none.

    Raises:
        GraphError: the cache has no scale for a tensor; it is of another graph, or of layers after fusion.
    """
    found = {tensor: _name_in(cache.scales, tensor) for tensor in tensors}
    if missing := [tensor for tensor, name in found.items() if name is None]:
        raise GraphError(
            f"{origin}: scales of {len(missing)} of {len(found)} tensors",
            expected=f"one of {_listed(missing)}",
            got=f"{len(cache.scales)} others, as {_listed(list(cache.scales))}",
            cure="calibrate this very graph, by the entropy-2 or the minmax calibrator: they see it before fusion",
        )
    names = {tensor: name for tensor, name in found.items() if name is not None}
    return MatchedScales(
        scales={tensor: cache.scales[name] for tensor, name in names.items()},
        renamed={tensor: name for tensor, name in names.items() if name != tensor},
        unused=tuple(sorted(set(cache.scales) - set(names.values()))),
    )


def _name_in(scales: Mapping[str, float], tensor: str) -> str | None:
    names = (tensor, *(f"{tensor}{suffix}" for suffix in _SUFFIXES))
    return next((name for name in names if name in scales), None)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_TOLD]) + (", ..." if len(names) > _TOLD else "")


def thresholds(scales: Mapping[str, float], *, all_zero: float) -> dict[str, float]:
    """Return the magnitude that code 127 stands for, 127 times the scale; `all_zero` where the scale is 0."""
    return {tensor: LEVELS * scale if scale else all_zero for tensor, scale in scales.items()}
