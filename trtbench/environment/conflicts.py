"""Packages that do not go together, or not with this driver and GPU, each with the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from trtbench.environment.capabilities import FIRST_SM_OF_TENSORRT
from trtbench.environment.cures import install, replace, wanted_cuda
from trtbench.environment.demands import TENSORRT_MAJORS, install_tensorrt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbench.environment.facts import Environment, Package, Version

# CUDA of torch's x86-64 wheels -> compute capabilities they hold code for (torch._C._cuda_getArchFlags, 2.8 to 2.15)
_TORCH_ARCHITECTURES: dict[str, tuple[Version, ...]] = {
    "12.8": ((7, 0), (7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0)),
    "13.0": ((7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0)),
    "13.2": ((7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0)),
}
# CuPy major -> numpy it accepts, first and first beyond (metadata of 13.6.0 and 14.2.0)
_NUMPY_OF_CUPY = {13: ((1, 22), (2, 6)), 14: ((2, 0), (2, 6))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Things that do not go together: an "error" breaks work on this machine, a "warning" narrows it."""

    level: Literal["error", "warning"]
    what: str
    cure: str


def conflicts(environment: Environment) -> tuple[Conflict, ...]:
    """List what does not go together, errors first."""
    found = [conflict for rule in _RULES for conflict in rule(environment)]
    return tuple(sorted(found, key=lambda conflict: conflict.level))


def _driver(environment: Environment) -> Iterator[Conflict]:
    driver = environment.driver
    if _is_too_old(environment):
        what = f"driver {driver.version or '(unknown)'} is older than CUDA 12, which trtbench needs"
        yield _error(what, "install driver 525 or later (CUDA 12), or 580 or later (CUDA 13)")
    if driver.problem:
        yield _error(f"the NVIDIA driver does not answer: {driver.problem}", "reboot, or install the driver again")
    if driver.cuda and not environment.providers("pynvml"):
        yield _error("nvidia-ml-py is not installed: no GPU is seen", "pip install nvidia-ml-py")


def _cuda_majors(environment: Environment) -> Iterator[Conflict]:
    """Report packages of another CUDA major than the driver, the GPU or torch allow."""
    if _is_too_old(environment):
        return
    wanted, because = wanted_cuda(environment)
    for module in ("torch", "onnxruntime", "cupy", "tensorrt"):
        for package in environment.providers(module):
            if _has_wrong_cuda(package, environment):
                what = f"{package} is built for CUDA {package.cuda_major}, but {because}"
                # Without a driver nothing of CUDA runs yet, so nothing is broken yet.
                yield (_error if environment.driver.cuda else _warning)(what, replace(package, cuda=wanted))


def _has_wrong_cuda(package: Package, environment: Environment) -> bool:
    if package.cuda_major is None:
        return False
    if package.module == "tensorrt":  # it brings its own CUDA libraries: only an older driver stands in its way
        return environment.driver.cuda is not None and package.cuda_major > environment.driver.cuda[0]
    return package.cuda_major != wanted_cuda(environment)[0]


def _shared_module(environment: Environment) -> Iterator[Conflict]:
    """Report two distributions in one module's folder: the last one wins, and removing either breaks the other."""
    for module in ("onnxruntime", "cupy", "tensorrt"):
        # `tensorrt` itself is a meta package beside tensorrt-cu12 or tensorrt-cu13.
        found = [package for package in environment.providers(module) if package.distribution != "tensorrt"]
        if len(found) > 1:
            what = f"{' and '.join(map(str, found))} overwrite each other's files"
            yield _error(what, replace(*found, cuda=wanted_cuda(environment)[0]))


def _pynvml(environment: Environment) -> Iterator[Conflict]:
    for package in environment.providers("pynvml"):
        if package.distribution != "nvidia-ml-py":
            what = f"{package} takes the place of NVIDIA's nvidia-ml-py and is not kept up"
            remove = f"pip uninstall -y {package.distribution}"
            yield _warning(what, f"{remove} && pip install --force-reinstall nvidia-ml-py")


