from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtbench.data import pixel_sha256


def random_images(count: int, *, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 6, 4), dtype=np.uint8)


@given(st.integers(0, 3), st.integers(0, 71), st.integers(1, 255))
def test_one_changed_pixel_changes_that_hash_alone(index: int, place: int, change: int) -> None:
    images = random_images(4)
    before = pixel_sha256(images)
    images[index].reshape(-1)[place] ^= change
    after = pixel_sha256(images)
    assert [old != new for old, new in zip(before, after, strict=True)] == [i == index for i in range(4)]


def test_the_shape_counts() -> None:
    images = random_images(2)
    assert not set(pixel_sha256(images)) & set(pixel_sha256(images.reshape(2, 3, 4, 6)))


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_memory_layout_does_not_count(order: str) -> None:
    images = random_images(3)
    strided = np.empty((6, 3, 6, 4), np.uint8)
    strided[::2] = images
    assert pixel_sha256(images) == pixel_sha256(images.copy(order="F" if order == "F" else "C"))
    assert pixel_sha256(images) == pixel_sha256(strided[::2])


def test_a_hash_is_the_same_on_every_machine() -> None:
    # sha256 of the text "(1, 1, 2)" and the bytes 0 and 255
    assert pixel_sha256(np.array([[[[0, 255]]]], np.uint8)) == (hashlib.sha256(b"(1, 1, 2)\x00\xff").hexdigest(),)
