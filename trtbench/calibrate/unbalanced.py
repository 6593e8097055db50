"""Calibration samples that are not balanced by class, to see what balance is worth. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from trtbench.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Sampling = Literal["uniform", "long-tailed", "class-missing"]
SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)

# The largest class of a long tail to its smallest: the usual CIFAR-LT (Cui et al. 2019, "Class-Balanced Loss", 5.1).
IMBALANCE = 100.0


def sample_unbalanced(
    labels: NDArray[np.int64],
    *,
    sampling: Sampling,
    num_classes: int,
    total: int,
    seed: int,
    exclude: Sequence[int] = (),
) -> NDArray[np.int64]:
    """Draw distinct images with the class shares of a sampling; every prefix is such a sample too.

    `uniform` gives each image the same chance; in `long-tailed` the chances of the classes, in a random order, fall
    geometrically from IMBALANCE to 1; `class-missing` leaves out one class, by the seed. An image has the share of its
    class divided by the images of that class; the draw without replacement is that of Efraimidis & Spirakis (2006,
    "Weighted random sampling with a reservoir"): the largest u^(1/w).

    Returns:
        int64 (total,) indices into `labels`, in the order of drawing.

    Raises:
        ConfigError: the sampling is unknown.
        DataError: there are fewer images than `total`.
    """
    random = np.random.default_rng(seed)
    shares = _class_shares(sampling, num_classes=num_classes, labels=labels, random=random)
    is_free = np.ones(len(labels), np.bool_)
    is_free[np.asarray(exclude, np.int64)] = False
    weights = np.where(is_free, (shares / np.maximum(np.bincount(labels, minlength=num_classes), 1))[labels], 0.0)
    drawable = np.flatnonzero(weights)
    if len(drawable) < total:
        raise DataError(
            f"{sampling} sample", expected=f"{total} images", got=f"{len(drawable)}", cure="lower --per-class"
        )
    keys = np.log(random.random(len(labels))[drawable]) / weights[drawable]
    return drawable[np.argsort(-keys, kind="stable")[:total]].astype(np.int64)


def _class_shares(
    sampling: str, *, num_classes: int, labels: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.float64]:
    """Return the share of each class in the chance of being drawn."""
    order = random.permutation(num_classes)
    if sampling == "uniform":
        return np.bincount(labels, minlength=num_classes).astype(np.float64)
    if sampling == "long-tailed":
        return np.asarray(IMBALANCE ** (-order / max(1, num_classes - 1)), np.float64)
    if sampling == "class-missing":
        return np.where(order == 0, 0.0, np.bincount(labels, minlength=num_classes)).astype(np.float64)
    raise ConfigError("sampling", expected=" | ".join(SAMPLINGS), got=repr(sampling), cure="choose one of these")
