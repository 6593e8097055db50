"""What the sidecar keeps of a build beside its own fields, and the `trtexec` line that makes the same engine. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from trtbench.engines.tensorrt.binding import sm_of
from trtbench.jsonable import to_jsonable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from trtbench.engines.base import BuildOptions, BuildRequest
    from trtbench.engines.cuda.device import DeviceFacts
    from trtbench.engines.tensorrt.inspector import LayerReport
    from trtbench.engines.tensorrt.precision import PrecisionPlan

    Profiles = Sequence[Mapping[str, Sequence[Sequence[int]]]]


def host_facts(device: DeviceFacts, *, version: str, system: str, arch: str) -> dict[str, Any]:
    """Return the machine of a build: TensorRT, GPU, SM, driver, CUDA, operating system."""
    return {
        "tensorrt": version,
        "gpu": device.name,
        "uuid": device.uuid,
        "is_mig_slice": device.uuid.startswith("MIG-"),
        "sm": sm_of(device),
        "driver": device.driver,
        "cuda": device.runtime,
        "os": system,
        "arch": arch,
    }


def build_facts(plan: PrecisionPlan, options: BuildOptions, *, profiles: Profiles) -> dict[str, Any]:
    """Return how TensorRT was told to build: flags by name, never by number, for the numbers differ by major."""
    return {
        "precision": plan.precision,
        "strongly_typed": plan.is_strongly_typed,
        "flags": list(plan.flags),
        "cleared_flags": list(plan.cleared),
        "calibrated": plan.needs_calibrator,
        "profiles": to_jsonable([dict(shapes) for shapes in profiles]),
        "optimization_level": options.optimization_level,
        "workspace_mib": options.workspace_mib,
        "hardware_compatibility": "AMPERE_PLUS" if options.hardware_compatible else "NONE",
        "version_compatible": options.version_compatible,
    }


def layer_facts(report: LayerReport, *, quantizers: int) -> dict[str, Any]:
    """Return what the engine inspector told, with how many of the graph's Q and DQ nodes were fused."""
    return {
        **to_jsonable(report),
        "quantizers": quantizers,
        "fused_quantizers": max(quantizers - report.unfused, 0),
    }


def trtexec_line(
    request: BuildRequest,
    plan: PrecisionPlan,
    *,
    profiles: Profiles,
    is_strong_by_default: bool,
    timing_cache: Path | None,
) -> str:
    """Return the command line of NVIDIA's `trtexec` that builds this engine again.

    Args:
        request: source, engine and options.
        plan: the precision.
        profiles: the shapes of each input: smallest, usual, largest.
        is_strong_by_default: TensorRT 11 knows strongly typed networks only, and its `trtexec` no other flag.
        timing_cache: the file of timings that the build read.
    """
    options = request.options
    cache = request.calibration.cache if plan.needs_calibrator and request.calibration else None
    several = len(profiles) > 1
    parts = [
        f"--onnx={request.source}",
        f"--saveEngine={request.engine}",
        *(["--stronglyTyped"] if plan.is_strongly_typed and not is_strong_by_default else []),
        *(f"--{name.lower()}" for name in plan.flags if name in {"FP16", "INT8"}),
        *(["--noTF32"] if "TF32" in plan.cleared else []),
        *([f"--calib={cache}"] if cache else []),
        *(["--sparsity=enable"] if options.sparse else []),
        *(["--versionCompatible"] if options.version_compatible else []),
        *(["--hardwareCompatibilityLevel=ampere+"] if options.hardware_compatible else []),
        *([f"--memPoolSize=workspace:{options.workspace_mib}"] if options.workspace_mib else []),
        f"--builderOptimizationLevel={options.optimization_level}",
        "--profilingVerbosity=detailed",
        *([f"--timingCacheFile={timing_cache}"] if timing_cache else []),
        *(part for index, shapes in enumerate(profiles) for part in _shapes(shapes, index if several else None)),
        "--skipInference",
    ]
    return shlex.join(["trtexec", *parts])


def _shapes(shapes: Mapping[str, Sequence[Sequence[int]]], index: int | None) -> list[str]:
    """Spell one profile; several are told apart by their number in front."""
    spelled = [
        f"--{name}Shapes="
        + ",".join(f"{tensor}:{'x'.join(map(str, triple[place]))}" for tensor, triple in shapes.items())
        for place, name in enumerate(("min", "opt", "max"))
    ]
    return spelled if index is None else [f"--profile={index}", *spelled]
