"""Streams of symbols and the container: bit for bit there and back, and nothing hostile gets in."""

from __future__ import annotations

import hashlib
import json
import lzma
import struct
import sys
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trtbench.errors import CapabilityError, CheckpointError
from trtbench.models import build_model, load_model
from trtbench.models.container import (
    MAGIC,
    Grid,
    PackedState,
    from_bytes,
    load_packed,
    save_packed,
    state_sha256,
    to_bytes,
    weight_bytes,
)
from trtbench.models.files import read_content
from trtbench.models.streams import (
    _LZMA,
    Packed,
    Ranged,
    Sparse,
    Xz,
    _dense_forms,
    _sparse_forms,
    decode,
    encode,
    size_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_MAX = 10**8


@st.composite
def symbols(draw: st.DrawFn) -> np.ndarray[Any, np.dtype[np.int32]]:
    highest = draw(st.sampled_from([0, 1, 2, 7, 300]))
    found = draw(hnp.arrays(np.int32, st.integers(0, 400), elements=st.integers(0, highest)))
    if draw(st.booleans()):
        found[np.random.default_rng(len(found)).random(len(found)) < 0.95] = draw(st.integers(0, highest))
    return found


def test_a_header_tells_nothing_that_goes_without_saying() -> None:
    data = to_bytes(PackedState(tensors={"all": torch.arange(1.0, 4.0), "some": torch.eye(40)}))
    start = len(MAGIC) + 32 + 4

    first, second = json.loads(zlib.decompressobj().decompress(data[start:]))["tensors"]
    assert "zeros" not in first
    assert "is_deflated" not in first["numbers"]
    assert second["numbers"]["is_deflated"]


@given(symbols())
@settings(max_examples=80)
def test_every_form_of_a_stream_gives_its_symbols_back(given_symbols: np.ndarray[Any, np.dtype[np.int32]]) -> None:
    for form, data in (encode(given_symbols), *_dense_forms(given_symbols), *_sparse_forms(given_symbols)):
        assert size_of(form, count=len(given_symbols)) == len(data)
        np.testing.assert_array_equal(decode(form, data, count=len(given_symbols)), given_symbols)


@given(symbols())
@settings(max_examples=40)
def test_without_the_range_coder_xz_takes_its_place_and_the_file_says_so(
    given_symbols: np.ndarray[Any, np.dtype[np.int32]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trtbench._optional.is_installed", lambda _: False)
        written = (encode(given_symbols), *_dense_forms(given_symbols), *_sparse_forms(given_symbols))
        if given_symbols.any():
            assert isinstance(_dense_forms(given_symbols)[1][0], Xz)
    for form, data in written:
        assert "ranged" not in form.model_dump_json()
        assert size_of(form, count=len(given_symbols)) == len(data)
        np.testing.assert_array_equal(decode(form, data, count=len(given_symbols)), given_symbols)


def test_range_coded_bytes_without_the_range_coder_are_told_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    form, data = encode(np.random.default_rng(0).choice(4, 1000, p=[0.7, 0.1, 0.1, 0.1]).astype(np.int32))
    monkeypatch.setitem(sys.modules, "constriction", None)

    with pytest.raises(CapabilityError, match=r"constriction.*trtbench\[codec\]"):
        decode(form, data, count=1000)


def test_what_xz_says_of_its_size_is_not_taken_on_trust() -> None:
    bomb = lzma.compress(bytes(10**7), format=lzma.FORMAT_RAW, filters=_LZMA)
    for form, data, count in (
        (Xz(width=1, size=len(bomb)), bomb, 100),
        (Xz(width=1, size=len(bomb)), bomb, 10**8),
        (Xz(width=1, size=3), bomb, 100),
        (Xz(width=2, size=4), b"\xff" * 4, 100),
    ):
        with pytest.raises(ValueError, match=r"xz|bytes"):
            decode(form, data, count=count)


def test_long_gaps_are_bridged_by_fillers() -> None:
    found = np.zeros(2000, np.int32)
    found[[3, 258, 259, 514, 1999]] = [4, 5, 6, 7, 8]  # gaps 3, 254, 0, 254 and 1,484
    form, data = _sparse_forms(found)[0]
    assert (form.steps, form.kept) == (5 + 5, 5)
    np.testing.assert_array_equal(decode(form, data, count=2000), found)


def test_range_coding_comes_within_a_hundredth_of_the_entropy() -> None:
    shares = np.array([0.05, 0.25, 0.6, 0.1])
    found = np.random.default_rng(0).choice(4, size=100_000, p=shares).astype(np.int32)
    form, data = encode(found)
    counts = np.bincount(found) / len(found)
    entropy = -(counts * np.log2(counts)).sum() * len(found) / 8
    assert isinstance(form, Ranged)
    assert entropy <= len(data) < 1.01 * entropy
    assert len(data) < 0.8 * size_of(Packed(bits=2), count=len(found))


@pytest.mark.parametrize(
    ("form", "data", "count"),
    [
        (Packed(bits=2), b"\x00", 100),
        (Ranged(counts=(3, 2), words=1), b"\x00" * 4, 6),
        (Ranged(counts=(3, 3), words=2), b"\x00" * 4, 6),
        (Ranged(counts=(3, 3), words=1), b"\xff" * 4, 6),
        (Ranged(counts=(22, 25, 29), words=2), b"\x15\xa8K:\xedl\x1b\x84", 76),
        (Sparse(background=0, kept=9, gaps=Packed(bits=0), symbols=Packed(bits=0), steps=1), b"", 4),
        (Sparse(background=0, kept=1, gaps=Packed(bits=0), symbols=Packed(bits=0), steps=2), b"", 4),
        (Sparse(background=0, kept=1, gaps=Packed(bits=8), symbols=Packed(bits=0), steps=1), b"\x09", 4),
    ],
)
def test_bytes_that_no_stream_wrote_are_refused(form: Any, data: bytes, count: int) -> None:
    with pytest.raises(ValueError, match=r"symbols|histogram"):
        decode(form, data, count=count)


@st.composite
def states(draw: st.DrawFn) -> PackedState:
    """Tensors of every kind a network has: any bits of float32, few values, many zeros, grids, counters."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, max_side=6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    any_bits = rng.integers(0, 2**32, shape, dtype=np.uint32).view(np.float32)
    few = rng.choice(np.array([-0.0, 0.0, 0.5, np.nan, np.inf], np.float32), (6, 40))
    sparse = rng.normal(size=(30, 30)).astype(np.float32) * (rng.random((30, 30)) > 0.8)
    codes = rng.integers(-4, 4, (5, 3, 2), dtype=np.int32)
    return PackedState(
        tensors={
            "bits": torch.from_numpy(np.array(any_bits)),
            "few": torch.from_numpy(few),
            "sparse": torch.from_numpy(sparse.astype(np.float32)),
            "half": torch.from_numpy(rng.normal(size=50).astype(np.float16).astype(np.float32)),
            "grid": Grid(codes=torch.from_numpy(codes), scales=torch.from_numpy(rng.normal(size=5).astype(np.float32))),
            "empty": torch.zeros(0, 3),
            "counter": torch.tensor(draw(st.integers(-(2**63), 2**63 - 1))),
        },
        facts={"name": "x"},
    )


@given(states())
@settings(max_examples=40)
def test_a_state_comes_back_bit_for_bit(state: PackedState) -> None:
    data = to_bytes(state)
    read = from_bytes(data, max_bytes=_MAX)
    assert state_sha256(read.values()) == state_sha256(state.values())
    assert list(read.tensors) == list(state.tensors)
    assert isinstance(read.tensors["grid"], Grid)
    assert read.facts == state.facts
    assert to_bytes(read) == data


def test_what_is_cheap_is_stored_cheaply() -> None:
    rng = np.random.default_rng(0)
    sparse = np.abs(rng.normal(size=10_000) * (rng.random(10_000) > 0.9)).astype(np.float32)
    sizes = weight_bytes(
        PackedState(
            tensors={
                "plain": torch.from_numpy(rng.normal(size=10_000).astype(np.float32)),
                "half": torch.from_numpy(rng.normal(size=10_000).astype(np.float16).astype(np.float32)),
                "four values": torch.from_numpy(rng.choice(4, 10_000).astype(np.float32)),
                "a tenth": torch.from_numpy(sparse),
                "codes": Grid(codes=torch.from_numpy(rng.choice(4, (10, 1000)) - 2), scales=torch.ones(10)),
            }
        )
    )
    assert sizes["plain"] > 36_000
    assert 18_000 < sizes["half"] <= 20_000
    assert 2_500 <= sizes["four values"] < 2_530
    assert sizes["a tenth"] < 4_700  # 1,000 numbers and 0.47 bits a place
    assert 2_500 <= sizes["codes"] < 2_540


def test_a_tensor_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match="a tensor of float64"):
        to_bytes(PackedState(tensors={"x": torch.zeros(2, dtype=torch.float64)}))


@pytest.fixture(scope="module")
def sample() -> bytes:
    rng = np.random.default_rng(0)
    codes = torch.from_numpy(rng.choice(4, (8, 90), p=[0.1, 0.6, 0.2, 0.1]).astype(np.int32))
    return to_bytes(
        PackedState(
            tensors={
                "a": Grid(codes=codes, scales=torch.rand(8)),
                "b": torch.from_numpy((rng.random(900) > 0.97).astype(np.float32) * rng.random(900).astype(np.float32)),
                "c": torch.from_numpy(rng.choice(5, 300).astype(np.float32)),
                "d": torch.arange(40) / 7,
            }
        )
    )


def _sealed(body: bytes) -> bytes:
    """Return a file whose sha256 fits, as an attacker would write it."""
    return MAGIC + hashlib.sha256(body).digest() + body


def _parts(data: bytes) -> tuple[Any, bytes]:
    body = data[len(MAGIC) + 32 :]
    length = struct.unpack("<I", body[:4])[0]
    return json.loads(zlib.decompress(body[4 : 4 + length])), body[4 + length :]


def _rebuilt(header: Any, blocks: bytes) -> bytes:
    packed = zlib.compress(json.dumps(header).encode())
    return _sealed(struct.pack("<I", len(packed)) + packed + blocks)


def test_every_cut_and_every_changed_byte_is_refused(sample: bytes) -> None:
    for end in range(0, len(sample), 7):
        with pytest.raises(ValueError, match="cut short"):
            from_bytes(sample[:end], max_bytes=_MAX)
    for place in range(0, len(sample), 5):
        changed = bytearray(sample)
        changed[place] ^= 0x40
        with pytest.raises(ValueError, match="cut short"):
            from_bytes(bytes(changed), max_bytes=_MAX)
    with pytest.raises(ValueError, match="cut short"):
        from_bytes(sample + b"\x00", max_bytes=_MAX)


@given(data=st.data())
@settings(max_examples=150)
def test_hostile_bytes_with_a_fitting_sha256_never_do_more_than_raise_value_error(
    sample: bytes, data: st.DataObject
) -> None:
    body = bytearray(sample[len(MAGIC) + 32 :])
    if data.draw(st.booleans()):  # inside the header too, else its deflated bytes guard the rest
        header, blocks = _parts(sample)
        text = bytearray(json.dumps(header).encode())
        for _ in range(data.draw(st.integers(1, 4))):
            text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.sampled_from(b'0123456789"{}[],:-elf'))
        packed = zlib.compress(bytes(text))
        body = bytearray(struct.pack("<I", len(packed)) + packed + blocks)
    else:
        for _ in range(data.draw(st.integers(1, 8))):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = from_bytes(_sealed(bytes(body)), max_bytes=_MAX)
    except ValueError:
        return
    assert sum(one.numel() for one in found.values().values()) <= _MAX // 4


def _claim(header: Any) -> None:
    header["tensors"][3]["shape"] = [10**6, 10**6]


def _twice(header: Any) -> None:
    header["tensors"][1]["key"] = "a"


def _bytes_more(header: Any) -> None:
    header["tensors"][3]["numbers"]["bytes"] += 1


def _other_type(header: Any) -> None:
    header["tensors"][3]["dtype"] = "int64"


def _short_table(header: Any) -> None:
    header["tensors"][2]["table"]["count"] = 2**30


def _unknown(header: Any) -> None:
    header["tensors"][0]["code"] = "print()"


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        (_claim, "above 0.1 GB"),
        (_twice, "stands twice"),
        (_bytes_more, "bytes of blocks"),
        (_other_type, "is int64, stored as"),
        (_short_table, "a table of 1073741824 values"),
        (_unknown, "makes no sense"),
    ],
)
def test_a_header_that_lies_is_refused(sample: bytes, lie: Callable[[Any], None], told: str) -> None:
    header, blocks = _parts(sample)
    lie(header)
    with pytest.raises(ValueError, match=told):
        from_bytes(_rebuilt(header, blocks), max_bytes=_MAX)


def test_a_header_that_unpacks_to_too_much_is_refused(sample: bytes) -> None:
    bomb = zlib.compress(b" " * (65 * 10**6))
    with pytest.raises(ValueError, match="too long"):
        from_bytes(_sealed(struct.pack("<I", len(bomb)) + bomb), max_bytes=_MAX)
    with pytest.raises(ValueError, match="does not inflate"):
        from_bytes(_sealed(struct.pack("<I", 4) + b"none"), max_bytes=_MAX)
    header, _ = _parts(sample)
    entry = header["tensors"][3]
    for block, told in ((zlib.compress(b"\x00" * 10**6), "numbers in"), (b"\xff" * 9, "does not inflate")):
        entry["numbers"] |= {"bytes": len(block), "is_deflated": True}
        with pytest.raises(ValueError, match=told):
            from_bytes(_rebuilt({"facts": {}, "tensors": [entry]}, block), max_bytes=_MAX)


def test_every_command_loads_a_packed_network(tmp_path: Path) -> None:
    path, model = tmp_path / "net.tbz", build_model("resnet20", num_classes=10)
    size = save_packed(path, PackedState(tensors=model.state_dict(), facts={"name": "resnet20", "num_classes": 10}))
    assert path.stat().st_size == size
    loaded = load_model("resnet20", num_classes=10, checkpoint=path)
    assert state_sha256(loaded.model.state_dict()) == state_sha256(model.state_dict())
    assert loaded.notes == ()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="cut short or damaged; copy or download it again"):
        read_content(path)
    with pytest.raises(CheckpointError, match="No such file"):
        load_packed(tmp_path / "none.tbz", max_bytes=_MAX)
