"""Image files to one uint8 array, with a pool of threads; large sets keep a decoded copy in the cache."""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL
from PIL import Image

from trtbench.errors import DataError
from trtbench.jsonable import sha256_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CACHE_FROM = 10_000  # files: fewer decode in a few seconds
_NAMED = 10  # faulty files a message names
_THREADS = min(
    8, os.cpu_count() or 1
)  # Pillow decodes outside the interpreter's lock; more threads than this gain nothing
_DEEP_MODES = frozenset(
    {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
)  # Pillow would clip these to 255 on the way to RGB
# What Pillow raises on a damaged or foreign file, by format; a closed list, so that our own faults still show.
_FAULTS = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)


def data_cache() -> Path:
    """Return $XDG_CACHE_HOME/trtbench/data, by default ~/.cache/trtbench/data; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trtbench" / "data"


def decode(paths: Sequence[Path], *, root: Path, size: int) -> NDArray[np.uint8]:
    """Return the images as uint8 (N, 3, size, size) RGB, in the order of `paths`; other sizes are resampled, bilinear.

    From 10,000 files on, the array is a read-only memory map of a copy in the cache, keyed by names, sizes and times of
    the files.

    Raises:
        DataError: files that are no images; the message names up to ten of them.
    """
    shape, copy = (len(paths), 3, size, size), None
    if len(paths) >= CACHE_FROM:
        copy = data_cache() / f"decoded-{_listing_sha256(paths, root=root, size=size)}.npy"
        if (kept := _mapped(copy, shape=shape)) is not None:
            return kept
    images = np.empty(shape, np.uint8)
    with ThreadPoolExecutor(_THREADS) as pool:
        reasons = pool.map(_read_into, paths, images)
        found = zip(paths, reasons, strict=True)
        faults = [f"{path.relative_to(root)} ({reason})" for path, reason in found if reason is not None]
    if faults:
        more = f" and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise DataError(
            f"{len(faults)} of {len(paths)} files in {root}",
            expected="8-bit images that Pillow reads",
            got=", ".join(faults[:_NAMED]) + more,
            cure="mend or remove them",
        )
    if copy is not None:
        with contextlib.suppress(OSError):  # without a cache (read-only, full) the next run decodes again, that is all
            _publish(images, copy)
    return images


def _read_into(path: Path, pixels: NDArray[np.uint8]) -> str | None:
    """Fill (3, size, size) pixels with an image, or return the reason why that cannot be."""
    try:
        with Image.open(path) as image:
            pixels[:] = fitted(image, size=pixels.shape[1]).transpose(2, 0, 1)
    except _FAULTS as error:
        return _reason(error)
    return None


def fitted(image: Image.Image, *, size: int) -> NDArray[np.uint8]:
    """Return an image as uint8 (size, size, 3) RGB; one of another size is resampled, bilinear.

    Raises:
        ValueError: it has more than 8 bits a channel.
    """
    if image.mode in _DEEP_MODES:
        raise ValueError(f"more than 8 bits a channel, mode {image.mode}")
    # Pillow warns when transparency is dropped straight from a palette; by way of RGBA the pixels are the same.
    rgb = (image.convert("RGBA") if "transparency" in image.info else image).convert("RGB")
    if rgb.size != (size, size):
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def _reason(error: Exception) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return "not an image"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _listing_sha256(paths: Sequence[Path], *, root: Path, size: int) -> str:
    stats = [(path.relative_to(root).as_posix(), path.stat()) for path in paths]
    listing = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
    return sha256_of([listing, size, PIL.__version__])


def _mapped(copy: Path, *, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """Map the cached copy, or return None where there is none that fits."""
    try:
        images: NDArray[np.uint8] = np.load(copy, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # no copy, a truncated one, an empty one
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _publish(images: NDArray[np.uint8], copy: Path) -> None:
    """Write the copy beside its place and rename it, so that no reader ever sees half of it."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=copy.parent) as folder:
        unnamed = Path(folder) / "images.npy"
        np.save(unnamed, images)
        unnamed.replace(copy)
