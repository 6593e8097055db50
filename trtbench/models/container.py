"""A container of our own for compressed networks (.tbz): what runtimes cannot store, in the bytes it really takes.

A file is a magic, the sha256 of all that follows, the length of a header, the header (JSON, deflated) and the blocks it
lists, in its order, with nothing behind. Writing loses nothing: what is read is, bit for bit, what was written. What a
method made cheap (few levels, zeros, half precision) is found and stored cheaply; what it did not, is stored as it is.

Three encodings of a tensor:

* `raw`: its numbers; those that half precision holds exactly in half, zeros left out where that is shorter;
* `table`: an index into a table of its values for each (weight sharing: Han et al., "Deep Compression", 2016, sec. 3);
* `grid`: a whole number for each, times the scale of its output channel (axis 0).
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Mapping  # noqa: TC003  pydantic reads the annotations at run time
from dataclasses import dataclass, field
from operator import not_
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from trtbench.disk import write_atomically
from trtbench.errors import CheckpointError
from trtbench.foreign import parse_json, read_file, reason
from trtbench.models.streams import MAX_SYMBOLS, Form, decode, encode, size_of
from trtbench.records import PACKED_VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor


MAGIC = b"trtbench%c\r\n" % PACKED_VERSION
_LENGTH = struct.Struct("<I")
_DIGEST_BYTES = 32
_MAX_HEADER = 64 * 10**6  # of inflated JSON: the histograms of thousands of tensors stay below it

_SMALL_BYTES, _RATIO = 64 * 10**6, 1000  # what may be decoded from few bytes, and from more: 0.03 bits a weight
_SMALL, _FEW = 4096, 512  # of a tensor of more numbers than that, a table of so few values needs no comparison
_MAX_TABLE = 4096  # values a tensor may have to be stored as indices
_GET_AGAIN = "copy or download it again, or pack the network again"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """A tensor on a grid: `codes` int32 of its shape, `scales` float32 (shape[0],), one for each output channel."""

    codes: Tensor
    scales: Tensor

    def values(self) -> Tensor:
        """Return codes x scales, float32: one rounding, equal on every machine."""
        return self.codes.float() * self.scales.reshape(-1, *[1] * (self.codes.ndim - 1))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedState:
    """A network's tensors by key, those on a grid as such, and facts beside them (JSON values)."""

    tensors: Mapping[str, Tensor | Grid]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def values(self) -> dict[str, Tensor]:
        """Return the plain state dict."""
        return {key: one.values() if isinstance(one, Grid) else one for key, one in self.tensors.items()}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Numbers(_Part):
    """Plain numbers: `count` of them, `stored` with this type, deflated or not into `bytes` bytes."""

    stored: Literal["float16", "float32", "int64"]
    count: Annotated[int, Field(ge=0, lt=2**40)]
    bytes: Annotated[int, Field(ge=0, lt=2**40)]
    is_deflated: bool = Field(default=False, exclude_if=not_)


class _Entry(_Part):
    key: str
    shape: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**40)], ...], Field(max_length=8)]


class _RawEntry(_Entry):
    """Its numbers; with `zeros`, a stream of 0 and 1 says where they stand, and zeros are left out."""

    kind: Literal["raw"] = "raw"
    dtype: Literal["float32", "int64"]
    numbers: _Numbers
    zeros: Form | None = Field(None, exclude_if=not_)


class _TableEntry(_Entry):
    kind: Literal["table"] = "table"
    table: _Numbers
    indices: Form


class _GridEntry(_Entry):
    kind: Literal["grid"] = "grid"
    lowest: Annotated[int, Field(gt=-MAX_SYMBOLS, lt=MAX_SYMBOLS)]
    scales: _Numbers
    codes: Form


class _Header(_Part):
    facts: dict[str, Any]
    tensors: tuple[Annotated[_RawEntry | _TableEntry | _GridEntry, Field(discriminator="kind")], ...]


