"""What this machine can do, what it lacks, what does not go together, and what pip mends: rules on facts. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from trtbench.environment.gpus import FIRST_SM_OF_CUDA_13, fitting_extra
from trtbench.errors import CapabilityError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trtbench.environment.facts import Environment, Gpu, Package, Version


# (module, CUDA major) -> what the extras cu12 and cu13 of pyproject.toml ask for
REQUIREMENTS_OF_EXTRAS: dict[tuple[str, int], tuple[str, ...]] = {
    ("torch", 12): ("torch>=2.8,<2.11", "torchvision>=0.23,<0.26"),
    ("torch", 13): ("torch>=2.11", "torchvision>=0.26"),
    ("onnxruntime", 12): ("onnxruntime-gpu>=1.24,<1.27",),
    ("onnxruntime", 13): ("onnxruntime-gpu[cuda,cudnn]>=1.28",),
    ("cupy", 12): ("cupy-cuda12x>=13.6,<15",),
    ("cupy", 13): ("cupy-cuda13x>=14,<15",),
    ("tensorrt", 12): ("tensorrt-cu12>=10.13,<11",),
    ("tensorrt", 13): ("tensorrt-cu13>=10.13.2,<11",),
}
_NEWEST_CUDA = 13


def wanted_cuda(environment: Environment) -> tuple[int, str]:
    """Return the CUDA major that all packages of a machine should share, and who asks for it."""
    return next(_wishes(environment))


def _wishes(environment: Environment) -> Iterator[tuple[int, str]]:
    """Yield the hardest limit first: a driver and a GPU cannot be installed again, a package can."""
    cuda = environment.driver.cuda
    if cuda and cuda < (13, 0):
        yield 12, f"the driver ends at CUDA {cuda[0]}.{cuda[1]}"
    for gpu in environment.usable_gpus:
        if gpu.compute_capability < FIRST_SM_OF_CUDA_13:
            yield 12, f"{gpu.name} (SM {gpu.sm}) needs CUDA 12"
    for module in ("torch", "onnxruntime", "cupy"):
        for package in environment.providers(module):
            if package.cuda_major in {12, 13}:
                yield package.cuda_major, f"{package} is built for CUDA {package.cuda_major}"
    yield _NEWEST_CUDA, f"CUDA {_NEWEST_CUDA} is the newest that trtbench knows"


def install(module: str, *, cuda: int) -> str:
    """Return the command that installs what provides `module` for a CUDA major."""
    return " ".join(["pip install", *(f"'{requirement}'" for requirement in REQUIREMENTS_OF_EXTRAS[module, cuda])])


def replace(*packages: Package, cuda: int) -> str:
    """Return the command that puts the build for a CUDA major in the place of all that provides one module.

    Distributions of another name are removed first: they share their folder with what comes.
    """
    module = packages[0].module
    comes = re.split(r"[\[<>=]", REQUIREMENTS_OF_EXTRAS[module, cuda][0])[0]
    if [package.distribution for package in packages] == [comes]:
        return install(module, cuda=cuda)
    goes = " ".join(part for package in packages for part in _parts(package))
    return f"pip uninstall -y {goes} && {install(module, cuda=cuda)}"


def _parts(package: Package) -> list[str]:
    """Name a distribution and those it is made of: TensorRT comes in three."""
    parts = ("", "-bindings", "-libs") if package.module == "tensorrt" else ("",)
    return [package.distribution + part for part in parts]


# TensorRT 10.5 release notes: Volta (SM 7.0) is gone. trtbench needs 10.13 or later.
FIRST_SM_OF_TENSORRT = (7, 5)
# What TensorRT for RTX can be told to build for, by name; there is no Hopper and no data-centre Blackwell among them.
RtxTarget = Literal["sm75", "sm80", "sm86", "sm89", "sm120", "sm121"]
CAPABILITIES = ("fp16", "bf16", "tf32", "int8", "fp8", "fp4", "2:4", "amp", "tensorrt")

# name -> (first compute capability, what comes with it). Sources: CUDA C++ Programming Guide, "Compute Capabilities",
# for the formats of the tensor cores (Volta FP16, Ampere BF16 and TF32, Ada FP8, Blackwell FP4); Mishra et al. 2021,
# "Accelerating Sparse Deep Neural Networks", for 2:4; PyTorch, "Automatic Mixed Precision", which gains through tensor
# cores only.
_FIRST_SM: dict[str, tuple[Version, str]] = {
    "bf16": ((8, 0), "BF16 tensor cores"),
    "tf32": ((8, 0), "TF32 tensor cores"),
    "fp8": ((8, 9), "FP8 tensor cores"),
    "fp4": ((10, 0), "FP4 tensor cores"),
    "2:4": ((8, 0), "sparse tensor cores"),
    "amp": ((7, 0), "tensor cores for autocast"),
    "tensorrt": (FIRST_SM_OF_TENSORRT, "TensorRT 10.5 and later"),
}
# what trtbench makes of it, where a name alone would promise more or less
_USES = {
    "fp8": ": the precisions fp8 and fp8+fp16 of TensorRT",
    "fp4": ": TensorRT takes matrix products in it and no convolutions, so that no row does",
}
REQUIREMENTS = ("gpu", *CAPABILITIES)
TENSORRT_MAJORS = (10, 11)
_BRING_A_GPU = "run on a machine with an NVIDIA GPU and its driver; start a container with --gpus all"
# CUDA of torch's x86-64 wheels -> compute capabilities they hold code for (torch._C._cuda_getArchFlags, 2.8 to 2.15)
_TORCH_ARCHITECTURES: dict[str, tuple[Version, ...]] = {
    "12.8": ((7, 0), (7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0)),
    "13.0": ((7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0)),
    "13.2": ((7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0)),
}
# CuPy major -> numpy it accepts, first and first beyond (metadata of 13.6.0 and 14.2.0)
_NUMPY_OF_CUPY = {13: ((1, 22), (2, 6)), 14: ((2, 0), (2, 6))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One thing that is or is not available, why, and what would bring it."""

    name: str
    is_available: bool
    reason: str
    cure: str = ""


