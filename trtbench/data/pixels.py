"""A picture to pixels to the network's input, with Pillow and NumPy alone: this file goes into bundles as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEEP_MODES = ("I", "F")  # Pillow would clip these to 255 on the way to RGB
_NEARLY = 1e-3  # of a pixel: what a ratio written with six digits is off


def framed(
    image: Image.Image,
    *,
    size: int | Sequence[int],
    crop_ratio: float | None = None,
    interpolation: str = "bilinear",
    antialias: bool = True,
    exif_rotation: bool = False,
) -> np.ndarray:
    """Return a picture as uint8 (height, width, 3) RGB.

    It is resampled straight to the size; with a ratio, as torchvision and timm do it: until it just covers
    size / ratio, its proportions kept, and the middle is cut out. Without antialias only the nearest pixels count, as
    in OpenCV. The rotation that a camera noted is passed over unless it is asked for, as torchvision does.

    Raises:
        ValueError: it has more than 8 bits a channel.
    """
    if image.mode.startswith(_DEEP_MODES):
        raise ValueError(f"more than 8 bits a channel, mode {image.mode}")
    upright = ImageOps.exif_transpose(image) if exif_rotation else image
    # Pillow warns when transparency is dropped straight from a palette; by way of RGBA the pixels are the same.
    rgb = (upright.convert("RGBA") if "transparency" in upright.info else upright).convert("RGB")
    height, width = (size, size) if isinstance(size, int) else size
    if crop_ratio is None:
        return np.asarray(_resampled(rgb, (width, height), interpolation, antialias=antialias))
    covered = [int(side / crop_ratio + _NEARLY) for side in (width, height)]
    whole = _resampled(rgb, _covering(rgb.size, covered), interpolation, antialias=antialias)
    left, top = round((whole.width - width) / 2), round((whole.height - height) / 2)
    return np.asarray(whole.crop((left, top, left + width, top + height)))


def normalised(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return uint8 pixels (N, C, H, W) as the network's input: float32 (pixel / 255 - mean) / std, per channel.

    Each of the 256 levels is computed in float64 and rounded once, so that an image has the same floats in every batch
    and on every machine.
    """
    levels = np.arange(256) / 255
    found = np.empty(pixels.shape, np.float32)
    for channel, (centre, spread) in enumerate(zip(mean, std, strict=True)):
        found[:, channel] = ((levels - centre) / spread).astype(np.float32)[pixels[:, channel]]
    return found


def _covering(own: tuple[int, int], covered: Sequence[int]) -> tuple[int, int]:
    """Return the smallest size of a picture's proportions that covers another, (width, height), rounded down."""
    (width, height), (wide, high) = own, covered
    if width * high <= height * wide:
        return wide, height * wide // width
    return width * high // height, high


def _resampled(rgb: Image.Image, size: tuple[int, int], interpolation: str, *, antialias: bool) -> Image.Image:
    if rgb.size == size:
        return rgb
    how = Image.Resampling[interpolation.upper()]
    if antialias:
        return rgb.resize(size, how)
    return rgb.transform(size, Image.Transform.EXTENT, (0, 0, *rgb.size), how)
