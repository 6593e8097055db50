"""Calls of the CUDA runtime, with the names and the positions CuPy gives them."""

from __future__ import annotations

from simulated_cuda import copies, device, memory, streams
from simulated_cuda.faults import CUDARuntimeError

__all__ = [
    "CUDARuntimeError",
    "deviceGetPCIBusId",
    "deviceSynchronize",
    "driverGetVersion",
    "free",
    "getDevice",
    "getDeviceCount",
    "getDeviceProperties",
    "malloc",
    "memGetInfo",
    "memcpy",
    "memcpyAsync",
    "memcpyDefault",
    "memcpyDeviceToDevice",
    "memcpyDeviceToHost",
    "memcpyHostToDevice",
    "memcpyHostToHost",
    "memsetAsync",
    "runtimeGetVersion",
    "setDevice",
    "streamCaptureModeGlobal",
    "streamCaptureModeRelaxed",
    "streamCaptureModeThreadLocal",
    "streamIsCapturing",
    "streamSynchronize",
]

memcpyHostToHost = copies.HOST_TO_HOST
memcpyHostToDevice = copies.HOST_TO_DEVICE
memcpyDeviceToHost = copies.DEVICE_TO_HOST
memcpyDeviceToDevice = copies.DEVICE_TO_DEVICE
memcpyDefault = 4
streamCaptureModeGlobal = streams.GLOBAL
streamCaptureModeThreadLocal = streams.THREAD_LOCAL
streamCaptureModeRelaxed = streams.RELAXED


def getDeviceCount() -> int:
    return device.count()


def getDevice() -> int:
    device.check(0)
    return 0


def setDevice(device_: int, /) -> None:
    device.check(device_)


def getDeviceProperties(device_: int, /) -> dict[str, object]:
    device.check(device_)
    major, minor = device.compute_capability()
    return {
        "name": device.name(device_).encode(),
        "uuid": device.uuid_at(device_),
        "totalGlobalMem": memory.TOTAL_BYTES,
        "major": major,
        "minor": minor,
        "multiProcessorCount": device.MULTIPROCESSORS,
        "warpSize": 32,
        "maxThreadsPerBlock": 1024,
        "clockRate": 1_500_000,
        "memoryClockRate": 7_000_000,
        "memoryBusWidth": 256,
        "l2CacheSize": 32 << 20,
        "pciDomainID": 0,
        "pciBusID": 1,
        "pciDeviceID": 0,
        "integrated": 0,
        "ECCEnabled": 0,
        "computeMode": 0,
    }


def deviceGetPCIBusId(device_: int, /) -> str:
    device.check(device_)
    return device.PCI_BUS_ID


def memGetInfo() -> tuple[int, int]:
    device.check(0)
    return memory.free_bytes(), memory.TOTAL_BYTES


def driverGetVersion() -> int:
    return device.DRIVER_CUDA


def runtimeGetVersion() -> int:
    return device.RUNTIME_CUDA


def deviceSynchronize() -> None:
    streams.synchronize_device()


def streamSynchronize(stream: int, /) -> None:
    streams.synchronize(stream)


def streamIsCapturing(stream: int, /) -> bool:
    return streams.is_capturing(stream)


def malloc(size: int, /) -> int:
    streams.refuse_while_capturing("malloc")
    return memory.allocate(size).address


def free(ptr: int, /) -> None:
    streams.refuse_while_capturing("free")
    memory.release(ptr)


def memcpy(dst: int, src: int, size: int, kind: int, /) -> None:
    copies.copy(dst, src, size, kind=kind)


def memcpyAsync(dst: int, src: int, size: int, kind: int, stream: int, /) -> None:
    copies.copy_async(dst, src, size, kind=kind, stream=stream)


def memsetAsync(ptr: int, value: int, size: int, stream: int, /) -> None:
    copies.fill_async(ptr, value, size, stream=stream)
