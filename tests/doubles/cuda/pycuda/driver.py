"""PyCUDA's driver API: nothing works before `init`, and nothing but devices before a context is current."""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

import numpy as np
from simulated_cuda import copies, memory, streams
from simulated_cuda import device as gpu
from simulated_cuda.faults import CUDARuntimeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import DTypeLike, NDArray

_P = ParamSpec("_P")
_R = TypeVar("_R")
_state = threading.local()
_initialised = False


class Error(Exception):
    """Any error of CUDA."""


class MemoryError(Error):
    """The device is full."""


class LogicError(Error):
    """A call that is wrong here and now."""


class LaunchError(Error):
    """A kernel failed."""


class RuntimeError(Error):
    """Anything else."""


def _mapped(call: Callable[_P, _R]) -> Callable[_P, _R]:
    @functools.wraps(call)
    def mapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return call(*args, **kwargs)
        except CUDARuntimeError as error:
            kind = MemoryError if error.name == "cudaErrorMemoryAllocation" else LogicError
            raise kind(str(error)) from error

    return mapped


def _stack() -> list[Context]:
    if not hasattr(_state, "contexts"):
        _state.contexts = []
    stack: list[Context] = _state.contexts
    return stack


def _needs_context() -> None:
    if not _stack():
        raise LogicError("invalid device context - no currently active context?")


@_mapped
def init(flags: int = 0) -> None:
    global _initialised  # noqa: PLW0603  CUDA keeps it for the process
    gpu.count()
    _initialised = True


def _needs_init() -> None:
    if not _initialised:
        raise LogicError("cuInit failed: not initialized")


def get_version() -> tuple[int, int, int]:
    return gpu.RUNTIME_CUDA // 1000, gpu.RUNTIME_CUDA % 1000 // 10, 0


def get_driver_version() -> int:
    return gpu.DRIVER_CUDA


def mem_get_info() -> tuple[int, int]:
    _needs_context()
    return memory.free_bytes(), memory.TOTAL_BYTES


class Device:
    """A device by number or PCI bus id."""

    @_mapped
    def __init__(self, number: int | str, /) -> None:
        _needs_init()
        self._index = 0 if number == gpu.PCI_BUS_ID else int(number)
        gpu.check(self._index)

    @staticmethod
    def count() -> int:
        _needs_init()
        return gpu.count()

    def name(self) -> str:
        return gpu.name(self._index)

    def pci_bus_id(self) -> str:
        return gpu.PCI_BUS_ID

    def compute_capability(self) -> tuple[int, int]:
        return gpu.compute_capability()

    def total_memory(self) -> int:
        return memory.TOTAL_BYTES

    def retain_primary_context(self) -> Context:
        return Context._primary()

    def make_context(self, flags: int = 0) -> Context:
        raise LogicError("a context beside the primary one does not see what CuPy and torch allocate")


class Context:
    """The primary context, which CuPy and torch use too."""

    _one: Context | None = None

    def __init__(self) -> None:
        raise TypeError("This class cannot be instantiated from Python")

    @classmethod
    def _primary(cls) -> Context:
        if Context._one is None:
            Context._one = object.__new__(cls)
        return Context._one

    def push(self) -> None:
        _stack().append(self)

    @staticmethod
    def pop() -> None:
        if not _stack():
            raise LogicError("context::pop failed: invalid device context - cannot pop non-current context")
        _stack().pop()

    def detach(self) -> None:
        """Release the primary context."""

    @staticmethod
    def get_current() -> Context | None:
        return _stack()[-1] if _stack() else None

    @staticmethod
    def get_device() -> Device:
        _needs_context()
        return Device(0)

    @staticmethod
    @_mapped
    def synchronize() -> None:
        _needs_context()
        streams.synchronize_device()


class Stream:
    """A stream; `handle` is what other libraries take."""

    def __init__(self, flags: int = 0) -> None:
        _needs_context()
        self.handle = streams.create(is_blocking=flags == 0)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            streams.destroy(self.handle)

    @_mapped
    def synchronize(self) -> None:
        streams.synchronize(self.handle)

    def is_done(self) -> bool:
        return streams.is_done(self.handle)

    def wait_for_event(self, event: Event, /) -> None:
        streams.submit(self.handle, event._mark.reach)


