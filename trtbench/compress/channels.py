"""Structured channel pruning to a ratio, or to a share of the MACs or parameters, and what it took away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trtbench.compress.method import Compressed, Context
from trtbench.compress.torch_pruning import LEARNT, Cut, Pruned, Watch, logits_of_noise, pruned_copy
from trtbench.data import training_sample
from trtbench.errors import ConfigError, RowError
from trtbench.jsonable import to_jsonable
from trtbench.models import conv_widths, count_macs, count_params, protected_layers
from trtbench.models.masks import fit_masks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn

    from trtbench.records import Dataset
    from trtbench.suite import ChannelsVariant

_GRID = 1024  # a MACs or parameter target is searched in ratios of this many parts; exact where widths divide it
_SURPRISE = 0.05  # share of channels beyond the ratio from which the record says why
_IMAGES, _BATCH = 640, 64  # that gradients are taken on


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelsRecord:
    """What pruning took away.

    `ratio` was asked of each layer (scope uniform) or of all together (global); `achieved_ratio` is the share of the
    convolutions' output channels that went. MACs are those of the convolutions and linear layers, for one image.
    """

    ratio: float
    achieved_ratio: float
    params_before: int
    params_after: int
    macs_before: int
    macs_after: int
    widths_before: Mapping[str, int]
    widths_after: Mapping[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedModel:
    """A pruned copy of a network, and what went."""

    model: nn.Module
    record: ChannelsRecord


def prune_channels(
    model: nn.Module,
    config: ChannelsVariant,
    *,
    input_shape: tuple[int, int, int],
    round_to: int,
    batches: Iterable[tuple[Tensor, Tensor]] | None = None,
    watch: Watch | None = None,
) -> PrunedModel:
    """Prune a copy of a network; the classifier keeps its outputs.

    Scope uniform keeps int(C * (1 - ratio)) of C channels, in floating point as torch-pruning does (of 160 channels and
    ratio 0.8: 31), rounded down to a multiple of `round_to`, but never fewer than `round_to` or 1. A target of MACs or
    parameters takes the smallest ratio, in steps of 1/1024, that is not above it.

    Args:
        model: any network; it is not changed. The copy is on its device, in its modes.
        config: what to prune by and how far; `config.round_to` is for the caller, who knows the precisions built.
        input_shape: channels, height, width.
        round_to: widths become multiples of this.
        batches: for taylor and hessian: inputs float32 (N, C, H, W) and labels int64 (N,) of training images.
        watch: is told how far it is, and ends what takes too long.

    Raises:
        ConfigError: taylor or hessian without batches, or images of another shape than the network's.
        RowError: torch-pruning cannot follow the network (in time), nothing can go, or the target is out of reach.
    """
    taken = tuple(batches or ()) if config.importance in LEARNT else ()
    if config.importance in LEARNT and not taken:
        raise ConfigError(
            f"variant {config.name!r}: importance {config.importance}",
            expected="training images to take gradients on",
            got="none",
            cure="give batches, or choose importance l2",
        )
    cut = Cut(config=config, input_shape=input_shape, round_to=round_to, batches=taken, watch=watch or Watch())
    dense = _count(model, input_shape)
    if config.ratio is None:
        result = _reach(model, cut, dense)
    else:
        result = pruned_copy(model, cut, ratio=config.ratio)
        if config.ratio:
            _check_pruned(result.model, dense, cut)
    _check_outputs(model, result.model, input_shape)
    return PrunedModel(model=result.model, record=_record(model, result, dense, cut))


def remove_channels(network: nn.Module, config: ChannelsVariant, context: Context) -> Compressed:
    """Prune a network's channels as a step of a suite; `config` is settled.

    Raises:
        RowError: as `prune_channels`.
    """
    dataset = context.dataset
    pruned = prune_channels(
        network,
        config,
        input_shape=dataset.preprocessing.input_shape,
        round_to=config.round_to or 1,
        batches=labelled_batches(dataset) if config.importance in LEARNT else None,
        watch=Watch(context.tell),
    )
    fit_masks(pruned.model)
    return Compressed(model=pruned.model, facts={"prune": to_jsonable(pruned.record)}, notes=pruned.record.notes)


def labelled_batches(dataset: Dataset) -> list[tuple[Tensor, Tensor]]:
    """Return class-balanced training images, normalised, with their labels, for importances that need gradients."""
    inputs, labels = map(torch.from_numpy, training_sample(dataset, count=_IMAGES, seed=0))
    return list(zip(torch.split(inputs, _BATCH), torch.split(labels, _BATCH), strict=True))


def _count(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, int]:
    return {"params": count_params(model), "macs": count_macs(model, input_shape)}


def _check_pruned(model: nn.Module, dense: dict[str, int], cut: Cut) -> None:
    if count_params(model) < dense["params"]:
        return
    raise RowError(
        f"variant {cut.config.name!r}: ratio {cut.config.ratio}",
        expected="channels to prune",
        got=f"none that torch-pruning finds and importance {cut.config.importance}, round_to {cut.round_to} let go",
        cure="lower round_to, raise the ratio, choose importance l2 or another network",
    )


def _reach(model: nn.Module, cut: Cut, dense: dict[str, int]) -> Pruned:
    """Find the attempt closest to the target and not above it, by bisection over the ratios."""
    kind, target = ("macs", cut.config.macs) if cut.config.macs is not None else ("params", cut.config.params)
    assert target is not None, "the suite gives exactly one target"

    def share(attempt: Pruned) -> float:
        return _count(attempt.model, cut.input_shape)[kind] / dense[kind]

    attempt = pruned_copy(model, cut, ratio=0.0)
    if share(attempt) <= target:
        return attempt
    above, below = 0, _GRID - 1
    attempt = pruned_copy(model, cut, ratio=below / _GRID)
    if share(attempt) > target:
        raise _unreachable(cut, kind=kind, target=target, least=share(attempt))
    while below - above > 1:
        middle = (above + below) // 2
        candidate = pruned_copy(model, cut, ratio=middle / _GRID)
        if share(candidate) > target:
            above = middle
        else:
            attempt, below = candidate, middle
    return attempt


def _unreachable(cut: Cut, *, kind: str, target: float, least: float) -> RowError:
    return RowError(
        f"variant {cut.config.name!r}: {kind} {target}",
        expected=f"a share of the dense network's {kind} that pruning reaches",
        got=f"{least:.4f} at least, with importance {cut.config.importance} and round_to {cut.round_to}",
        cure=f"raise {kind} to {least:.4f} or more, or lower round_to",
    )


def _check_outputs(model: nn.Module, pruned: nn.Module, input_shape: tuple[int, int, int]) -> None:
    before, after = logits_of_noise(model, input_shape), logits_of_noise(pruned, input_shape)
    if before.shape == after.shape and bool(torch.isfinite(after).all() or not torch.isfinite(before).all()):
        return
    raise RowError(
        f"pruning {type(model).__name__}",
        expected=f"finite logits of shape {tuple(before.shape)}",
        got=f"shape {tuple(after.shape)}, {int(torch.isfinite(after).sum())} of {after.numel()} finite",
        cure="lower the ratio, or leave this variant out",
    )


def _record(model: nn.Module, result: Pruned, dense: dict[str, int], cut: Cut) -> ChannelsRecord:
    before, after, count = conv_widths(model), conv_widths(result.model), _count(result.model, cut.input_shape)
    achieved = 1 - sum(after.values()) / sum(before.values()) if before else 0.0
    notes = (
        *_notes_on_reach(model, before, after),
        *_notes_on_rounding(ratio=result.ratio, achieved=achieved, round_to=cut.round_to),
        *result.warnings,
    )
    return ChannelsRecord(
        ratio=result.ratio,
        achieved_ratio=achieved,
        params_before=dense["params"],
        params_after=count["params"],
        macs_before=dense["macs"],
        macs_after=count["macs"],
        widths_before=before,
        widths_after=after,
        notes=notes if result.ratio > 0 else ("nothing was pruned: the target is the dense network",),
    )


def _notes_on_reach(model: nn.Module, before: Mapping[str, int], after: Mapping[str, int]) -> list[str]:
    notes = []
    if protected := len(protected_layers(model)):
        notes.append(f"{protected} convolutions on the residual stream of option A are protected")
    if whole := sum(width == before[name] for name, width in after.items()):
        notes.append(f"{whole} of {len(after)} convolutions keep all channels")
    return notes


def _notes_on_rounding(*, ratio: float, achieved: float, round_to: int) -> list[str]:
    """Say where widths of multiples took away more than was asked."""
    if achieved <= ratio + _SURPRISE:
        return []
    said = f"{achieved:.1%} of the channels went where {ratio:.1%} were asked"
    return [f"{said}: widths go down to multiples of {round_to}, and equal importances go together in scope global"]
