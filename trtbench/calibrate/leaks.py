"""Does a calibration image stand in the validation or test set, by pixels or as the same photo?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from trtbench.data import near_duplicates, pixel_sha256
from trtbench.errors import DataError, LeakError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trtbench.records import Dataset

SplitName = Literal["validation", "test"]
_NAMED = 5  # pairs a message names


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Training image `index` is image `other` of `split`: its very pixels (exact), or the same photo (near)."""

    index: int
    split: SplitName
    other: int
    kind: Literal["exact", "near"]

    def __str__(self) -> str:
        relation = "has the pixels of" if self.kind == "exact" else "shows the same photo as"
        return f"train[{self.index}] {relation} {self.split}[{self.other}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disjointness:
    """What was compared, image by image and both by pixel hash and by likeness, and found to be different."""

    images: int
    validation: int
    test: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """How many images of a set stand in another by their very pixels, and how many besides as the same photo."""

    exact: int
    near: int

    @property
    def images(self) -> int:
        """How many stand there at all."""
        return self.exact + self.near


def repeats(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> Repeats:
    """Count the images that stand among others too."""
    exact = {i for i, _ in _equal_pairs(images, others)}
    near = {i for i, _ in near_duplicates(images, others)} - exact
    return Repeats(exact=len(exact), near=len(near))


def find_leaks(dataset: Dataset, candidates: Sequence[int] | NDArray[np.int64]) -> tuple[Leak, ...]:
    """Return every pair of a candidate and a validation or test image that are the same, sorted by candidate.

    Args:
        dataset: its training, validation and test images are compared.
        candidates: indices into the training split.

    Raises:
        DataError: a candidate is no index of the training split.
    """
    indices = _checked(candidates, len(dataset.train))
    images = dataset.train.images[indices]
    leaks = _leaks_into("validation", indices, images, dataset.validation.images)
    leaks += _leaks_into("test", indices, images, dataset.test.images)
    return tuple(sorted(leaks, key=lambda leak: (leak.index, leak.split, leak.other)))


def leaking_indices(dataset: Dataset, candidates: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of the candidates, ascending, that `find_leaks` finds in validation or test."""
    return np.array(sorted({leak.index for leak in find_leaks(dataset, candidates)}), np.int64)


def check_leak(dataset: Dataset, indices: Sequence[int] | NDArray[np.int64]) -> Disjointness:
    """Prove that no calibration image stands in validation or test.

    Args:
        dataset: its training, validation and test images are compared.
        indices: the calibration images, as indices into the training split.

    Returns:
        How many images were compared.

    Raises:
        LeakError: some do; the message names the first pairs.
        DataError: an index is none of the training split.
    """
    if leaks := find_leaks(dataset, indices):
        more = f" and {len(leaks) - _NAMED} more" if len(leaks) > _NAMED else ""
        raise LeakError(
            f"calibration images of {dataset.name}",
            expected="none that stands in validation or test",
            got="; ".join(map(str, leaks[:_NAMED])) + more,
            cure="sample them again with `trtbench calibrate`, which passes over such images",
        )
    return Disjointness(images=len(indices), validation=len(dataset.validation), test=len(dataset.test))


def _leaks_into(
    split: SplitName, indices: NDArray[np.int64], images: NDArray[np.uint8], others: NDArray[np.uint8]
) -> list[Leak]:
    exact = _equal_pairs(images, others)
    pairs: dict[tuple[int, int], Literal["exact", "near"]] = dict.fromkeys(near_duplicates(images, others), "near")
    pairs |= dict.fromkeys(exact, "exact")
    return [Leak(index=int(indices[i]), split=split, other=j, kind=kind) for (i, j), kind in pairs.items()]


def _equal_pairs(images: NDArray[np.uint8], others: NDArray[np.uint8]) -> list[tuple[int, int]]:
    places: dict[str, list[int]] = {}
    for j, sha256 in enumerate(pixel_sha256(others)):
        places.setdefault(sha256, []).append(j)
    return [(i, j) for i, sha256 in enumerate(pixel_sha256(images)) for j in places.get(sha256, [])]


def _checked(candidates: Sequence[int] | NDArray[np.int64], length: int) -> NDArray[np.int64]:
    indices = np.asarray(candidates, np.int64)
    if len(strangers := indices[(indices < 0) | (indices >= length)]):
        raise DataError(
            "indices of calibration images",
            expected=f"0 to {length - 1}, of the training split",
            got=str(strangers[0]),
            cure="use the data they were made for, or sample again",
        )
    return indices
