"""An inference from the bytes of image files to the logits, as a service does it."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from trtbench.data.pixels import framed
from trtbench.data.preprocess import normalise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from trtbench.engines.base import Session
    from trtbench.records import Preprocessing


def encoded(images: NDArray[np.uint8]) -> tuple[bytes, ...]:
    """Return images, uint8 (N, C, H, W), as the bytes of PNG files of their size."""
    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, "PNG")
        files.append(file.getvalue())
    return tuple(files)


def time_end_to_end(
    session: Session, files: Sequence[bytes], preprocessing: Preprocessing, *, samples: int, launches: int
) -> NDArray[np.int64]:
    """Return `samples` durations in nanoseconds, each of `launches` times a whole batch of image files.

    Each is decoded, resampled where its size is not the network's, normalised, copied in, run, and its logits copied
    out; one thread does it all.
    """
    durations = np.empty(samples, np.int64)
    for index in range(samples):
        start = time.perf_counter_ns()
        for _ in range(launches):
            infer(session, files, preprocessing)
        durations[index] = time.perf_counter_ns() - start
    return durations


def infer(session: Session, files: Sequence[bytes], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return the logits of the image files of one batch."""
    pixels = []
    for file in files:
        with Image.open(io.BytesIO(file)) as image:
            pixels.append(framed(image, **preprocessing.framing).transpose(2, 0, 1))
    session.copy_in(normalise(np.stack(pixels), preprocessing))
    session.enqueue()
    session.synchronize()
    return session.copy_out()
