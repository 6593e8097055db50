"""What a machine is and what is installed on it, as frozen records; nothing here looks at the machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Version = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """The processor; `flags` holds only those that decide which INT8 and float kernels run.

    `affinity` lists the logical cores this process may use; frequencies are those of core 0.
    """

    model: str
    architecture: str
    logical_cores: int
    physical_cores: int | None = None
    affinity: tuple[int, ...] = ()
    flags: tuple[str, ...] = ()
    has_int8_dot: bool = False
    governor: str | None = None
    frequency_mhz: float | None = None
    max_frequency_mhz: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine around the GPUs."""

    os: str
    kernel: str
    python: str
    cpu: Cpu
    load_average: tuple[float, float, float] | None = None
    ram_bytes: int | None = None
    container: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """NVIDIA's driver: its version, the highest CUDA it runs, and what NVML complains about."""

    version: str | None = None
    cuda: Version | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MigSlice:
    """One MIG device, as CUDA sees it."""

    uuid: str
    name: str
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One NVIDIA GPU in NVML's (PCI bus) order; None stands for what this GPU or this user may not read."""

    index: int
    uuid: str
    name: str
    compute_capability: Version
    memory_bytes: int | None = None
    mig_is_on: bool = False
    mig_slices: tuple[MigSlice, ...] = ()
    sm_clock_mhz: int | None = None
    max_sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    max_memory_clock_mhz: int | None = None
    power_limit_w: float | None = None
    persistence_is_on: bool | None = None
    compute_processes: int | None = None

    @property
    def sm(self) -> str:
        """The compute capability as people write it: 8.6."""
        return "{}.{}".format(*self.compute_capability)

    def answers_to(self, entry: str) -> bool:
        """Whether an entry of CUDA_VISIBLE_DEVICES names it: its number, its UUID or the start of it, or a slice's."""
        if entry.isdecimal():
            return int(entry) == self.index
        uuids = (self.uuid, *(one.uuid for one in self.mig_slices))
        return entry.startswith(("GPU-", "MIG-")) and any(uuid.startswith(entry) for uuid in uuids)

    @property
    def is_usable(self) -> bool:
        """Whether CUDA can open it: a GPU in MIG mode is opened through its slices only."""
        return not self.mig_is_on or bool(self.mig_slices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One distribution that provides one importable module; `cuda` is the CUDA it was built for ("13.2", "12")."""

    module: str
    distribution: str
    version: str
    cuda: str | None = None

    @property
    def release(self) -> tuple[int, ...]:
        """The numbers of the version: 2.15.0+cu132 is (2, 15, 0); (0,) where it starts with none."""
        found = re.match(r"\d+(?:\.\d+)*", self.version)
        return tuple(int(number) for number in found.group().split(".")) if found else (0,)

    @property
    def cuda_major(self) -> int | None:
        """The major version of its CUDA, or None for a package without CUDA."""
        return int(self.cuda.partition(".")[0]) if self.cuda else None

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GitState:
    """The commit of the working directory; `is_dirty` counts changes to tracked files, as `git describe` does."""

    commit: str | None
    is_dirty: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Everything a number depends on besides the suite.

    `packages` holds every distribution of interest: two with the same module are a conflict.
    `cuda_visible_devices` and `cuda_device_order` are the variables of these names, None where they are not set.
    """

    host: Host
    driver: Driver = Driver()
    gpus: tuple[Gpu, ...] = ()
    packages: tuple[Package, ...] = ()
    git: GitState | None = None
    cuda_visible_devices: str | None = None
    cuda_device_order: str | None = None

    @property
    def gpus_are_hidden(self) -> bool:
        """Whether CUDA_VISIBLE_DEVICES hides every GPU."""
        return bool(self.gpus) and next(self._visible_gpus(), None) is None

    @property
    def usable_gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that CUDA can open from this process, in its order: the first is the one that is used.

        Numbers in CUDA_VISIBLE_DEVICES count as NVML does, by bus, as CUDA does under CUDA_DEVICE_ORDER=PCI_BUS_ID,
        which trtbench sets unless somebody did. A slice stands for its GPU.
        """
        return tuple(gpu for gpu in self._visible_gpus() if gpu.is_usable)

    def _visible_gpus(self) -> Iterator[Gpu]:
        """Yield what CUDA_VISIBLE_DEVICES names, up to the first entry that is no device, as CUDA does."""
        if self.cuda_visible_devices is None:
            yield from self.gpus
            return
        for entry in self.cuda_visible_devices.split(","):
            named = next((gpu for gpu in self.gpus if gpu.answers_to(entry.strip())), None)
            if named is None:
                return
            yield named

    def providers(self, module: str) -> tuple[Package, ...]:
        """Return the distributions that provide `module`; more than one overwrite each other's files."""
        return tuple(package for package in self.packages if package.module == module)

    def package(self, module: str) -> Package | None:
        """Return the first distribution that provides `module`, or None."""
        return next(iter(self.providers(module)), None)


def as_version(value: Any) -> Version:
    """Turn CUDA's integer spelling of a version into numbers: 12080 is (12, 8)."""
    return int(value) // 1000, int(value) % 1000 // 10
