"""The CUDA kernel of the calibrator as text, its launch, and its NumPy twin.

uint8 pixels become the network's input by a table of 256 floats a channel, made by `normalise` itself. So no arithmetic
is left to the device: NVRTC contracts a multiplication and a subtraction into one fused operation that rounds once, and
its float division differs from the float64 that `normalise` rounds once. A look-up has nothing to round, and the same
bits come out on every device, of the twin and of the double.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from trtbench.data.preprocess import normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trtbench.engines.cuda.device import DeviceBuffer, Kernel
    from trtbench.records import Preprocessing

NORMALISE_BATCH = "normalise_batch"
# One thread an output value, striding over the grid; neighbours read neighbouring pixels and write neighbouring floats.
SOURCES = {
    NORMALISE_BATCH: r"""
extern "C" __global__ void normalise_batch(
    const unsigned char* __restrict__ pixels,  // (images, channels, plane)
    const long long* __restrict__ chosen,      // (batch,): which images
    const float* __restrict__ table,           // (channels, 256)
    float* __restrict__ output,                // (batch, channels, plane)
    const long long channels, const long long plane, const long long count)  // count = batch * channels * plane
{
    const long long stride = (long long)blockDim.x * gridDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        const long long row = i / plane;
        const long long channel = row % channels;
        const long long image = chosen[row / channels];
        const unsigned char pixel = pixels[(image * channels + channel) * plane + i % plane];
        output[i] = table[channel * 256 + pixel];
    }
}
""",
}
_LEVELS = 256
_THREADS = 256
_MOST_BLOCKS = 4096  # enough to fill any device; the stride does the rest


def level_table(preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return what each of the 256 levels of each channel becomes: float32 (channels, 256)."""
    channels = len(preprocessing.mean)
    levels = np.arange(_LEVELS, dtype=np.uint8).repeat(channels).reshape(_LEVELS, channels, 1, 1)
    table = normalise(levels, dataclasses.replace(preprocessing, size=1))[:, :, 0, 0].T
    return np.ascontiguousarray(table)


def normalise_batch(
    pixels: NDArray[np.uint8], *, chosen: NDArray[np.int64], table: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the chosen images as the network's input: the kernel's NumPy twin.

    Args:
        pixels: uint8 (images, channels, height, width).
        chosen: int64 (batch,), which images.
        table: float32 (channels, 256) of `level_table`.

    Returns:
        float32 (batch, channels, height, width), C-contiguous; bit for bit that of `normalise`.
    """
    channel = np.arange(len(table))[:, None, None]
    return np.ascontiguousarray(table[channel, pixels[chosen]])


def launch_normalise_batch(
    kernel: Kernel,
    pixels: DeviceBuffer,
    *,
    chosen: DeviceBuffer,
    table: DeviceBuffer,
    output: DeviceBuffer,
    shape: tuple[int, int, int, int],
) -> None:
    """Queue the kernel on the stream.

    Args:
        kernel: compiled from `SOURCES[NORMALISE_BATCH]`.
        pixels: uint8 (images, channels, height, width).
        chosen: int64 (batch,), which images.
        table: float32 (channels, 256).
        output: float32 of `shape`.
        shape: batch, channels, height, width.
    """
    batch, channels, height, width = shape
    plane = height * width
    count = batch * channels * plane
    blocks = min(-(-count // _THREADS), _MOST_BLOCKS)
    kernel(blocks, _THREADS, (pixels, chosen, table, output, channels, plane, count))
