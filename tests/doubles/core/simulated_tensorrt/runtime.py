"""Opens plans: of the same version, device and system, or it gives nothing and logs why."""

from __future__ import annotations

from typing import Any

import onnx
from simulated_cuda import device
from simulated_cuda.faults import CUDARuntimeError, is_asked_for

from . import callbacks, facts, jit, plan
from .engine import ICudaEngine
from .strict import Managed, make_unusable, strict


@strict("Runtime")
class Runtime(Managed):
    """Deserialises engines."""

    engine_host_code_allowed: bool = False
    error_recorder: Any = None

    def __init__(self, logger: Any) -> None:
        try:
            device.count()
        except CUDARuntimeError as error:
            callbacks.error(
                logger, f"createInferRuntime: Error Code 6: API Usage Error (CUDA initialization failure: {error})"
            )
            make_unusable(self)
            return
        self._logger = logger
        callbacks.register(self, logger, factory="createInferRuntime")

    @property
    def logger(self) -> Any:
        return self._logger

    @property
    def engine_header_size(self) -> int:
        return 64

    def get_engine_validity(self, buffer: Any) -> tuple[Any, int]:
        try:
            header, _ = plan.unpacked(bytes(buffer))
        except plan.BrokenPlanError:
            return jit.validity(None)
        return jit.validity(header)

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        try:
            header, model = plan.unpacked(bytes(serialized_engine))
        except plan.BrokenPlanError as error:
            callbacks.error(
                self._logger,
                f"Error Code 1: Serialization (Serialization assertion failed: {error})",
            )
            return None
        wrong = self._mismatch(header)
        if wrong is not None:
            callbacks.error(self._logger, f"Error Code 1: Serialization ({wrong})")
            return None
        if is_asked_for("oom-engine"):
            callbacks.error(self._logger, "Error Code 2: OutOfMemory (Requested size was 9663676416 bytes.)")
            return None
        return ICudaEngine._of(header, onnx.load_model_from_string(model), bytes(serialized_engine), self._logger)

    def _mismatch(self, header: dict[str, Any]) -> str | None:
        return self._of_version(header) or _of_device(header)

    def _of_version(self, header: dict[str, Any]) -> str | None:
        mine = facts.current()
        if "VERSION_COMPATIBLE" in header["flags"]:
            if int(header["version"].split(".")[0]) > mine.major:
                return f"a version compatible plan of {header['version']} does not run on the older {mine.version}"
            if "EXCLUDE_LEAN_RUNTIME" not in header["flags"] and not self.engine_host_code_allowed:
                return "the engine contains host code, which engine_host_code_allowed forbids"
            return None
        if header["version"] != mine.version:
            theirs = header["version"]
            return f"Version tag does not match: current version {mine.version}, serialized engine version {theirs}"
        return None


def _of_device(header: dict[str, Any]) -> str | None:
    if facts.current().is_rtx:
        return None if jit.validity(header)[1] == 0 else "the engine is for other devices"
    mine = "{}.{}".format(*device.compute_capability())
    newer = tuple(int(each) for each in mine.split(".")) >= (8, 0)
    if mine == header["sm"] or (header["hardware"] == "AMPERE_PLUS" and newer):
        return None
    theirs = header["sm"]
    return f"The plan file is generated on an incompatible device, expecting compute {mine} got compute {theirs}"
