"""Sharpness-aware minimisation: the gradient where the loss is worst nearby."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextlib.contextmanager
def climbed(model: nn.Module, *, radius: float) -> Iterator[None]:
    """Move a network to w + radius * g / |g|, g its gradients, and back afterwards.

    Foret et al. 2021, "SAM", equation 2 and algorithm 1. Up there the batch norms' running statistics stay untouched.
    """
    moved = [(one, one.grad.clone()) for one in model.parameters() if one.grad is not None]
    norm = torch.stack([gradient.norm() for _, gradient in moved]).norm() if moved else torch.zeros(())
    before = [one.detach().clone() for one, _ in moved]
    tracking = [one for one in model.modules() if isinstance(one, _NORMS) and one.track_running_stats]
    with torch.no_grad():
        for one, gradient in moved:
            one.add_(gradient * (radius / (norm + torch.finfo(norm.dtype).tiny)))
    for norm_layer in tracking:
        norm_layer.track_running_stats = False
    try:
        yield
    finally:
        for norm_layer in tracking:
            norm_layer.track_running_stats = True
        with torch.no_grad():
            for (one, _), start in zip(moved, before, strict=True):
                one.copy_(start)
