"""The method that does nothing: the network as it is, which is the control once it is fine-tuned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbench.compress.masks import hold_zeros
from trtbench.compress.methods import Compressed, Context

if TYPE_CHECKING:
    from torch import nn

    from trtbench.suite import DenseVariant


def keep(network: nn.Module, _config: DenseVariant, context: Context) -> Compressed:
    """Return the network; fine-tuned, the zeros of a sparse one stay."""
    return Compressed(model=network, hooks=hold_zeros(context))
