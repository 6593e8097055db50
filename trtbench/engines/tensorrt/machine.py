"""What an engine file is bound to: operating system, GPU, driver family and TensorRT version. Pure.

TensorRT has no preflight: a plan of another GPU may load, warn, and be slow or fail (NVIDIA/TensorRT#2900). So all of
it is compared before a plan is read.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from trtbench.environment.gpus import cuda_of_driver
from trtbench.errors import SidecarError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbench.engines.cuda.device import DeviceFacts
    from trtbench.engines.sidecar import Sidecar

_FIRST_PORTABLE_SM = (8, 0)  # HardwareCompatibilityLevel.AMPERE_PLUS


def machine_of(device: DeviceFacts, options: Mapping[str, Any], *, system: str = "") -> str:
    """Return what an engine built for a device is bound to, beside the TensorRT version.

    A whole GPU and a slice of it are two machines: their tactics differ. The driver counts by the CUDA it runs, so
    that an update within it keeps the engines.

    Args:
        device: the GPU.
        options: those of the build; with `hardware_compatible` any GPU from Ampere on will do.
        system: operating system and architecture; those of this host by default.
    """
    host = system or f"{platform.system()} {platform.machine()}"
    driver = f"CUDA {_cuda_major(device.driver)} driver"
    if options.get("hardware_compatible") and device.compute_capability >= _FIRST_PORTABLE_SM:
        return f"{host}, any GPU from SM 8.0 on, {driver}"
    whole = "MIG slice " if device.uuid.startswith("MIG-") else ""
    return f"{host}, {whole}{device.name}, SM {sm_of(device)}, {driver}"


def sm_of(device: DeviceFacts) -> str:
    """Return the compute capability as people write it: 8.6."""
    return "{}.{}".format(*device.compute_capability)


def _cuda_major(driver: str) -> str:
    """Return the CUDA that a driver runs, of its version (`550.54.14`) or of what CUDA tells (`CUDA 12.8`)."""
    if driver.startswith("CUDA "):
        return driver.removeprefix("CUDA ").partition(".")[0]
    found = cuda_of_driver(driver if driver[:1].isdecimal() else None)
    return str(found[0]) if found else "unknown"


def refuse_hardware(device: DeviceFacts, *, is_hardware_compatible: bool) -> None:
    """Refuse a build that cannot be portable.

    Raises:
        UnsupportedError: hardware-compatible engines begin at Ampere.
    """
    if is_hardware_compatible and device.compute_capability < _FIRST_PORTABLE_SM:
        what = f"hardware_compatible on SM {sm_of(device)}"
        raise UnsupportedError(what, expected="SM 8.0 or later", cure="leave it out, or build on an Ampere GPU")


def refuse_version(sidecar: Sidecar, *, version: str) -> None:
    """Refuse an engine of another TensorRT version, before the library reads it.

    An engine is bound to all four parts of its version; a version-compatible one loads in the same and in later ones.

    Raises:
        SidecarError: this TensorRT cannot load it; the message has the command that builds it again.
    """
    built, here = _parts(sidecar.backend_version), _parts(version)
    is_portable = bool(sidecar.options.get("version_compatible"))
    if built == here or (is_portable and built < here):
        return
    cure = f"build it here: `{sidecar.rebuild or 'trtbench build'}`"
    got = f"one of {sidecar.backend_version}{', for it and later versions' if is_portable else ''}"
    raise SidecarError(f"engine of {sidecar.variant}", expected=f"one of TensorRT {version}", got=got, cure=cure)


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