def capabilities(gpu: Gpu) -> tuple[Capability, ...]:
    """Say what one GPU can do, in the order of `CAPABILITIES`."""
    return tuple(capability(name, gpu=gpu) for name in CAPABILITIES)


def capability(name: str, *, gpu: Gpu) -> Capability:
    """Say whether one GPU has the capability `name`, one of `CAPABILITIES`."""
    if name == "fp16":
        return _fp16(gpu)
    if name == "int8":
        return _int8(gpu)
    first, what = _FIRST_SM[name]
    if gpu.compute_capability >= first:
        return _yes(name, f"{what}, from SM {_text(first)} on{_USES.get(name, '')}")
    return _no(name, f"{what} need SM {_text(first)}, this is SM {gpu.sm}", first=first)


def _fp16(gpu: Gpu) -> Capability:
    """Judge FP16 by the CUDA C++ Programming Guide, "Arithmetic Instructions".

    FP16 runs at twice the FP32 rate on 5.3, 6.0 and 6.2, at 1/64 of it on 6.1, and not at all before 5.3.
    """
    sm = gpu.compute_capability
    if sm >= (7, 0):
        return _yes("fp16", f"FP16 tensor cores, from SM 7.0 on{_exception(gpu)}")
    if sm in {(5, 3), (6, 0), (6, 2)}:
        return _yes("fp16", f"twice the FP32 rate on SM {gpu.sm}, no tensor cores")
    reason = "FP16 runs at 1/64 of the FP32 rate on SM 6.1" if sm == (6, 1) else f"no fast FP16 on SM {gpu.sm}"
    return _no("fp16", reason, first=(7, 0))


def _int8(gpu: Gpu) -> Capability:
    """Judge INT8 by the PTX ISA: dp4a from sm_61, integer mma from sm_72 (Xavier) and sm_75 (Turing)."""
    if gpu.compute_capability >= (7, 2):
        return _yes("int8", f"INT8 tensor cores, from SM 7.2 on{_exception(gpu)}")
    if gpu.compute_capability >= (6, 1):
        return _yes("int8", f"DP4A only on SM {gpu.sm}, no INT8 tensor cores")
    return _no("int8", f"DP4A needs SM 6.1, this is SM {gpu.sm}", first=(7, 5))


def _exception(gpu: Gpu) -> str:
    """Name the one family of chips (TU11x) that lacks the tensor cores of its compute capability."""
    return ", but GTX 16xx has none" if gpu.compute_capability == (7, 5) else ""


def _yes(name: str, reason: str) -> Capability:
    return Capability(name=name, is_available=True, reason=reason)


def _no(name: str, reason: str, *, first: Version) -> Capability:
    return Capability(name=name, is_available=False, reason=reason, cure=f"use a GPU of SM {_text(first)} or later")


def demand(environment: Environment, *, require: Sequence[str]) -> None:
    """Check that this machine offers all of `require`.

    Raises:
        CapabilityError: something is absent; the message carries each reason and cure.
        ConfigError: a name is not one of `REQUIREMENTS`.
    """
    lacks = missing(environment, require=require)
    if not lacks:
        return
    reasons: dict[str, list[str]] = {}
    for lack in lacks:
        reasons.setdefault(lack.reason, []).append(lack.name)
    raise CapabilityError(
        "this machine",
        expected=", ".join(require),
        got="; ".join(f"no {', '.join(names)} ({reason})" for reason, names in reasons.items()),
        cure="; ".join(dict.fromkeys(lack.cure for lack in lacks)),
    )


