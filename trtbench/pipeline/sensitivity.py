"""`trtbench sensitivity` as a plain function: which layers mind losing outputs, as CSV and plot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbench.jsonable import to_jsonable
from trtbench.store import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from trtbench.suite import DataConfig


def measure_sensitivity(
    model: str, checkpoint: Path | None, data: DataConfig, *, ratios: Sequence[float], output: Path
) -> dict[str, Any]:
    """Score a network with each layer pruned alone, on the validation split; write a CSV and a plot.

    Args:
        model: as in `build_model`.
        checkpoint: its weights.
        data: the images.
        ratios: shares of each layer's outputs.
        output: the CSV; the plot goes beside it.

    Returns:
        `layers` (layer, ratio, correct, total), `output`, `plot` and the `notes` of loading the checkpoint.
    """
    from trtbench.compress.sensitivity import draw_sensitivities, layer_sensitivities, sensitivity_csv
    from trtbench.data import load_dataset
    from trtbench.models import load_model

    dataset = load_dataset(data)
    loaded = load_model(model, num_classes=dataset.num_classes, checkpoint=checkpoint)
    found = layer_sensitivities(loaded.model, dataset, ratios=ratios)
    plot = output.with_suffix(".png")
    write_atomically(output, sensitivity_csv(found))
    write_atomically(plot, draw_sensitivities(found))
    return {"layers": to_jsonable(found), "output": str(output), "plot": str(plot), "notes": list(loaded.notes)}