def without_negative_zeros(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with every -0.0 as 0.0, so that zeros are one value."""
    return {key: one + 0.0 if one.is_floating_point() else one for key, one in tensors.items()}


def state_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 (hex) over the key, type, shape and bytes of each tensor, in the order of the keys."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_packed(path: Path, state: PackedState) -> int:
    """Write a container, whole or not at all; return its bytes. Equal states give equal files.

    Raises:
        StoreError: the file cannot be written.
    """
    data = to_bytes(state)
    write_atomically(path, data)
    return len(data)


def to_bytes(state: PackedState) -> bytes:
    """Return a container as bytes; each tensor float32 or int64."""
    entries, blocks = [], []
    for key, one in state.tensors.items():
        entry, data = _write_grid(key, one) if isinstance(one, Grid) else _write_plain(key, one)
        entries.append(entry)
        blocks.append(data)
    header = _Header(facts=dict(state.facts), tensors=tuple(entries)).model_dump_json()
    packed = zlib.compress(header.encode(), 9)
    body = _LENGTH.pack(len(packed)) + packed + b"".join(blocks)
    return MAGIC + hashlib.sha256(body).digest() + body


def weight_bytes(state: PackedState) -> dict[str, int]:
    """Return the bytes of each tensor's blocks in a container, without their part of the header."""
    return {
        key: len((_write_grid(key, one) if isinstance(one, Grid) else _write_plain(key, one))[1])
        for key, one in state.tensors.items()
    }


def load_packed(path: Path, *, max_bytes: int) -> PackedState:
    """Read a container.

    Args:
        path: the file.
        max_bytes: the most the decoded tensors may take.

    Raises:
        CheckpointError: it cannot be read, is cut short, changed or hostile.
    """
    try:
        data = read_file(path, most=max_bytes)
    except (OSError, ValueError) as error:
        cure = "check the path and its permissions"
        raise CheckpointError(f"packed file {path}", got=reason(error), cure=cure) from error
    try:
        return from_bytes(data, max_bytes=min(max_bytes, max(_SMALL_BYTES, _RATIO * len(data))))
    except ValueError as error:
        raise CheckpointError(
            f"packed file {path}", expected="a container of trtbench", got=str(error), cure=_GET_AGAIN
        ) from error


def from_bytes(data: bytes, *, max_bytes: int) -> PackedState:
    """Read a container from bytes.

    Raises:
        ValueError: it is cut short, changed or hostile; the message says where.
    """
    start = len(MAGIC) + _DIGEST_BYTES
    if not data.startswith(MAGIC) or len(data) < start + _LENGTH.size:
        raise ValueError("bytes of another kind, or cut short")
    if hashlib.sha256(data[start:]).digest() != data[len(MAGIC) : start]:
        raise ValueError("bytes that do not match their sha256: cut short or damaged")
    header, body = _header_of(data[start:])
    _check_sizes(header, len(body), max_bytes=max_bytes)
    reader = _Reader(body)
    tensors = {entry.key: _read(entry, reader) for entry in header.tensors}
    return PackedState(tensors=tensors, facts=header.facts)


def _header_of(data: bytes) -> tuple[_Header, bytes]:
    end = _LENGTH.size + _LENGTH.unpack(data[: _LENGTH.size])[0]
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data[_LENGTH.size : end], _MAX_HEADER)
    except zlib.error as error:
        raise ValueError(f"a header that does not inflate ({error})") from error
    if not inflater.eof or inflater.unused_data:
        raise ValueError("a header that is cut short or too long")
    try:
        parse_json(text)
        return _Header.model_validate_json(text), data[end:]
    except ValueError as error:
        raise ValueError(f"a header that makes no sense ({' '.join(str(error).split())[:160]})") from error


def _check_sizes(header: _Header, body: int, *, max_bytes: int) -> None:
    """Refuse a header that claims more than it may, before anything is decoded."""
    if len({entry.key for entry in header.tensors}) < len(header.tensors):
        raise ValueError("a tensor that stands twice")
    claimed = sum(4 * math.prod(entry.shape) for entry in header.tensors)
    if claimed > max_bytes:
        raise ValueError(f"{claimed / 1e9:.3g} GB of weights, above {max_bytes / 1e9:g} GB")
    listed = sum(_blocks_size(entry) for entry in header.tensors)
    if listed != body:
        raise ValueError(f"{body} bytes of blocks where the header lists {listed}")


def _blocks_size(entry: _RawEntry | _TableEntry | _GridEntry) -> int:
    count = math.prod(entry.shape)
    if isinstance(entry, _RawEntry):
        return entry.numbers.bytes + (0 if entry.zeros is None else size_of(entry.zeros, count=count))
    if isinstance(entry, _TableEntry):
        return entry.table.bytes + size_of(entry.indices, count=count)
    return entry.scales.bytes + size_of(entry.codes, count=count)


