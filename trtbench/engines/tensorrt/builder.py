"""Builds an engine: graph checked and parsed, builder told, build watched in a thread, plan examined."""

from __future__ import annotations

import contextlib
import platform
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbench.engines.base import BuildResult
from trtbench.engines.cuda.open import open_cuda
from trtbench.engines.tensorrt.binding import refuse_hardware, sm_of
from trtbench.engines.tensorrt.examine import examine, load_plan
from trtbench.engines.tensorrt.facts import build_facts, host_facts, layer_facts, trtexec_line
from trtbench.engines.tensorrt.inspector import achieved, report_layers
from trtbench.engines.tensorrt.library import Abilities, LogLines, abilities, create_builder, make_logger
from trtbench.engines.tensorrt.monitor import BuildWatch, make_monitor
from trtbench.engines.tensorrt.network import ParsedNetwork, add_profiles, parse_network, set_calibration_profile
from trtbench.engines.tensorrt.precision import PrecisionPlan, plan_precision
from trtbench.engines.tensorrt.source import Source, read_source
from trtbench.engines.tensorrt.timing_cache import TimingCache, attach_timing_cache, cache_path
from trtbench.errors import CalibrationError, EngineError, TrtbenchError
from trtbench.store import file_sha256, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator

    import tensorrt as trt

    from trtbench.engines.base import BuildOptions, BuildRequest
    from trtbench.engines.cuda.device import Cuda, DeviceFacts

_POLL_S = 0.1  # joining without a limit would hold back Ctrl-C on Windows
_CURE = "`trtbench inspect` and the row's log tell more; try another precision, or optimization_level 2"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """What a build happens in."""

    request: BuildRequest
    able: Abilities
    cuda: Cuda
    device: DeviceFacts
    plan: PrecisionPlan
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    """A plan, and what the builder was given for it."""

    data: bytes
    profiles: tuple[dict[str, list[list[int]]], ...]
    timings: TimingCache | None
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def build_engine(request: BuildRequest) -> BuildResult:
    """Build `request.engine` from its ONNX graph, and load it once to see what became of it.

    Raises:
        UnsupportedError: this TensorRT or this GPU has no such precision; the reason and the cure are in the message.
        GraphError: the graph is not of the precision's types, breaks a rule, or cannot be parsed; by node.
        CalibrationError: the calibrator failed; TensorRT would have gone on with the images it had.
        EngineError: the builder failed; with the lines of TensorRT's logger.
        OutOfMemoryError: memory ran out.
        StoreError: the engine or the timing cache cannot be written.
    """
    able = abilities()
    with contextlib.closing(open_cuda()) as cuda:
        setting = _setting(request, able, cuda)
        built = _build(setting)
        result = _result(setting, built)  # a plan that does not load is not kept
        write_atomically(request.engine, built.data)
        return result


def _setting(request: BuildRequest, able: Abilities, cuda: Cuda) -> _Setting:
    device = cuda.device()
    refuse_hardware(device, is_hardware_compatible=request.options.hardware_compatible)
    plan = plan_precision(
        request.precision, abilities=able, options=request.options, compute_capability=device.compute_capability
    )
    if plan.needs_calibrator and request.calibration is None:
        what = f"precision {request.precision!r}"
        raise EngineError(what, expected="calibration images", got="none", cure="name a data set in the suite")
    source = read_source(request.source, plan)
    return _Setting(request=request, able=able, cuda=cuda, device=device, plan=plan, source=source)


def _build(setting: _Setting) -> _Built:
    lines = LogLines()
    logger = make_logger(lines)
    builder = create_builder(logger, lines)
    config = builder.create_builder_config()
    options = setting.request.options
    configure(config, setting.plan, options)
    parsed = parse_network(
        builder, config, setting.source, is_strongly_typed=setting.plan.is_strongly_typed, logger=logger
    )
    profiles = add_profiles(builder, config, parsed, options)
    timings = _timings(setting, config)
    watch = BuildWatch(setting.request.on_progress)
    config.progress_monitor = make_monitor(watch)
    with _calibrating(setting, builder, config, parsed) as notes:
        plan = _serialized(setting.cuda, builder, parsed, config, watch=watch)
    if plan is None:
        raise lines.error(f"TensorRT cannot build {setting.request.engine.name}", cure=_CURE)
    watch.complete()
    if timings is not None:
        timings.save(config)
    if timings is not None:
        notes += [note for note in (timings.note, _passed_over(options)) if note]
    return _Built(data=bytes(plan), profiles=profiles, timings=timings, warnings=lines.warnings, notes=tuple(notes))


