"""torch-pruning's only door: one pruned copy, by importance and scope; no targets, no records.

Fang et al., "DepGraph: Towards Any Structural Pruning" (2023): layers that share channels (a residual stream, a
depthwise convolution and its neighbours) are ranked and cut together.
"""

from __future__ import annotations

import contextlib
import copy
import time
import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  the name the whole field reads
import torch_pruning
from torch_pruning.dependency import Group, index_mapping

from trtbench.errors import RowError, listed
from trtbench.models import protected_layers
from trtbench.models.counts import evaluating
from trtbench.models.widths import classifier_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor, nn

    from trtbench.suite import ChannelsVariant


class _HessianImportance(torch_pruning.importance.GroupHessianImportance):  # type: ignore[misc]  # it has no types
    """torch-pruning's optimal brain damage, with every image's squared gradient counted.

    LeCun et al. 1989, "Optimal Brain Damage", with the Fisher information for the Hessian's diagonal. torch-pruning
    looks its sums up under another key than it files them, and so keeps the last image's alone.
    """

    def accumulate_grad(self, model: nn.Module) -> None:
        """Add the squares of the gradients of one image's loss."""
        for parameter in model.parameters():
            if parameter.grad is not None:
                square = parameter.grad.detach().square()
                self._accu_grad[parameter] = self._accu_grad.get(parameter, 0) + square
                self._counter[parameter] = self._counter.get(parameter, 0) + 1


_IMPORTANCES: Mapping[str, Callable[[], Any]] = {
    "l2": partial(torch_pruning.importance.GroupMagnitudeImportance, p=2),
    "l1": partial(torch_pruning.importance.GroupMagnitudeImportance, p=1),
    "bn-scale": torch_pruning.importance.BNScaleImportance,  # Liu et al. 2017, "Network Slimming"
    "taylor": torch_pruning.importance.GroupTaylorImportance,  # Molchanov et al. 2019, first order
    "hessian": _HessianImportance,
    "lamp": torch_pruning.importance.LAMPImportance,  # Lee et al. 2020
}


_TRIED = torch_pruning.importance.GroupMagnitudeImportance(p=2)  # to see whether a layer can be pruned at all
_SHOWN = 5
_TOLD_EVERY_S = 10
# Of one group, where others have a million and a thousand at most. Through the windows of a Swin torch-pruning
# multiplies the indices of channels at every reshape, until no memory is left; through the slices of a ReXNet it finds
# ever other parts of them to cut, millions.
_MOST_INDICES, _MOST_CUTS = 1 << 23, 1 << 12

LEARNT = ("taylor", "hessian")  # importances that look at training images
# torch-pruning fills its default dicts in place, for every later pruner of the process.
_FILLED = ("in_channel_groups", "out_channel_groups", "num_heads", "channel_groups")


class _LateError(BaseException):
    """The limit is passed; no Exception, for those are taken for layers that cannot be followed."""


