"""`trtbench sparsify` as a plain function: set weights to zero, save the network, count and score what was saved."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from trtbench.progress import Listener, nobody

if TYPE_CHECKING:
    from trtbench.suite import DataConfig, NmVariant, TrainConfig, WeightsVariant


def sparsify_model(
    model: str,
    checkpoint: Path | None,
    data: DataConfig,
    variant: WeightsVariant | NmVariant,
    *,
    output: Path,
    budget: TrainConfig | None = None,
    tell: Listener = nobody,
) -> dict[str, Any]:
    """Prune a network's weights and write it, with a table and a plot of its layers beside it.

    Args:
        model: as in `build_model`.
        checkpoint: its weights.
        data: training images to look at and to learn from, test images to score on.
        variant: the method, with its target.
        output: the checkpoint to write, .safetensors.
        budget: of the training where `variant.fine_tune` is set.
        tell: told of the epochs.

    Returns:
        `correct` and `total` on the test split, `sparsity`, `zeros` and `weights`, all of the network as read back from
        the file; `seconds` of the pruning and the training, `layers_csv`, `plot`, `output`, `record` and `notes`.

    Raises:
        RowError: a weight that was pruned is not zero at the end.
    """
    from trtbench.compress.method import Context, compress
    from trtbench.compress.sparsity import layer_sparsities, write_sparsity
    from trtbench.data import load_dataset
    from trtbench.models import load_model, save_model
    from trtbench.pipeline.quantize import Tuner, score_file

    dataset = load_dataset(data)
    loaded = load_model(model, num_classes=dataset.num_classes, checkpoint=checkpoint)
    settled = variant.settled(builds_int8=False)
    start = time.monotonic()
    with TemporaryDirectory() as folder:
        tune = Tuner(dataset, budget, folder=Path(folder), item=model, tell=tell)
        made = compress(loaded.model, settled, Context(dataset=dataset, budget=tune.budget, tune=tune))
        if settled.fine_tune and not made.is_tuned:
            tune(made.model, hooks=made.hooks)
    seconds = time.monotonic() - start
    facts = {"preprocessing": dataset.preprocessing.fingerprint}
    save_model(output, made.model, name=model, num_classes=dataset.num_classes, metadata=facts)
    saved = load_model(model, num_classes=dataset.num_classes, checkpoint=output).model
    if made.check is not None:
        made.check(saved, after="the saved file was read again")
    layers = layer_sparsities(saved)
    weights, zeros = sum(one.weights for one in layers), sum(one.zeros for one in layers)
    return {
        **score_file(model, output, dataset),
        "sparsity": zeros / weights,
        "zeros": zeros,
        "weights": weights,
        "seconds": seconds,
        "output": str(output),
        **write_sparsity(saved, output),
        "record": dict(made.facts),
        "notes": [*loaded.notes, *made.notes],
    }