class Event:
    """A mark in a stream."""

    def __init__(self, flags: int = 0) -> None:
        _needs_context()
        self._mark = streams.Mark()

    def record(self, stream: Stream | None = None) -> Self:
        self._mark.record(_handle(stream))
        return self

    def synchronize(self) -> Self:
        self._mark.reach()
        return self

    def query(self) -> bool:
        return self._mark.handle is None or self._mark.passed_ns is not None

    @_mapped
    def time_since(self, event: Event, /) -> float:
        return self._mark.milliseconds_since(event._mark)

    @_mapped
    def time_till(self, event: Event, /) -> float:
        return event._mark.milliseconds_since(self._mark)


class DeviceAllocation:
    """Device memory; `int` gives its address."""

    def __init__(self) -> None:
        raise TypeError("This class cannot be instantiated from Python")

    @classmethod
    def _of(cls, size: int) -> Self:
        made = cls.__new__(cls)
        made._allocation = memory.allocate(size)
        made._address = made._allocation.address
        return made

    _allocation: memory.Allocation
    _address: int

    def __int__(self) -> int:
        return self._address

    def __index__(self) -> int:
        return self._address

    def free(self) -> None:
        memory.release(self._address)

    def __del__(self) -> None:
        if hasattr(self, "_address"):
            memory.release(self._address)


@_mapped
def mem_alloc(size: int, /) -> DeviceAllocation:
    _needs_context()
    streams.refuse_while_capturing("mem_alloc")
    return DeviceAllocation._of(size)


def pagelocked_empty(
    shape: int | Sequence[int], dtype: DTypeLike, order: str = "C", mem_flags: int = 0
) -> NDArray[Any]:
    _needs_context()
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    kind = np.dtype(dtype)
    found = memory.allocate(int(np.prod(sizes)) * kind.itemsize, kind="pinned")
    return np.ndarray(sizes, kind, buffer=found.block, order="F" if order == "F" else "C")


def _handle(stream: Stream | None) -> int:
    return streams.LEGACY if stream is None else stream.handle


def _host(array: Any) -> tuple[int, int]:
    values = np.asarray(array)
    if not values.flags.c_contiguous:
        raise ValueError("ndarray is not contiguous")
    return int(values.ctypes.data), values.nbytes


@_mapped
def memcpy_htod(dest: Any, src: Any) -> None:
    _needs_context()
    address, nbytes = _host(src)
    copies.copy(int(dest), address, nbytes, kind=copies.HOST_TO_DEVICE)


@_mapped
def memcpy_dtoh(dest: Any, src: Any) -> None:
    _needs_context()
    address, nbytes = _host(dest)
    copies.copy(address, int(src), nbytes, kind=copies.DEVICE_TO_HOST)


@_mapped
def memcpy_htod_async(dest: Any, src: Any, stream: Stream | None = None) -> None:
    _needs_context()
    address, nbytes = _host(src)
    copies.copy_async(int(dest), address, nbytes, kind=copies.HOST_TO_DEVICE, stream=_handle(stream))


@_mapped
def memcpy_dtoh_async(dest: Any, src: Any, stream: Stream | None = None) -> None:
    _needs_context()
    address, nbytes = _host(dest)
    copies.copy_async(address, int(src), nbytes, kind=copies.DEVICE_TO_HOST, stream=_handle(stream))


@_mapped
def memcpy_dtod_async(dest: Any, src: Any, size: int, stream: Stream | None = None) -> None:
    _needs_context()
    copies.copy_async(int(dest), int(src), size, kind=copies.DEVICE_TO_DEVICE, stream=_handle(stream))


@_mapped
def memset_d8_async(dest: Any, data: int, size: int, stream: Stream | None = None) -> None:
    _needs_context()
    copies.fill_async(int(dest), data, size, stream=_handle(stream))
