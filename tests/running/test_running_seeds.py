"""The spread over seeds against SciPy's interval, and on real trainings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy import stats

from trtbench.errors import ConfigError
from trtbench.models import build_model
from trtbench.studies.seeds import spread_of, train_seeds
from trtbench.suite import AugmentConfig, DataConfig, TrainConfig, adhoc_suite

if TYPE_CHECKING:
    from pathlib import Path


def test_the_spread_is_that_of_students_t() -> None:
    shares = [0.9, 0.91, 0.93, 0.89, 0.92]

    found = spread_of(shares)

    low, high = stats.t.interval(0.95, 4, loc=np.mean(shares), scale=stats.sem(shares))
    assert found.ci95 == pytest.approx((low, high))
    assert (found.mean, found.deviation) == pytest.approx((0.91, np.std(shares, ddof=1)))


def test_each_seed_is_another_training_and_one_alone_has_no_spread(images: Path, tmp_path: Path) -> None:
    data = DataConfig(source=f"folder:{images}", size=16, validation=0.25)
    config = TrainConfig(epochs=1, batch_size=9, lr=0.05, seed=3, augment=AugmentConfig(crop_padding=0))

    suite = adhoc_suite(model={"name": "tiny_nets:resnet8", "train": config.model_dump()}, data=data)
    found = train_seeds(suite, seeds=2, output=tmp_path)

    assert [run.seed for run in found.runs] == [3, 4]
    files = [(tmp_path / f"seed-{seed}" / "model.safetensors").read_bytes() for seed in (3, 4)]
    assert files[0] != files[1]
    assert found.test.mean == pytest.approx(np.mean([run.correct / run.total for run in found.runs]))
    assert "2 seeds" in found.sentence
    with pytest.raises(ConfigError, match="at least 2"):
        train_seeds(suite, seeds=1, output=tmp_path)


def test_a_variants_own_budget_gets_the_seed_too(images: Path, tmp_path: Path) -> None:
    budget = TrainConfig(epochs=1, batch_size=9, lr=0.05, seed=5, augment=AugmentConfig(crop_padding=0))
    classes, checkpoint = len(list((images / "train").iterdir())), tmp_path / "start.pt"
    torch.save(build_model("tiny_nets:resnet8", num_classes=classes).state_dict(), checkpoint)
    suite = adhoc_suite(
        model={"name": "tiny_nets:resnet8", "checkpoint": checkpoint},
        data=DataConfig(source=f"folder:{images}", size=16, validation=0.25),
        variants={"kind": "weights", "sparsity": 0.5, "fine_tune": True, "budget": budget.model_dump()},
    )
    found = train_seeds(suite, seeds=2, output=tmp_path)

    assert [run.seed for run in found.runs] == [5, 6]
    files = [(tmp_path / f"seed-{seed}" / "model.safetensors").read_bytes() for seed in (5, 6)]
    assert files[0] != files[1]
