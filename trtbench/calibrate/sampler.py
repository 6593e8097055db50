"""Which images calibrate: a class-balanced sample of labels, or one that is not, to see what balance is worth; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from trtbench.data.batches import balanced
from trtbench.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def sample_balanced(
    labels: NDArray[np.int64],
    *,
    num_classes: int,
    per_class: int | None = None,
    total: int | None = None,
    seed: int,
    exclude: Sequence[int] = (),
    allow_short: bool = False,
) -> NDArray[np.int64]:
    """Draw distinct images as `balanced` does, of every class as many as were asked for.

    Args:
        labels: int64 (N,), each in [0, num_classes).
        num_classes: how many classes there are, also those no label names.
        per_class: images of each class; give this or `total`.
        total: images in all; where it is no multiple of `num_classes`, some classes give one more.
        seed: the same seed gives the same sample.
        exclude: indices that are not drawn.
        allow_short: take a class that has too few images as it is, and go on with the others; of a `total` they give
            the rest, as far as they have it.

    Returns:
        int64 indices into `labels`, in the order of drawing.

    Raises:
        ConfigError: not exactly one of `per_class` and `total`, or below 1.
        DataError: a label is out of range, a class has too few images, or none has any.
    """
    count = _count(num_classes, per_class=per_class, total=total)
    _check_range(labels, num_classes)
    is_free = np.ones(len(labels), np.bool_)
    is_free[np.asarray(exclude, np.int64)] = False
    sizes = np.bincount(labels[is_free], minlength=num_classes)
    if allow_short:
        count = min(count, _available(sizes, per_class))
    else:
        _check_sizes(sizes, count, wanted=f"per_class = {per_class}" if total is None else f"total = {total}")
    return balanced(labels, count=count, seed=seed, exclude=exclude)


def _available(sizes: NDArray[np.int64], per_class: int | None) -> int:
    found = int((sizes if per_class is None else np.minimum(sizes, per_class)).sum())
    if not found:
        raise DataError("calibration images", expected="at least one", got="none", cure="add images to any class")
    return found


def _count(num_classes: int, *, per_class: int | None, total: int | None) -> int:
    given = [size for size in (per_class, total) if size is not None]
    if len(given) != 1 or given[0] < 1:
        raise ConfigError(
            "size of the calibration set",
            expected="exactly one of per_class and total, at least 1",
            got=f"per_class = {per_class}, total = {total}",
            cure="set calibration.per_class, for example to 50",
        )
    return given[0] if per_class is None else per_class * num_classes


def _check_range(labels: NDArray[np.int64], num_classes: int) -> None:
    strangers = labels[(labels < 0) | (labels >= num_classes)]
    if len(strangers):
        raise DataError(
            "labels",
            expected=f"0 to {num_classes - 1}, for {num_classes} classes",
            got=str(strangers[0]),
            cure="count the classes again or mend the labels",
        )


def _check_sizes(sizes: NDArray[np.int64], count: int, *, wanted: str) -> None:
    """Refuse classes below the whole rounds, or too few classes for the last, partial one."""
    rounds, rest = divmod(count, len(sizes))
    is_short = sizes < rounds
    if not is_short.any() and np.count_nonzero(sizes > rounds) < rest:
        is_short, rounds = sizes <= rounds, rounds + 1
    if is_short.any():
        small = int(np.flatnonzero(is_short)[0])
        need = wanted if wanted.startswith("per_class") else f"the {rounds} that {wanted} takes of each class"
        raise DataError(
            f"class {small} has {sizes[small]} images, fewer than {need}",
            cure="lower it, add images or allow short classes (allow_short)",
        )


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
