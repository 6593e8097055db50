"""Optimisation profiles and the builder's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulated_cuda import memory

from . import callbacks, timing_cache
from .strict import Made, Managed, deprecated, kinds, strict
from .values import Dims

if TYPE_CHECKING:
    from collections.abc import Sequence

_IMPLICIT = "Deprecated in TensorRT 10.1. Superseded by explicit quantization."
_HIGHEST_LEVEL = 5


@strict("IOptimizationProfile")
class IOptimizationProfile(Made):
    """Smallest, usual and largest shape of each dynamic input."""

    def _setup(self) -> None:
        self._shapes: dict[str, tuple[Any, Any, Any]] = {}

    def __bool__(self) -> bool:
        return all(
            len(low) == len(usual) == len(high)
            and all(0 <= a <= b <= c for a, b, c in zip(low, usual, high, strict=True))
            for low, usual, high in self._shapes.values()
        )

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:
        self._shapes[input] = Dims(tuple(min)), Dims(tuple(opt)), Dims(tuple(max))

    def get_shape(self, input: str) -> list[Any]:
        return list(self._shapes.get(input, ()))


@strict("IBuilderConfig")
class IBuilderConfig(Made, Managed):
    """How to build."""

    avg_timing_iterations: int = 1
    max_aux_streams: int = -1
    hardware_compatibility_level: Any = kinds.HardwareCompatibilityLevel.NONE
    profiling_verbosity: Any = kinds.ProfilingVerbosity.LAYER_NAMES_ONLY
    progress_monitor: Any = None

    def _setup(self, logger: Any) -> None:
        self._logger = logger
        self._flag_bits = 1 << int(kinds.BuilderFlag.TF32)
        self._level = 3
        self._pools: dict[int, int] = {}
        self._profiles: list[Any] = []
        self._cache: Any = None
        self._calibrator: Any = None
        self._calibration_profile: Any = None
        self._targets: list[Any] = []

    @property
    def builder_optimization_level(self) -> int:
        return self._level

    @builder_optimization_level.setter
    def builder_optimization_level(self, level: int) -> None:
        if level < 0:
            callbacks.error(self._logger, f"Error Code 3: API Usage Error (optimization level {level} is below 0)")
        else:
            self._level = min(int(level), _HIGHEST_LEVEL)

    @property
    def flags(self) -> int:
        return self._flag_bits

    @flags.setter
    def flags(self, bits: int) -> None:
        self._flag_bits = bits

    def set_flag(self, flag: Any) -> None:
        if flag.name == "EXCLUDE_LEAN_RUNTIME" and "VERSION_COMPATIBLE" not in self._flag_names:
            callbacks.error(
                self._logger, "Error Code 3: API Usage Error (kEXCLUDE_LEAN_RUNTIME needs kVERSION_COMPATIBLE)"
            )
            return
        self._flag_bits |= 1 << int(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flag_bits &= ~(1 << int(flag))

    def get_flag(self, flag: Any) -> bool:
        return bool(self._flag_bits >> int(flag) & 1)

    @property
    def _flag_names(self) -> list[str]:
        members = kinds.BuilderFlag.__members__.values()
        return sorted({member.name for member in members if self.get_flag(member)})

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def add_optimization_profile(self, profile: Any) -> int:
        if not profile:
            names = ", ".join(profile._shapes)
            callbacks.error(
                self._logger,
                f"Error Code 3: API Usage Error (Invalid optimization profiles for input tensors {names}, please "
                "ensure that the optimization profiles satisfy MIN<=OPT<=MAX.)",
            )
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._pools[int(pool)] = int(pool_size)

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._pools.get(int(pool), memory.TOTAL_BYTES)

    def create_timing_cache(self, serialized_timing_cache: Any) -> Any:
        made = timing_cache.read(bytes(serialized_timing_cache))
        if made is None:
            callbacks.error(self._logger, "Error Code 3: API Usage Error (the bytes are no timing cache)")
        return made

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        here = timing_cache.read(b"")
        if not here._is_same_place(cache, ignore_mismatch=ignore_mismatch):
            callbacks.warning(self._logger, "The timing cache is of another version or device and is not used")
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache

    @property
    def num_compute_capabilities(self) -> int:
        return len(self._targets)

    @num_compute_capabilities.setter
    def num_compute_capabilities(self, number: int) -> None:
        self._targets = [kinds.ComputeCapability.CURRENT] * number

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        if compute_capability == kinds.ComputeCapability.NONE or not 0 <= index < len(self._targets):
            return False
        self._targets[index] = compute_capability
        return True

    def get_compute_capability(self, index: int) -> Any:
        return self._targets[index]

    @property
    def int8_calibrator(self) -> Any:
        deprecated(_IMPLICIT)
        return self._calibrator

    @int8_calibrator.setter
    def int8_calibrator(self, calibrator: Any) -> None:
        deprecated(_IMPLICIT)
        self._calibrator = calibrator

    def set_calibration_profile(self, profile: Any) -> bool:
        deprecated(_IMPLICIT)
        self._calibration_profile = profile
        return bool(profile)

    def get_calibration_profile(self) -> Any:
        deprecated(_IMPLICIT)
        return self._calibration_profile
