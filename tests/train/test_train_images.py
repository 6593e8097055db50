"""Images on the device have the same floats as everywhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trtbench.data import normalise
from trtbench.errors import DataError
from trtbench.records import Preprocessing, Split
from trtbench.train.evaluate import place


@pytest.mark.parametrize("is_channels_last", [False, True])
@pytest.mark.parametrize(("channels", "size"), [(1, 5), (3, 5), (3, 16), (4, 20)])
def test_pixels_become_the_floats_of_normalise_bit_for_bit(channels: int, size: int, is_channels_last: bool) -> None:  # noqa: FBT001  a parameter of the test
    preprocessing = Preprocessing(
        mean=tuple(0.1 * (channel + 1) for channel in range(channels)), std=(0.3,) * channels, size=size
    )
    images = np.random.default_rng(1).integers(0, 256, (12, channels, size, size), np.uint8)
    split = Split(images=images, labels=np.arange(12, dtype=np.int64))

    placed = place(split, preprocessing, device=torch.device("cpu"), is_channels_last=is_channels_last)
    inputs = placed.normalised(placed.pixels)

    np.testing.assert_array_equal(inputs.numpy(), normalise(images, preprocessing))
    layout = torch.channels_last if is_channels_last else torch.contiguous_format
    assert inputs.is_contiguous(memory_format=layout)
    assert inputs.dtype == torch.float32
    assert len(placed) == 12


def test_images_that_do_not_fit_the_preprocessing_are_an_error() -> None:
    split = Split(images=np.zeros((2, 3, 8, 8), np.uint8), labels=np.zeros(2, np.int64))

    with pytest.raises(DataError, match=r"\(N, 3, 9, 9\)"):
        place(
            split,
            Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, size=9),
            device=torch.device("cpu"),
            is_channels_last=False,
        )
