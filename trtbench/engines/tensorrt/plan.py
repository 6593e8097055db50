"""A plan that was built: it is loaded as proof that it loads, asked what it became, and described for the sidecar.

It is bound to operating system, GPU, driver family and TensorRT version. TensorRT has no preflight: a plan of another
GPU may load, warn, and be slow or fail (NVIDIA/TensorRT#2900). So all of it is compared before a plan is read.
"""

from __future__ import annotations

import platform
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbench.engines.tensorrt.library import LogLines, create_runtime, make_logger
from trtbench.environment.gpus import cuda_of_driver
from trtbench.errors import SidecarError, UnsupportedError
from trtbench.jsonable import to_jsonable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import tensorrt as trt

    from trtbench.engines.base import BuildOptions, BuildRequest
    from trtbench.engines.cuda.device import DeviceFacts
    from trtbench.engines.sidecar import Sidecar
    from trtbench.engines.tensorrt.inspector import LayerReport
    from trtbench.engines.tensorrt.precision import PrecisionPlan

    Profiles = Sequence[Mapping[str, Sequence[Sequence[int]]]]

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
    got = f"one of {sidecar.backend_version}{', for it and later versions' if is_portable else ''}"
    what, expected = f"engine of {sidecar.variant}", f"one of TensorRT {version}"
    raise SidecarError(what, expected=expected, got=got, cure=sidecar.rebuilding)


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What an engine is.

    Args:
        tensors: its inputs and outputs: name, mode, shape (-1 where free) and dtype.
        layers: the engine inspector's JSON.
    """

    tensors: tuple[dict[str, Any], ...]
    layers: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An engine, the runtime that must outlive it, and what its logger says from now on."""

    engine: trt.ICudaEngine
    runtime: trt.Runtime
    lines: LogLines


def load_plan(
    data: bytes,
    *,
    what: str,
    cure: str,
    is_version_compatible: bool,
    check: Callable[[trt.Runtime, LogLines], None] | None = None,
) -> Loaded:
    """Deserialise a plan.

    Args:
        data: the bytes of a plan that we built ourselves: a version-compatible one holds host code that is run.
        what: how a message calls it.
        cure: what to do where it does not load.
        is_version_compatible: it was built to be.
        check: raises where the runtime that is to load it says that it cannot.

    Raises:
        DeviceError: TensorRT finds no device.
        EngineError: it does not load; with the lines of TensorRT's logger.
        OutOfMemoryError: the device is full.
    """
    lines = LogLines()
    runtime = create_runtime(make_logger(lines), lines)  # pybind11 keeps the logger with it
    if check is not None:
        check(runtime, lines)
    runtime.engine_host_code_allowed = is_version_compatible
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise lines.error(what, cure=cure)
    return Loaded(engine=engine, runtime=runtime, lines=lines)


def examine(engine: trt.ICudaEngine) -> Examined:
    """Ask a loaded engine for its inputs, outputs and layers."""
    import tensorrt as trt

    inspector = engine.create_engine_inspector()
    # Without shapes the inspector calls types of a free batch not applicable; memory it needs none.
    context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    if context is not None and _set_usual_shapes(engine, context):
        inspector.execution_context = context
    return Examined(
        tensors=tuple(_tensors(engine)), layers=inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    )


def _tensors(engine: trt.ICudaEngine) -> list[dict[str, Any]]:
    names = (engine.get_tensor_name(index) for index in range(engine.num_io_tensors))
    return [
        {
            "name": name,
            "mode": engine.get_tensor_mode(name).name,
            "shape": list(engine.get_tensor_shape(name)),
            "dtype": engine.get_tensor_dtype(name).name,
        }
        for name in names
    ]


def _set_usual_shapes(engine: trt.ICudaEngine, context: trt.IExecutionContext) -> bool:
    """Give the inputs the usual shapes of the first profile; say whether TensorRT took them."""
    inputs = [tensor["name"] for tensor in _tensors(engine) if tensor["mode"] == "INPUT"]
    return all(context.set_input_shape(name, engine.get_tensor_profile_shape(name, 0)[1]) for name in inputs)


def host_facts(device: DeviceFacts, *, version: str) -> dict[str, Any]:
    """Return the machine of a build: TensorRT, GPU, SM, driver, CUDA, operating system."""
    return {
        "tensorrt": version,
        "gpu": device.name,
        "uuid": device.uuid,
        "is_mig_slice": device.uuid.startswith("MIG-"),
        "sm": sm_of(device),
        "driver": device.driver,
        "cuda": device.runtime,
        "os": platform.system(),
        "arch": platform.machine(),
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
