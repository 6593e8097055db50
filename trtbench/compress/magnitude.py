"""Which weights go by their magnitude, how far at which time, and how they stay gone while a network learns.

A mask is bool, of its weight's shape, True where the weight stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from trtbench.compress.method import Compressed, Context
from trtbench.models.masks import Masks, prunable_weights, set_to_zero, zeros_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from trtbench.suite import DenseVariant


def global_masks(weights: Mapping[str, Tensor], *, sparsity: float, rounds: int = 1) -> Masks:
    """Keep all but the smallest magnitudes of all layers together.

    A round lets `round(share * left)` of the weights go that are left, ties by position, as
    torch.nn.utils.prune.global_unstructured with L1Unstructured does (Han et al. 2015, section 3); the share g of each
    of n rounds is such that 1 - (1 - g)^n is the sparsity.
    """
    magnitudes = torch.cat([weight.detach().abs().reshape(-1) for weight in weights.values()])
    keeps = torch.ones_like(magnitudes, dtype=torch.bool)
    for _ in range(rounds):
        left = int(keeps.sum())
        gone = round(share_of_a_round(sparsity, rounds) * left)
        ranked = torch.where(keeps, magnitudes, torch.inf)
        keeps[torch.topk(ranked, gone, largest=False).indices] = False
    parts = torch.split(keeps, [weight.numel() for weight in weights.values()])
    return {name: part.reshape(weight.shape) for (name, weight), part in zip(weights.items(), parts, strict=True)}


def layer_masks(weights: Mapping[str, Tensor], *, sparsity: float) -> Masks:
    """Keep, in each layer, the magnitudes not below the percentile of the sparsity (source study 002, step 7).

    The percentile is NumPy's, which interpolates linearly.
    """
    return {
        name: torch.from_numpy(_not_below(np.abs(weight.detach().cpu().numpy()), sparsity)).to(weight.device)
        for name, weight in weights.items()
    }


def global_percentile_masks(weights: Mapping[str, Tensor], *, sparsity: float) -> Masks:
    """Keep the magnitudes not below the percentile over all layers (source study 002, step 13)."""
    arrays = {name: np.abs(weight.detach().cpu().numpy()) for name, weight in weights.items()}
    threshold = np.percentile(np.concatenate([array.reshape(-1) for array in arrays.values()]), 100 * sparsity)
    return {name: torch.from_numpy(array >= threshold).to(weights[name].device) for name, array in arrays.items()}


def _not_below(magnitudes: NDArray[np.float32], sparsity: float) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = magnitudes >= np.percentile(magnitudes, 100 * sparsity)
    return found


def share_of_a_round(sparsity: float, rounds: int) -> float:
    """Return the g of 1 - (1 - g)^rounds = sparsity."""
    return float(1 - (1 - sparsity) ** (1 / rounds))


def linear_sparsity(sparsity: float, *, epoch: int, ramp: int) -> float:
    """Return the sparsity before an epoch, counted from 1, growing evenly over `ramp` epochs (study 002, step 12)."""
    return sparsity * min(epoch, ramp) / ramp


def cubic_sparsity(sparsity: float, *, step: int, ramp: int) -> float:
    """Return s * (1 - (1 - t / ramp)^3): fast at first, slow at the end (Zhu and Gupta 2017, equation 1, s_i = 0)."""
    return float(sparsity * (1 - (1 - min(step, ramp) / ramp) ** 3))


class HeldZeros:
    """Keeps what is zero before an epoch at zero after every step: the zeros of a schedule, which come as it learns."""

    def __init__(self, *, exclude: tuple[str, ...] = ()) -> None:
        self._exclude = exclude
        self._masks: Masks = {}

    def take(self, model: nn.Module, _epoch: int = 0) -> None:
        """Read the masks off the weights."""
        self._masks = zeros_of(model, exclude=self._exclude)

    def hold(self, model: nn.Module, _step: int = 0) -> None:
        """Set to zero again what was zero."""
        set_to_zero(prunable_weights(model, exclude=self._exclude), self._masks)


def keep(network: nn.Module, _config: DenseVariant, _context: Context) -> Compressed:
    """Return the network."""
    return Compressed(model=network)
