"""What a demand on this machine lacks, and why; pure functions on an Environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtbench.environment.capabilities import CAPABILITIES, Capability, capability
from trtbench.environment.driver import fitting_extra
from trtbench.errors import CapabilityError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trtbench.environment.facts import Environment, Gpu

REQUIREMENTS = ("gpu", *CAPABILITIES)
TENSORRT_MAJORS = (10, 11)
_BRING_A_GPU = "run on a machine with an NVIDIA GPU and its driver; start a container with --gpus all"


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
    """Return what stands between this machine and a TensorRT engine; nothing where one can be built."""
    found = tuple(capability("tensorrt", gpu=gpu) for gpu in environment.usable_gpus)
    silicon = () if any(one.is_available for one in found) else found[:1]
    return (*(silicon if found else [no_gpu(environment, name="gpu")]), *_missing_installation(environment))


def no_gpu(environment: Environment, *, name: str) -> Capability:
    """Say for `name` why no GPU can be used on this machine, and what would help."""
    reason, cure = _why_no_gpu(environment)
    return Capability(name=name, is_available=False, reason=reason, cure=cure)


def install_tensorrt(environment: Environment) -> str:
    """Return the command that installs the TensorRT that fits the driver."""
    extra = fitting_extra(environment.driver.cuda)
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
