"""The class-balanced calibrator of TensorRT 10: the manifest's images, laid out on the device.

The uint8 pixels are uploaded once. Each batch is normalised and laid out by one kernel on a stream of ours, which is
waited for before the address is handed out: TensorRT does not say on which stream it will read. Nothing comes back to
the host. Images stand in the manifest's order, in which every prefix is class-balanced, so whatever TensorRT makes of
the order it sees no class before the others.

uint8 pixels become the network's input by a table of 256 floats a channel, made by `normalise` itself. So no arithmetic
is left to the device: NVRTC contracts a multiplication and a subtraction into one fused operation that rounds once, and
its float division differs from the float64 that `normalise` rounds once. A look-up has nothing to round, and the same
bits come out on every device, of the NumPy twin and of the double.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from trtbench._optional import load
from trtbench.data.preprocess import level_table
from trtbench.disk import file_sha256
from trtbench.engines.tensorrt.caches import KeyedCache
from trtbench.errors import CalibrationError, UnsupportedError
from trtbench.jsonable import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from trtbench.engines.base import CalibrationImages
    from trtbench.engines.cuda.device import Cuda, DeviceBuffer, Kernel


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
_THREADS = 256
_MOST_BLOCKS = 4096  # enough to fill any device; the stride does the rest


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


_Answer = TypeVar("_Answer")
# Both calibrate the network as it was parsed, before fusion, so that a cache has the graph's own tensor names.
_BASES = {"entropy": "IInt8EntropyCalibrator2", "minmax": "IInt8MinMaxCalibrator"}


class Calibrator(Protocol):
    """What `make_calibrator` returns: a TensorRT calibrator, and what became of it.

    TensorRT swallows what goes wrong in a callback, takes it for the end of the images and builds on. It is kept in
    `error`, for the builder to raise after the build; `notes` are what a reader of the row must know.
    """

    @property
    def error(self) -> Exception | None: ...  # noqa: D102  the class says it
    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102

    def close(self) -> None:
        """Free the device memory; the build has ended."""
        ...


def make_calibrator(images: CalibrationImages, cuda: Cuda) -> Calibrator:
    """Return a calibrator for `IBuilderConfig.int8_calibrator`.

    The usual batch of the calibration profile must be `images.batch_size`: that is what runs, whatever
    `get_batch_size` says.

    Raises:
        UnsupportedError: this TensorRT has no calibrators: 11 removed them.
        CalibrationError: the images are no uint8 (N, C, H, W) of this preprocessing, or fewer than one batch.
        OutOfMemoryError: they do not fit the device.
    """
    trt: Any = load("tensorrt")
    name = _BASES[images.algorithm]
    if not hasattr(trt, name):
        raise UnsupportedError(
            f"calibrator {name}",
            expected="TensorRT 10.x",
            got=f"TensorRT {trt.__version__}, which quantizes by Q/DQ nodes only",
            cure="ask for int8 or int8+fp16",
        )
    return _calibrator(getattr(trt, name), Callbacks(Feed(images, cuda), _cache(images, version=str(trt.__version__))))


def _calibrator(base: Any, callbacks: Callbacks) -> Calibrator:
    """Return an object of a class made here: a class at the top of the module would need its base on import."""

    class ClassBalancedCalibrator(base):  # type: ignore[misc]  # the base is known at run time only
        def __init__(self) -> None:
            base.__init__(self)  # pybind11 wants its own constructor called

        @property
        def error(self) -> Exception | None:
            return callbacks.error

        @property
        def notes(self) -> tuple[str, ...]:
            return callbacks.notes

        def get_batch_size(self) -> int:
            return callbacks.feed.batch

        def get_batch(self, names: list[str]) -> list[int] | None:
            return callbacks.next(names)

        def read_calibration_cache(self) -> bytes | None:
            return callbacks.read()

        def write_calibration_cache(self, cache: Any) -> None:
            callbacks.write(bytes(cache))

        def close(self) -> None:
            callbacks.feed.close()

    return ClassBalancedCalibrator()


class Callbacks:
    """What TensorRT calls back for; after an error they answer as if there were nothing more."""

    def __init__(self, feed: Feed, cache: KeyedCache) -> None:
        self.feed = feed
        self.error: Exception | None = None
        self._cache = cache

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the row must know."""
        return (*self.feed.notes, *self._cache.notes)

    def next(self, names: list[str]) -> list[int] | None:
        """Return the address of the next batch, or None at the end."""
        return self._kept(lambda: self.feed.next(names))

    def read(self) -> bytes | None:
        """Return the cache of these images, or None."""
        return self._kept(self._cache.read)

    def write(self, content: bytes) -> None:
        """Keep the cache; what TensorRT made of the images before an error is none."""
        self._kept(lambda: self._cache.write(content))

    def _kept(self, call: Callable[[], _Answer | None]) -> _Answer | None:
        try:
            return None if self.error else call()
        except Exception as error:  # noqa: BLE001  TensorRT would swallow it
            self.error = error
            return None


