"""The identity of an image: a hash over its shape and pixels; likeness lives in `duplicates.py`."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pixel_sha256(images: NDArray[np.uint8]) -> tuple[str, ...]:
    """Return one sha256 (hex) an image, over its shape (C, H, W) and its pixels.

    Args:
        images: uint8 (N, C, H, W), in any memory layout.
    """
    shape = hashlib.sha256(repr(tuple(int(side) for side in images.shape[1:])).encode())

    def digest(image: NDArray[np.uint8]) -> str:
        state = shape.copy()
        state.update(np.ascontiguousarray(image).data)
        return state.hexdigest()

    return tuple(digest(image) for image in images)
