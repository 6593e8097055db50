"""Whether a checkpoint fits an architecture, and the error that says why not and which one it fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trtbench.errors import CheckpointError
from trtbench.models.names import Misfit, Naming, name_tensors
from trtbench.models.widths import classifier_of, first_convolution_of, shapes_of, width_misfits
from trtbench.models.zoo import build_model, model_names

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from trtbench.models.names import Shape

_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The network that was asked for, the file it shall come from, and whether that file keeps its tensors' order."""

    name: str
    num_classes: int
    in_channels: int
    path: Path
    is_ordered: bool


def compare(model: nn.Module, shapes: Mapping[str, Shape], request: Request) -> tuple[Naming, tuple[Misfit, ...]]:
    """Match a checkpoint's tensors with the network's; the misfits are empty where it fits, pruned or not."""
    naming = name_tensors(shapes_of(model.state_dict()), shapes, is_ordered=request.is_ordered)
    ours = {key: shapes[theirs] for key, theirs in naming.keys.items()}
    return naming, naming.misfits or width_misfits(model, ours, num_classes=request.num_classes)


def misfit_error(
    model: nn.Module, shapes: Mapping[str, Shape], misfits: tuple[Misfit, ...], request: Request
) -> CheckpointError:
    """Say which layers do not fit first, and what to do."""
    classifier = classifier_of(model, num_classes=request.num_classes)
    first = first_convolution_of(model)
    layers = {misfit.layer for misfit in misfits}
    if layers <= {f"{classifier}.weight", f"{classifier}.bias"}:
        return _count_error(f"classifier {classifier!r}", misfits[0], request, counted="classes", dimension=0)
    if layers == {f"{first}.weight"} and misfits[0].differs_in(1):
        return _count_error(f"convolution {first!r}", misfits[0], request, counted="image channels", dimension=1)
    told = [f"{misfit.layer}: expected {misfit.expected}, got {misfit.got}" for misfit in misfits[:_SHOWN]]
    more = f"; and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
    return CheckpointError(
        f"checkpoint {request.path} does not fit {request.name}: {'; '.join(told)}{more}", cure=_cure(shapes, request)
    )


def _count_error(what: str, misfit: Misfit, request: Request, *, counted: str, dimension: int) -> CheckpointError:
    expected, got = misfit.shapes[0][dimension], misfit.shapes[1][dimension]
    return CheckpointError(
        f"checkpoint {request.path}: {what}",
        expected=f"{expected} {counted}",
        got=f"{got}",
        cure=f"use data of {got} {counted}, or a checkpoint trained on {expected}",
    )


def _cure(shapes: Mapping[str, Shape], request: Request) -> str:
    fitting = _fitting_names(shapes, request)
    if not fitting:
        return "name the network it was trained with; one of your own is named package.module:callable"
    reason = ""
    if f"{request.name}_a" in fitting:
        reason = "it has no shortcut weights: "
    if request.name in {f"{one}_a" for one in fitting}:
        reason = "it has shortcut weights: "
    return f"{reason}try {' or '.join(fitting)}"


def _fitting_names(shapes: Mapping[str, Shape], request: Request) -> list[str]:
    """Return the zoo's networks that the checkpoint fits, those of its exact widths before those it is pruned from."""
    exact: list[str] = []
    wider: list[str] = []
    for name in model_names():
        with torch.device("meta"):
            model = build_model(name, num_classes=request.num_classes, in_channels=request.in_channels)
        naming, misfits = compare(model, shapes, request)
        if misfits:
            continue
        network = shapes_of(model.state_dict())
        is_exact = all(network[key] == shapes[theirs] for key, theirs in naming.keys.items())
        (exact if is_exact else wider).append(name)
    return (exact or wider)[:_SHOWN]
