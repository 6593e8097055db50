"""What a method is: one function (network, config, context) -> Compressed, where its kind's class in the suite says."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from trtbench.train.hooks import NO_HOOKS, Hooks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from trtbench.models.container import PackedState
    from trtbench.records import Dataset
    from trtbench.suite import TrainConfig, Variant


class Tune(Protocol):
    """Trains a network in place by the suite's fine-tune budget, or another, and tells of its epochs."""

    def __call__(self, network: nn.Module, *, hooks: Hooks = NO_HOOKS, config: TrainConfig | None = None) -> Any:
        """Return the FitRecord."""


class Check(Protocol):
    """Proves a promise of a method on a network."""

    def __call__(self, model: nn.Module, *, after: str) -> None:
        """Raise RowError where it does not hold; `after` names the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a method may use beside the network; nothing of it is changed.

    `tune` may be called once: it can be interrupted and goes on from its last epoch.
    """

    dataset: Dataset
    budget: TrainConfig
    tune: Tune
    is_sparse: bool = False  # the network comes from a variant whose zeros must stay
    device: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """A compressed network.

    Args:
        model: in eval mode on the CPU.
        facts: values for JSON that tell what was done; they go into the record of the variant.
        notes: sentences for people.
        hooks: what keeps the network compressed while it is fine-tuned afterwards.
        check: raises RowError where a network, after the step named, is not what the method promises.
        is_tuned: the method has done the fine-tuning itself.
        packed: gives what a packed file holds of the network, with the facts it is handed, if that is less.
    """

    model: nn.Module
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    hooks: Hooks = NO_HOOKS
    check: Check | None = None
    is_tuned: bool = False
    packed: Callable[[Mapping[str, Any]], PackedState] | None = None


def compress(network: nn.Module, config: Variant, context: Context) -> Compressed:
    """Apply the method of a variant to a network, which may be changed."""
    module, _, name = config.place.partition(":")
    found: Compressed = getattr(importlib.import_module(module), name)(network, config, context)
    return found
