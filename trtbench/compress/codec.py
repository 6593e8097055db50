"""The kind `codec`, deep compression, and the packed files of `pack` and `unpack`.

Han, Mao and Dally, "Deep Compression" (2016): sparse weights, shared weights, entropy coding. Pruning is another
method's; the zeros it left stay. What is lossy is asked for and done here; the container itself loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import safetensors.torch
import torch

from trtbench.compress.method import Compressed, Context
from trtbench.disk import write_atomically
from trtbench.errors import CheckpointError, ConfigError
from trtbench.jsonable import canonical_json
from trtbench.models.checkpoints import facts_of
from trtbench.models.container import (
    MAGIC,
    Grid,
    PackedState,
    load_packed,
    save_packed,
    state_sha256,
    to_bytes,
    without_negative_zeros,
)
from trtbench.models.files import FACTS, MAX_BYTES, read_content
from trtbench.models.masks import MASKS, masks_to_facts
from trtbench.models.states import clean_state

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from trtbench.suite import CodecVariant

_ITERATIONS = 100  # of k-means
_MATRIX_RANK = 2


def read_state(path: Path, *, weights_from: str | None = None) -> PackedState:
    """Read a checkpoint of any kind as the tensors that a container holds; a packed file keeps its grids.

    A file of ours keeps what it says of itself: its name, its masks, the rounding of its inputs.

    Raises:
        CheckpointError: it cannot be read.
    """
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                return load_packed(path, max_bytes=MAX_BYTES)
    content = read_content(path)
    state = clean_state(content.value, path=path, max_bytes=content.max_bytes, weights_from=weights_from)
    odd = {key: str(one.dtype) for key, one in state.tensors.items() if one.dtype not in (torch.float32, torch.int64)}
    if odd:
        key, kind = next(iter(odd.items()))
        raise CheckpointError(
            f"checkpoint {path}: {key}", expected="float or int64 numbers", got=kind, cure="leave that tensor out"
        )
    return PackedState(tensors=state.tensors, facts=facts_of(content.metadata))


def share_weights(state: PackedState, *, clusters: int) -> PackedState:
    """Let the weights of each layer share `clusters` values, by k-means; zeros stay zero and are no cluster.

    Section 3 of the paper: one-dimensional k-means within a layer, started from values evenly spread between the least
    and the largest (section 3.2, "linear initialisation", which keeps the few large weights apart).

    Args:
        state: weights on a grid, biases, BatchNorm and counters stay as they are.
        clusters: 1 to 4,095 values.

    Raises:
        ConfigError: that many clusters cannot be.
    """
    if not 1 <= clusters < 2**12:
        raise ConfigError("clusters", expected="1 to 4095", got=str(clusters), cure="16 to 256 are common")
    shared = {
        key: _shared(one, clusters=clusters) if isinstance(one, torch.Tensor) and one.ndim >= _MATRIX_RANK else one
        for key, one in state.tensors.items()
    }
    return replace(state, tensors=shared)


def _shared(weight: Tensor, *, clusters: int) -> Tensor:
    from sklearn.cluster import KMeans  # takes a second, which packing without clusters need not wait

    values = weight.numpy().reshape(-1)
    kept = np.flatnonzero(values)
    if len(np.unique(values[kept])) <= clusters:
        return weight
    points = values[kept, None]
    start = np.linspace(points.min(), points.max(), clusters, dtype=np.float32)[:, None]
    found = KMeans(clusters, init=start, n_init=1, max_iter=_ITERATIONS, tol=0.0, random_state=0).fit(points)
    shared = np.zeros_like(values)
    shared[kept] = found.cluster_centers_.astype(np.float32)[found.labels_, 0]
    return torch.from_numpy(shared.reshape(weight.shape))


def halve(state: PackedState) -> PackedState:
    """Round all that is left in float32, BatchNorm and biases, to half precision; what that cannot hold stays.

    The values remain float32; the container finds that half of the bytes will do.
    """
    return replace(
        state, tensors={key: one if isinstance(one, Grid) else _halved(one) for key, one in state.tensors.items()}
    )


def _halved(tensor: Tensor) -> Tensor:
    if tensor.dtype != torch.float32:
        return tensor
    half = tensor.half().float()
    is_held = torch.isfinite(half).all() and not ((half == 0) & (tensor != 0)).any()
    return half if is_held else tensor


def share(network: nn.Module, config: CodecVariant, _context: Context) -> Compressed:
    """Give a network the values that its packed file would give back, and count that file's bytes."""
    state = PackedState(tensors=without_negative_zeros(network.state_dict()))
    if config.clusters is not None:
        state = share_weights(state, clusters=config.clusters)
    state = halve(state) if config.half else state
    values = state.values()
    network.load_state_dict(values)
    size, dense = len(to_bytes(state)), 4 * sum(value.numel() for value in values.values())
    return Compressed(
        model=network,
        facts={"packed_bytes": size, "ratio": dense / size},
        notes=(f"{size:,} bytes as a packed file, {dense / size:.1f} times less than in float32",),
        packed=lambda known: replace(state, facts={**known, MASKS: masks_to_facts(network)}),
    )


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
    checkpoint: Path,
    *,
    output: Path,
    clusters: int | None = None,
    is_halved: bool = False,
    weights_from: str | None = None,
) -> PackedFile:
    """Write a checkpoint as a packed file and read it back.

    Args:
        checkpoint: weights as users have them, or a packed file.
        output: the file.
        clusters: values that the weights of each layer share; None shares none and loses nothing.
        is_halved: whether what is left in float32 is rounded to half precision.
        weights_from: of a checkpoint of several networks the key, or the prefix of its tensors' names, that is meant.

    Raises:
        CheckpointError: the checkpoint cannot be read, or holds several networks.
        StoreError: the file cannot be written.
    """
    given = read_state(checkpoint, weights_from=weights_from)
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
