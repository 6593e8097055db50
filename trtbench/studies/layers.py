"""Each layer pruned alone: which ones the network minds losing outputs of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.make.networks import dense, load_network
from trtbench.steps import Saved
from trtbench.store import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trtbench.compress.sensitivity import Sensitivity
    from trtbench.make.makings import Makings


@dataclass(frozen=True, slots=True, kw_only=True)
class LayersAlone(Saved):
    """What the network gets right of the validation images with each layer pruned alone."""

    layers: tuple[Sensitivity, ...]
    plot: str


def layers_alone(makings: Makings, output: Path, *, ratios: Sequence[float]) -> LayersAlone:
    """Write a CSV and a plot of what the network gets right with each layer pruned alone to each ratio."""
    from trtbench.compress.sensitivity import draw_sensitivities, layer_sensitivities, sensitivity_csv

    start = dense(makings)
    found = layer_sensitivities(load_network(makings, start), makings.dataset, ratios=ratios)
    plot = output.with_suffix(".png")
    write_atomically(output, sensitivity_csv(found))
    write_atomically(plot, draw_sensitivities(found))
    return LayersAlone(output=str(output), plot=str(plot), layers=tuple(found), notes=start.facts.notes)
