"""CUDA by CuPy 13 or 14."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from trtbench._optional import load
from trtbench.engines.cuda.device import (
    ALIGNMENT,
    DeviceFacts,
    device_uuid,
    dotted,
    driver_version,
    require_device,
)
from trtbench.errors import DeviceError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from trtbench.engines.cuda.device import DeviceBuffer, Event, Operation


def open_cupy(index: int) -> CupyCuda:
    """Return a device by CuPy.

    Raises:
        CapabilityError: CuPy is absent or cannot be imported.
        DeviceError: it sees no such device.
    """
    cupy: Any = load("cupy")
    package = f"cupy {cupy.__version__}"
    try:
        # cupy.is_available() raises on 13.x without a driver; this one answers, or tells what is wrong with a driver.
        count = cupy.cuda.runtime.getDeviceCount() if cupy.cuda.is_available() else 0
    except RuntimeError as error:
        raise DeviceError(package, expected="a driver that fits it", got=str(error)) from error
    require_device(index, count=count, package=package)
    return CupyCuda(cupy, index=index)


class CupyCuda:
    """One device and one stream of CuPy."""

    def __init__(self, cupy: Any, *, index: int) -> None:
        self.index = index
        self.package = f"cupy {cupy.__version__}"
        self._cupy, self._runtime = cupy, cupy.cuda.runtime
        with _mapped(f"CUDA device {index}"), cupy.cuda.Device(index):
            # A blocking stream would wait for the default stream, where any other library may work.
            self._stream = cupy.cuda.Stream(non_blocking=True)
        self.stream = int(self._stream.ptr)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make device and stream CuPy's current ones in this thread, and map its errors."""
        with _mapped(f"CUDA device {self.index}"), self._cupy.cuda.Device(self.index), self._stream:
            yield

    def beside(self) -> CupyCuda:
        """Return the same device with a stream of its own."""
        return CupyCuda(self._cupy, index=self.index)

    def device(self) -> DeviceFacts:
        """Describe the device."""
        runtime = self._runtime
        with self.current():
            properties = runtime.getDeviceProperties(self.index)
            name = properties["name"].decode()
            return DeviceFacts(
                name=name,
                uuid=device_uuid(self.index, name=name, known=bytes(properties["uuid"])),
                compute_capability=(properties["major"], properties["minor"]),
                driver=driver_version(runtime.driverGetVersion()),
                runtime=dotted(runtime.runtimeGetVersion()),
            )

    def memory(self) -> tuple[int, int]:
        """Return the free and the total bytes of the device."""
        with self.current():
            free, total = self._runtime.memGetInfo()
        return int(free), int(total)

    def trim(self) -> None:
        """Give what CuPy's pool keeps back to the device."""
        self.synchronize()
        self._cupy.get_default_memory_pool().free_all_blocks()

    def allocate(self, nbytes: int) -> CupyBuffer:
        """Return device memory of CuPy's pool, whose blocks are aligned to 512 bytes."""
        with self.current():
            buffer = CupyBuffer(self._cupy.cuda.alloc(nbytes), nbytes=nbytes)
        if buffer.ptr % ALIGNMENT:
            raise DeviceError(
                "CuPy's allocator", expected=f"addresses aligned to {ALIGNMENT} bytes", got=hex(buffer.ptr)
            )
        return buffer

    def pinned(self, shape: tuple[int, ...], *, dtype: Any) -> NDArray[Any]:
        """Return a page-locked host array."""
        count = int(np.prod(shape))
        memory = self._cupy.cuda.alloc_pinned_memory(count * np.dtype(dtype).itemsize)
        return np.frombuffer(memory, dtype=dtype, count=count).reshape(shape)

    def upload(self, buffer: DeviceBuffer, array: NDArray[Any]) -> Operation:
        """Return what queues a copy of a host array into a buffer."""
        kind = self._runtime.memcpyHostToDevice
        return partial(self._runtime.memcpyAsync, buffer.ptr, array.ctypes.data, array.nbytes, kind, self.stream)

    def download(self, array: NDArray[Any], buffer: DeviceBuffer) -> Operation:
        """Return what queues a copy of a buffer into a host array."""
        kind = self._runtime.memcpyDeviceToHost
        return partial(self._runtime.memcpyAsync, array.ctypes.data, buffer.ptr, array.nbytes, kind, self.stream)

    def event(self) -> CupyEvent:
        """Return a new event."""
        return CupyEvent(self._cupy.cuda, self._stream)

    def synchronize(self) -> None:
        """Wait for all that is queued on the stream."""
        self._stream.synchronize()

    def capture(self, launch: Operation) -> Operation:
        """Record what `launch` queues as a CUDA graph; CuPy's default mode is relaxed, ours is thread-local.

        Raises:
            DeviceError: it cannot be captured.
        """
        with _mapped("CUDA graph"):
            self._stream.begin_capture(mode=self._runtime.streamCaptureModeThreadLocal)
            try:
                launch()
            except BaseException:
                # The stream takes no other work until the capture has ended, which an invalidated one does in error.
                with contextlib.suppress(RuntimeError):
                    self._stream.end_capture()
                raise
            graph = self._stream.end_capture()
        return partial(graph.launch, self._stream)

    def kernel(self, source: str, *, name: str) -> CupyKernel:
        """Compile a kernel with NVRTC.

        Raises:
            DeviceError: it does not compile, or NVRTC is absent.
        """
        kernel = self._cupy.RawKernel(source, name)
        try:
            kernel.compile()
        except (RuntimeError, OSError, self._cupy.cuda.compiler.CompileException) as error:
            got = " ".join(str(error).split())
            package = f"cupy-cuda{self._runtime.runtimeGetVersion() // 1000}x[ctk]"
            cure = f"NVRTC comes with the CUDA toolkit, with PyTorch, or with pip install '{package}'"
            raise DeviceError(f"kernel {name}", expected="NVRTC to compile it", got=got, cure=cure) from error
        return CupyKernel(kernel)

    def close(self) -> None:
        """Wait for the stream; CuPy destroys it when nothing holds it."""
        with self.current():
            self.synchronize()