def _torch(environment: Environment) -> Iterator[Conflict]:
    torch, (wanted, _) = environment.package("torch"), wanted_cuda(environment)
    if torch is None or not environment.usable_gpus:
        return
    if torch.cuda is None:
        cure = install("torch", cuda=wanted).replace("install", "install --force-reinstall")
        yield _error(f"{torch} is a CPU build, this machine has a GPU", cure)
    if torch.cuda_major != wanted or environment.host.cpu.architecture != "x86_64":
        return  # _cuda_majors has said it, or the wheels hold other architectures than the table
    for gpu in environment.usable_gpus:
        if not _runs(gpu.compute_capability, _TORCH_ARCHITECTURES.get(torch.cuda or "")):
            what = f"{torch} (CUDA {torch.cuda}) holds no code for SM {gpu.sm} of {gpu.name}"
            yield _error(what, "leave this GPU out of CUDA_VISIBLE_DEVICES; set it to nothing to run on the CPU")


def _onnxruntime(environment: Environment) -> Iterator[Conflict]:
    package, (wanted, _) = environment.package("onnxruntime"), wanted_cuda(environment)
    if package is None:
        return
    if package.release[:2] == (1, 27) and package.cuda_major:
        what = f"{package} asks for its CUDA libraries under names that only 1.27 uses"
        yield _warning(what, install("onnxruntime", cuda=wanted))
    if package.cuda_major is None and environment.usable_gpus:
        what = f"{package} is the CPU package, this machine has a GPU: onnxruntime-cuda cannot run"
        yield _warning(what, replace(package, cuda=wanted))


def _tensorrt(environment: Environment) -> Iterator[Conflict]:
    package = environment.package("tensorrt")
    if package is None:
        return
    if package.release[0] not in TENSORRT_MAJORS:
        yield _error(f"{package} is neither 10.x nor 11.x", install_tensorrt(environment))
    for gpu in environment.usable_gpus:
        if gpu.compute_capability < FIRST_SM_OF_TENSORRT:
            what = f"{package} needs SM {_text(FIRST_SM_OF_TENSORRT)}, {gpu.name} is SM {gpu.sm}"
            yield _error(what, "use the backend onnxruntime-cuda or eager on this GPU")


def _tensorrt_11(environment: Environment) -> Iterator[Conflict]:
    """Report what TensorRT 11 took away: implicit calibration, and libnvinfer.so.10, which ONNX Runtime links."""
    package, runtime = environment.package("tensorrt"), environment.package("onnxruntime")
    if package is None or package.release < (11,):
        return
    cure = replace(package, cuda=wanted_cuda(environment)[0])
    yield _warning(f"{package} has no implicit calibrator: int8-implicit cannot be built, int8 (Q/DQ) can", cure)
    if runtime is not None and runtime.cuda_major:
        what = f"{runtime} links libnvinfer.so.10, which {package} lacks: onnxruntime-tensorrt cannot run"
        yield _warning(what, cure)


def _cupy(environment: Environment) -> Iterator[Conflict]:
    cupy, numpy = environment.package("cupy"), environment.package("numpy")
    if cupy is None and environment.usable_gpus:
        what = "a CUDA device is there, but CuPy is not: calibration ranges are collected on the CPU"
        yield _warning(what, install("cupy", cuda=wanted_cuda(environment)[0]))
    limits = _NUMPY_OF_CUPY.get(cupy.release[0]) if cupy else None
    if numpy and limits and not limits[0] <= numpy.release < limits[1]:
        yield _error(f"{cupy} does not take {numpy}", f"pip install 'numpy>={_text(limits[0])},<{_text(limits[1])}'")


_RULES = (_driver, _cuda_majors, _shared_module, _pynvml, _torch, _onnxruntime, _tensorrt, _tensorrt_11, _cupy)


def _is_too_old(environment: Environment) -> bool:
    return environment.driver.cuda is not None and environment.driver.cuda < (12, 0)


def _runs(sm: Version, architectures: tuple[Version, ...] | None) -> bool:
    """Say whether compiled code fits: it runs on its own and any later minor version of its major."""
    return architectures is None or any(major == sm[0] and minor <= sm[1] for major, minor in architectures)


def _error(what: str, cure: str) -> Conflict:
    return Conflict(level="error", what=what, cure=cure)


def _warning(what: str, cure: str) -> Conflict:
    return Conflict(level="warning", what=what, cure=cure)


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
