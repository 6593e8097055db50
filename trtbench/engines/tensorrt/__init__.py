"""TensorRT 10 and 11 from one code base: engines for NVIDIA GPUs.

TensorRT and the packages of CUDA are imported when a function needs them, never with this module. What a major can do
is asked of its names (`library`), enum values are never written as numbers, and an engine is loaded only where its
sidecar says that it belongs (`binding`).
"""

from __future__ import annotations

import contextlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from trtbench.engines.tensorrt.precision import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbench.engines.base import BuildRequest, BuildResult
    from trtbench.engines.sidecar import Sidecar
    from trtbench.engines.tensorrt.cuda import DeviceFacts
    from trtbench.engines.tensorrt.session import TensorrtEngine

__all__ = [
    "PRECISIONS",
    "SUFFIX",
    "TAKES_OPTIONS",
    "build",
    "device_name",
    "is_simulated",
    "machine",
    "open_engine",
    "runtime_version",
    "usual_precisions",
]

SUFFIX = ".plan"
TAKES_OPTIONS = True


def usual_precisions() -> tuple[str, ...]:
    """Return the precisions that a suite means where it names none: those that can win on this GPU and this major.

    In `int8` alone every other layer is FP32, so that it would lose unfairly: int8+fp16 stands beside it, and where
    TensorRT calibrates by itself its best precision too.

    Raises:
        CapabilityError: TensorRT is absent.
        DeviceError: CUDA cannot be used.
    """
    from trtbench.engines.tensorrt.library import abilities
    from trtbench.engines.tensorrt.precision import usual

    return usual(abilities(), compute_capability=_device().compute_capability)


def is_simulated() -> bool:
    """Say whether the library is a test double."""
    from trtbench.engines.tensorrt.library import is_double

    return is_double()


def machine(options: Mapping[str, Any] = MappingProxyType({})) -> str:
    """Return what an engine file is bound to beside its TensorRT version: system, GPU, compute capability, driver.

    Raises:
        DeviceError: CUDA cannot be used.
    """
    from trtbench.engines.tensorrt.binding import machine_of

    return machine_of(_device(), options)


def device_name() -> str:
    """Return the GPU's name.

    Raises:
        DeviceError: CUDA cannot be used.
    """
    return _device().name


def runtime_version() -> str:
    """Return all four parts of TensorRT's version.

    Raises:
        CapabilityError: it is absent.
    """
    from trtbench.engines.tensorrt.library import abilities

    return abilities().version


def build(request: BuildRequest) -> BuildResult:
    """Build an engine; see `builder.build_engine`."""
    from trtbench.engines.tensorrt.builder import build_engine

    return build_engine(request)


def open_engine(path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> TensorrtEngine:
    """Load an engine whose sidecar was checked, after comparing its TensorRT version with the installed one.

    Raises:
        SidecarError: it was built with another TensorRT.
        DeviceError: CUDA cannot be used.
        EngineError: it does not load; with the lines of TensorRT's logger and the command that builds it again.
        OutOfMemoryError: the device is full.
    """
    from trtbench.engines.tensorrt.binding import refuse_version
    from trtbench.engines.tensorrt.cuda import open_cuda
    from trtbench.engines.tensorrt.examine import load_plan
    from trtbench.engines.tensorrt.library import abilities
    from trtbench.engines.tensorrt.session import TensorrtEngine

    refuse_version(sidecar, version=abilities().version)
    cuda = open_cuda()
    loaded = load_plan(
        path.read_bytes(),
        what=f"TensorRT cannot load {path.name}",
        cure=f"build it here: `{sidecar.rebuild or 'trtbench build'}`",
        is_version_compatible=bool(sidecar.options.get("version_compatible")),
    )
    return TensorrtEngine(loaded.engine, loaded.runtime, cuda, sidecar, settings, lines=loaded.lines)


def _device() -> DeviceFacts:
    from trtbench.engines.tensorrt.cuda import open_cuda

    with contextlib.closing(open_cuda()) as cuda:
        return cuda.device()
