"""What a compression method does to its network while that learns; without hooks the fit loop does nothing more."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trtbench.models.masks import masks_of, prunable_weights, set_to_zero

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Functions that the fit loop calls with the network, and an epoch or a step of the whole fit, counted from 1.

    They decide by their arguments and the network's weights alone: an interrupted fit goes on as if it had not stopped.

    Args:
        key: names what the hooks do, with all that decides it; a fit with other hooks is another fit.
        penalty: a scalar that is added to the loss of each batch.
        first_best_epoch: earlier epochs are not kept as the best: the network is not what was asked for yet.
    """

    key: str
    before_epoch: Callable[[nn.Module, int], None] | None = None
    after_step: Callable[[nn.Module, int], None] | None = None
    penalty: Callable[[nn.Module], Tensor] | None = None
    first_best_epoch: int = 1


NO_HOOKS = Hooks(key="none")


def holding_zeros(network: nn.Module, hooks: Hooks) -> Hooks:
    """Return hooks that keep the masks of a network too, after each step of the others; the same where it has none."""
    masks = masks_of(network)
    if not masks:
        return hooks

    def hold(model: nn.Module, step: int) -> None:
        if hooks.after_step is not None:
            hooks.after_step(model, step)
        weights = prunable_weights(model)
        for name, mask in masks.items():
            masks[name] = mask.to(weights[name].device)
        set_to_zero(weights, masks)

    digest = hashlib.sha256()
    for name, mask in masks.items():
        digest.update(name.encode() + mask.cpu().numpy().tobytes())
    return replace(hooks, key=f"{hooks.key}, masks {digest.hexdigest()}", after_step=hold)
