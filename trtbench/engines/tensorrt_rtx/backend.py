"""The runtime `tensorrt-rtx`: built on any machine for GPUs that are named, run where one of them is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbench.engines.base import NO_OPTIONS, BackendFacts
from trtbench.engines.tensorrt_rtx.build import targets_of, told

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbench.engines.base import Backend, BuildRequest, BuildResult, Engine
    from trtbench.engines.sidecar import Sidecar

_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8+fp16", "fp8", "fp8+fp16")


class TensorRtRtxBackend:
    """TensorRT for RTX: compiled ahead of time here, and once more by the GPU that runs it."""

    name = "tensorrt-rtx"
    precisions = _PRECISIONS
    suffix = ".rtxplan"
    takes_options = True

    def is_simulated(self) -> bool:
        """Say whether the library is a test double, which says so itself."""
        from trtbench import _optional
        from trtbench.engines.tensorrt_rtx.build import PACKAGE

        return bool(getattr(_optional.load(PACKAGE), "IS_SIMULATED", False))

    def facts(self, options: Mapping[str, Any] = NO_OPTIONS) -> BackendFacts:
        """Return its version, what an engine is for, and the GPU that runs it where one is here.

        What builds it does not count: one engine serves every machine that has a GPU among its targets.

        Raises:
            CapabilityError: it is absent.
        """
        from trtbench.engines.tensorrt_rtx.build import version_here
        from trtbench.engines.tensorrt_rtx.run import gpu_for

        version, targets = version_here(), targets_of(options.get("targets", ()))
        gpu, why_not_run = gpu_for(targets)
        return BackendFacts(
            version=version,
            device=gpu or told(targets),
            machine=f"any machine with a GPU of {', '.join(targets)}",
            usual_precisions=("fp32", "fp16", "int8", "int8+fp16"),
            why_not_run=why_not_run,
        )

    def build(self, request: BuildRequest) -> BuildResult:
        """Build an engine; see `build.build_apart`."""
        from trtbench.engines.tensorrt_rtx.build import build_apart

        return build_apart(request)

    def open(self, path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> Engine:
        """Load an engine whose sidecar was checked; see `run.open_engine`."""
        from trtbench.engines.tensorrt_rtx.run import open_engine

        return open_engine(path, sidecar, settings)


TENSORRT_RTX: Backend = TensorRtRtxBackend()