def configure(config: trt.IBuilderConfig, plan: PrecisionPlan, options: BuildOptions) -> None:
    """Tell the builder all but shapes, timings and calibration; flags by name."""
    import tensorrt as trt

    with warnings.catch_warnings():
        # TensorRT 10 deprecates INT8 and FP16 flags: weakly typed engines are asked for by name here.
        warnings.simplefilter("ignore", DeprecationWarning)
        for name in plan.flags:
            config.set_flag(getattr(trt.BuilderFlag, name))
    for name in plan.cleared:
        config.clear_flag(getattr(trt.BuilderFlag, name))
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector tells no precisions
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _timings(setting: _Setting, config: trt.IBuilderConfig) -> TimingCache | None:
    folder = setting.request.options.timing_cache
    if folder is None:
        return None
    gpu = f"{setting.device.name} sm{sm_of(setting.device)}"
    path = cache_path(folder, version=setting.able.version, gpu=gpu, driver=setting.device.driver)
    return attach_timing_cache(config, path)


def _passed_over(options: BuildOptions) -> str:
    """Say where a timing cache is of no use (NvInfer.h, setBuilderOptimizationLevel)."""
    return "" if options.optimization_level else "at optimization_level 0 TensorRT passes over the timing cache"


@contextlib.contextmanager
def _calibrating(
    setting: _Setting, builder: trt.Builder, config: trt.IBuilderConfig, parsed: ParsedNetwork
) -> Iterator[list[str]]:
    """Feed an implicit INT8 build with images, and yield what there is to note of them when it has ended.

    An error in a callback, which TensorRT swallows, is raised behind the build.
    """
    images, notes = setting.request.calibration, list[str]()
    if not setting.plan.needs_calibrator or images is None:
        yield notes
        return
    from trtbench.engines.tensorrt.calibrator import make_calibrator

    calibrator: Any = make_calibrator(images, setting.cuda)  # and of a class of TensorRT's, known at run time only
    try:
        with warnings.catch_warnings():
            # TensorRT 10 deprecates calibration; it is asked for by name here.
            warnings.simplefilter("ignore", DeprecationWarning)
            config.int8_calibrator = calibrator
            set_calibration_profile(builder, config, parsed, batch_size=images.batch_size)
        yield notes
        _raise(calibrator.error)
        notes += calibrator.notes
    finally:
        calibrator.close()


def _raise(error: BaseException | None) -> None:
    """Raise what went wrong in a callback; an error that is none of ours as one of calibration."""
    if isinstance(error, TrtbenchError):
        raise error
    if error is not None:
        raise CalibrationError("calibration", got=repr(error), cure="see the row's log") from error


def _serialized(
    cuda: Cuda, builder: trt.Builder, parsed: ParsedNetwork, config: trt.IBuilderConfig, *, watch: BuildWatch
) -> trt.IHostMemory | None:
    """Run the build in a thread, so that Ctrl-C stops it at its next step instead of at its end."""
    plans: list[trt.IHostMemory | None] = []
    faults: list[BaseException] = []

    def work() -> None:
        try:
            with cuda.current():
                plans.append(builder.build_serialized_network(parsed.network, config))
        except BaseException as error:  # noqa: BLE001  raised again by the thread that waits
            faults.append(error)

    thread = threading.Thread(target=work, name="trtbench-build", daemon=True)
    try:
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_S)
    except KeyboardInterrupt:
        watch.cancel()
        while thread.is_alive():  # in `start` the interrupt may come before there is a thread
            thread.join(_POLL_S)
        raise
    for error in (watch.error, *faults):
        if error is not None:
            raise error
    return plans[0]


def _result(setting: _Setting, built: _Built) -> BuildResult:
    request, plan, source = setting.request, setting.plan, setting.source
    loaded = load_plan(
        built.data,
        what=f"the plan just built, {request.engine.name}, does not load",
        cure=_CURE,
        is_version_compatible=request.options.version_compatible,
    )
    examined = examine(loaded.engine)
    report = report_layers(examined.layers, convolutions=source.convolutions)
    words, notes = achieved(report, precision=plan.precision, target=plan.target)
    timings = built.timings
    facts: dict[str, Any] = {
        **host_facts(setting.device, version=setting.able.version, system=platform.system(), arch=platform.machine()),
        **build_facts(plan, request.options, profiles=built.profiles),
        "tensors": list(examined.tensors),
        "onnx_sha256": file_sha256(source.path),
        "calibration": _calibration_facts(request, plan),
        "layers": layer_facts(report, quantizers=source.quantizers),
        "timing_cache": None if timings is None else {"file": timings.path.name, "read_bytes": timings.read_bytes},
        "warnings": list(built.warnings[:20]),
        "trtexec": trtexec_line(
            request,
            plan,
            profiles=built.profiles,
            is_strong_by_default=not setting.able.has_weak_typing,
            timing_cache=None if timings is None else timings.path,
        ),
    }
    weight_bytes = source.weight_bytes if report.weight_bytes is None else report.weight_bytes
    return BuildResult(achieved=words, weight_bytes=weight_bytes, facts=facts, notes=(*notes, *built.notes))


def _calibration_facts(request: BuildRequest, plan: PrecisionPlan) -> dict[str, Any] | None:
    images = request.calibration
    if not plan.needs_calibrator or images is None:
        return None
    return {
        "algorithm": images.algorithm,
        "batch_size": images.batch_size,
        "images_sha256": file_sha256(images.images),
        "cache": images.cache.name,
    }
