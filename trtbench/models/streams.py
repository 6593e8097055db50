"""Integers to the fewest bytes and back: bit-packing, sparse indices, range coding or xz. Pure; no files.

Each stream is written in every form it can take and the shortest is kept. The forms:

* `packed`: each symbol in as many bits as the largest needs;
* `ranged`: a range coder (Martin 1979) under the stream's own exact histogram; Han et al., "Deep Compression" (2016),
  section 4, codes with Huffman there, which wastes up to a bit a symbol and cannot go below one;
* `xz`: LZMA2, where the range coder is not installed: larger, and said in the file;
* `sparse`: the gaps between the symbols that are not the most common one, and those symbols, each a stream of its own
  (section 2 of the paper; a gap beyond `_LONGEST_GAP` is bridged by a filler as in its figure 2).
"""

from __future__ import annotations

import lzma
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from trtbench import _optional

if TYPE_CHECKING:
    from types import ModuleType

Symbols = NDArray[np.int32]
MAX_SYMBOLS = 2**16  # an alphabet of this many; codes of 8 bits and tables of shared weights are far smaller
_LONGEST_GAP = 255
_WORD_BYTES = 4  # of the range coder
# No header, and little memory to read it: what a file says cannot make it take more.
_LZMA: list[dict[str, Any]] = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 2**22}]
_Count = Annotated[int, Field(ge=0, lt=2**32)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Packed(_Form):
    """Symbols of `bits` bits each, most significant first; 0 bits where all symbols are 0."""

    form: Literal["packed"] = "packed"
    bits: Annotated[int, Field(ge=0, le=16)]


class Ranged(_Form):
    """Range-coded symbols under a histogram: `counts[s]` of symbol s."""

    form: Literal["ranged"] = "ranged"
    counts: Annotated[tuple[_Count, ...], Field(min_length=2, max_length=MAX_SYMBOLS)]
    words: _Count


class Xz(_Form):
    """Symbols of `width` bytes each, compressed to `size`."""

    form: Literal["xz"] = "xz"
    width: Literal[1, 2]
    size: _Count


class Sparse(_Form):
    """The symbols other than `background`, and the gaps before each; a gap of `_LONGEST_GAP` is a filler's."""

    form: Literal["sparse"] = "sparse"
    background: Annotated[int, Field(ge=0, lt=MAX_SYMBOLS)]
    kept: _Count
    gaps: Packed | Ranged | Xz = Field(discriminator="form")
    symbols: Packed | Ranged | Xz = Field(discriminator="form")
    steps: _Count


Dense = Packed | Ranged | Xz
Form = Annotated[Dense | Sparse, Field(discriminator="form")]


def encode(symbols: Symbols) -> tuple[Dense | Sparse, bytes]:
    """Write symbols in the form that takes the fewest bytes.

    Args:
        symbols: int32 (N,), each in [0, MAX_SYMBOLS).
    """
    return min((*_dense_forms(symbols), *_sparse_forms(symbols)), key=_cost)


def decode(form: Dense | Sparse, data: bytes, *, count: int) -> Symbols:
    """Read `count` symbols.

    Raises:
        ValueError: the bytes are not what such a form of `count` symbols takes.
        CapabilityError: they are range-coded, and the range coder is not installed.
    """
    if isinstance(form, Packed):
        return _unpack(data, bits=form.bits, count=count)
    if isinstance(form, Xz):
        return _decompress(form, data, count=count)
    if isinstance(form, Ranged):
        return _range_decode(form, data, count=count)
    return _densify(form, data, count=count)


def size_of(form: Dense | Sparse, *, count: int) -> int:
    """Return how many bytes a form of `count` symbols takes."""
    if isinstance(form, Packed):
        return -(-count * form.bits // 8)
    if isinstance(form, Ranged):
        return form.words * _WORD_BYTES
    if isinstance(form, Xz):
        return form.size
    return size_of(form.gaps, count=form.steps) + size_of(form.symbols, count=form.kept)


def _cost(written: tuple[Dense | Sparse, bytes]) -> int:
    """Return the bytes of a stream with its description, which stands in a file's header."""
    form, data = written
    return len(data) + len(form.model_dump_json())


def _dense_forms(symbols: Symbols) -> list[tuple[Dense, bytes]]:
    bits = int(symbols.max()).bit_length() if symbols.size else 0
    forms: list[tuple[Dense, bytes]] = [(Packed(bits=bits), _pack(symbols, bits=bits))]
    if bits:
        forms.append(_range_encode(symbols) if _optional.is_installed("constriction") else _compress(symbols))
    return forms


def _sparse_forms(symbols: Symbols) -> list[tuple[Sparse, bytes]]:
    counts = np.bincount(symbols) if symbols.size else np.zeros(1, np.int64)
    if 2 * counts.max() <= symbols.size:  # only what most symbols are is worth leaving out
        return []
    background = int(counts.argmax())
    gaps, kept = _sparsify(symbols, background=background)
    gap_form, gap_bytes = min(_dense_forms(gaps), key=_cost)
    kept_form, kept_bytes = min(_dense_forms(kept), key=_cost)
    form = Sparse(background=background, kept=len(kept), gaps=gap_form, symbols=kept_form, steps=len(gaps))
    return [(form, gap_bytes + kept_bytes)]


def _pack(symbols: Symbols, *, bits: int) -> bytes:
    shifts = np.arange(bits - 1, -1, -1, dtype=np.int32)
    return np.packbits(((symbols[:, None] >> shifts) & 1).astype(np.uint8)).tobytes()


def _unpack(data: bytes, *, bits: int, count: int) -> Symbols:
    if len(data) != -(-count * bits // 8):
        raise ValueError(f"{len(data)} bytes for {count} symbols of {bits} bits")
    found = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits).reshape(count, bits)
    weights = 1 << np.arange(bits - 1, -1, -1, dtype=np.int32)
    symbols: Symbols = (found.astype(np.int32) * weights).sum(axis=1, dtype=np.int32)
    return symbols


def _compress(symbols: Symbols) -> tuple[Xz, bytes]:
    width: Literal[1, 2] = 1 if int(symbols.max()) < 2**8 else 2
    data = lzma.compress(symbols.astype(f"<u{width}").tobytes(), format=lzma.FORMAT_RAW, filters=_LZMA)
    return Xz(width=width, size=len(data)), data


def _decompress(form: Xz, data: bytes, *, count: int) -> Symbols:
    size = count * form.width
    if len(data) != form.size:
        raise ValueError(f"{len(data)} bytes for {form.size}")
    reader = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_LZMA)
    try:
        found = reader.decompress(data, max_length=size + 1)
    except lzma.LZMAError as error:
        raise ValueError("bytes that xz did not write") from error
    if len(found) != size:
        raise ValueError(f"xz of {len(found)} bytes for {count} symbols of {form.width}")
    return np.frombuffer(found, f"<u{form.width}").astype(np.int32)


def _range_coder() -> ModuleType:
    return _optional.load("constriction")


def _model(counts: tuple[int, ...]) -> Any:
    """Return the distribution of a histogram; equal on every machine, for it is made of whole numbers."""
    return _range_coder().stream.model.Categorical(np.asarray(counts, np.float64), perfect=False)


def _range_encode(symbols: Symbols) -> tuple[Ranged, bytes]:
    counts = tuple(int(count) for count in np.bincount(symbols))
    encoder = _range_coder().stream.queue.RangeEncoder()
    encoder.encode(symbols, _model(counts))
    words = encoder.get_compressed()
    return Ranged(counts=counts, words=len(words)), words.astype("<u4").tobytes()


def _range_decode(form: Ranged, data: bytes, *, count: int) -> Symbols:
    if sum(form.counts) != count or len(data) != form.words * _WORD_BYTES:
        raise ValueError(f"a histogram of {sum(form.counts)} symbols and {len(data)} bytes for {count} symbols")
    words = np.frombuffer(data, "<u4").astype(np.uint32)
    coder = _range_coder()
    try:
        decoder = coder.stream.queue.RangeDecoder(words)
        symbols: Symbols = decoder.decode(_model(form.counts), count)
    except AssertionError as error:  # how the range coder says that no stream of this histogram begins so
        raise ValueError("range-coded bytes that do not fit their histogram") from error
    if tuple(np.bincount(symbols, minlength=len(form.counts)).tolist()) != form.counts:
        raise ValueError("range-coded symbols that do not fit their histogram")
    return symbols


def _sparsify(symbols: Symbols, *, background: int) -> tuple[Symbols, Symbols]:
    """Return the gaps (with fillers) and the symbols that are not the background."""
    places = np.flatnonzero(symbols != background)
    gaps = np.diff(places, prepend=-1) - 1
    fillers = gaps // _LONGEST_GAP
    steps = np.full(len(gaps) + int(fillers.sum()), _LONGEST_GAP, np.int32)
    steps[np.cumsum(fillers + 1) - 1] = gaps % _LONGEST_GAP
    return steps, symbols[places]


def _densify(form: Sparse, data: bytes, *, count: int) -> Symbols:
    middle = size_of(form.gaps, count=form.steps)
    if form.steps > count or form.kept > form.steps:
        raise ValueError(f"{form.steps} gaps and {form.kept} symbols of {count}")
    steps = decode(form.gaps, data[:middle], count=form.steps)
    kept = decode(form.symbols, data[middle:], count=form.kept)
    ends = steps != _LONGEST_GAP
    places = np.cumsum(np.where(ends, steps + 1, steps).astype(np.int64))[ends] - 1
    if len(places) != len(kept) or (len(places) and int(places[-1]) >= count):
        raise ValueError(f"{len(kept)} symbols at {len(places)} places of {count}")
    symbols = np.full(count, form.background, np.int32)
    symbols[places] = kept
    return symbols