class CupyBuffer:
    """A block of CuPy's pool."""

    __slots__ = ("_memory", "nbytes", "ptr")

    def __init__(self, memory: Any, *, nbytes: int) -> None:
        self._memory = memory
        self.ptr = int(memory.ptr)
        self.nbytes = nbytes

    def free(self) -> None:
        """Give the block back to the pool."""
        self._memory = None


class CupyEvent:
    """A point on the stream."""

    __slots__ = ("_cuda", "handle", "record")

    def __init__(self, cuda: Any, stream: Any) -> None:
        self._cuda = cuda
        self.handle = cuda.Event()
        self.record: Operation = partial(self.handle.record, stream)

    def wait(self) -> None:
        """Wait until the stream has passed it."""
        self.handle.synchronize()

    def ns_since(self, start: Event) -> int:
        """Return the nanoseconds between two events that the stream has passed."""
        return round(float(self._cuda.get_elapsed_time(start.handle, self.handle)) * 1e6)


class CupyKernel:
    """A compiled kernel."""

    __slots__ = ("_kernel",)

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def __call__(self, blocks: int, threads: int, arguments: tuple[DeviceBuffer | int, ...]) -> None:
        """Queue a launch on the current stream."""
        values = tuple(np.int64(one) if isinstance(one, int) else np.uint64(one.ptr) for one in arguments)
        self._kernel((blocks,), (threads,), values)


@contextlib.contextmanager
def _mapped(what: str) -> Iterator[None]:
    """Raise CuPy's errors as ours: its own are RuntimeErrors, and a MemoryError where the device is full."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemoryError(what, got=str(error), cure="take a smaller batch, or free the device") from error
    except RuntimeError as error:
        kind = OutOfMemoryError if "cudaErrorMemoryAllocation" in str(error) else DeviceError
        raise kind(what, got=str(error), cure="`trtbench gpu-info` shows the device and who else uses it") from error
