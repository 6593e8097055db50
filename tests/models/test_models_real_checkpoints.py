"""Other people's checkpoints, on real images: exact counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from trtbench.data import load_dataset, normalise
from trtbench.errors import CheckpointError
from trtbench.models import conv_widths, load_model
from trtbench.records import Preprocessing
from trtbench.suite import DataConfig

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from trtbench.records import Split

pytestmark = pytest.mark.shared

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
YI = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
CASES = [
    ("akamaster-resnet20-12fca82f.th", "resnet20_a", (IMAGENET, 932)),
    pytest.param("akamaster-resnet56-4bfd9763.th", "resnet56_a", (IMAGENET, 943), marks=pytest.mark.slow),
    ("dinalon-resnet18-pruned70.pth", "resnet18", (CIFAR, 848)),
    # of the same network as the one below, and matched alike
    pytest.param("dinalon-resnet20-finetuned.pth", "resnet20", (CIFAR, 939), marks=pytest.mark.slow),
    ("yi-resnet20-pretrained.pt", "resnet20", (YI, 938)),
]


@pytest.fixture(scope="module")
def test_split(cifar10_lossless: Path) -> Split:
    return load_dataset(DataConfig(source=f"folder:{cifar10_lossless}", mean=CIFAR[0], std=CIFAR[1])).test


def correct(model: nn.Module, split: Split, mean: tuple[float, ...], std: tuple[float, ...]) -> int:
    images = normalise(split.images, Preprocessing(mean=mean, std=std, size=32))
    with torch.no_grad():
        logits = [model(batch).numpy() for batch in torch.split(torch.from_numpy(images), 256)]
    return int((np.concatenate(logits).argmax(1) == split.labels).sum())


@pytest.mark.parametrize(("file", "name", "expected"), CASES)
def test_a_real_checkpoint_scores_exactly_what_its_author_would_get(
    weights: Path, test_split: Split, file: str, name: str, expected: tuple[Normalisation, int]
) -> None:
    assert len(test_split) == 1017
    loaded = load_model(name, num_classes=10, checkpoint=weights / file)
    normalisation, count = expected
    assert correct(loaded.model, test_split, *normalisation) == count


def test_what_was_done_to_the_pruned_checkpoint_is_said(weights: Path) -> None:
    loaded = load_model("resnet18", num_classes=10, checkpoint=weights / "dinalon-resnet18-pruned70.pth")
    assert sorted(set(conv_widths(loaded.model).values())) == [19, 38, 76, 153]
    assert "matched by order and shape" in loaded.notes[0]
    assert loaded.notes[1].startswith("pruned: 20 layers are narrower than resnet18's, as conv1 64 -> 19")


def test_the_classifier_under_another_name_is_said(weights: Path) -> None:
    loaded = load_model("resnet20_a", num_classes=10, checkpoint=weights / "akamaster-resnet20-12fca82f.th")
    assert loaded.notes == (
        "took 'state_dict' of the checkpoint, beside best_prec1",
        "matched by name, with aliases: fc <- module.linear",
    )


def test_the_wrong_shortcut_is_answered_with_the_right_one(weights: Path) -> None:
    with pytest.raises(CheckpointError, match="it has no shortcut weights: try resnet20_a"):
        load_model("resnet20", num_classes=10, checkpoint=weights / "akamaster-resnet20-12fca82f.th")
