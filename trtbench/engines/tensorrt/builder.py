"""Builds an engine: graph checked and parsed, builder told, build watched in a thread, plan examined.

How far a build is, TensorRT tells as nested phases, from its own threads; here they become one share, and a stop.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from trtbench.disk import file_sha256, write_atomically
from trtbench.engines.base import BuildResult
from trtbench.engines.cuda import open_cuda
from trtbench.engines.tensorrt import plan as plans
from trtbench.engines.tensorrt.caches import TimingCache, attach_timing_cache, cache_path
from trtbench.engines.tensorrt.inspector import achieved, report_layers
from trtbench.engines.tensorrt.library import Abilities, LogLines, abilities, create_builder, make_logger
from trtbench.engines.tensorrt.precision import PrecisionPlan, plan_precision
from trtbench.engines.tensorrt.source import (
    ParsedNetwork,
    Source,
    add_profiles,
    parse_network,
    read_source,
    set_calibration_profile,
)
from trtbench.errors import CalibrationError, EngineError, TrtbenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import tensorrt as trt

    from trtbench.engines.base import BuildOptions, BuildRequest
    from trtbench.engines.cuda.device import Cuda, DeviceFacts

_POLL_S = 0.1  # joining without a limit would hold back Ctrl-C on Windows
CURE = "`trtbench inspect` and the row's log tell more; try another precision, or optimization_level 2"


@dataclass(slots=True, kw_only=True)
class _Setting:
    """What a build happens in, and what there is to note of it."""

    request: BuildRequest
    able: Abilities
    cuda: Cuda
    device: DeviceFacts
    plan: PrecisionPlan
    source: Source
    timings: TimingCache | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serialized:
    """A plan, the shapes of its profiles, and what the builder complained about."""

    data: bytes
    profiles: tuple[dict[str, list[list[int]]], ...]
    warnings: tuple[str, ...]


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
        setting, lines = _setting(request, able, cuda), LogLines()
        built = serialize(
            request,
            setting.plan,
            setting.source,
            lines=lines,
            logger=make_logger(lines),
            beside=partial(_beside, setting),
            current=cuda.current,
        )
        result = _result(setting, built)  # a plan that does not load is not kept
        write_atomically(request.engine, built.data)
        return result


def _setting(request: BuildRequest, able: Abilities, cuda: Cuda) -> _Setting:
    device = cuda.device()
    plans.refuse_hardware(device, is_hardware_compatible=request.options.hardware_compatible)
    plan = plan_precision(
        request.precision, abilities=able, options=request.options, compute_capability=device.compute_capability
    )
    if plan.needs_calibrator and request.calibration is None:
        what = f"precision {request.precision!r}"
        raise EngineError(what, expected="calibration images", got="none", cure="name a data set in the suite")
    source = read_source(request.source, plan)
    return _Setting(request=request, able=able, cuda=cuda, device=device, plan=plan, source=source)


def serialize(
    request: BuildRequest,
    plan: PrecisionPlan,
    source: Source,
    *,
    lines: LogLines,
    logger: trt.ILogger,
    beside: Callable[[trt.Builder, trt.IBuilderConfig, ParsedNetwork], AbstractContextManager[None]],
    current: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> Serialized:
    """Parse a graph and build it.

    Args:
        request: its options, and who is told of progress.
        plan: of the precision.
        source: the graph.
        lines: what the logger keeps.
        logger: it outlives the builder.
        beside: what the build happens in, given the builder, its configuration and the network.
        current: what the thread that builds happens in.

    Raises:
        DeviceError: the library found no device it can use.
        GraphError: the graph cannot be parsed; by node.
        EngineError: the builder failed; with the lines of its logger.
        OutOfMemoryError: memory ran out.
    """
    builder = create_builder(logger, lines)
    config = builder.create_builder_config()
    configure(config, plan, request.options)
    parsed = parse_network(builder, config, source, is_strongly_typed=plan.is_strongly_typed, logger=logger)
    profiles = add_profiles(builder, config, parsed, request.options)
    watch = BuildWatch(request.on_progress)
    config.progress_monitor = make_monitor(watch)
    with beside(builder, config, parsed):
        data = _serialized(current, builder, parsed, config, watch=watch)
        if data is None:
            raise lines.error(f"TensorRT cannot build {request.engine.name}", cure=CURE)
    watch.complete()
    return Serialized(data=bytes(data), profiles=profiles, warnings=lines.warnings)


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


@contextlib.contextmanager
def _beside(
    setting: _Setting, builder: trt.Builder, config: trt.IBuilderConfig, parsed: ParsedNetwork
) -> Iterator[None]:
    """Give a build its timings of tactics, and images where TensorRT calibrates; keep what it learned."""
    options = setting.request.options
    if options.timing_cache is not None:
        gpu, driver = f"{setting.device.name} sm{plans.sm_of(setting.device)}", setting.device.driver
        path = cache_path(options.timing_cache, version=setting.able.version, gpu=gpu, driver=driver)
        setting.timings = attach_timing_cache(config, path)
    with _calibrating(setting, builder, config, parsed):
        yield
    if setting.timings is not None:
        setting.timings.save(config)
        setting.notes += [setting.timings.note] if setting.timings.note else []
        if not options.optimization_level:  # NvInfer.h, setBuilderOptimizationLevel
            setting.notes.append("at optimization_level 0 TensorRT passes over the timing cache")


@contextlib.contextmanager
def _calibrating(
    setting: _Setting, builder: trt.Builder, config: trt.IBuilderConfig, parsed: ParsedNetwork
) -> Iterator[None]:
    """Feed an implicit INT8 build with images, and note what there is to say of them when it has ended.

    An error in a callback, which TensorRT swallows, is raised behind the build.
    """
    images = setting.request.calibration
    if not setting.plan.needs_calibrator or images is None:
        yield
        return
    from trtbench.engines.tensorrt.calibrator import make_calibrator

    calibrator: Any = make_calibrator(images, setting.cuda)  # and of a class of TensorRT's, known at run time only
    try:
        with warnings.catch_warnings():
            # TensorRT 10 deprecates calibration; it is asked for by name here.
            warnings.simplefilter("ignore", DeprecationWarning)
            config.int8_calibrator = calibrator
            set_calibration_profile(builder, config, parsed, batch_size=images.batch_size)
        yield
        _raise(calibrator.error)
        setting.notes += calibrator.notes
    except EngineError:  # the build failed, and this is why
        _raise(calibrator.error)
        raise
    finally:
        calibrator.close()


def _raise(error: BaseException | None) -> None:
    """Raise what went wrong in a callback; an error that is none of ours as one of calibration."""
    if isinstance(error, TrtbenchError):
        raise error
    if error is not None:
        raise CalibrationError("calibration", got=repr(error), cure="see the row's log") from error


def _serialized(
    current: Callable[[], AbstractContextManager[None]],
    builder: trt.Builder,
    parsed: ParsedNetwork,
    config: trt.IBuilderConfig,
    *,
    watch: BuildWatch,
) -> trt.IHostMemory | None:
    """Run the build in a thread, so that Ctrl-C stops it at its next step instead of at its end."""
    plans: list[trt.IHostMemory | None] = []
    faults: list[BaseException] = []

    def work() -> None:
        try:
            with current():
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


def _result(setting: _Setting, built: Serialized) -> BuildResult:
    request, plan, source = setting.request, setting.plan, setting.source
    loaded = plans.load_plan(
        built.data,
        what=f"the plan just built, {request.engine.name}, does not load",
        cure=CURE,
        is_version_compatible=request.options.version_compatible,
    )
    examined = plans.examine(loaded.engine)
    report = report_layers(examined.layers, convolutions=source.convolutions)
    words, notes = achieved(report, precision=plan.precision, target=plan.target)
    timings = setting.timings
    facts: dict[str, Any] = {
        **plans.host_facts(setting.device, version=setting.able.version),
        **plans.build_facts(plan, request.options, profiles=built.profiles),
        "tensors": list(examined.tensors),
        "onnx_sha256": file_sha256(source.path),
        "calibration": _calibration_facts(request, plan),
        "layers": plans.layer_facts(report, quantizers=source.quantizers),
        "timing_cache": None if timings is None else {"file": timings.path.name, "read_bytes": timings.read_bytes},
        "warnings": list(built.warnings[:20]),
        "trtexec": plans.trtexec_line(
            request,
            plan,
            profiles=built.profiles,
            is_strong_by_default=not setting.able.has_weak_typing,
            timing_cache=None if timings is None else timings.path,
        ),
    }
    weight_bytes = source.weight_bytes if report.weight_bytes is None else report.weight_bytes
    return BuildResult(achieved=words, weight_bytes=weight_bytes, facts=facts, notes=(*notes, *setting.notes))


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


@dataclass(slots=True, kw_only=True)
class _Phase:
    """A phase under way: which one it is part of, its steps and how many are done."""

    parent: str | None
    steps: int
    done: int = 0


class BuildWatch:
    """What the monitor of a build and the thread that waits for it share: the phases under way, nested, and a stop.

    Args:
        on_progress: told the phase and the share; an error it raises stops the build and is kept.
    """

    def __init__(self, on_progress: Callable[[str, float], None] | None) -> None:
        self.error: BaseException | None = None
        self._tell = on_progress
        self._open: dict[str, _Phase] = {}
        self._outermost, self._share = "", 0.0
        self._lock = threading.Lock()
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Ask the build to stop at its next step."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether it was asked to stop: TensorRT then gives no engine, as if it had failed."""
        return self._cancelled.is_set()

    @property
    def share(self) -> float:
        """The share of the outermost phase that is done, in [0, 1]; within one it never falls."""
        roots = [name for name, phase in self._open.items() if phase.parent not in self._open]
        self._share = max([self._share, *map(self._share_of, roots)])
        return self._share

    def _share_of(self, name: str) -> float:
        phase = self._open[name]
        inner = [self._share_of(child) for child, one in self._open.items() if one.parent == name and child != name]
        return min(1.0, (phase.done + max(inner, default=0.0)) / phase.steps)

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Note that a phase begins; without a parent it is an outermost one."""
        with self._lock:
            if parent is None:
                self._outermost, self._share = name, 0.0
            self._open[name] = _Phase(parent=parent, steps=max(steps, 1))
        self._report(name)

    def step(self, name: str, step: int) -> bool:
        """Note that a step (counted from 0) is done; say whether the build may go on."""
        with self._lock:
            if name in self._open:
                self._open[name].done = max(self._open[name].done, step + 1)
        self._report(name)
        return not self.is_cancelled

    def finish(self, name: str) -> None:
        """Note that a phase is over, as a whole or because the build was cancelled."""
        with self._lock:
            self._open.pop(name, None)

    def complete(self) -> None:
        """Note that there is an engine: TensorRT does not always tell the last step of the outermost phase."""
        if self._outermost and self.share < 1:
            self._report(self._outermost, 1.0)

    def _report(self, name: str, share: float | None = None) -> None:
        if self._tell is None:
            return
        try:
            with self._lock:  # one at a time, in the order of their shares
                self._tell(name, self.share if share is None else share)
        except BaseException as error:  # noqa: BLE001  raised in a callback of TensorRT it would vanish: it is kept
            self.error = self.error or error
            self.cancel()


def make_monitor(watch: BuildWatch) -> trt.IProgressMonitor:
    """Return the monitor that feeds `watch`; it must outlive the build."""
    import tensorrt as trt

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)  # pybind11 wants its own constructor called

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            watch.finish(phase_name)

    return Monitor()
