"""The stratified split of labelled images in two, by indices; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trtbench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SMALLEST_CLASS = 2  # one image on either side


def stratified_split(
    labels: NDArray[np.int64], *, classes: Sequence[str], count: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split indices into (kept, held out), both ascending, each class by its share.

    The quotas of the classes follow the method of the largest remainder, and sum up to `count` exactly unless a class
    would be left without an image on one side: each side keeps at least one.

    Args:
        labels: int64 (N,), each the index of a class.
        classes: their names, for the message.
        count: how many images to hold out.
        seed: the same seed gives the same split.

    Raises:
        DataError: a class has fewer than two images.
    """
    sizes = np.bincount(labels, minlength=len(classes))
    if sizes.min() < _SMALLEST_CLASS:
        small = int(np.argmin(sizes))
        raise DataError(
            f"class {small} ({classes[small]!r})",
            expected=f"at least {_SMALLEST_CLASS} training images, one to train and one to validate",
            got=str(sizes[small]),
            cure="add images or remove the class",
        )
    quotas = np.clip(_largest_remainder(sizes, count), 1, sizes - 1)
    order = np.random.default_rng(seed).permutation(len(labels))
    chosen = [order[labels[order] == label][:quota] for label, quota in enumerate(quotas)]
    is_held = np.zeros(len(labels), np.bool_)
    is_held[np.concatenate(chosen)] = True
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def _largest_remainder(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Share `count` out in proportion to `sizes` (Hamilton's method); ties go to the first classes."""
    quotas, remainders = np.divmod(sizes * count, sizes.sum())
    missing = count - int(quotas.sum())
    quotas[np.argsort(-remainders, kind="stable")[:missing]] += 1
    return quotas
