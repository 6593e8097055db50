"""Small values: dimensions and memory that the library gave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from .strict import Managed, kinds, strict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@strict("Dims")
class Dims:
    """A shape; -1 stands for a size that is not known yet."""

    def __init__(self, shape: Sequence[int] = ()) -> None:
        self._sizes = tuple(int(size) for size in shape)

    @property
    def MAX_DIMS(self) -> int:
        return 8

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[int]:
        return iter(self._sizes)

    def __getitem__(self, place: int | slice) -> int | tuple[int, ...]:
        return self._sizes[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list | tuple | Dims) and tuple(other) == self._sizes

    def __hash__(self) -> int:
        return hash(self._sizes)

    def __repr__(self) -> str:
        return str(self._sizes)


class _FixedRank(Dims):
    """A shape of a known number of sizes, given one by one or together."""

    def __init__(self, *sizes: Any, shape: Sequence[int] = (), **named: int) -> None:
        given = sizes[0] if len(sizes) == 1 else [*sizes, *named.values()] or shape
        super().__init__(given)


@strict("Dims3")
class Dims3(_FixedRank):
    """Three sizes."""


@strict("Dims4")
class Dims4(_FixedRank):
    """Four sizes."""


class _HostMemory(bytearray, Managed):
    """Bytes with the buffer protocol, and no other name than the bindings'."""

    @property
    def nbytes(self) -> int:
        return memoryview(self).nbytes

    @property
    def dtype(self) -> Any:
        return kinds.DataType.INT8

    def __len__(self) -> int:
        raise TypeError("object of type 'tensorrt.IHostMemory' has no len()")

    def __getitem__(self, place: Any) -> Any:
        raise TypeError("'tensorrt.IHostMemory' object is not subscriptable")

    def __iter__(self) -> Any:
        raise TypeError("'tensorrt.IHostMemory' object is not iterable")

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name not in {"nbytes", "dtype"}:
            raise AttributeError(f"'tensorrt.IHostMemory' object has no attribute '{name}'")
        return super().__getattribute__(name)


@strict("IHostMemory")
class IHostMemory(_HostMemory):
    """Memory the library gave: made by it alone."""

    @classmethod
    def _of(cls, data: bytes) -> Self:
        made = cls.__new__(cls)
        bytearray.__init__(made, data)
        return made

    dtype = _HostMemory.dtype
    nbytes = _HostMemory.nbytes
