"""Turns a network and a configuration into a plan, or into nothing and a logged error."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from simulated_cuda import device
from simulated_cuda.faults import CUDARuntimeError, is_asked_for

from . import calibration, callbacks, facts, jit, plan
from .config import IBuilderConfig, IOptimizationProfile
from .layers import Precisions, layers_of
from .network import INetworkDefinition, inputs_of, shape_of
from .strict import Managed, deprecated, kinds, make_unusable, strict
from .values import IHostMemory

if TYPE_CHECKING:
    from collections.abc import Sequence

_PHASE, _INNER = "Building engine", "Building engine from subgraph"
_STEPS = 6  # of which the last is never told
_PRECISION_FLAGS = ("FP16", "BF16", "INT8", "FP8", "INT4", "FP4")
_SUPERSEDED = "Deprecated in TensorRT 10.12. Superseded by strong typing."


@strict("Builder")
class Builder(Managed):
    """Makes networks and configurations, and builds."""

    max_threads: int = 1

    def __init__(self, logger: Any) -> None:
        try:
            if not facts.current().is_rtx:  # whose builder needs no device
                device.count()
        except CUDARuntimeError as error:
            callbacks.error(
                logger, f"createInferBuilder: Error Code 6: API Usage Error (CUDA initialization failure: {error})"
            )
            make_unusable(self)
            return
        self._logger = logger
        callbacks.register(self, logger, factory="createInferBuilder")

    @property
    def logger(self) -> Any:
        return self._logger

    @property
    def platform_has_fast_fp16(self) -> bool:
        deprecated(_SUPERSEDED)
        return True

    @property
    def platform_has_fast_int8(self) -> bool:
        deprecated(_SUPERSEDED)
        return True

    @property
    def platform_has_tf32(self) -> bool:
        return True

    def create_network(self, flags: int = 0) -> Any:
        known = sum(1 << int(each) for each in kinds.NetworkDefinitionCreationFlag.__members__.values())
        if int(flags) & ~known:
            callbacks.error(
                self._logger, f"Error Code 3: API Usage Error (unknown network creation flags {int(flags):#b})"
            )
            return None
        return INetworkDefinition._of(self, int(flags))

    def create_builder_config(self) -> Any:
        return IBuilderConfig._of(self._logger)

    def create_optimization_profile(self) -> Any:
        return IOptimizationProfile._of()

    def reset(self) -> None:
        """Forget what was built: nothing is kept."""

    def build_serialized_network(self, network: Any, config: Any, kernel_text: Any = None) -> Any:
        wrong = next(_mistakes(network, config), None)
        if wrong is not None:
            callbacks.error(self._logger, wrong)
            return None
        return _Build(network, config, self._logger).run()


def _mistakes(network: Any, config: Any) -> Any:
    """Name what the library refuses before it builds."""
    if network._model is None or not network._outputs:
        yield _usage("Network must have at least one output")
        return
    wanted = [each for each in _PRECISION_FLAGS if each in config._flag_names]
    if network._is_strongly_typed and wanted:
        yield _usage(f"BuilderFlag::k{wanted[0]} is not compatible with a strongly typed network")
    yield from _profile_mistakes(network, config)


def _usage(text: str) -> str:
    return f"IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error ({text})"


def _profile_mistakes(network: Any, config: Any) -> Any:
    inputs = {each.name: shape_of(each) for each in inputs_of(network._model)}
    if any(-1 in shape for shape in inputs.values()) and not config._profiles:
        yield _usage("Network has dynamic or shape inputs, but no optimization profile has been defined.")
    for number, profile in enumerate(config._profiles):
        for name, shape in inputs.items():
            yield from _shape_mistakes(name, shape, profile.get_shape(name), number)


def _shape_mistakes(name: str, shape: Sequence[int], given: Sequence[Any], number: int) -> Any:
    if -1 not in shape:
        wrong = [
            kind for kind, each in zip(("kMIN", "kOPT", "kMAX"), given, strict=False) if tuple(each) != tuple(shape)
        ]
        if wrong:
            words = f"Input tensor {name} has static dimensions that don't match {wrong[0]} dimensions in profile index"
            yield _usage(f"{words} {number}.")
        return
    if not given:
        yield _usage(f"Dynamic input tensor {name} is missing dimensions in profile {number}.")
        return
    for axis, (least, usual, most) in enumerate(zip(*given, strict=True)):
        if shape[axis] not in {-1, least} or shape[axis] not in {-1, most}:
            sizes = f"profile has min={least}, opt={usual}, max={most} but tensor has {shape[axis]}."
            yield _usage(
                f"Dimension mismatch for tensor {name} and profile {number}. At dimension axis {axis}, {sizes}"
            )


class _Cancelled(Exception):
    """The progress monitor said stop."""


class _Build:
    """One build: phases that the monitor hears of, calibration, and the plan."""

    def __init__(self, network: Any, config: Any, logger: Any) -> None:
        self._network, self._config, self._logger = network, config, logger
        self._model: onnx.ModelProto = network._model
        self._is_cancelled = threading.Event()

    def run(self) -> Any:
        self._start(_PHASE, None, _STEPS)
        try:
            return self._built()
        except _Cancelled:
            return self._failed(
                "IBuilder::buildSerializedNetwork: Error Code 7: BuildCanceled (Build canceled by user)"
            )
        finally:
            self._finish(_PHASE)

    def _built(self) -> Any:
        scales = self._scales()
        if scales is None:
            return self._failed(
                "Error Code 4: Internal Error (Calibration failure occurred with no scaling factors detected. "
                "This could be due to no int8 calibrator or insufficient custom scales for network layers.)"
            )
        self._step(0)
        if is_asked_for("oom-build"):
            return self._failed("Error Code 2: OutOfMemory (Requested size was 9663676416 bytes.)")
        layers = layers_of(self._model, self._precisions(scales))
        self._step(1)
        if (words := self._small_workspace(layers)) is not None:
            return self._failed(words)
        self._start(_INNER, _PHASE, 1)
        try:
            self._tune(layers)
        finally:
            self._finish(_INNER)
        if facts.current().is_rtx:
            jit.tell(self._logger, layers, weight_bytes=_weight_bytes(self._model))
        self._step(2)
        self._step(3)
        data = plan.packed(self._header(layers, scales), self._model.SerializeToString())
        self._step(4)
        return IHostMemory._of(data)

    def _failed(self, text: str) -> None:
        callbacks.error(self._logger, text)

    def _small_workspace(self, layers: list[dict[str, Any]]) -> str | None:
        limit = self._config.get_memory_pool_limit(kinds.MemoryPoolType.WORKSPACE)
        if limit >= _scratch_bytes(layers, []):
            return None
        return (
            "IBuilder::buildSerializedNetwork: Error Code 1: Myelin (no tactics to implement the operation within "
            "workspace limit. Consider increase the workspace size if applicable.)"
        )

    def _scales(self) -> dict[str, float] | None:
        """Calibrate where implicit INT8 is asked for; None when that gave nothing."""
        if self._network._is_strongly_typed or not calibration.is_wanted(self._config, self._model):
            return {}
        if self._config._calibrator is None:
            callbacks.warning(
                self._logger,
                "Calibrator is not being used. Users must provide dynamic range for all tensors that are not "
                "Int32 or Bool.",
            )
            return None
        return calibration.calibrate(
            self._config._calibrator, self._model, shapes=self._calibration_shapes(), logger=self._logger
        )

    def _calibration_shapes(self) -> dict[str, tuple[int, ...]]:
        """The profile's usual shape is what runs, whatever get_batch_size says."""
        profile = self._config._calibration_profile
        fixed = {each.name: shape_of(each) for each in inputs_of(self._model)}
        if not any(-1 in shape for shape in fixed.values()):
            return fixed
        if profile is None:
            callbacks.warning(self._logger, "Calibration Profile is not defined. Calibrating with Profile 0")
            profile = self._config._profiles[0]
        return {name: tuple(profile.get_shape(name)[1]) if -1 in shape else shape for name, shape in fixed.items()}

    def _precisions(self, scales: dict[str, float]) -> Precisions:
        return Precisions(
            int8_tensors=frozenset(scales),
            allows_fp16="FP16" in self._config._flag_names,
            is_strongly_typed=self._network._is_strongly_typed,
        )

    def _tune(self, layers: list[dict[str, Any]]) -> None:
        """Time tactics in two threads, as the library does, and note them in the timing cache."""
        halves = (("Optimizing layers 0", layers[::2]), ("Optimizing layers 1", layers[1::2]))
        threads = [threading.Thread(target=self._tune_some, args=each) for each in halves]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._is_cancelled.is_set():
            raise _Cancelled

    def _tune_some(self, phase: str, layers: list[dict[str, Any]]) -> None:
        self._start(phase, _INNER, len(layers))
        for place, layer in enumerate(layers):
            if self._is_cancelled.is_set():
                break
            if self._config._cache is not None:
                self._config._cache._entries[f"{layer['name']}:{layer['precision']}"] = 0.01
            self._tell(phase, place)
        self._finish(phase)

    def _start(self, phase: str, parent: str | None, steps: int) -> None:
        monitor = self._config.progress_monitor
        if monitor is not None:
            callbacks.ask("phase_start", lambda: monitor.phase_start(phase, parent, steps), otherwise=None)

    def _finish(self, phase: str) -> None:
        monitor = self._config.progress_monitor
        if monitor is not None:
            callbacks.ask("phase_finish", lambda: monitor.phase_finish(phase), otherwise=None)

    def _tell(self, phase: str, step: int) -> None:
        monitor = self._config.progress_monitor
        if monitor is None:
            return
        if not callbacks.ask("step_complete", lambda: monitor.step_complete(phase, step), otherwise=False):
            self._is_cancelled.set()

    def _step(self, step: int) -> None:
        self._tell(_PHASE, step)
        if self._is_cancelled.is_set():
            raise _Cancelled

    def _header(self, layers: list[dict[str, Any]], scales: dict[str, float]) -> dict[str, Any]:
        profiles = [
            {name: [list(each) for each in shapes] for name, shapes in profile._shapes.items()}
            for profile in self._config._profiles
        ]
        return {
            "version": facts.current().version,
            "flags": self._config._flag_names,
            "is_strongly_typed": self._network._is_strongly_typed,
            "sm": "" if facts.current().is_rtx else "{}.{}".format(*device.compute_capability()),
            "hardware": self._config.hardware_compatibility_level.name,
            "verbosity": self._config.profiling_verbosity.name,
            "level": self._config.builder_optimization_level,
            "name": self._network.name,
            "profiles": profiles,
            "targets": [each.name for each in self._config._targets],
            "scales": scales,
            "layers": layers,
            "memory": _scratch_bytes(layers, profiles),
        }


def _weight_bytes(model: onnx.ModelProto) -> int:
    return sum(onnx.numpy_helper.to_array(each).nbytes for each in model.graph.initializer)


def _scratch_bytes(layers: list[dict[str, Any]], profiles: list[dict[str, Any]]) -> int:
    """Guess the activation memory: twice the largest tensor at the largest shape, in blocks of 512 bytes."""
    largest = max((shapes[2][0] for profile in profiles for shapes in profile.values()), default=1)
    sizes = [
        int(np.prod([largest if size == -1 else size for size in tensor["shape"]])) * 4
        for layer in layers
        for tensor in layer["outputs"]
    ]
    return -(-2 * max(sizes, default=1) // 512) * 512
