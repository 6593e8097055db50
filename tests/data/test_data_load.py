from __future__ import annotations

from trtbench.data import load_dataset
from trtbench.suite import DataConfig


def test_the_suites_own_mean_and_deviation_win() -> None:
    preprocessing = load_dataset(DataConfig(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))).preprocessing
    assert (preprocessing.mean, preprocessing.std, preprocessing.size) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 32)
