"""How sensitive each layer is: the accuracy where one layer alone has lost weights, as a table, CSV and plot.

Li et al. 2017, "Pruning Filters for Efficient ConvNets", section 3.2: one layer is pruned at a time, without training,
and what it costs says where little and where much may go. The images scored are validation images.
"""

from __future__ import annotations

import copy
import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from trtbench.compress.curvature import matrix_layers
from trtbench.compress.weights import count_right
from trtbench.disk import write_atomically
from trtbench.make.networks import dense, load_network
from trtbench.report.figures import png
from trtbench.report.figures_style import new_figure
from trtbench.report.tables import csv_cell
from trtbench.steps import Saved

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

    from trtbench.make.makings import Makings
    from trtbench.records import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """What a network gets right where one layer has lost a share of its outputs."""

    layer: str
    ratio: float
    correct: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayersAlone(Saved):
    """What the network gets right of the validation images with each layer pruned alone."""

    layers: tuple[Sensitivity, ...]
    plot: str


def layer_sensitivities(model: nn.Module, dataset: Dataset, *, ratios: Sequence[float]) -> tuple[Sensitivity, ...]:
    """Zero, layer by layer and ratio by ratio, the outputs whose weights have the smallest L2 norms, and score.

    The last layer is left out: its outputs are the classes. An output that is zeroed loses its bias too; what a batch
    norm behind it adds stays, as it does when a channel's weights vanish in training.
    """
    twin = copy.deepcopy(model).eval()
    found = []
    for name in list(matrix_layers(twin))[:-1]:
        layer: Any = twin.get_submodule(name)
        kept = copy.deepcopy(layer.state_dict())
        order = torch.argsort(layer.weight.detach().flatten(1).norm(dim=1))
        for ratio in ratios:
            gone = order[: int(ratio * len(order))]
            with torch.no_grad():
                layer.weight[gone] = 0
                if layer.bias is not None:
                    layer.bias[gone] = 0
            correct = count_right(twin, dataset)
            found.append(Sensitivity(layer=name, ratio=ratio, correct=correct, total=len(dataset.validation)))
            layer.load_state_dict(kept)
    return tuple(found)


def sensitivity_csv(found: Sequence[Sensitivity]) -> str:
    """Return the table as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("layer_name", "ratio", "correct", "total"))
    writer.writerows((csv_cell(one.layer), one.ratio, one.correct, one.total) for one in found)
    return file.getvalue()


def draw_sensitivities(found: Sequence[Sensitivity]) -> bytes:
    """Return a PNG: the validation accuracy over the ratio, a line for each layer."""
    figure = new_figure(9, 6)
    axes = figure.subplots()
    for layer in dict.fromkeys(one.layer for one in found):
        own = [one for one in found if one.layer == layer]
        shares = [100 * one.correct / one.total for one in own]
        axes.plot([100 * one.ratio for one in own], shares, marker=".", label=layer)
    axes.set_xlabel("outputs of this layer alone at zero (%)")
    axes.set_ylabel("validation images right (%)")
    axes.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="x-small")
    return png(figure)


def layers_alone(makings: Makings, output: Path, *, ratios: Sequence[float]) -> LayersAlone:
    """Write a CSV and a plot of what the network gets right with each layer pruned alone to each ratio."""
    makings.require_labels("what each layer is worth")
    start = dense(makings)
    found = layer_sensitivities(load_network(makings, start), makings.dataset, ratios=ratios)
    plot = output.with_suffix(".png")
    write_atomically(output, sensitivity_csv(found))
    write_atomically(plot, draw_sensitivities(found))
    return LayersAlone(output=str(output), plot=str(plot), layers=tuple(found), notes=start.facts.notes)
