"""What a method is: one function, of networks or of graphs, where its kind's class in the suite says.

(network, config, Context) -> Compressed
(graph, config, GraphContext) -> CompressedGraph
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from trtbench.train.hooks import NO_HOOKS, Hooks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx
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

    `tune` may be called once: it can be interrupted and goes on from its last epoch. `tell` takes words on what lasts.
    """

    dataset: Dataset
    budget: TrainConfig
    tune: Tune
    device: str = "cpu"
    tell: Callable[[str], None] = lambda _words: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """A compressed network.

    Args:
        model: in eval mode on the CPU.
        facts: values for JSON that tell what was done; they go into the record of the variant.
        notes: sentences for people.
        check: raises RowError where a network, after the step named, is not what the method promises.
        is_tuned: the method has done the fine-tuning itself.
        packed: gives what a packed file holds of the network, with the facts it is handed, if that is less.
    """

    model: nn.Module
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    check: Check | None = None
    is_tuned: bool = False
    packed: Callable[[Mapping[str, Any]], PackedState] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphContext:
    """What a method that makes a graph may use beside the float graph.

    Args:
        sparse_layers: layers whose zero weights must stay.
        ranges: the clip threshold of every activation, of a kind that reads images; else nothing.
        exclude: names of nodes that stay in float.
    """

    tune: Tune
    sparse_layers: tuple[str, ...] = ()
    ranges: Mapping[str, float] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressedGraph:
    """A compressed graph; `facts` and `notes` as in Compressed."""

    proto: onnx.ModelProto
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def method_of(config: Variant) -> Any:
    """Return the function that makes a variant: of a network, config and Context, or of a float graph likewise."""
    module, _, name = config.place.partition(":")
    return getattr(importlib.import_module(module), name)
