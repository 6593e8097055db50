"""What the silicon of a GPU can do, by compute capability; which packages are installed does not count here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from trtbench.environment.facts import Gpu, Version

# TensorRT 10.5 release notes: Volta (SM 7.0) is gone. trtbench needs 10.13 or later.
FIRST_SM_OF_TENSORRT = (7, 5)
# What TensorRT for RTX can be told to build for, by name; there is no Hopper and no data-centre Blackwell among them.
RtxTarget = Literal["sm75", "sm80", "sm86", "sm89", "sm120", "sm121"]
CAPABILITIES = ("fp16", "bf16", "tf32", "int8", "fp8", "2:4", "amp", "tensorrt")

# name -> (first compute capability, what comes with it). Sources: CUDA C++ Programming Guide, "Compute Capabilities",
# for the formats of the tensor cores (Volta FP16, Ampere BF16 and TF32, Ada FP8); Mishra et al. 2021, "Accelerating
# Sparse Deep Neural Networks", for 2:4; PyTorch, "Automatic Mixed Precision", which gains through tensor cores only.
_FIRST_SM: dict[str, tuple[Version, str]] = {
    "bf16": ((8, 0), "BF16 tensor cores"),
    "tf32": ((8, 0), "TF32 tensor cores"),
    "fp8": ((8, 9), "FP8 tensor cores"),
    "2:4": ((8, 0), "sparse tensor cores"),
    "amp": ((7, 0), "tensor cores for autocast"),
    "tensorrt": (FIRST_SM_OF_TENSORRT, "TensorRT 10.5 and later"),
}


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
        return _yes(name, f"{what}, from SM {_text(first)} on")
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


def _text(sm: Version) -> str:
    return "{}.{}".format(*sm)
