"""The embedded default's budget on its real images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from trtbench.data import load_dataset
from trtbench.models import build_model
from trtbench.suite import DataConfig, load_suite
from trtbench.train import fit, predict

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_resnet20_reads_digits_after_the_quickstart_budget(tmp_path: Path) -> None:
    dataset = load_dataset(DataConfig(source="digits"))
    budget = load_suite("quickstart").model.train
    assert budget is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model("resnet20", num_classes=10)

    record = fit(model, dataset, budget, folder=tmp_path)

    logits = predict(model, dataset.test.images, dataset.preprocessing)
    assert record.val_correct > 0.95 * record.val_total
    assert (logits.argmax(1) == dataset.test.labels).mean() > 0.95
