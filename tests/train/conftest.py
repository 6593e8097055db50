"""What every test of training stands on: real digits of 8x8 pixels and a network that learns them in a second."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from trtbench.data import load_dataset
from trtbench.records import Split
from trtbench.suite import DataConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbench.records import Dataset


@pytest.fixture(autouse=True)
def _short(in_short: None) -> None:
    """Curves are painted in the tests of the logbook alone."""


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """Some of the digits bundled with scikit-learn, at their own 8x8 pixels."""
    whole = load_dataset(DataConfig(source="digits", size=8))
    train = Split(images=whole.train.images[:768], labels=whole.train.labels[:768])
    return dataclasses.replace(whole, train=train)


class Network(nn.Module):
    """Two convolutions with BatchNorm, dropout, a classifier."""

    def __init__(self, *, width: int, dropout: float) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(2),
        )
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(8 * width, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.dropout(self.features(images).flatten(1)))
        return logits


@pytest.fixture
def build() -> Callable[..., nn.Module]:
    """Build the network with weights that depend on the seed alone."""

    def build_network(*, seed: int = 0, width: int = 8, dropout: float = 0.1) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Network(width=width, dropout=dropout)

    return build_network
