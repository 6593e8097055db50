"""`trtbench quantize` as a plain function: round a network's weights, save them packed, score what was saved."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.bench.accuracy import score
from trtbench.jsonable import to_jsonable
from trtbench.make.networks import follow_training
from trtbench.progress import Listener, nobody

if TYPE_CHECKING:
    from trtbench.records import Dataset
    from trtbench.suite import DataConfig, FixedPointVariant, TrainConfig


def quantize_model(
    model: str,
    checkpoint: Path | None,
    data: DataConfig,
    config: FixedPointVariant,
    *,
    output: Path,
    budget: TrainConfig | None = None,
    tell: Listener = nobody,
) -> dict[str, Any]:
    """Round a network's weights and write them as a packed file, which every other command takes as a checkpoint.

    Args:
        model: as in `build_model`.
        checkpoint: its weights.
        data: training images to rebuild on and to learn from, test images to score on.
        config: bits and scheme.
        output: the file.
        budget: of the training where `config.fine_tune` is set.
        tell: told of the epochs.

    Returns:
        `correct` and `total` on the test split of the network read back from the file, `bytes` of the file,
        `bits_per_weight`, `float_layers`, `seconds` of the rounding and the training, `top1`, `output` and `notes`.
    """
    from trtbench.compress.fixed_point import left_in_float, quantized
    from trtbench.compress.method import Context
    from trtbench.data import load_dataset
    from trtbench.models import load_model
    from trtbench.models.container import save_packed

    dataset = load_dataset(data)
    classes = dataset.num_classes
    loaded = load_model(model, num_classes=classes, checkpoint=checkpoint)
    start = time.monotonic()
    with TemporaryDirectory() as folder:
        tune = Tuner(dataset, budget, folder=Path(folder), item=model, tell=tell)
        made = quantized(loaded.model, config, Context(dataset=dataset, budget=tune.budget, tune=tune))
    seconds = time.monotonic() - start
    facts = {"name": model, "num_classes": classes, "preprocessing": dataset.preprocessing.fingerprint}
    size = save_packed(output, made.packed(facts=facts))
    record = made.record(config)
    return {
        **score_file(model, output, dataset),
        "bytes": size,
        **to_jsonable(record),
        "seconds": seconds,
        "output": str(output),
        "notes": [*loaded.notes, *left_in_float(record)],
    }


class Tuner:
    """Trains a network by one budget; what a method is handed as `tune`."""

    def __init__(
        self, dataset: Dataset, budget: TrainConfig | None, *, folder: Path, item: str, tell: Listener
    ) -> None:
        from trtbench.suite import TrainConfig

        self.budget = budget or TrainConfig(epochs=0)
        self._dataset, self._folder, self._item, self._tell = dataset, folder, item, tell

    def __call__(self, network: Any, *, hooks: Any = None, config: TrainConfig | None = None) -> Any:
        """Return the FitRecord; the network is left on the CPU."""
        import torch

        from trtbench.train import fit
        from trtbench.train.hooks import NO_HOOKS

        budget = config or self.budget

        device = "cuda:0" if torch.cuda.is_available() else "cpu"
        record = fit(
            network,
            self._dataset,
            budget,
            folder=self._folder,
            hooks=hooks or NO_HOOKS,
            device=device,
            on_epoch=follow_training(self._tell, item=self._item, epochs=budget.epochs),
        )
        network.to("cpu")
        return record


def score_file(model: str, checkpoint: Path, dataset: Dataset) -> dict[str, Any]:
    """Load a checkpoint, as any other command does, and count its right answers on the test split."""
    from trtbench.models import load_model
    from trtbench.train import predict

    loaded = load_model(model, num_classes=dataset.num_classes, checkpoint=checkpoint)
    logits = predict(loaded.model, dataset.test.images, dataset.preprocessing)
    found = score(np.asarray(logits), dataset.test.labels)
    return {"correct": found.correct, "total": found.total, "top1": found.top1}
