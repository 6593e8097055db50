"""CUDA by PyCUDA, where CuPy is absent; never by `pycuda.autoinit`, which makes a context of its own.

An address of one context means nothing in another. So the primary context is retained, and pushed only for as long as
something of ours runs: whoever else works in this thread finds its own context current.
"""

from __future__ import annotations

import contextlib
import functools
from functools import partial
from typing import TYPE_CHECKING, Any

from trtbench._optional import load
from trtbench.engines.cuda.device import DeviceFacts, device_uuid, dotted, driver_version, require_device
from trtbench.errors import DeviceError, OutOfMemoryError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from trtbench.engines.cuda.device import DeviceBuffer, Event, Operation

_NON_BLOCKING = (
    1  # CU_STREAM_NON_BLOCKING of cuda.h, for which PyCUDA has no name: the default stream is not waited for
)


def open_pycuda(index: int) -> PycudaCuda:
    """Return a device by PyCUDA.

    Raises:
        CapabilityError: PyCUDA is absent, or finds no driver.
        DeviceError: it sees no such device.
    """
    driver: Any = load("pycuda.driver")
    try:
        driver.init()
        count = driver.Device.count()
    except driver.Error as error:
        raise DeviceError("pycuda", expected="a driver that fits it", got=str(error)) from error
    require_device(index, count=count, package="pycuda")
    return PycudaCuda(driver, index=index)


class PycudaCuda:
    """One device, its primary context and one stream."""

    def __init__(self, driver: Any, *, index: int) -> None:
        self.index = index
        self.package = f"pycuda {load('pycuda').VERSION_TEXT}"
        self._driver = driver
        self._device = driver.Device(index)
        self._context = _primary_context(driver, index)
        with self.current():
            self._stream = driver.Stream(_NON_BLOCKING)
        self.stream = int(self._stream.handle)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Push the primary context in this thread, and map PyCUDA's errors."""
        driver, what = self._driver, f"CUDA device {self.index}"
        self._context.push()
        try:
            yield
        except driver.MemoryError as error:
            raise OutOfMemoryError(what, got=str(error), cure="take a smaller batch, or free the device") from error
        except driver.Error as error:
            cure = "`trtbench gpu-info` shows the device and who else uses it"
            raise DeviceError(what, got=str(error), cure=cure) from error
        finally:
            driver.Context.pop()

    def beside(self) -> PycudaCuda:
        """Return the same device with a stream of its own."""
        return PycudaCuda(self._driver, index=self.index)

    def device(self) -> DeviceFacts:
        """Describe the device."""
        with self.current():
            name = self._device.name()
            major, minor, _ = self._driver.get_version()
            return DeviceFacts(
                name=name,
                uuid=device_uuid(self.index, name=name),
                compute_capability=tuple(self._device.compute_capability()),
                driver=driver_version(self._driver.get_driver_version()),
                runtime=dotted(major * 1000 + minor * 10),
            )

    def memory(self) -> tuple[int, int]:
        """Return the free and the total bytes of the device."""
        with self.current():
            free, total = self._driver.mem_get_info()
        return int(free), int(total)

    def trim(self) -> None:
        """Nothing is pooled: memory goes back to the device when it is freed."""

    def allocate(self, nbytes: int) -> PycudaBuffer:
        """Return device memory; cuMemAlloc aligns to 256 bytes at least."""
        with self.current():
            return PycudaBuffer(self._driver.mem_alloc(nbytes), nbytes=nbytes)

    def pinned(self, shape: tuple[int, ...], *, dtype: Any) -> NDArray[Any]:
        """Return a page-locked host array."""
        array: NDArray[Any] = self._driver.pagelocked_empty(shape, dtype)
        return array

    def upload(self, buffer: DeviceBuffer, array: NDArray[Any]) -> Operation:
        """Return what queues a copy of a host array into a buffer."""
        return partial(self._driver.memcpy_htod_async, buffer.ptr, array, self._stream)

    def download(self, array: NDArray[Any], buffer: DeviceBuffer) -> Operation:
        """Return what queues a copy of a buffer into a host array."""
        return partial(self._driver.memcpy_dtoh_async, array, buffer.ptr, self._stream)

    def event(self) -> PycudaEvent:
        """Return a new event."""
        return PycudaEvent(self._driver.Event(), self._stream)

    def synchronize(self) -> None:
        """Wait for all that is queued on the stream."""
        self._stream.synchronize()

    def capture(self, launch: Operation) -> Operation:  # noqa: ARG002  the seam's signature
        """Refuse: PyCUDA captures no stream.

        Raises:
            UnsupportedError: always.
        """
        cure = "install CuPy: pip install 'trtbench[cu12-base]' or 'trtbench[cu13-base]'"
        raise UnsupportedError("CUDA graphs by PyCUDA", expected="CuPy", got=self.package, cure=cure)

    def kernel(self, source: str, *, name: str) -> None:
        """Return None: PyCUDA compiles by nvcc, which a machine that only runs engines does not have."""

    def close(self) -> None:
        """Wait for the stream and let go of it; the primary context is kept."""
        with self.current():
            self.synchronize()
            self._stream = None


@functools.cache
def _primary_context(driver: Any, index: int) -> Any:
    """Return a device's primary context, retained until the process ends.

    Released with each user it would be torn down between two, and PyCUDA leaves it on CUDA's stack when it releases it.
    """
    return driver.Device(index).retain_primary_context()


class PycudaBuffer:
    """Memory of the device."""

    __slots__ = ("_memory", "nbytes", "ptr")

    def __init__(self, memory: Any, *, nbytes: int) -> None:
        self._memory = memory
        self.ptr = int(memory)
        self.nbytes = nbytes

    def free(self) -> None:
        """Give the memory back to the device."""
        if self._memory is not None:
            self._memory.free()
            self._memory = None


class PycudaEvent:
    """A point on the stream."""

    __slots__ = ("handle", "record")

    def __init__(self, event: Any, stream: Any) -> None:
        self.handle = event
        self.record: Operation = partial(event.record, stream)

    def wait(self) -> None:
        """Wait until the stream has passed it."""
        self.handle.synchronize()

    def ns_since(self, start: Event) -> int:
        """Return the nanoseconds between two events that the stream has passed."""
        return round(float(self.handle.time_since(start.handle)) * 1e6)
