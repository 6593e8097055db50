"""The suite's kind `codec`: the network with its weights shared, as its packed file holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbench.compress.codec import halve, share_weights
from trtbench.compress.masks import hold_zeros
from trtbench.compress.methods import Compressed, Context
from trtbench.models.packed import PackedState, to_bytes, without_negative_zeros

if TYPE_CHECKING:
    from torch import nn

    from trtbench.suite import CodecVariant


def share(network: nn.Module, config: CodecVariant, context: Context) -> Compressed:
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
        hooks=hold_zeros(context),
    )