class Watch:
    """Looks at each group of layers that torch-pruning follows: tells how many they are, and ends what takes too long.

    Args:
        tell: told every ten seconds.
        limit_s: of all that is pruned under this watch; by default half an hour, where the slowest network that was
            tried (swin_t) takes minutes.
        clock: in seconds.
    """

    def __init__(
        self,
        tell: Callable[[str], None] = lambda _: None,
        *,
        limit_s: float = 1800,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit_s = limit_s
        self._tell, self._clock = tell, clock
        self._begun = self._told = clock()
        self._groups = 0

    def look(self) -> None:
        """Count one more group.

        Raises:
            _LateError: the limit is passed.
        """
        self._groups += 1
        self.keep_time()

    def keep_time(self) -> None:
        """Tell where it is time to, within a group too.

        Raises:
            _LateError: the limit is passed.
        """
        now = self._clock()
        if now - self._begun > self.limit_s:
            raise _LateError
        if now - self._told >= _TOLD_EVERY_S:
            self._told = now
            self._tell(f"torch-pruning has followed {self._groups} groups of layers in {now - self._begun:.0f} s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How channels are chosen; `batches` are gone through before every step of importance taylor or hessian."""

    config: ChannelsVariant
    input_shape: tuple[int, int, int]
    round_to: int
    batches: tuple[tuple[Tensor, Tensor], ...]
    watch: Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """A pruned copy of a network, the share of the channels that was asked for, and what torch-pruning warned of."""

    model: nn.Module
    ratio: float
    warnings: tuple[str, ...] = ()


class _Pruner(torch_pruning.BasePruner):  # type: ignore[misc]  # torch-pruning has no types
    """torch-pruning's pruner, with a floor under every width."""

    def _round_to(self, n_pruned: int, current_channels: int, round_to: int) -> int:
        """Return how many channels go.

        torch-pruning rounds the width down to 0 where less than `round_to` would stay, and then skips the layer with
        all its channels. Here the layer keeps `round_to` of them.
        """
        kept = current_channels - n_pruned
        return current_channels - max(kept - kept % round_to, min(round_to, current_channels))


def pruned_copy(model: nn.Module, cut: Cut, *, ratio: float, kept: tuple[str, ...] = ()) -> Pruned:
    """Prune a copy of a network; the classifier keeps its outputs, and each parameter learns or not as before.

    Layers whose channels torch-pruning cannot follow to where they are read keep them all, and a warning names them.

    Args:
        model: left as it is.
        cut: how.
        ratio: share of the channels that go, in [0, 1).
        kept: such layers, once they are known.

    Raises:
        RowError: torch-pruning cannot follow the network at all, or not within the limit of the watch.
    """
    twin = copy.deepcopy(model)
    if not ratio:
        return Pruned(model=twin, ratio=ratio)
    twin.requires_grad_(True)  # the dependencies are read off the graph of the gradients
    importance = _IMPORTANCES[cut.config.importance]()
    try:
        with _in_time(model, cut), _roots(cut.watch), _followed(twin, cut), _learning(twin) as caught:
            pruner = _Pruner(twin, importance=importance, **_told(twin, cut, ratio=ratio, kept=kept))
            for _ in range(cut.config.steps):
                _take_gradients(twin, cut.batches, importance)
                pruner.step()
            logits_of_noise(twin, cut.input_shape)
    except RowError as error:
        if kept or isinstance(error.__cause__, _LateError) or (found := _keeping_some(model, cut, ratio=ratio)) is None:
            raise
        return found
    twin.zero_grad(set_to_none=True)
    learns = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for name, parameter in twin.named_parameters():
        parameter.requires_grad_(learns[name])
    said = dict.fromkeys(f"torch-pruning: {' '.join(str(one.message).split())}" for one in caught)
    return Pruned(model=twin, ratio=ratio, warnings=tuple(said))


def _keeping_some(model: nn.Module, cut: Cut, *, ratio: float) -> Pruned | None:
    """Return a copy that keeps the layers whole that cannot be followed; None where they cannot be told."""
    with _odd_reshapes_passed_over():
        with _in_time(model, cut):
            kept = _unfollowed(model, cut, ratio=ratio)
        if not kept:
            return None
        found = pruned_copy(model, cut, ratio=ratio, kept=kept)
    said = f"kept whole, for torch-pruning cannot follow their channels: {listed(kept, _SHOWN)}"
    return replace(found, warnings=(said, *found.warnings))


@contextlib.contextmanager
def _learning(model: nn.Module) -> Iterator[list[warnings.WarningMessage]]:
    """Let gradients be taken in evaluation mode, and yield what is warned of meanwhile."""
    with warnings.catch_warnings(record=True) as caught, evaluating(model), torch.enable_grad():
        warnings.simplefilter("always")
        yield caught


def _told(twin: nn.Module, cut: Cut, *, ratio: float, kept: tuple[str, ...]) -> dict[str, Any]:
    return {
        "example_inputs": torch.zeros(1, *cut.input_shape, device=next(twin.parameters()).device),
        "global_pruning": cut.config.scope == "global",
        "pruning_ratio": ratio,
        "iterative_steps": cut.config.steps,
        "ignored_layers": [*_ignored(twin, cut.input_shape), *(twin.get_submodule(name) for name in kept)],
        "round_to": cut.round_to,
        **{name: {} for name in _FILLED},
    }


def _unfollowed(model: nn.Module, cut: Cut, *, ratio: float) -> tuple[str, ...]:
    """Name the layers to keep: each that breaks the network when it is pruned after those before it that do not.

    Nothing where torch-pruning stumbles over more than single layers.
    """
    kept: list[str] = []
    while True:
        twin = copy.deepcopy(model).requires_grad_(True)
        names = {module: name for name, module in twin.named_modules()}
        with _learning(twin), _roots(cut.watch) as roots:
            try:
                pruner = _Pruner(twin, importance=_TRIED, **_told(twin, cut, ratio=ratio, kept=tuple(kept)))
                for group in pruner.step(interactive=True):
                    group.prune()
                    logits_of_noise(twin, cut.input_shape)
            except Exception:  # noqa: BLE001  whatever breaks: the layer at hand is kept
                root = names.get(roots[-1]) if roots else None
                if root is None or root in kept:
                    return ()
                kept.append(root)
                continue
        return tuple(kept)


@contextlib.contextmanager
def _roots(watch: Watch) -> Iterator[list[nn.Module]]:
    """Note the layers whose groups torch-pruning asks for, in their order, and let a watch look at each.

    A group that grows beyond all measure ends in an OverflowError.
    """
    found: list[nn.Module] = []
    indices = cuts = 0
    graph, group, mapping = torch_pruning.DependencyGraph, Group, index_mapping._FlattenIndexMapping  # noqa: SLF001
    asked, added, flattened = graph.get_pruning_group, group.add_dep, mapping.__call__

    def noting(graph: Any, module: nn.Module, *args: Any, **options: Any) -> Any:
        nonlocal indices, cuts
        watch.look()
        found.append(module)
        indices = cuts = 0
        return asked(graph, module, *args, **options)

    def counting(group: Any, dep: Any, idxs: Any) -> Any:
        nonlocal indices, cuts
        watch.keep_time()
        indices, cuts = indices + len(idxs), cuts + 1
        _require_few(indices, cuts)
        return added(group, dep, idxs)

    def measuring(mapping: Any, idxs: Any) -> Any:
        _require_few(len(idxs) * (1 if mapping.reverse else mapping._stride))  # noqa: SLF001
        return flattened(mapping, idxs)

    graph.get_pruning_group, group.add_dep, mapping.__call__ = noting, counting, measuring
    try:
        yield found
    finally:
        graph.get_pruning_group, group.add_dep, mapping.__call__ = asked, added, flattened


def _require_few(indices: int, cuts: int = 0) -> None:
    if indices > _MOST_INDICES or cuts > _MOST_CUTS:
        raise OverflowError(f"more than {_MOST_INDICES:,} indices of channels or {_MOST_CUTS:,} cuts in one group")


@contextlib.contextmanager
def _in_time(model: nn.Module, cut: Cut) -> Iterator[None]:
    try:
        yield
    except _LateError as error:
        raise RowError(
            f"variant {cut.config.name!r}: pruning {type(model).__name__}",
            expected=f"a network whose channels torch-pruning follows within {cut.watch.limit_s:.0f} s",
            got="one that takes longer",
            cure="leave this variant out, or prune single weights: kind weights",
        ) from error


@contextlib.contextmanager
def _odd_reshapes_passed_over() -> Iterator[None]:
    """Let torch-pruning leave out the reshapes that it cannot follow: what is behind them then breaks, and is kept."""
    mapped = index_mapping.update_reshape_index_mapping

    def followed(*args: Any, **options: Any) -> None:
        with contextlib.suppress(ArithmeticError, IndexError, ValueError, AssertionError):
            mapped(*args, **options)

    index_mapping.update_reshape_index_mapping = followed
    try:
        yield
    finally:
        index_mapping.update_reshape_index_mapping = mapped


@contextlib.contextmanager
def _followed(model: nn.Module, cut: Cut) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise RowError(
            f"variant {cut.config.name!r}: pruning {type(model).__name__}",
            expected="a network whose channels torch-pruning can follow",
            got=f"{type(error).__name__}: {error}",
            cure="choose another network, or leave this variant out",
        ) from error


def _ignored(model: nn.Module, input_shape: tuple[int, int, int]) -> list[nn.Module]:
    """List the layers that keep all outputs: modules only, for torch-pruning drops types and names in silence."""
    classifier = classifier_of(model, num_classes=logits_of_noise(model, input_shape).shape[1])
    own = [model.get_submodule(classifier)] if classifier is not None else []
    return [*own, *protected_layers(model)]


def _take_gradients(model: nn.Module, batches: tuple[tuple[Tensor, Tensor], ...], importance: Any) -> None:
    """Sum the gradients of the cross-entropy over all batches, or their squares image by image for hessian.

    Anew before every step, for the widths change.
    """
    model.zero_grad(set_to_none=True)
    device = next(model.parameters()).device
    if isinstance(importance, _HessianImportance):
        importance.zero_grad()
        for inputs, labels in batches:
            for image, label in zip(inputs.to(device), labels.to(device), strict=True):
                model.zero_grad(set_to_none=True)
                torch.autograd.backward(F.cross_entropy(model(image[None]), label[None]))
                importance.accumulate_grad(model)
        return
    for inputs, labels in batches:
        torch.autograd.backward(F.cross_entropy(model(inputs.to(device)), labels.to(device)))


def logits_of_noise(model: nn.Module, input_shape: tuple[int, int, int]) -> Tensor:
    """Return the logits of two images of noise, always the same, in evaluation mode."""
    device = next(model.parameters()).device
    noise = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0)).to(device)
    with evaluating(model), torch.no_grad():
        logits: Tensor = model(noise)
    return logits
