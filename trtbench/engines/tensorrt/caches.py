"""What TensorRT keeps between builds: calibration caches, as files with a key and as text, and timings of tactics.

TensorRT reads whatever calibration cache it is given, even one of another network or other images: to tell them apart
"is the responsibility of the application" (NvInfer.h, IInt8Calibrator::readCalibrationCache). Its text NVIDIA does not
document: a header `TRT-<version>-<algorithm>`, then for each tensor a line of its name and the eight hexadecimal digits
of its scale, a big-endian float32 (NVIDIA/TensorRT#2036). The scale is amax / 127.

Timings are kept by TensorRT version, GPU and driver. A foreign or damaged file never fails a build: it starts empty and
says so. What a build learned is added to what another one wrote meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.disk import locked, write_atomically
from trtbench.errors import DataError, GraphError
from trtbench.foreign import MISFITS
from trtbench.graph.view import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import tensorrt as trt

_HEADER = re.compile(r"TRT-(?P<version>\d+)-(?P<algorithm>\w+)")
_LINE = re.compile(r"(?P<tensor>.+): (?P<scale>[0-9a-fA-F]{8})")
# TensorRT calls the output of a layer `<layer>_output` where the parser gave it no name (NVIDIA/TensorRT#681).
_SUFFIX = "_output"
_TOLD = 5  # names a message lists
_CURE = "give the file that a calibrator's write_calibration_cache wrote"


class KeyedCache:
    """One cache file and, beside it, `<name>.json` with its key and its sha256.

    Args:
        path: the cache file, as TensorRT writes it.
        key: the sha256 of all that decides its content.
    """

    def __init__(self, path: Path, *, key: str) -> None:
        self._path = path
        self._label = path.with_name(f"{path.name}.json")
        self._key = key
        self.notes: tuple[str, ...] = ()

    def read(self) -> bytes | None:
        """Return the cache if it is there, whole and of this key, else None."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            problem: str | None = error.strerror or str(error)
        else:
            problem = self._problem(content)
        if problem is not None:
            self.notes += (f"calibration cache {self._path.name} is not read: {problem}",)
            return None
        self.notes += (f"ranges from the calibration cache {self._path.name}",)
        return content

    def write(self, content: bytes) -> None:
        """Write the cache and then its label: between the two the cache fits no label, and is not read.

        Raises:
            StoreError: the folder cannot be written.
        """
        write_atomically(self._path, content)
        label = {"key": self._key, "sha256": hashlib.sha256(content).hexdigest()}
        write_atomically(self._label, json.dumps(label, indent=1))

    def _problem(self, content: bytes) -> str | None:
        """Say why the file is not the one wanted, or None."""
        try:
            label = json.loads(self._label.read_bytes())
            key, digest = label["key"], label["sha256"]
        except MISFITS:
            return "it has no label that says what it was made from"
        if key != self._key:
            return "it was made from other images, settings or another TensorRT"
        return None if digest == hashlib.sha256(content).hexdigest() else "it is not the file that was written"


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


def match_scales(cache: CalibrationCache, tensors: Iterable[str], *, origin: str) -> MatchedScales:
    """Return the scale of each tensor, by its exact name or the name TensorRT gives an output that has none.

    No other likeness counts: a scale of the wrong tensor is worse than none.

    Raises:
        GraphError: the cache has no scale for a tensor; it is of another graph, or of layers after fusion.
    """
    found = {
        tensor: next((name for name in (tensor, f"{tensor}{_SUFFIX}") if name in cache.scales), None)
        for tensor in tensors
    }
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


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_TOLD]) + (", ..." if len(names) > _TOLD else "")


def thresholds(scales: Mapping[str, float], *, all_zero: float) -> dict[str, float]:
    """Return the magnitude that code 127 stands for, 127 times the scale; `all_zero` where the scale is 0."""
    return {tensor: LEVELS * scale if scale else all_zero for tensor, scale in scales.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingCache:
    """The cache of one build; its object must live until the build has ended.

    Args:
        path: its file.
        cache: what TensorRT reads from and writes to.
        read_bytes: bytes taken from the file; 0 started empty.
        note: what a reader must know, or "".
    """

    path: Path
    cache: trt.ITimingCache
    read_bytes: int
    note: str = ""

    def save(self, config: trt.IBuilderConfig) -> None:
        """Write what the build learned, together with what others wrote meanwhile.

        Raises:
            StoreError: the file cannot be written.
        """
        learned = config.get_timing_cache() or self.cache
        with locked(_lock(self.path)):
            # As trtexec does: what a build learned is added to a fresh cache of the file, not the other way round.
            kept = config.create_timing_cache(_read(self.path))
            if kept is None or not kept.combine(learned, ignore_mismatch=False):
                kept = learned
            write_atomically(self.path, bytes(kept.serialize()))


def cache_path(folder: Path, *, version: str, gpu: str, driver: str) -> Path:
    """Return the file of one TensorRT version, GPU (its name and SM) and driver below a folder."""
    named = (f"tensorrt-{version}", gpu, f"driver-{driver}")
    parts = (re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-") for part in named)
    return folder / f"{'_'.join(parts)}.timing"


def attach_timing_cache(config: trt.IBuilderConfig, path: Path) -> TimingCache:
    """Give a build the cache of a file, or an empty one where the file is absent, damaged or of another machine."""
    with locked(_lock(path)):
        data = _read(path)
    found = config.create_timing_cache(data)
    if found is not None and data and config.set_timing_cache(found, ignore_mismatch=False):
        return TimingCache(path=path, cache=found, read_bytes=len(data))
    empty = config.create_timing_cache(b"")
    assert empty is not None, "an empty timing cache can always be made"
    config.set_timing_cache(empty, ignore_mismatch=False)
    why = "cannot be read" if found is None else "is of another TensorRT, GPU or driver"
    note = f"timing cache {path.name} {why}: it starts empty" if data else ""
    return TimingCache(path=path, cache=empty, read_bytes=0, note=note)


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _lock(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")
