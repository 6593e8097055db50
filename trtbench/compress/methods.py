"""The methods by kind: each is one function (network, config, context) -> Compressed in a module of its own.

A new method is one new module here, one line in METHODS and one kind in the suite.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from trtbench.train.hooks import NO_HOOKS, Hooks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

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
    """

    model: nn.Module
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    hooks: Hooks = NO_HOOKS
    check: Check | None = None
    is_tuned: bool = False


def _never(_variant: Any) -> bool:
    return False


def _looks_at_images(variant: Any) -> bool:
    return bool(variant.method == "second-order" or variant.batch_norm != "keep")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Where a method lives, and what decides its result beside the network and the config.

    Args:
        place: module:function.
        packages: distributions whose version matters.
        reads_images: whether a variant looks at training images without being fine-tuned.
        makes_zeros: its zero weights are to stay zero in all that comes after.
    """

    place: str
    packages: tuple[str, ...] = ()
    reads_images: Callable[[Any], bool] = _never
    makes_zeros: bool = False


METHODS: Mapping[str, Method] = {
    "dense": Method(place="trtbench.compress.dense:keep"),
    "channels": Method(
        place="trtbench.compress.channels:remove_channels",
        packages=("torch-pruning",),
        reads_images=lambda variant: variant.importance in {"taylor", "hessian"},
    ),
    "weights": Method(place="trtbench.compress.weights:prune_weights", reads_images=_looks_at_images, makes_zeros=True),
    "nm": Method(place="trtbench.compress.nm:prune_nm", reads_images=_looks_at_images, makes_zeros=True),
    "codec": Method(place="trtbench.compress.codec_method:share", packages=("scikit-learn",)),
    "fixed_point": Method(
        place="trtbench.compress.fixed_point_method:quantize",
        reads_images=lambda variant: variant.scheme == "best" or variant.activations is not None,
    ),
}


def compress(network: nn.Module, config: Variant, context: Context) -> Compressed:
    """Apply the method of a variant to a network, which may be changed."""
    module, _, name = METHODS[config.kind].place.partition(":")
    found: Compressed = getattr(importlib.import_module(module), name)(network, config, context)
    return found