class _Reader:
    """The blocks, taken one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def take(self, size: int) -> bytes:
        taken, self._data = self._data[:size], self._data[size:]
        return bytes(taken)

    def numbers(self, entry: _Numbers, *, count: int) -> NDArray[Any]:
        """Read plain numbers, as float32 or int64."""
        dtype = np.dtype(entry.stored).newbyteorder("<")
        data = self.take(entry.bytes)
        wanted = count * dtype.itemsize
        if entry.is_deflated:
            inflater = zlib.decompressobj()
            try:
                data = inflater.decompress(data, wanted + 1)
            except zlib.error as error:
                raise ValueError(f"a block that does not inflate ({error})") from error
        if entry.count != count or len(data) != wanted:
            raise ValueError(f"{entry.count} numbers in {len(data)} bytes where {count} belong")
        found = np.frombuffer(data, dtype)
        return found.astype(np.int64 if entry.stored == "int64" else np.float32)

    def symbols(self, form: Any, *, count: int) -> NDArray[np.int32]:
        return decode(form, self.take(size_of(form, count=count)), count=count)


def _read(entry: _RawEntry | _TableEntry | _GridEntry, reader: _Reader) -> Tensor | Grid:
    count = math.prod(entry.shape)
    if isinstance(entry, _RawEntry):
        return _read_raw(entry, reader, count=count)
    if isinstance(entry, _TableEntry):
        if entry.table.count > MAX_SYMBOLS:
            raise ValueError(f"a table of {entry.table.count} values for {entry.key!r}")
        table = reader.numbers(entry.table, count=entry.table.count)
        indices = reader.symbols(entry.indices, count=count)
        if count and int(indices.max()) >= len(table):
            raise ValueError(f"an index beyond the table of {entry.key!r}")
        return torch.from_numpy(table[indices].reshape(entry.shape))
    rows = entry.shape[0] if entry.shape else 0
    scales = reader.numbers(entry.scales, count=rows)
    codes = reader.symbols(entry.codes, count=count) + np.int32(entry.lowest)
    return Grid(codes=torch.from_numpy(codes.reshape(entry.shape)), scales=torch.from_numpy(scales))


def _read_raw(entry: _RawEntry, reader: _Reader, *, count: int) -> Tensor:
    if (entry.dtype == "int64") != (entry.numbers.stored == "int64"):
        raise ValueError(f"{entry.key!r} is {entry.dtype}, stored as {entry.numbers.stored}")
    if entry.zeros is None:
        return torch.from_numpy(reader.numbers(entry.numbers, count=count).reshape(entry.shape))
    is_kept = reader.symbols(entry.zeros, count=count).astype(bool)
    values = np.zeros(count, np.dtype(entry.dtype))
    values[is_kept] = reader.numbers(entry.numbers, count=int(is_kept.sum()))
    return torch.from_numpy(values.reshape(entry.shape))


def _write_grid(key: str, grid: Grid) -> tuple[_GridEntry, bytes]:
    codes = grid.codes.cpu().numpy().astype(np.int32).reshape(-1)
    lowest = int(codes.min()) if codes.size else 0
    form, data = encode(codes - np.int32(lowest))
    scales, scale_bytes = _write_numbers(grid.scales.cpu().numpy())
    entry = _GridEntry(key=key, shape=tuple(grid.codes.shape), lowest=lowest, scales=scales, codes=form)
    return entry, scale_bytes + data


def _write_plain(key: str, tensor: Tensor) -> tuple[_RawEntry | _TableEntry, bytes]:
    values = tensor.detach().cpu().contiguous().numpy()
    tables = _write_table(key, values) if values.dtype == np.float32 and values.size else []
    written: list[tuple[_RawEntry | _TableEntry, bytes]] = [*tables]
    is_settled = values.size >= _SMALL and any(entry.table.count <= _FEW for entry, _ in tables)
    if not is_settled:
        written.append(_write_raw(key, values))
        written += _write_sparse(key, values)
    return min(written, key=lambda one: len(one[1]) + len(one[0].model_dump_json()))


def _write_raw(key: str, values: NDArray[Any]) -> tuple[_RawEntry, bytes]:
    numbers, data = _write_numbers(values.reshape(-1))
    return _RawEntry(key=key, shape=values.shape, dtype=_dtype_of(values), numbers=numbers), data


def _write_sparse(key: str, values: NDArray[Any]) -> list[tuple[_RawEntry, bytes]]:
    """Leave the zeros out; a negative zero is no zero, for its bits differ."""
    if values.dtype != np.float32:
        return []
    is_kept = values.reshape(-1).view(np.uint32) != 0
    if is_kept.all():
        return []
    form, where = encode(is_kept.astype(np.int32))
    numbers, data = _write_numbers(values.reshape(-1)[is_kept])
    # In the order in which they are read: the places, then the numbers there.
    return [(_RawEntry(key=key, shape=values.shape, dtype="float32", numbers=numbers, zeros=form), where + data)]


def _write_table(key: str, values: NDArray[np.float32]) -> list[tuple[_TableEntry, bytes]]:
    """Store indices where few values occur; values are told apart by their bits, so that -0.0 and NaN survive."""
    table, indices = np.unique(values.reshape(-1).view(np.uint32), return_inverse=True)
    if len(table) > min(_MAX_TABLE, values.size // 2):
        return []
    numbers, data = _write_numbers(table.view(np.float32))
    form, codes = encode(indices.reshape(-1).astype(np.int32))
    return [(_TableEntry(key=key, shape=values.shape, table=numbers, indices=form), data + codes)]


def _write_numbers(values: NDArray[Any]) -> tuple[_Numbers, bytes]:
    stored: Literal["float16", "float32", "int64"] = _dtype_of(values)
    if stored == "float32":
        with np.errstate(over="ignore", invalid="ignore"):
            half = values.astype(np.float16)
            if np.array_equal(half.astype(np.float32).view(np.uint32), values.view(np.uint32)):
                values, stored = half, "float16"
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    deflated = zlib.compress(data)
    is_deflated = len(deflated) < len(data)
    if is_deflated:
        data = deflated
    return _Numbers(stored=stored, count=values.size, bytes=len(data), is_deflated=is_deflated), data


def _dtype_of(values: NDArray[Any]) -> Literal["float32", "int64"]:
    names: Mapping[str, Literal["float32", "int64"]] = {"float32": "float32", "int64": "int64"}
    if values.dtype.name not in names:
        raise ValueError(f"a tensor of {values.dtype}")
    return names[values.dtype.name]
