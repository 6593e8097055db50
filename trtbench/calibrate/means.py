"""Means by channel over a stream of batches, in constant memory. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray


def mean_by_channel(
    batches: Iterable[Mapping[str, NDArray[np.float32]]], *, names: Mapping[str, str]
) -> dict[str, NDArray[np.float64]]:
    """Return the mean of each channel over images and positions, float64 (channels,).

    Args:
        batches: tensors by name, (N, C, ...) with the channels second.
        names: the key of each result, and the tensor it is the mean of.
    """
    sums: dict[str, NDArray[np.float64]] = {}
    counts = dict.fromkeys(names, 0)
    for batch in batches:
        for key, tensor in names.items():
            values = batch[tensor].reshape(*batch[tensor].shape[:2], -1)
            sums[key] = sums.get(key, np.float64(0)) + values.sum(axis=(0, 2), dtype=np.float64)
            counts[key] += values.shape[0] * values.shape[2]
    return {key: total / counts[key] for key, total in sums.items()}
