from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from trtbench.data import load_dataset, named, near_duplicates, pixel_sha256
from trtbench.data.named import DIGITS_MEAN, DIGITS_STD
from trtbench.data.preprocess import measure_mean_std
from trtbench.errors import ConfigError
from trtbench.suite import DataConfig


def test_the_split_is_717_180_900_and_stratified() -> None:
    dataset = load_dataset(DataConfig())
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [717, 180, 900]
    overall = np.bincount(load_digits().target) / 1797
    for split in (dataset.train, dataset.validation, dataset.test):
        assert np.abs(np.bincount(split.labels) - overall * len(split)).max() < 2


def test_every_digit_of_scikit_learn_is_in_exactly_one_split() -> None:
    dataset = load_dataset(DataConfig(size=8))
    images = np.concatenate([split.images[:, 0] for split in (dataset.train, dataset.validation, dataset.test)])
    assert sorted(pixel_sha256(images[:, None])) == sorted(
        pixel_sha256(np.rint(load_digits().images[:, None] * 255 / 16).astype(np.uint8))
    )


def test_images_are_three_equal_channels_that_span_all_levels() -> None:
    images = load_dataset(DataConfig()).train.images
    assert images.shape[1:] == (3, 32, 32)
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    np.testing.assert_array_equal(images[:, 0], images[:, 1])
    np.testing.assert_array_equal(images[:, 0], images[:, 2])


def test_every_digit_is_enlarged_as_pillow_enlarges_it_alone() -> None:
    digits, _ = named._bundled()
    grey = np.rint(digits * 255 / 16).astype(np.uint8)
    alone = [Image.fromarray(digit).resize((13, 9), Image.Resampling.BILINEAR) for digit in grey]

    np.testing.assert_array_equal(named._enlarged(digits, (9, 13))[:, 0], np.stack([np.asarray(one) for one in alone]))


def test_labels_follow_their_images_into_the_split() -> None:
    bundled = load_digits()
    label_of = dict(
        zip(pixel_sha256(np.rint(bundled.images[:, None] * 255 / 16).astype(np.uint8)), bundled.target, strict=True)
    )
    dataset = load_dataset(DataConfig(size=8))
    for split in (dataset.train, dataset.validation, dataset.test):
        assert [label_of[key] for key in pixel_sha256(split.images[:, :1])] == split.labels.tolist()


def test_neither_seed_nor_validation_share_moves_the_digits() -> None:
    assert load_dataset(DataConfig()).sha256 == load_dataset(DataConfig(seed=7, validation=0.5)).sha256


def test_mean_and_deviation_are_those_of_the_training_split() -> None:
    dataset = load_dataset(DataConfig())
    assert (dataset.preprocessing.mean, dataset.preprocessing.std) == measure_mean_std(dataset.train.images)
    assert (dataset.preprocessing.mean, dataset.preprocessing.std) == (DIGITS_MEAN, DIGITS_STD)


def test_no_digit_stands_in_two_splits_exactly_or_nearly() -> None:
    dataset = load_dataset(DataConfig())
    train, others = dataset.train.images, np.concatenate([dataset.validation.images, dataset.test.images])
    assert not set(pixel_sha256(train)) & set(pixel_sha256(others))
    assert near_duplicates(train, others) == []


def test_a_size_below_the_digits_own_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.size: expected at least 8 for digits, got 7; 32 is the default"):
        load_dataset(DataConfig(size=7))


def test_the_digits_load_without_torch() -> None:
    code = (
        "import sys; from trtbench.data import load_dataset; from trtbench.suite import DataConfig; "
        "load_dataset(DataConfig()); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
