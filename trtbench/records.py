"""Frozen records of images and graphs that pass between rooms; they know nothing of where they come from or go to."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping  # noqa: TC003  pydantic resolves the fields of kept facts at run time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from trtbench.jsonable import sha256_of, to_jsonable

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray


PACKED_VERSION = 1  # of the file that packs a network, `models.container`; here it is known without torch
UNKEYED: Mapping[str, bool] = {"keyed": False}  # of a field that decides nothing of what is made from its record
MAX_SIDE = 2048  # pixels: the largest classifiers of timm see 1,024
LEAST_STD = 1e-6  # a pixel over less is beyond what a network was ever shown
# What a network takes as it is; other floats become float32
TENSOR_TYPES = ("float32", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool")
LEAST_CROP = 0.01  # of a side; networks are scored on 0.8 to 1
_CHANNELS, _FAR = 3, 1000
Size = int | tuple[int, int]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """How a picture becomes uint8 pixels of the network's size; `data.pixels` does it, with Pillow.

    `size` is the side of a square, or height and width. `crop_ratio` is the share of the resampled picture that a crop
    from its middle keeps; None resamples straight to the size, whatever the proportions.
    """

    size: Size
    crop_ratio: float | None = None
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    exif_rotation: bool = False

    @property
    def height_width(self) -> tuple[int, int]:
        """Height and width of what comes of it."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @property
    def framing(self) -> dict[str, Any]:
        """The arguments of `data.pixels.framed`."""
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(Framing)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing(Framing):
    """How a picture becomes the network's input: framed, then (pixel / 255 - mean) / std, per channel.

    One object serves training, calibration, scoring and timing; its fingerprint stands in every sidecar.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: Literal["NCHW"] = "NCHW"
    dtype: Literal["float32"] = "float32"

    @staticmethod
    def read(said: Mapping[str, Any]) -> Preprocessing:
        """Return it from JSON values, which come from anyone.

        Raises:
            TypeError: these are none.
            ValueError: likewise: other than 1 to 3 channels, or numbers that no picture is framed or divided by.
        """
        if "tensors" in said:
            tensors = AsTheyAre.of(Tensor.read(one) for one in said["tensors"])
            if to_jsonable(tensors) != to_jsonable(dict(said)):
                raise ValueError(f"no tensors: {said}")
            return tensors
        fields: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in said.items()}
        found = Preprocessing(**fields)
        mean, std, ratio = found.mean, found.std, found.crop_ratio
        sides = found.size if isinstance(found.size, tuple) else (found.size, found.size)
        numbers = (*mean, *std, 1.0 if ratio is None else ratio)
        flags = (found.antialias, found.exif_rotation)
        if (
            not all(type(one) in {int, float} for one in numbers)
            or not all(type(one) is bool for one in flags)
            or not (len(sides) == 2 and all(type(side) is int and 0 < side <= MAX_SIDE for side in sides))  # noqa: PLR2004  height, width
            or not (0 < len(mean) == len(std) <= _CHANNELS and min(std) >= LEAST_STD and max(map(abs, mean)) <= _FAR)
            or not (ratio is None or LEAST_CROP <= ratio <= 1)
            or found.interpolation not in get_args(Interpolation)
            or (found.layout, found.dtype) != ("NCHW", "float32")
        ):
            raise ValueError(f"no preprocessing: {found}")
        return found

    @property
    def fingerprint(self) -> str:
        """The sha256 (hex) of all fields but those of a framing that are as usual."""
        usual = {one.name: one.default for one in dataclasses.fields(Framing)}
        said = dataclasses.asdict(self).items()
        return sha256_of({name: value for name, value in said if name not in usual or value != usual[name]})

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width of one image."""
        return (len(self.mean), *self.height_width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input of a network that takes no picture: its name, NumPy's name of its type, and its shape of one sample."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @staticmethod
    def read(said: Mapping[str, Any]) -> Tensor:
        """Return it from JSON values, which come from anyone.

        Raises:
            TypeError: these are none.
            ValueError: likewise.
        """
        found = Tensor(name=said["name"], dtype=said["dtype"], shape=tuple(said["shape"]))
        is_shape = all(type(side) is int and side > 0 for side in found.shape)
        if type(found.name) is not str or not found.name or found.dtype not in TENSOR_TYPES or not is_shape:
            raise ValueError(f"no tensor: {found}")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class AsTheyAre(Preprocessing):
    """No preprocessing: samples are records of these tensors, and the network's inputs are the tensors as they are."""

    tensors: tuple[Tensor, ...]

    @staticmethod
    def of(tensors: Iterable[Tensor]) -> AsTheyAre:
        """Return that of these tensors."""
        return AsTheyAre(size=1, mean=(), std=(), tensors=tuple(tensors))

    @property
    def record(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """The NumPy type of a sample."""
        return [(one.name, one.dtype, one.shape) for one in self.tensors]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What weights expect of their images, and who says so; `is_own` says that it was noted when they were saved."""

    source: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    framing: Framing
    is_own: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Images of one split: `images` uint8 (N, C, H, W), `labels` int64 (N,); of tensors N records, a field each."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def sha256(self) -> str:
        """The sha256 (hex) over shape, pixels and labels."""
        kind = self.images.dtype
        digest = hashlib.sha256(repr((self.images.shape, kind.descr) if kind.names else self.images.shape).encode())
        digest.update(self.images.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """An image set in three disjoint splits, with the one preprocessing that fits it.

    `notes` say what of it may be meant otherwise, `normalisation` who chose mean and deviation, `test_paths` are the
    files of test images without labels, for a score of the suite's own; none of them keys anything.
    Images that are not labelled are all of one class, and only what a network makes of them can be compared.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    preprocessing: Preprocessing
    normalisation: str = field(default="", metadata=UNKEYED)
    notes: tuple[str, ...] = field(default=(), metadata=UNKEYED)
    is_labelled: bool = True
    test_paths: tuple[str, ...] = field(default=(), metadata=UNKEYED)

    @property
    def num_classes(self) -> int:
        """How many classes the labels count."""
        return len(self.classes)

    @cached_property
    def sha256(self) -> str:
        """The sha256 (hex) of all three splits."""
        return sha256_of([self.train.sha256, self.validation.sha256, self.test.sha256, list(self.classes)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """An output of a network that is held to itself, not to labels: its name, and the shape it has for one image."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers an image gives."""
        return math.prod(self.shape)

    @property
    def has_classes(self) -> bool:
        """Whether which of its numbers is the largest can be compared."""
        return len(self.shape) == 1 and self.size > 1


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
