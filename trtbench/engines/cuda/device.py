"""The one seam to CUDA: what a device is, and its memory, copies, events and graphs on one stream of ours.

Both packages that drive it, CuPy and PyCUDA, use the device's primary context, the one that PyTorch and TensorRT use
too, so that an address of one is good for all. Everything is queued on one non-default stream: the default stream waits
for all others of its context, and what waits for it disturbs both the results of a capture and the times. Sessions that
run at once have a stream each: CUDA lets one thread record a stream and no other touch it meanwhile.
"""

from __future__ import annotations

import ctypes
import os
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from trtbench.environment.gpus import find_driver_version
from trtbench.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    # Work bound beforehand, so that nothing of ours stands between two launches of a timed loop.
    Operation = Callable[[], object]

ALIGNMENT = 256  # of every address TensorRT is given (IExecutionContext::setTensorAddress)
_UUID_BYTES = 16
_LIBCUDA = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What a device is.

    Args:
        uuid: as nvidia-smi writes it: `GPU-...`, or `MIG-...` for a slice; "" where the driver does not tell.
        driver: the driver's version, or where only CUDA tells: `CUDA 12.8`, the highest that it runs.
        runtime: the CUDA version of the package that drives it, `12.8`.
    """

    name: str
    uuid: str
    compute_capability: tuple[int, int]
    driver: str
    runtime: str


class DeviceBuffer(Protocol):
    """Memory of the device; it is given back by `free`, or when nothing holds it."""

    ptr: int
    nbytes: int

    def free(self) -> None:
        """Give the memory back; nothing may be queued that uses it."""
        ...


class Event(Protocol):
    """A point on the stream; `record` queues it behind what is queued, `handle` is the package's own event."""

    handle: Any
    record: Operation

    def wait(self) -> None:
        """Wait until the stream has passed it."""
        ...

    def ns_since(self, start: Event) -> int:
        """Return the nanoseconds between two events that the stream has passed; CUDA resolves about 500."""
        ...


class Kernel(Protocol):
    """A compiled kernel."""

    def __call__(self, blocks: int, threads: int, arguments: tuple[DeviceBuffer | int, ...]) -> None:
        """Queue a one-dimensional launch; integers are passed as int64."""
        ...


class Cuda(Protocol):
    """One device and one stream; `package` says by which package and version."""

    index: int
    package: str
    stream: int

    def current(self) -> AbstractContextManager[None]:
        """Make the device current in this thread, and raise CUDA's errors as DeviceError or OutOfMemoryError.

        What allocates, queues or waits stands inside it. A thread that TensorRT calls back on may have another device
        current, or none.
        """
        ...

    def beside(self) -> Cuda:
        """Return the same device with a stream of its own: what is queued on one does not wait for the other."""
        ...

    def device(self) -> DeviceFacts:
        """Describe the device."""
        ...

    def memory(self) -> tuple[int, int]:
        """Return the free and the total bytes of the device."""
        ...

    def trim(self) -> None:
        """Give memory that only the package's pool holds back to the device, where TensorRT can have it."""
        ...

    def allocate(self, nbytes: int) -> DeviceBuffer:
        """Return device memory, aligned as TensorRT wants it; its content is undefined.

        Raises:
            OutOfMemoryError: the device is full.
        """
        ...

    def pinned(self, shape: tuple[int, ...], *, dtype: Any) -> NDArray[Any]:
        """Return a page-locked host array: only with such is a copy asynchronous. Its content is undefined."""
        ...

    def upload(self, buffer: DeviceBuffer, array: NDArray[Any]) -> Operation:
        """Return what queues a copy of a host array into a buffer; the caller keeps both alive."""
        ...

    def download(self, array: NDArray[Any], buffer: DeviceBuffer) -> Operation:
        """Return what queues a copy of a buffer into a host array; the caller keeps both alive."""
        ...

    def event(self) -> Event:
        """Return a new event."""
        ...

    def synchronize(self) -> None:
        """Wait for all that is queued on the stream."""
        ...

    def capture(self, launch: Operation) -> Operation:
        """Record what `launch` queues as a CUDA graph and return what launches that; nothing is run.

        The mode is thread-local: in the global one a call of any other thread, say a telemetry sampler, may break the
        capture or be broken by it.

        Raises:
            DeviceError: it cannot be captured.
            UnsupportedError: this package has no capture.
        """
        ...

    def kernel(self, source: str, *, name: str) -> Kernel | None:
        """Compile a kernel; None where this package cannot without a compiler on the machine.

        Raises:
            DeviceError: it does not compile.
        """
        ...

    def close(self) -> None:
        """Wait for the stream and let go of it."""
        ...


def require_device(index: int, *, count: int, package: str) -> None:
    """Raise unless a package sees the device.

    Raises:
        DeviceError: it does not.
    """
    if not 0 <= index < count:
        raise DeviceError(
            package, expected=f"device {index}", got=f"{count} devices", cure="check CUDA_VISIBLE_DEVICES and the suite"
        )


def device_uuid(index: int, *, name: str, known: bytes = b"", load: Callable[[str], Any] = ctypes.CDLL) -> str:
    """Return the UUID that libcuda tells of a device, of the MIG slice where it is one.

    Args:
        index: the device.
        name: what the driver calls it: slices have MIG in it.
        known: what the package tells instead; CuPy's is cut at its first zero byte, and PyCUDA has none.
        load: opens a library.

    Returns:
        It as nvidia-smi writes it; "" where nobody tells.
    """
    raw = _asked_of_libcuda(index, load) or (known if len(known) == _UUID_BYTES else b"")
    return f"{'MIG' if ' MIG ' in name else 'GPU'}-{uuid.UUID(bytes=raw)}" if raw else ""


def _asked_of_libcuda(index: int, load: Callable[[str], Any]) -> bytes:
    handle, raw = ctypes.c_int(), (ctypes.c_ubyte * _UUID_BYTES)()
    try:
        libcuda = load(_LIBCUDA)
        failed = libcuda.cuDeviceGet(ctypes.byref(handle), index) or libcuda.cuDeviceGetUuid_v2(raw, handle)
    except (OSError, AttributeError):  # no driver, or one from before CUDA 11.4
        return b""
    return b"" if failed else bytes(raw)


def driver_version(cuda: int) -> str:
    """Return the version of the driver; where the system does not tell, the CUDA it runs."""
    return find_driver_version() or f"CUDA {dotted(cuda)}"


def dotted(version: int) -> str:
    """Return CUDA's integer as people write it: 12080 is 12.8."""
    return f"{version // 1000}.{version % 1000 // 10}"
