"""The device, as CuPy shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from simulated_cuda import device, memory, streams

if TYPE_CHECKING:
    from types import TracebackType


class Device:
    """The one GPU there is."""

    def __init__(self, device_: int = 0, /) -> None:
        self.id = int(device_)

    def __int__(self) -> int:
        return self.id

    def __enter__(self) -> Self:
        return self.use()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def use(self) -> Self:
        device.check(self.id)
        return self

    def synchronize(self) -> None:
        streams.synchronize_device()

    @property
    def compute_capability(self) -> str:
        return "{}{}".format(*device.compute_capability())

    @property
    def mem_info(self) -> tuple[int, int]:
        return memory.free_bytes(), memory.TOTAL_BYTES

    @property
    def pci_bus_id(self) -> str:
        device.check(self.id)
        return device.PCI_BUS_ID
