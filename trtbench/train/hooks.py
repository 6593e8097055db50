"""What a compression method does to its network while that learns; without hooks the fit loop does nothing more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Functions that the fit loop calls with the network.

    They decide by their arguments and the network's weights alone: an interrupted fit goes on as if it had not stopped.

    Args:
        key: names what the hooks do, with all that decides it; a fit with other hooks is another fit.
        before_epoch: called with the epoch, counted from 1, before its first step.
        after_step: called with the step, counted from 1 over the whole fit, after the optimizer's.
        penalty: a scalar that is added to the loss of each batch.
        first_best_epoch: earlier epochs are not kept as the best: the network is not what was asked for yet.
    """

    key: str
    before_epoch: Callable[[nn.Module, int], None] | None = None
    after_step: Callable[[nn.Module, int], None] | None = None
    penalty: Callable[[nn.Module], Tensor] | None = None
    first_best_epoch: int = 1


NO_HOOKS = Hooks(key="none")
