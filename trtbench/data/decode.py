"""Image files to one uint8 array, with a pool of threads; large sets keep a decoded copy in the cache."""

from __future__ import annotations

import contextlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL
from PIL import Image

from trtbench.data.pixels import framed
from trtbench.errors import DataError, listed
from trtbench.foreign import FAULTS, file_size, reason
from trtbench.jsonable import sha256_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trtbench.records import Framing

CACHE_FROM = 10_000  # files: fewer decode in a few seconds
_NAMED = 10  # faulty files a message names
_THREADS = min(
    8, os.cpu_count() or 1
)  # Pillow decodes outside the interpreter's lock; more threads than this gain nothing
_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright
# Formats that Pillow decodes by itself: for some others (EPS) it runs a program.
FORMATS = ("BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
_MAX_PIXELS = 64 * 10**6  # of one image: the largest of ImageNet has 61 million
_MAX_BYTES = 512 * 10**6  # of one file
_FAULTS = (*FAULTS, SyntaxError, Image.DecompressionBombError)  # what Pillow raises
_FREE = 0.8  # of the machine's memory that the pixels of all images may take


def data_cache() -> Path:
    """Return $XDG_CACHE_HOME/trtbench/data, by default ~/.cache/trtbench/data; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trtbench" / "data"


def decode(paths: Sequence[Path], *, root: Path, framing: Framing) -> tuple[NDArray[np.uint8], int]:
    """Return the images as uint8 (N, 3, height, width) RGB, in the order of `paths`, and how many EXIF calls rotated.

    From 10,000 files on, the array is a read-only memory map of a copy in the cache, keyed by names, sizes and times of
    the files.

    Raises:
        DataError: files that are no images; the message names up to ten of them.
    """
    shape, copy = (len(paths), 3, *framing.height_width), None
    require_room(len(paths), framing.height_width)
    if len(paths) >= CACHE_FROM:
        copy = data_cache() / f"decoded-{_listing_sha256(paths, root=root, framing=framing)}"
        for kept in copy.parent.glob(f"{copy.name}-*.npy"):
            if (images := _mapped(kept, shape=shape)) is not None:
                return images, int(kept.stem.rpartition("-")[2])
    images = np.empty(shape, np.uint8)
    with ThreadPoolExecutor(_THREADS) as pool:
        read = list(pool.map(_read_into, paths, images, [framing] * len(paths)))
    found = zip(paths, read, strict=True)
    faults = [f"{path.relative_to(root)} ({reason})" for path, reason in found if isinstance(reason, str)]
    if faults:
        raise DataError(
            f"{len(faults)} of {len(paths)} files in {root}",
            expected="8-bit images that Pillow reads",
            got=listed(faults, _NAMED),
            cure="mend or remove them",
        )
    rotated = sum(one is True for one in read)
    if copy is not None:
        with contextlib.suppress(OSError):  # without a cache (read-only, full) the next run decodes again, that is all
            _publish(images, copy.with_name(f"{copy.name}-{rotated}.npy"))
    return images, rotated


def _read_into(path: Path, pixels: NDArray[np.uint8], framing: Framing) -> str | bool:
    """Fill (3, height, width) pixels with an image and say whether EXIF rotates it, or why that cannot be."""
    try:
        file_size(path, most=_MAX_BYTES)
        with Image.open(path, formats=FORMATS) as image:
            require_few_pixels(image)
            pixels[:] = framed(image, **framing.framing).transpose(2, 0, 1)
            return bool(image.getexif().get(_ORIENTATION, 1) != 1)
    except _FAULTS as error:
        return "not an image" if isinstance(error, PIL.UnidentifiedImageError) else reason(error)


def sizes_of(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Return height and width of image files, as their headers say; what is no image has none."""
    found = []
    for path in paths:
        with contextlib.suppress(*_FAULTS):
            file_size(path, most=_MAX_BYTES)
            with Image.open(path, formats=FORMATS) as image:
                found.append((image.height, image.width))
    return found


def require_few_pixels(image: Image.Image) -> None:
    """Refuse an image, before it is decoded, of more pixels than any that is meant to be classified.

    Raises:
        ValueError: it has more.
    """
    if (pixels := image.width * image.height) > _MAX_PIXELS:
        raise ValueError(f"{pixels / 1e6:.0f} million pixels, above {_MAX_PIXELS / 1e6:.0f} million")


def require_room(count: int, height_width: tuple[int, int]) -> None:
    """Refuse, before one is read, more images of a size than the machine has memory for.

    Raises:
        DataError: there are more.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    height, width = height_width
    if (wanted := count * 3 * height * width) > _FREE * memory:
        got = f"{wanted / 1e9:.3g} GB of pixels on a machine of {memory / 1e9:.3g} GB"
        raise DataError(
            f"{count} images of {height} x {width} pixels",
            expected="what the memory holds",
            got=got,
            cure="lower data.size, or take fewer images",
        )


def _listing_sha256(paths: Sequence[Path], *, root: Path, framing: Framing) -> str:
    stats = [(path.relative_to(root).as_posix(), path.stat()) for path in paths]
    listing = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
    return sha256_of([listing, framing, PIL.__version__])


def _mapped(copy: Path, *, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
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
