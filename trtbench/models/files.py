"""Checkpoint files to Python values: sizes are checked before bytes are read, and no code of a file ever runs."""

from __future__ import annotations

import argparse
import re
import struct
import warnings
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from trtbench.errors import CheckpointError
from trtbench.foreign import FAULTS, MISFITS, file_size, reason
from trtbench.jsonable import canonical_json
from trtbench.models.container import MAGIC, load_packed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_BYTES = 4 * 10**9  # the largest CNNs of torchvision and timm stay below 4 GB in float32
FACTS = "trtbench"  # the one metadata key: safetensors writes several in an order that changes from run to run
_SAVE_AGAIN = "save the weights alone: torch.save(model.state_dict(), path)"
_SMALLER = "leave the optimizer and other networks out: " + _SAVE_AGAIN
_SMALL_BYTES, _RATIO = (
    64 * 10**6,
    8,
)  # what a small file may hold; of its size: FP8 weights take 4 times more in float32
_GET_AGAIN = "copy or download it again and compare its size or sha256 with the source's"
_OTHER_KINDS = (
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    (b"\x89HDF", "an HDF5 file", "export the weights from PyTorch: " + _SAVE_AGAIN),
    (b"<", "a web page", "download the file itself, not the page about it"),
)
# What training scripts put beside the weights; these three classes only hold values.
_HARMLESS: list[Any] = [
    argparse.Namespace,
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a file holds: any Python value of plain types and tensors, and the text its writer added.

    `is_ordered` is False where the format keeps no order of definition (safetensors sorts by name). `max_bytes` is the
    most that its tensors may take.
    """

    value: Any
    metadata: Mapping[str, str] = field(default_factory=dict)
    is_ordered: bool = True
    max_bytes: int = MAX_BYTES


def read_content(path: Path, *, max_bytes: int = MAX_BYTES) -> Content:
    """Read a safetensors file, a packed file of ours or a torch pickle onto the CPU.

    Raises:
        CheckpointError: no such file, larger than `max_bytes`, damaged, or holding more than plain values and tensors.
    """
    try:
        size = file_size(path, most=max_bytes)
    except (OSError, ValueError) as error:
        if path.is_dir():
            raise _refusal(path, got="a folder", cure="name the file inside it") from error
        cure = _SMALLER if path.is_file() else "check the path and its permissions"
        expected = f"at most {max_bytes / 1e9:g} GB of weights"
        raise _refusal(path, got=reason(error), cure=cure, expected=expected) from error
    if size == 0:
        raise _refusal(path, got="an empty file", cure=_GET_AGAIN)
    max_bytes = most_bytes(size, max_bytes=max_bytes)
    try:
        with path.open("rb") as file:
            head = file.read(128)
        if _is_safetensors(head, size=size):
            return _read_safetensors(path)
        if head.startswith(MAGIC):
            return _read_packed(path, max_bytes=max_bytes)
        _refuse_other_kinds(path, head)
        if head.startswith(b"PK"):
            _check_zip(path, max_bytes=max_bytes)
        return Content(value=_read_pickle(path), max_bytes=max_bytes)
    except OSError as error:
        raise _refusal(path, got=error.strerror or str(error), cure="check the path and its permissions") from error


def read_metadata(path: Path) -> Mapping[str, str]:
    """Return the text that the writer of a safetensors or packed file added; nothing of other files and of none."""
    try:
        size = file_size(path, most=MAX_BYTES)
        with path.open("rb") as file:
            head = file.read(128)
        if head.startswith(MAGIC):
            return _read_packed(path, max_bytes=most_bytes(size, max_bytes=MAX_BYTES)).metadata
        if _is_safetensors(head, size=size):
            with safe_open(path, framework="pt", device="cpu") as tensors:
                return tensors.metadata() or {}
    except (OSError, ValueError, SafetensorError, CheckpointError):  # reading the file tells
        return {}
    return {}


def most_bytes(size: int, *, max_bytes: int) -> int:
    """Return the most that the tensors of a file of this size may take: a stride of 0 makes a small file claim any."""
    return min(max_bytes, max(_SMALL_BYTES, _RATIO * size))


def _is_safetensors(head: bytes, *, size: int) -> bool:
    """Say whether the first bytes are a length that fits the file, and then JSON."""
    return len(head) > 8 and struct.unpack("<Q", head[:8])[0] <= size - 8 and head[8:9] == b"{"  # noqa: PLR2004  u64


def _read_safetensors(path: Path) -> Content:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            value = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no mapping
            return Content(value=value, metadata=file.metadata() or {}, is_ordered=False)
    except SafetensorError as error:
        raise _refusal(path, got=f"damaged safetensors ({error})", cure=_GET_AGAIN) from error


def _read_packed(path: Path, *, max_bytes: int) -> Content:
    state = load_packed(path, max_bytes=max_bytes)
    return Content(value=state.values(), metadata={FACTS: canonical_json(state.facts)})


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    """Refuse what is neither an archive nor a pickle, and say what it is instead."""
    if head.startswith((b"PK", b"\x80")):
        return
    if path.suffix == ".onnx":
        raise _refusal(path, got="an ONNX file", cure="name it as the model: onnx:PATH")
    for start, got, cure in _OTHER_KINDS:
        if head.startswith(start):
            raise _refusal(path, got=got, cure=cure)
    if head[8:9] == b"{":
        raise _refusal(path, got="a safetensors file cut short", cure=_GET_AGAIN)
    is_text = all(byte in b"\t\n\r" or byte >= 0x20 for byte in head)  # noqa: PLR2004  the first printable character
    raise _refusal(path, got="a text file" if is_text else "bytes of no known kind", cure=_GET_AGAIN)


def _check_zip(path: Path, *, max_bytes: int) -> None:
    """Refuse an archive that is cut short, or that unpacks to more than it may."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except FAULTS as error:
        raise _refusal(path, got=f"an archive that is cut short or damaged ({error})", cure=_GET_AGAIN) from error
    if (size := sum(member.file_size for member in members)) > max_bytes:
        expected = f"at most {max_bytes / 1e9:.3g} GB"
        raise _refusal(path, expected=expected, got=f"{size / 1e9:.3g} GB", cure=_SMALLER)
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise _refusal(
            path, got="a TorchScript archive", cure="load it in PyTorch with torch.jit.load and " + _SAVE_AGAIN
        )


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_HARMLESS):
            # torch warns of old pickle protocols and of sparse tensors; what matters of it raises below.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except (*FAULTS, *MISFITS, AssertionError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    words = " ".join(str(error).split())
    unknown = re.search(r"GLOBAL ([\w.]+)", words)
    if unknown:
        got = f"a pickled object of {unknown[1]}, which is code and is not run"
        return _refusal(path, got=got, cure=f"if you trust the file, open it in PyTorch and {_SAVE_AGAIN}")
    if "Unsupported operand" in words:
        got = "a pickle that torch.save did not write, or of another protocol"
        return _refusal(path, got=got, cure=f"if you trust the file, open it in PyTorch and {_SAVE_AGAIN}")
    got = f"damaged or foreign bytes ({type(error).__name__}: {words[:120]})"
    return _refusal(path, got=got, cure=_GET_AGAIN)


def _refusal(path: Path, *, got: str, cure: str, expected: str = "a checkpoint of weights") -> CheckpointError:
    return CheckpointError(f"checkpoint {path}", expected=expected, got=got, cure=cure)
