"""The runtime `tensorrt-rtx`: built on any machine for GPUs that are named, run where one of them is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtbench.engines.base import NO_OPTIONS, BackendFacts
from trtbench.engines.tensorrt_rtx.target import targets_of, told

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbench.engines.base import Backend, BuildRequest, BuildResult, Engine
    from trtbench.engines.sidecar import Sidecar

_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8+fp16")


class TensorRtRtxBackend:
    """TensorRT for RTX: compiled ahead of time here, and once more by the GPU that runs it."""

    name = "tensorrt-rtx"
    precisions = _PRECISIONS
    suffix = ".rtxplan"
    takes_options = True

    def is_simulated(self) -> bool:
        """Say whether the library is a test double: there is none, and no row of it is timed."""
        return False

    def facts(self, options: Mapping[str, Any] = NO_OPTIONS) -> BackendFacts:
        """Return its version and the GPUs that an engine is for; the machine that builds it does not count.

        Raises:
            CapabilityError: it is absent.
        """
        from trtbench.engines.tensorrt_rtx.build import version_here

        targets = targets_of(options.get("targets", ()))
        return BackendFacts(
            version=version_here(),
            device=told(targets),
            machine=f"any machine with a GPU of {', '.join(targets)}",
            usual_precisions=("fp32", "fp16", "int8", "int8+fp16"),
            why_not_run=f"built for {told(targets)}, not run: trtbench runs no engine of TensorRT for RTX yet",
        )

    def build(self, request: BuildRequest) -> BuildResult:
        """Build an engine; see `build.build_apart`."""
        from trtbench.engines.tensorrt_rtx.build import build_apart

        return build_apart(request)

    def open(self, path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> Engine:
        """Refuse: no engine of it has been run.

        Raises:
            UnsupportedError: always.
        """
        from trtbench.errors import UnsupportedError

        del settings
        what = f"running {path.name}, built for {sidecar.device}"
        raise UnsupportedError(
            what, expected="another runtime", cure="take the file to an RTX GPU and NVIDIA's runtime"
        )


TENSORRT_RTX: Backend = TensorRtRtxBackend()
