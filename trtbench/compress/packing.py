"""A checkpoint to the packed container, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import safetensors.torch

from trtbench.store import write_atomically

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedFile:
    """A packed file beside its tensors in float32: `ratio` is between their bytes.

    `sha256` is of the state that it decodes to, which is the checkpoint's bit for bit where `is_lossless`.
    """

    output: str
    bytes: int
    dense_bytes: int
    ratio: float
    sha256: str
    is_lossless: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackedFile:
    """A safetensors file of a packed one: `ratio` of its bytes to the packed file's, `sha256` of the state."""

    output: str
    bytes: int
    ratio: float
    sha256: str


def pack_checkpoint(
    checkpoint: Path, *, output: Path, clusters: int | None = None, is_halved: bool = False
) -> PackedFile:
    """Write a checkpoint as a packed file and read it back.

    Args:
        checkpoint: weights as users have them, or a packed file.
        output: the file.
        clusters: values that the weights of each layer share; None shares none and loses nothing.
        is_halved: whether what is left in float32 is rounded to half precision.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        StoreError: the file cannot be written.
    """
    from trtbench.compress.codec import halve, read_state, share_weights
    from trtbench.models.container import load_packed, save_packed, state_sha256
    from trtbench.models.files import MAX_BYTES

    given = read_state(checkpoint)
    state = given if clusters is None else share_weights(given, clusters=clusters)
    state = halve(state) if is_halved else state
    size = save_packed(output, state)
    decoded = load_packed(output, max_bytes=MAX_BYTES).values()
    dense = sum(4 * one.numel() for one in decoded.values())
    sha256 = state_sha256(decoded)
    return PackedFile(
        output=str(output),
        bytes=size,
        dense_bytes=dense,
        ratio=dense / size,
        sha256=sha256,
        is_lossless=sha256 == state_sha256(given.values()),
    )


def unpack_checkpoint(packed: Path, *, output: Path) -> UnpackedFile:
    """Write the tensors of a packed file as safetensors.

    Raises:
        CheckpointError: the packed file is of another kind, cut short, changed or hostile.
        StoreError: the file cannot be written.
    """
    from trtbench.jsonable import canonical_json
    from trtbench.models.container import load_packed, state_sha256
    from trtbench.models.files import FACTS, MAX_BYTES

    state = load_packed(packed, max_bytes=MAX_BYTES)
    values = state.values()
    data = safetensors.torch.save(values, metadata={FACTS: canonical_json(state.facts)})
    write_atomically(output, data)
    return UnpackedFile(
        output=str(output),
        bytes=len(data),
        ratio=len(data) / packed.stat().st_size,
        sha256=state_sha256(values),
    )
