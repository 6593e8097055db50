"""Frozen records of images and graphs that pass between rooms; they know nothing of where they come from or go to."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping  # noqa: TC003  pydantic resolves the fields of kept facts at run time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from trtbench.jsonable import sha256_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How uint8 pixels become the network's input: (pixel / 255 - mean) / std, per channel.

    One object serves training, calibration, scoring and timing; its fingerprint stands in every sidecar.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    layout: Literal["NCHW"] = "NCHW"
    dtype: Literal["float32"] = "float32"

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of all fields."""
        return sha256_of(dataclasses.asdict(self))

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of one image."""
        return (len(self.mean), self.size, self.size)


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images of one split: `images` uint8 (N, C, H, W), `labels` int64 (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def sha256(self) -> str:
        """The sha256 (hex) over shape, pixels and labels."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(self.images.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A labelled image set in three disjoint splits, with the one preprocessing that fits it."""

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    preprocessing: Preprocessing

    @property
    def num_classes(self) -> int:
        """How many classes the labels count."""
        return len(self.classes)

    @cached_property
    def sha256(self) -> str:
        """The sha256 (hex) of all three splits."""
        return sha256_of([self.train.sha256, self.validation.sha256, self.test.sha256, list(self.classes)])


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRecord:
    """What came of an export; `max_abs_error` is the largest absolute difference of a logit from PyTorch's.

    `operators` counts the nodes by operator, `weight_bytes` the initializers.
    """

    exporter: str
    opset: int
    operators: Mapping[str, int]
    max_abs_error: float
    weight_bytes: int
