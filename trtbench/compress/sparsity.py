"""How sparse a network is, layer by layer, as a table, CSV and plot; and the proof that zeros stayed zeros."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.disk import write_atomically
from trtbench.errors import RowError
from trtbench.models.masks import prunable_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

_DPI = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSparsity:
    """The zero weights of one convolution or linear layer."""

    layer: str
    shape: tuple[int, ...]
    weights: int
    zeros: int

    @property
    def sparsity(self) -> float:
        """The share of zeros."""
        return self.zeros / self.weights


def layer_sparsities(model: nn.Module) -> tuple[LayerSparsity, ...]:
    """Count the exact zeros among the weights of each convolution and linear layer; biases and norms do not count."""
    return tuple(
        LayerSparsity(
            layer=name, shape=tuple(weight.shape), weights=weight.numel(), zeros=int((weight.detach() == 0).sum())
        )
        for name, weight in prunable_weights(model).items()
    )


def sparsity_of(model: nn.Module) -> float:
    """Return the share of exact zeros among all weights of the convolutions and linear layers."""
    layers = layer_sparsities(model)
    return sum(one.zeros for one in layers) / max(1, sum(one.weights for one in layers))


def sparsity_csv(layers: Sequence[LayerSparsity]) -> str:
    """Return the table as CSV, the columns of source study 000, the total last."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("layer_name", "weight_shape", "total_params", "zero_params", "sparsity"))
    for one in layers:
        writer.writerow((one.layer, list(one.shape), one.weights, one.zeros, f"{one.sparsity:.6f}"))
    weights, zeros = sum(one.weights for one in layers), sum(one.zeros for one in layers)
    writer.writerow(("TOTAL", "", weights, zeros, f"{zeros / max(1, weights):.6f}"))
    return file.getvalue()


def draw_sparsity(layers: Sequence[LayerSparsity]) -> bytes:
    """Return a PNG: the sparsity of each layer as a bar, and of the network as a line."""
    from matplotlib.figure import Figure  # takes a third of a second

    figure = Figure(figsize=(8, 1 + 0.25 * len(layers)), layout="constrained")
    axes = figure.subplots()
    axes.barh([one.layer for one in layers], [100 * one.sparsity for one in layers], color="tab:blue")
    total = 100 * sum(one.zeros for one in layers) / max(1, sum(one.weights for one in layers))
    axes.axvline(total, color="tab:red", linestyle="--", label=f"all layers: {total:.1f} %")
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("zero weights (%)")
    figure.legend(loc="outside lower right", frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    return file.getvalue()


def write_sparsity(network: nn.Module, beside: Path) -> dict[str, str]:
    """Write the layers' sparsity as CSV and as a plot beside a checkpoint, and return their paths.

    Raises:
        StoreError: they cannot be written.
    """
    layers = layer_sparsities(network)
    table, plot = beside.with_suffix(".sparsity.csv"), beside.with_suffix(".sparsity.png")
    write_atomically(table, sparsity_csv(layers))
    write_atomically(plot, draw_sparsity(layers))
    return {"layers_csv": str(table), "plot": str(plot)}


def verify_masks(model: nn.Module, masks: Mapping[str, Tensor], *, after: str) -> None:
    """Prove that every weight a mask let go is exactly zero.

    Raises:
        RowError: some are not; the message names the first layer and the step.
    """
    weights = prunable_weights(model)
    for name, mask in masks.items():
        if alive := int((weights[name].detach()[~mask] != 0).sum()):
            raise RowError(
                f"the mask of layer {name!r} after {after}",
                expected="every weight that was pruned at zero",
                got=f"{alive} of {int((~mask).sum())} not zero",
                cure="report this: a step did not hold the mask",
            )
