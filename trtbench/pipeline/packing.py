"""`trtbench pack` and `unpack` as plain functions: a checkpoint to the container and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import safetensors.torch

from trtbench.store import write_atomically

if TYPE_CHECKING:
    from pathlib import Path


def pack_checkpoint(
    checkpoint: Path, *, output: Path, clusters: int | None = None, is_halved: bool = False
) -> dict[str, Any]:
    """Write a checkpoint as a packed file and read it back.

    Args:
        checkpoint: weights as users have them, or a packed file.
        output: the file.
        clusters: values that the weights of each layer share; None shares none and loses nothing.
        is_halved: whether what is left in float32 is rounded to half precision.

    Returns:
        `bytes` of the file, `dense_bytes` of the tensors in float32, `ratio` between them, `sha256` of the state that
        the file decodes to, and whether that is the checkpoint's bit for bit (`is_lossless`).

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
    return {
        "bytes": size,
        "dense_bytes": dense,
        "ratio": dense / size,
        "sha256": sha256,
        "is_lossless": sha256 == state_sha256(given.values()),
        "output": str(output),
    }


def unpack_checkpoint(packed: Path, *, output: Path) -> dict[str, Any]:
    """Write the tensors of a packed file as safetensors.

    Returns:
        `bytes` of that file, `ratio` of its bytes to the packed file's, `sha256` of the decoded state, `output`.

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
    return {
        "bytes": len(data),
        "ratio": len(data) / packed.stat().st_size,
        "sha256": state_sha256(values),
        "output": str(output),
    }
