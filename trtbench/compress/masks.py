"""Which weights are prunable, and how zeros stay zero while a network learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from trtbench.models.counts import CONVOLUTIONS
from trtbench.train.hooks import NO_HOOKS, Hooks

if TYPE_CHECKING:
    from torch import Tensor

    from trtbench.compress.methods import Context


def prunable_weights(model: nn.Module, *, exclude: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Return the weights of the convolutions and linear layers by the layer's name, in the order of the modules.

    Args:
        model: any network.
        exclude: layers whose name contains one of these are left out.
    """
    return {
        name: module.weight
        for name, module in model.named_modules()
        if isinstance(module, (*CONVOLUTIONS, nn.Linear)) and not any(part in name for part in exclude)
    }


def zeros_of(model: nn.Module, *, exclude: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Return a mask for each prunable weight: True where it is not zero."""
    return {name: weight.detach() != 0 for name, weight in prunable_weights(model, exclude=exclude).items()}


def hold_zeros(context: Context) -> Hooks:
    """Return the hooks that keep a sparse network's zeros; none for a network that is not."""
    return HeldZeros().hooks if context.is_sparse else NO_HOOKS


class HeldZeros:
    """Multiplies the weights by a mask after every step; the masks are the zeros there are before an epoch."""

    def __init__(self, *, exclude: tuple[str, ...] = ()) -> None:
        self._exclude = exclude
        self._masks: dict[str, Tensor] = {}

    @property
    def hooks(self) -> Hooks:
        """The hooks for the fit loop."""
        return Hooks(key=f"zeros held, but for {self._exclude}", before_epoch=self.take, after_step=self.hold)

    def take(self, model: nn.Module, _epoch: int = 0) -> None:
        """Read the masks off the weights."""
        self._masks = zeros_of(model, exclude=self._exclude)

    def hold(self, model: nn.Module, _step: int = 0) -> None:
        """Set to zero again what was zero."""
        weights = prunable_weights(model, exclude=self._exclude)
        for name, mask in self._masks.items():
            weights[name].data.mul_(mask)
