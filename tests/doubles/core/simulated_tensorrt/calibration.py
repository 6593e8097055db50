"""Implicit INT8 of TensorRT 10: the calibrator is asked for batches, or for a cache, and scales come out.

The scale is the largest magnitude over 127 for both methods: the search the real entropy method does is not repeated.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from simulated_cuda import memory
from simulated_cuda.faults import CUDARuntimeError

from . import callbacks, facts
from .execution import Network
from .network import inputs_of
from .strict import kinds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

_CACHE_NAMES = {"ENTROPY_CALIBRATION_2": "EntropyCalibration2", "MINMAX_CALIBRATION": "MinMaxCalibration"}
_STEPS = 127


def header(algorithm: Any) -> str:
    """Write the first line of a cache of the current version."""
    major, minor, patch = (int(each) for each in facts.current().version.split(".")[:3])
    return f"TRT-{major * 10000 + minor * 100 + patch}-{_CACHE_NAMES[algorithm.name]}"


def written(scales: Mapping[str, float], *, first_line: str) -> bytes:
    """Write a cache: each scale is a big-endian float32 in hexadecimal digits."""
    lines = (f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in scales.items())
    return "\n".join([first_line, *lines, ""]).encode()


def read(cache: bytes, *, first_line: str) -> dict[str, float] | None:
    """Read a cache; None if it is of another version or method."""
    lines = cache.decode("utf-8", errors="replace").splitlines()
    if not lines or lines[0] != first_line:
        return None
    pairs = (line.rpartition(": ") for line in lines[1:] if line)
    return {name: struct.unpack(">f", bytes.fromhex(digits))[0] for name, _, digits in pairs}


def calibrate(
    calibrator: Any, model: onnx.ModelProto, *, shapes: Mapping[str, Sequence[int]], logger: Any
) -> dict[str, float] | None:
    """Get a scale for every tensor, from the calibrator's cache or from its batches; None if it fed none."""
    first_line = header(callbacks.ask("get_algorithm", calibrator.get_algorithm, otherwise=None))
    cached = callbacks.ask("read_calibration_cache", calibrator.read_calibration_cache, otherwise=None)
    if cached is not None and memoryview(cached):
        scales = read(bytes(cached), first_line=first_line)
        if scales:
            return scales
        callbacks.warning(logger, "Skipping calibration cache read: it is of another version or method")
    ranges = _ranges(calibrator, model, shapes, logger)
    if not ranges:
        return None
    scales = {name: float(np.float32(largest / _STEPS)) for name, largest in ranges.items() if largest > 0}
    view = memoryview(written(scales, first_line=first_line))
    callbacks.ask("write_calibration_cache", lambda: calibrator.write_calibration_cache(view), otherwise=None)
    view.release()  # the memory is the library's: who keeps the view has nothing
    return scales


def _ranges(
    calibrator: Any, model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], logger: Any
) -> dict[str, float]:
    names = [each.name for each in inputs_of(model)]
    watched = tuple(
        each.output[0] for each in model.graph.node if each.op_type not in {"Constant", "Shape"} and each.output[0]
    )
    outputs = {each.name for each in model.graph.output}
    network = Network(model, keeps=tuple(each for each in watched if each not in outputs))
    ranges: dict[str, float] = {}
    callbacks.ask("get_batch_size", calibrator.get_batch_size, otherwise=1)
    while (batch := _batch(calibrator, names, shapes, logger)) is not None:
        for name, values in {**batch, **network.run(batch)}.items():
            if values.dtype.kind == "f":
                ranges[name] = max(ranges.get(name, 0.0), float(np.abs(values).max(initial=0.0)))
    return ranges


def _batch(
    calibrator: Any, names: list[str], shapes: Mapping[str, Sequence[int]], logger: Any
) -> dict[str, NDArray[Any]] | None:
    """Ask for one batch and read it where the pointers say, at once: no stream of the client's is waited for."""
    pointers = callbacks.ask("get_batch", lambda: calibrator.get_batch(list(names)), otherwise=None)
    if not pointers:
        return None
    if len(pointers) != len(names) or not all(isinstance(each, int) for each in pointers):
        callbacks.error(logger, f"get_batch gave {pointers}, not one address for each of {names}")
        return None
    try:
        return {name: _values(pointer, shapes[name]) for name, pointer in zip(names, pointers, strict=True)}
    except CUDARuntimeError as error:
        callbacks.error(logger, f"Error Code 1: Cuda Runtime ({error})")
        return None


def _values(pointer: int, shape: Sequence[int]) -> NDArray[np.float32]:
    nbytes = int(np.prod(shape)) * 4
    return memory.region(pointer, nbytes).view(np.float32).reshape(tuple(shape)).copy()


def is_wanted(config: Any, model: onnx.ModelProto) -> bool:
    """Say whether the builder would calibrate: INT8 is set and the graph has no Q/DQ nodes of its own."""
    flag = getattr(kinds.BuilderFlag, "INT8", None)
    explicit = any(each.op_type == "QuantizeLinear" for each in model.graph.node)
    return flag is not None and config.get_flag(flag) and not explicit
