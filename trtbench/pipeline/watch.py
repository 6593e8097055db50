"""Watch the machine during a run: the devices it has, what they did, and what that means for rows."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from trtbench import _optional
from trtbench.bench.telemetry import GpuReader, Reader, Sampler, readers_here, summary, throttled_samples
from trtbench.store import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.bench.latency import TimedRow


class Watch:
    """A sampler of this machine's devices; use it as a context once.

    Args:
        readers: of the devices, in the order of their numbers; those of this machine by default.
    """

    def __init__(self, readers: list[Reader] | None = None) -> None:
        self._readers = readers_here(_nvml()) if readers is None else readers
        self._sampler = Sampler(self._readers)

    def __enter__(self) -> Self:
        self._sampler.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._sampler.__exit__()

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return what each device did, as the report keeps it."""
        return summary(self._sampler.readings)

    def throttled(self, timed: TimedRow, device: str) -> int | None:
        """Count the samples of a row that were taken while its device held back."""
        return throttled_samples(timed, self._sampler.readings, device=_as_read(device))

    def energy_j(self, device: str) -> float | None:
        """Return the joules a device took so far; None where nothing counts them, as on CPUs."""
        gpus = [one for one in self._readers if isinstance(one, GpuReader)]
        found = [one for one in gpus if one.name == _as_read(device)]
        return found[0].energy_j() if found else None

    def write(self, folder: Path) -> None:
        """Keep every reading beside the raw samples.

        Raises:
            StoreError: the folder cannot be written.
        """
        readings = [asdict(reading) for reading in self._sampler.readings]
        write_atomically(folder / "raw" / "telemetry.json", json.dumps(readings))


def _nvml() -> Any | None:
    return _optional.load("pynvml") if _optional.is_installed("pynvml") else None


def _as_read(device: str) -> str:
    """Return what a reader calls a row's device: a GPU by its number, the first one where it has none."""
    if device.lower().startswith("cpu"):
        return "cpu"
    number = re.search(r"cuda:(\d+)", device)
    return f"gpu {number.group(1) if number else 0}"
