"""uint8 pixels to the network's float input, the mean and deviation this needs, and the identity of an image; no files.

Likeness of images lives in `duplicates.py`.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from trtbench.data.pixels import normalised
from trtbench.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trtbench.records import Preprocessing


_LEVELS = 256
_BLOCK = 1024  # images counted at a time: NumPy's bincount casts them to int64
_DECIMALS = 4  # of a measured mean or deviation, as the literature writes them


def normalise(images: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return (pixel / 255 - mean) / std per channel; of records of tensors these, as they are.

    Args:
        images: uint8 (N, C, H, W); left as it is.
        preprocessing: whose channels and size the images must have.

    Returns:
        float32 (N, C, H, W), C-contiguous, as `pixels.normalised` computes it.

    Raises:
        DataError: dtype or shape do not fit `preprocessing`.
    """
    if images.dtype.names:
        records: Any = images
        return cast("NDArray[np.float32]", records)
    if images.dtype != np.uint8 or images.shape[1:] != preprocessing.input_shape:
        raise DataError(
            "images to normalise",
            expected=f"uint8 (N, {', '.join(map(str, preprocessing.input_shape))})",
            got=f"{images.dtype} {images.shape}",
            cure="load them with the data.size of this preprocessing",
        )
    return normalised(images, preprocessing.mean, preprocessing.std)


def level_table(preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return what each of the 256 levels of each channel becomes: float32 (channels, 256)."""
    channels = len(preprocessing.mean)
    levels = np.arange(_LEVELS, dtype=np.uint8).repeat(channels).reshape(_LEVELS, channels, 1, 1)
    table = normalise(levels, replace(preprocessing, size=1))[:, :, 0, 0].T
    return np.ascontiguousarray(table)


def measure_mean_std(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the population deviation of each channel, in [0, 1], float64 rounded to 4 digits.

    Args:
        images: uint8 (N, C, H, W), the training images.

    Raises:
        DataError: a channel has the same value everywhere, which no deviation can divide.
    """
    levels = np.arange(_LEVELS) / (_LEVELS - 1)
    means, stds = [], []
    for channel in range(images.shape[1]):
        share = _histogram(images[:, channel]) / images[:, channel].size
        mean = float(share @ levels)
        means.append(round(mean, _DECIMALS))
        stds.append(round(float(np.sqrt(share @ (levels - mean) ** 2)), _DECIMALS))
    if min(stds) <= 0:
        raise DataError(
            f"channel {stds.index(min(stds))} of the training images",
            expected="pixels that differ",
            got="the same value everywhere",
            cure="check the images, or give data.mean and data.std",
        )
    return tuple(means), tuple(stds)


def _histogram(plane: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the 256 levels of one channel (N, H, W)."""
    counts = np.zeros(_LEVELS, np.int64)
    for start in range(0, len(plane), _BLOCK):
        counts += np.bincount(plane[start : start + _BLOCK].ravel(), minlength=_LEVELS)
    return counts


def pixel_sha256(images: NDArray[np.uint8]) -> tuple[str, ...]:
    """Return one sha256 (hex) an image, over its shape (C, H, W) and its pixels.

    Args:
        images: uint8 (N, C, H, W), in any memory layout.
    """
    kind = images.dtype.descr if images.dtype.names else tuple(int(side) for side in images.shape[1:])
    shape = hashlib.sha256(repr(kind).encode())

    def digest(image: NDArray[np.uint8]) -> str:
        state = shape.copy()
        state.update(image.tobytes())
        return state.hexdigest()

    return tuple(digest(image) for image in images)
