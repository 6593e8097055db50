from __future__ import annotations

import pytest

from trtbench.data import load_dataset
from trtbench.errors import ConfigError
from trtbench.suite import DataConfig


@pytest.mark.parametrize("source", ["mnist", "folder:", "folder", "digits:here", "", "cifar"])
def test_an_unknown_source_is_refused_with_the_known_ones(source: str) -> None:
    with pytest.raises(
        ConfigError, match=r"data\.source: expected digits, cifar10.*folder:PATH, got '.*; mend the name"
    ):
        load_dataset(DataConfig(source=source))


def test_the_suites_own_mean_and_deviation_win() -> None:
    preprocessing = load_dataset(DataConfig(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))).preprocessing
    assert (preprocessing.mean, preprocessing.std, preprocessing.size) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 32)


def test_one_mean_for_three_channels_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.mean and data\.std: expected 3 numbers each, got 1; give one per"):
        load_dataset(DataConfig(mean=(0.1,), std=(0.4,)))


def test_holding_out_every_training_image_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.validation: expected a share below 1, got 1\.0; leave images"):
        load_dataset(DataConfig(validation=1.0))
