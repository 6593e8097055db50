"""Copies between host and device, in the order of a stream, with CUDA's rules for memory that is not pinned."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np

from . import memory, streams
from .faults import CUDARuntimeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

HOST_TO_HOST, HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = range(4)


def copy_async(target: int, source: int, nbytes: int, *, kind: int, stream: int) -> None:
    """Copy when the stream comes to it; pageable host memory is read, or waited for, at once.

    Raises:
        CUDARuntimeError: for an address that is not what `kind` says, and for pageable memory during a capture.
    """
    _check(target, source, nbytes, kind=kind)
    host = {HOST_TO_DEVICE: source, DEVICE_TO_HOST: target}.get(kind)
    if host is None or is_pinned(host, nbytes):
        streams.submit(stream, lambda: _move(target, source, nbytes, kind=kind))
        return
    if streams.is_capturing(stream):
        streams.spoil_capture(stream)
        raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported", "a copy of pageable host memory")
    if kind == HOST_TO_DEVICE:
        taken = _host_bytes(source, nbytes).copy()
        streams.submit(stream, lambda: _put(target, taken))
    else:
        streams.submit(stream, lambda: _move(target, source, nbytes, kind=kind))
        streams.synchronize(stream)


def copy(target: int, source: int, nbytes: int, *, kind: int) -> None:
    """Copy now, in the order of the legacy default stream."""
    streams.refuse_while_capturing("memcpy")
    _check(target, source, nbytes, kind=kind)
    streams.submit(streams.LEGACY, lambda: _move(target, source, nbytes, kind=kind))
    streams.synchronize(streams.LEGACY)


def fill_async(target: int, value: int, nbytes: int, *, stream: int) -> None:
    """Set bytes when the stream comes to it."""
    memory.region(target, nbytes)
    streams.submit(stream, lambda: memory.region(target, nbytes).fill(value))


def is_pinned(address: int, nbytes: int) -> bool:
    """Say whether host memory is page-locked."""
    found = memory.find(address)
    return found is not None and found.kind == "pinned" and address + nbytes <= found.address + found.size


def _check(target: int, source: int, nbytes: int, *, kind: int) -> None:
    if kind not in {HOST_TO_HOST, HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE}:
        raise CUDARuntimeError("cudaErrorInvalidValue", f"no kind of copy: {kind}")
    if kind in {HOST_TO_DEVICE, DEVICE_TO_DEVICE}:
        memory.region(target, nbytes)
    if kind in {DEVICE_TO_HOST, DEVICE_TO_DEVICE}:
        memory.region(source, nbytes)


def _move(target: int, source: int, nbytes: int, *, kind: int) -> None:
    _check(target, source, nbytes, kind=kind)
    ctypes.memmove(target, source, nbytes)


def _put(target: int, data: NDArray[np.uint8]) -> None:
    memory.region(target, data.nbytes)[:] = data


def _host_bytes(address: int, nbytes: int) -> NDArray[np.uint8]:
    return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))
