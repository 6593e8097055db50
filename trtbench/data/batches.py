"""Where images are taken: split, class by class in equal numbers, and as the network's input, batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench.data.preprocess import normalise
from trtbench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from trtbench.records import Dataset, Preprocessing

    Indices = NDArray[np.int64]


def batches(
    images: NDArray[np.uint8],
    preprocessing: Preprocessing,
    *,
    size: int,
    chosen: Indices | Sequence[int] | None = None,
    pads: bool = False,
) -> Iterator[NDArray[np.float32]]:
    """Yield images normalised, float32 (at most `size`, C, H, W); only one batch is in memory at a time.

    Args:
        images: uint8 (N, C, H, W); may be mapped from a file.
        preprocessing: how pixels become the input.
        size: images a batch; the last may hold fewer.
        chosen: which ones, in this order; by default all.
        pads: fill the last batch up with its last image.
    """
    order = np.arange(len(images)) if chosen is None else np.asarray(chosen, np.int64)
    for start in range(0, len(order), size):
        wanted = order[start : start + size]
        if pads:
            wanted = np.pad(wanted, (0, size - len(wanted)), mode="edge")
        yield normalise(images[wanted], preprocessing)


def fed(batch: NDArray[Any], name: str = "input") -> dict[str, NDArray[Any]]:
    """Return what each input of a graph gets of a batch: the batch, or each tensor of its records by its name."""
    names = batch.dtype.names
    return {one: np.ascontiguousarray(batch[one]) for one in names} if names else {name: batch}


def balanced(labels: Indices, *, count: int, seed: int, exclude: Sequence[int] = ()) -> Indices:
    """Draw distinct images so that in every prefix the class counts differ by at most one.

    Every class has a random order of its own, and round r takes the r-th image of every class, in random order.
    Excluding an image only moves its class up by one: the others stay drawn. A class that has no more gives way to the
    others.

    Returns:
        Indices into `labels` in the order of drawing: `count` of them, or all that may be drawn.
    """
    is_free = np.ones(len(labels), np.bool_)
    is_free[np.asarray(exclude, np.int64)] = False
    own_order, between_classes = np.random.default_rng(seed).random((2, len(labels)))
    free = np.flatnonzero(is_free)
    by_class = free[np.lexsort((own_order[free], labels[free]))]
    sizes = np.bincount(labels[free])
    rank = np.arange(len(free)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return by_class[np.lexsort((between_classes[by_class], rank))[:count]].astype(np.int64)


def spread(labels: Indices, *, count: int) -> Indices:
    """Return a small sample that stands for a split, always the same: class-balanced, ascending."""
    return np.sort(balanced(labels, count=count, seed=0))


def training_sample(dataset: Dataset, *, count: int, seed: int) -> tuple[NDArray[np.float32], Indices]:
    """Return class-balanced training images as the network sees them, float32 (N, C, H, W), and their labels.

    Raises:
        DataError: there are none.
    """
    train = dataset.train
    if not len(train):
        raise DataError("training images", expected="at least one", got="none", cure="give --data with some")
    chosen = balanced(train.labels, count=count, seed=seed)
    return normalise(train.images[chosen], dataset.preprocessing), train.labels[chosen]


def stratified_split(
    labels: NDArray[np.int64], *, classes: Sequence[str], count: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split indices into (kept, held out), both ascending, each class by its share.

    The quotas of the classes follow the method of the largest remainder, and sum up to `count` exactly unless a class
    would be left without an image on one side: each side keeps at least one. A class of one image is not split.

    Args:
        labels: int64 (N,), each the index of a class.
        classes: their names.
        count: how many images to hold out.
        seed: the same seed gives the same split.

    Raises:
        DataError: no class has two images.
    """
    sizes = np.bincount(labels, minlength=len(classes))
    if sizes.max(initial=0) <= 1:
        raise DataError(
            "training images",
            expected="a class of two at least, one to train and one to validate",
            got=str(sizes.max(initial=0)),
            cure="add images, or a folder val/",
        )
    most = np.maximum(sizes - 1, 0)
    quotas = np.clip(_largest_remainder(sizes, count), np.minimum(most, 1), most)
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
