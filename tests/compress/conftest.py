"""What every test of compression stands on."""

from __future__ import annotations

import numpy as np
import pytest

from trtbench.records import Dataset, Preprocessing, Split


@pytest.fixture(scope="session")
def tiny_dataset() -> Dataset:
    """Four classes of 8x8 noise around a colour and a corner of their own: 60 / 40 / 40 images."""
    random = np.random.default_rng(0)

    def split(count: int) -> Split:
        labels = np.arange(count, dtype=np.int64) % 4
        images = random.integers(0, 120, (count, 3, 8, 8), dtype=np.uint8)
        for index, label in enumerate(labels):
            images[index, label % 3, : 4 + label, :4] += 100
        return Split(images=images, labels=labels)

    return Dataset(
        name="noise",
        classes=("a", "b", "c", "d"),
        train=split(60),
        validation=split(40),
        test=split(40),
        preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), size=8),
    )