class Feed:
    """The images on the device, batch after batch in one buffer."""

    def __init__(self, images: CalibrationImages, cuda: Cuda) -> None:
        self.batch = images.batch_size
        self._cuda = cuda
        self._pixels = _load(images)
        self._table = level_table(images.preprocessing)
        self._shape = (self.batch, *images.preprocessing.input_shape)
        self._batches = len(self._pixels) // self.batch
        self._served = 0
        self.notes = self._left_out()
        with cuda.current():
            self._output = cuda.allocate(4 * int(np.prod(self._shape)))
            self._lay_out = self._by_kernel() or self._by_copy()

    def next(self, names: list[str]) -> list[int] | None:
        """Lay out the next batch; return its address, or None when all are served. It holds until the next call.

        Raises:
            CalibrationError: the network has not one input.
        """
        if len(names) != 1:
            raise CalibrationError(
                "calibration", expected="a network of one input", got=", ".join(names), cure="give it one image input"
            )
        if self._served == self._batches:
            return None
        chosen = np.arange(self._served * self.batch, (self._served + 1) * self.batch, dtype=np.int64)
        with self._cuda.current():
            self._lay_out(chosen)
            self._cuda.synchronize()
        self._served += 1
        return [self._output.ptr]

    def close(self) -> None:
        """Free the device memory."""
        with self._cuda.current():
            for buffer in (self._output, *self._inputs):
                buffer.free()

    def _left_out(self) -> tuple[str, ...]:
        rest = len(self._pixels) % self.batch
        if not rest:
            return ()
        return (
            f"{rest} of {len(self._pixels)} calibration images are left out: the last batch of {self.batch} is short",
        )

    def _by_kernel(self) -> Callable[[NDArray[np.int64]], None] | None:
        """Upload pixels and table; return what lays a batch out there, or None where no kernel can be compiled."""
        kernel = self._cuda.kernel(SOURCES[NORMALISE_BATCH], name=NORMALISE_BATCH)
        self._inputs: tuple[DeviceBuffer, ...] = ()
        if kernel is None:
            return None
        chosen = self._cuda.pinned((self.batch,), dtype=np.int64)
        pixels, table, indices = (self._cuda.allocate(one.nbytes) for one in (self._pixels, self._table, chosen))
        self._inputs = (pixels, table, indices)
        self._cuda.upload(pixels, self._pixels)()
        self._cuda.upload(table, self._table)()
        self._cuda.synchronize()  # neither array is page-locked, but both may now go
        upload = self._cuda.upload(indices, chosen)
        compiled: Kernel = kernel

        def lay_out(wanted: NDArray[np.int64]) -> None:
            np.copyto(chosen, wanted)
            upload()
            launch_normalise_batch(
                compiled, pixels, chosen=indices, table=table, output=self._output, shape=self._shape
            )

        return lay_out

    def _by_copy(self) -> Callable[[NDArray[np.int64]], None]:
        """Return what lays a batch out on the host, by the kernel's twin, and copies it."""
        host = self._cuda.pinned(self._shape, dtype=np.float32)
        upload = self._cuda.upload(self._output, host)
        self.notes += (f"calibration batches are laid out on the host: {self._cuda.package} compiles no kernel",)

        def lay_out(wanted: NDArray[np.int64]) -> None:
            np.copyto(host, normalise_batch(self._pixels, chosen=wanted, table=self._table))
            upload()

        return lay_out


def _load(images: CalibrationImages) -> NDArray[np.uint8]:
    """Return the pixels, C-contiguous; CalibrationError where they cannot be read or are not what was asked for."""
    try:
        pixels = np.load(images.images)
    except (OSError, ValueError) as error:
        what = f"calibration images {images.images}"
        raise CalibrationError(what, expected="a .npy of uint8", got=str(error), cure="calibrate again") from error
    shape = images.preprocessing.input_shape
    if pixels.dtype != np.uint8 or pixels.shape[1:] != shape or len(pixels) < images.batch_size:
        raise CalibrationError(
            f"calibration images {images.images.name}",
            expected=f"uint8 {(f'{images.batch_size} or more', *shape)}",
            got=f"{pixels.dtype} {pixels.shape}",
            cure="lower calibration.batch_size, or add images",
        )
    return np.ascontiguousarray(pixels)


def _cache(images: CalibrationImages, *, version: str) -> KeyedCache:
    """Return the cache's file, keyed by all that is known here; what is not, such as the graph, keys its name."""
    key = {
        "name": images.cache.name,
        "images": file_sha256(images.images),
        "preprocessing": images.preprocessing.fingerprint,
        "batch_size": images.batch_size,
        "algorithm": images.algorithm,
        "tensorrt": version,
    }
    return KeyedCache(images.cache, key=sha256_of(key))
