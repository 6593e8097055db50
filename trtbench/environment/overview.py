"""The answer of `gpu-info`: one record that the command line shows as a table or as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtbench.environment.capabilities import Capability, capabilities
from trtbench.environment.conflicts import Conflict, conflicts
from trtbench.environment.demands import missing_for_tensorrt, no_gpu

if TYPE_CHECKING:
    from trtbench.environment.facts import Driver, Environment, Gpu, Host, Package


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReport:
    """One GPU and what it can do."""

    gpu: Gpu
    capabilities: tuple[Capability, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuInfo:
    """What this machine can do for trtbench; `summary` says it in one sentence.

    `tensorrt_missing` names what stands between this machine and a TensorRT engine, each with its cure.
    """

    summary: str
    host: Host
    driver: Driver
    gpus: tuple[GpuReport, ...]
    packages: tuple[Package, ...]
    conflicts: tuple[Conflict, ...]
    tensorrt_ready: bool
    tensorrt_missing: tuple[str, ...]


def gpu_info(environment: Environment) -> GpuInfo:
    """Judge an environment: capabilities, conflicts, and whether TensorRT engines can be built."""
    lacks = missing_for_tensorrt(environment)
    return GpuInfo(
        summary=_summary(environment),
        host=environment.host,
        driver=environment.driver,
        gpus=tuple(GpuReport(gpu=gpu, capabilities=capabilities(gpu)) for gpu in environment.gpus),
        packages=environment.packages,
        conflicts=conflicts(environment),
        tensorrt_ready=not lacks,
        tensorrt_missing=tuple(f"{lack.reason}: {lack.cure}" for lack in lacks),
    )


def _summary(environment: Environment) -> str:
    gpus, driver = environment.usable_gpus, environment.driver
    if not gpus:
        reason = no_gpu(environment, name="gpu").reason
        return f"No GPU can be used ({reason}): engines run on the CPU with ONNX Runtime (onnxruntime-cpu)."
    names = ", ".join(f"{gpu.name} (SM {gpu.sm})" for gpu in gpus)
    cuda = "an unknown CUDA" if driver.cuda is None else "CUDA {}.{}".format(*driver.cuda)
    return f"{len(gpus)} usable GPU{'s' if len(gpus) > 1 else ''}: {names}; driver {driver.version} runs up to {cuda}."
