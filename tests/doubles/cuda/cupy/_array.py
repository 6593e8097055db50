"""Arrays on the simulated device: what is done to them waits in the current stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from simulated_cuda import memory, streams

from .cuda._memory import MemoryPointer, alloc
from .cuda.device import Device
from .cuda.stream import _BaseStream, get_current_stream

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

Shape = int | Sequence[int]


class ndarray:
    """An array of device memory; nothing of it can be read on the host but by `get`."""

    def __init__(
        self,
        shape: Shape,
        dtype: DTypeLike = float,
        memptr: MemoryPointer | None = None,
        strides: Sequence[int] | None = None,
        order: str = "C",
    ) -> None:
        if order != "C":
            raise ValueError(f"the double lays arrays out in C order, not {order!r}")
        self.dtype = np.dtype(dtype)
        self.shape = (shape,) if isinstance(shape, int) else tuple(int(size) for size in shape)
        self.data = alloc(self.size * self.dtype.itemsize) if memptr is None else memptr
        packed = np.empty(0, self.dtype).itemsize
        steps = [packed * int(np.prod(self.shape[place + 1 :])) for place in range(len(self.shape))]
        self.strides = tuple(steps) if strides is None else tuple(strides)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def device(self) -> Device:
        return Device(0)

    @property
    def flags(self) -> Any:
        return np.lib.stride_tricks.as_strided(np.empty(1, self.dtype), self.shape, self.strides).flags

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.data.ptr, False),
            "strides": None if self.flags.c_contiguous else self.strides,
            "version": 3,
            "stream": get_current_stream().ptr or 1,
        }

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def _host(self) -> NDArray[Any]:
        """See the bytes; only work that runs in a stream may ask."""
        found = memory.find(self.data.ptr)
        if found is None:
            return np.empty(self.shape, self.dtype)
        rest = memory.region(self.data.ptr, found.address + found.size - self.data.ptr)
        typed = rest[: rest.nbytes // self.itemsize * self.itemsize].view(self.dtype)
        return np.lib.stride_tricks.as_strided(typed, self.shape, self.strides)

    def get(
        self,
        stream: _BaseStream | None = None,
        order: str = "C",
        out: NDArray[Any] | None = None,
        blocking: bool = True,
    ) -> NDArray[Any]:
        target = np.empty(self.shape, self.dtype) if out is None else out
        handle = (get_current_stream() if stream is None else stream).ptr
        streams.submit(handle, lambda: np.copyto(target, self._host(), casting="no"))
        if blocking:
            streams.synchronize(handle)
        return target

    def set(self, arr: NDArray[Any], stream: _BaseStream | None = None) -> None:
        if arr.dtype != self.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        taken = np.array(arr)
        streams.submit((get_current_stream() if stream is None else stream).ptr, lambda: np.copyto(self._host(), taken))

    def fill(self, value: Any) -> None:
        streams.submit(get_current_stream().ptr, lambda: self._host().fill(value))

    def copy(self, order: str = "C") -> ndarray:
        return self.astype(self.dtype)

    def astype(
        self, dtype: DTypeLike, order: str = "K", casting: str | None = None, subok: Any = None, copy: bool = True
    ) -> ndarray:
        made = ndarray(self.shape, dtype)
        streams.submit(get_current_stream().ptr, lambda: np.copyto(made._host(), self._host(), casting="unsafe"))
        return made

    def reshape(self, *shape: Any, order: str = "C") -> ndarray:
        wanted = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        if not self.flags.c_contiguous:
            return self.copy().reshape(*wanted)
        probe = np.lib.stride_tricks.as_strided(np.empty(1, self.dtype), self.shape, [0] * self.ndim)
        sizes = list(wanted)
        if -1 in sizes:
            sizes[sizes.index(-1)] = probe.size // max(int(np.prod([size for size in sizes if size != -1])), 1)
        if int(np.prod(sizes)) != self.size:
            raise ValueError(f"cannot reshape array of size {self.size} into shape {tuple(wanted)}")
        return ndarray(sizes, self.dtype, self.data)

    def ravel(self, order: str = "C") -> ndarray:
        return self.reshape(self.size)

    def __getitem__(self, key: Any) -> ndarray:
        if isinstance(key, ndarray):
            return self._taken(key)
        shadow = np.ndarray(
            self.shape, self.dtype, buffer=np.empty(max(self._extent(), 1), np.uint8), strides=self.strides
        )
        seen = shadow[key]
        if not isinstance(seen, np.ndarray):
            seen = shadow[(*((key,) if not isinstance(key, tuple) else key), None)].reshape(())
        offset = seen.__array_interface__["data"][0] - shadow.__array_interface__["data"][0]
        return ndarray(seen.shape, self.dtype, self.data + offset, seen.strides)

    def __setitem__(self, key: Any, value: Any) -> None:
        place = self[key]
        source = value if isinstance(value, ndarray) else np.array(value)
        streams.submit(
            get_current_stream().ptr,
            lambda: np.copyto(
                place._host(), source._host() if isinstance(source, ndarray) else source, casting="unsafe"
            ),
        )

    def _extent(self) -> int:
        return sum((size - 1) * step for size, step in zip(self.shape, self.strides, strict=True)) + self.itemsize

    def _taken(self, places: ndarray) -> ndarray:
        made = ndarray((*places.shape, *self.shape[1:]), self.dtype)
        streams.submit(get_current_stream().ptr, lambda: np.copyto(made._host(), self._host()[places._host()]))
        return made


def empty(shape: Shape, dtype: DTypeLike = float, order: str = "C") -> ndarray:
    return ndarray(shape, dtype, order=order)


def zeros(shape: Shape, dtype: DTypeLike = float, order: str = "C") -> ndarray:
    made = ndarray(shape, dtype, order=order)
    made.fill(0)
    return made


def empty_like(prototype: ndarray, dtype: DTypeLike | None = None) -> ndarray:
    return ndarray(prototype.shape, prototype.dtype if dtype is None else dtype)


def asarray(
    a: Any,
    dtype: DTypeLike | None = None,
    order: str | None = None,
    *,
    copy: bool | None = None,
    blocking: bool = False,
) -> ndarray:
    if isinstance(a, ndarray):
        return a if dtype is None or np.dtype(dtype) == a.dtype else a.astype(dtype)
    taken = np.array(a, dtype=dtype, order="C")
    made = ndarray(taken.shape, taken.dtype)
    made.set(taken)
    if blocking:
        get_current_stream().synchronize()
    return made


def array(
    obj: Any,
    dtype: DTypeLike | None = None,
    copy: bool = True,
    order: str = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> ndarray:
    made = asarray(obj, dtype, blocking=blocking)
    return made.copy() if made is obj and copy else made


def ascontiguousarray(a: Any, dtype: DTypeLike | None = None) -> ndarray:
    made = asarray(a, dtype)
    return made if made.flags.c_contiguous else made.copy()


def asnumpy(
    a: Any,
    stream: _BaseStream | None = None,
    order: str = "C",
    out: NDArray[Any] | None = None,
    *,
    blocking: bool = True,
) -> NDArray[Any]:
    return a.get(stream, order, out, blocking) if isinstance(a, ndarray) else np.asarray(a)