def missing(environment: Environment, *, require: Sequence[str]) -> tuple[Capability, ...]:
    """Return what the best usable GPU lacks of `require`: one GPU must offer all of it at once.

    `gpu` asks for any GPU that CUDA can open; `tensorrt` for a GPU and an installation that can build engines.

    Raises:
        ConfigError: a name is not one of `REQUIREMENTS`.
    """
    unknown = [name for name in require if name not in REQUIREMENTS]
    if unknown:
        raise ConfigError(
            "requirement", expected=f"names out of {', '.join(REQUIREMENTS)}", got=", ".join(map(repr, unknown))
        )
    if not environment.usable_gpus:
        return tuple(no_gpu(environment, name=name) for name in require)
    lacks = (tuple(_lacks(gpu, environment, require=require)) for gpu in environment.usable_gpus)
    return min(lacks, key=len)


def missing_for_tensorrt(environment: Environment) -> tuple[Capability, ...]:
    """Return what stands between the GPU that is used, the first, and a TensorRT engine; nothing where one is built."""
    first = [capability("tensorrt", gpu=gpu) for gpu in environment.usable_gpus[:1]]
    if lacks := tuple(one for one in first if not one.is_available):
        return lacks  # no installation helps
    return (*(() if first else (no_gpu(environment, name="gpu"),)), *_missing_installation(environment))


def no_gpu(environment: Environment, *, name: str) -> Capability:
    """Say for `name` why no GPU can be used on this machine, and what would help."""
    reason, cure = _why_no_gpu(environment)
    return Capability(name=name, is_available=False, reason=reason, cure=cure)


def install_tensorrt(environment: Environment) -> str:
    """Return the command that installs the TensorRT that fits the driver and the GPUs."""
    lowest_sm = min((gpu.compute_capability for gpu in environment.usable_gpus), default=None)
    extra = fitting_extra(environment.driver.cuda, lowest_sm=lowest_sm)
    if extra:
        return f"pip install 'trtbench[{extra}]'"
    return "pip install 'trtbench[cu12]' (driver 525 or later) or 'trtbench[cu13]' (driver 580 or later)"


def _why_no_gpu(environment: Environment) -> tuple[str, str]:
    if environment.gpus and environment.gpus_are_hidden:
        return (
            f"CUDA_VISIBLE_DEVICES={environment.cuda_visible_devices!r} hides every GPU",
            "unset CUDA_VISIBLE_DEVICES",
        )
    if environment.gpus:
        return "the GPU is in MIG mode and has no slice", "create one: nvidia-smi mig -cgi PROFILE -C"
    if environment.driver.problem:
        return f"the NVIDIA driver does not answer: {environment.driver.problem}", "reboot or install the driver again"
    return "no CUDA device", _BRING_A_GPU


def _lacks(gpu: Gpu, environment: Environment, *, require: Sequence[str]) -> Iterator[Capability]:
    for name in require:
        if name == "gpu":
            continue
        found = capability(name, gpu=gpu)
        if not found.is_available:
            yield found
        elif name == "tensorrt":
            yield from _missing_installation(environment)


def _missing_installation(environment: Environment) -> tuple[Capability, ...]:
    package, driver_cuda = environment.package("tensorrt"), environment.driver.cuda
    if package is None:
        reason = "TensorRT is not installed"
    elif package.release[0] not in TENSORRT_MAJORS:
        reason = f"{package} is neither 10.x nor 11.x"
    elif driver_cuda and package.cuda_major and package.cuda_major > driver_cuda[0]:
        reason = f"{package} needs a driver for CUDA {package.cuda_major}, this one ends at CUDA {driver_cuda[0]}"
    else:
        return ()
    return (Capability(name="tensorrt", is_available=False, reason=reason, cure=install_tensorrt(environment)),)


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


def _order(environment: Environment) -> Iterator[Conflict]:
    order = environment.cuda_device_order
    if len(environment.gpus) > 1 and order not in {None, "PCI_BUS_ID"}:
        what = f"CUDA_DEVICE_ORDER={order}: rows may be named and metered by another GPU than the one they run on"
        yield _warning(what, "unset CUDA_DEVICE_ORDER, or name GPUs by their UUIDs in CUDA_VISIBLE_DEVICES")


def _cuda_majors(environment: Environment) -> Iterator[Conflict]:
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
        is_on_arm = environment.host.cpu.architecture == "aarch64"
        none = "use the backend tensorrt: ONNX Runtime has no package with CUDA for Linux on ARM"
        yield _warning(what, none if is_on_arm else replace(package, cuda=wanted))


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
    if environment.usable_gpus and not (cupy or environment.package("pycuda")):
        what = "a CUDA device is there, but neither CuPy nor PyCUDA is: of the engines on it only PyTorch's can run"
        yield _warning(what, install("cupy", cuda=wanted_cuda(environment)[0]))
    limits = _NUMPY_OF_CUPY.get(cupy.release[0]) if cupy else None
    if numpy and limits and not limits[0] <= numpy.release < limits[1]:
        yield _error(f"{cupy} does not take {numpy}", f"pip install 'numpy>={_text(limits[0])},<{_text(limits[1])}'")


_RULES = (_driver, _order, _cuda_majors, _shared_module, _pynvml, _torch, _onnxruntime, _tensorrt, _tensorrt_11, _cupy)


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
