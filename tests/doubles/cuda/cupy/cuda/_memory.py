"""Blocks of device and of pinned memory, and pointers into them."""

from __future__ import annotations

import ctypes
from typing import Any

from simulated_cuda import copies, memory, streams
from simulated_cuda.faults import CUDARuntimeError


class OutOfMemoryError(MemoryError):
    """The device is full."""


class Memory:
    """One block of device memory; it is given back when nothing points to it."""

    def __init__(self, size: int, /) -> None:
        self.size = size
        self._allocation = memory.allocate(size)  # held, so that its address is nobody else's before `__del__`
        self.ptr = self._allocation.address

    def __del__(self) -> None:
        if hasattr(self, "ptr"):
            memory.release(self.ptr)


class UnownedMemory:
    """Device memory that somebody else keeps."""

    def __init__(self, ptr: int, size: int, owner: object, device_id: int = -1, /) -> None:
        self.ptr, self.size, self._owner = ptr, size, owner


def _stream(stream: Any) -> int:
    from .stream import get_current_stream

    handle: int = (get_current_stream() if stream is None else stream).ptr
    return handle


def _address(mem: Any) -> int:
    return int(mem.value or 0) if isinstance(mem, ctypes.c_void_p) else int(mem)


class MemoryPointer:
    """A place in a block of device memory."""

    def __init__(self, mem: Memory | UnownedMemory, offset: int, /) -> None:
        self.mem = mem
        self.ptr = mem.ptr + offset
        self.device_id = 0

    def __int__(self) -> int:
        return self.ptr

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)

    def copy_from_host(self, mem: Any, size: int, /) -> None:
        copies.copy(self.ptr, _address(mem), size, kind=copies.HOST_TO_DEVICE)

    def copy_from_host_async(self, mem: Any, size: int, /, stream: Any = None) -> None:
        copies.copy_async(self.ptr, _address(mem), size, kind=copies.HOST_TO_DEVICE, stream=_stream(stream))

    def copy_to_host(self, mem: Any, size: int, /) -> None:
        copies.copy(_address(mem), self.ptr, size, kind=copies.DEVICE_TO_HOST)

    def copy_to_host_async(self, mem: Any, size: int, /, stream: Any = None) -> None:
        copies.copy_async(_address(mem), self.ptr, size, kind=copies.DEVICE_TO_HOST, stream=_stream(stream))

    def copy_from_device_async(self, src: MemoryPointer, size: int, /, stream: Any = None) -> None:
        copies.copy_async(self.ptr, src.ptr, size, kind=copies.DEVICE_TO_DEVICE, stream=_stream(stream))

    def memset(self, value: int, size: int, /) -> None:
        copies.fill_async(self.ptr, value, size, stream=streams.LEGACY)
        streams.synchronize(streams.LEGACY)

    def memset_async(self, value: int, size: int, /, stream: Any = None) -> None:
        copies.fill_async(self.ptr, value, size, stream=_stream(stream))


def alloc(size: int, /) -> MemoryPointer:
    """Take device memory; as with CuPy's pool the last bytes may be more than asked."""
    streams.refuse_while_capturing("malloc")
    try:
        return MemoryPointer(Memory(size), 0)
    except CUDARuntimeError as error:
        raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes.") from error


class PinnedMemory:
    """One block of page-locked host memory."""

    def __init__(self, size: int, /) -> None:
        self.size = size
        self.block = memory.allocate(size, kind="pinned").block
        self.ptr = int(self.block.ctypes.data)

    def __del__(self) -> None:
        if hasattr(self, "ptr"):
            memory.release(self.ptr)


class PinnedMemoryPointer:
    """A place in pinned memory; `numpy.frombuffer` reads it."""

    mem: PinnedMemory
    ptr: int

    def size(self) -> int:
        return self.mem.size

    def __int__(self) -> int:
        return self.ptr


def alloc_pinned_memory(size: int, /) -> PinnedMemoryPointer:
    """Take pinned memory. The type is made for the size: only `ctypes` gives a buffer at a chosen address."""
    streams.refuse_while_capturing("hostAlloc")
    mem = PinnedMemory(size)
    kind: Any = type(
        "PinnedMemoryPointer", (PinnedMemoryPointer, ctypes.Array), {"_type_": ctypes.c_uint8, "_length_": max(size, 1)}
    )
    made: Any = kind.from_buffer(mem.block)
    made.mem, made.ptr = mem, mem.ptr
    pointer: PinnedMemoryPointer = made
    return pointer


class MemoryPool:
    """The default pool; blocks are given back at once here, so that it holds nothing."""

    def free_all_blocks(self, stream: Any = None) -> None:
        """Give cached blocks back: there are none."""

    def used_bytes(self) -> int:
        return memory.TOTAL_BYTES - memory.free_bytes()

    def total_bytes(self) -> int:
        return self.used_bytes()


class PinnedMemoryPool:
    """The default pool of pinned memory."""

    def free_all_blocks(self) -> None:
        """Give cached blocks back: there are none."""


_pool, _pinned_pool = MemoryPool(), PinnedMemoryPool()


def get_default_memory_pool() -> MemoryPool:
    return _pool


def get_default_pinned_memory_pool() -> PinnedMemoryPool:
    return _pinned_pool
