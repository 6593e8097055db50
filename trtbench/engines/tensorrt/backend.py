"""The runtime `tensorrt`; what it needs of TensorRT is imported when it is asked."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbench.engines.base import NO_OPTIONS, BackendFacts
from trtbench.engines.sidecar import check_engine, read_sidecar
from trtbench.engines.tensorrt.precision import BUILDABLE
from trtbench.errors import TrtbenchError
from trtbench.jsonable import to_jsonable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbench.engines.base import Backend, BuildRequest, BuildResult
    from trtbench.engines.sidecar import Sidecar
    from trtbench.engines.tensorrt.plan import Loaded
    from trtbench.engines.tensorrt.session import TensorrtEngine


class TensorRtBackend:
    """TensorRT by its own builder and runtime."""

    name = "tensorrt"
    precisions = BUILDABLE
    suffix = ".plan"
    takes_options = True

    def is_simulated(self) -> bool:
        """Say whether the library is a test double."""
        from trtbench.engines.tensorrt.library import is_double

        return is_double()

    def facts(self, options: Mapping[str, Any] = NO_OPTIONS) -> BackendFacts:
        """Return what it is here: all four parts of its version, the GPU, and what an engine is bound to beside them.

        In `int8` alone every layer but the quantized ones is FP32, so that it would lose unfairly: among the usual
        precisions int8+fp16 stands beside it, and where TensorRT calibrates by itself its best precision too.

        Raises:
            CapabilityError: TensorRT is absent.
            DeviceError: CUDA cannot be used.
        """
        from trtbench.engines.cuda import open_cuda
        from trtbench.engines.tensorrt.library import abilities
        from trtbench.engines.tensorrt.plan import machine_of
        from trtbench.engines.tensorrt.precision import usual

        able = abilities()
        with contextlib.closing(open_cuda()) as cuda:
            device = cuda.device()
        return BackendFacts(
            version=able.version,
            device=device.name,
            machine=machine_of(device, options),
            usual_precisions=usual(able, compute_capability=device.compute_capability),
        )

    def build(self, request: BuildRequest) -> BuildResult:
        """Build an engine; see `builder.build_engine`."""
        from trtbench.engines.tensorrt.builder import build_engine

        return build_engine(request)

    def open(self, path: Path, sidecar: Sidecar, settings: Mapping[str, Any]) -> TensorrtEngine:
        """Load an engine whose sidecar was checked, after comparing its TensorRT version with the installed one.

        Raises:
            SidecarError: it was built with another TensorRT.
            DeviceError: CUDA cannot be used.
            EngineError: it does not load; with the lines of TensorRT's logger and the command that builds it again.
            OutOfMemoryError: the device is full.
        """
        from trtbench.engines.cuda import open_cuda
        from trtbench.engines.tensorrt.library import abilities
        from trtbench.engines.tensorrt.plan import refuse_version
        from trtbench.engines.tensorrt.session import TensorrtEngine

        refuse_version(sidecar, version=abilities().version)
        cuda = open_cuda()
        loaded = _loaded(path, sidecar)
        return TensorrtEngine(loaded.engine, loaded.runtime, cuda, sidecar, settings, lines=loaded.lines)


TENSORRT: Backend = TensorRtBackend()


def _loaded(path: Path, sidecar: Sidecar) -> Loaded:
    from trtbench.engines.tensorrt.plan import load_plan

    return load_plan(
        path.read_bytes(),
        what=f"TensorRT cannot load {path.name}",
        cure=sidecar.rebuilding,
        is_version_compatible=bool(sidecar.options.get("version_compatible")),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """An engine as its sidecar and its runtime describe it.

    Args:
        path: the engine file; its bytes are those of the sidecar.
        layers: what became of its layers; as the build noted it, or as the runtime tells now. Empty where nobody says.
    """

    path: Path
    sidecar: Sidecar
    layers: Mapping[str, Any]
    is_live: bool
    why_not_live: str = ""


def inspect_engine(path: Path) -> Inspection:
    """Read what is known of an engine file.

    Raises:
        SidecarError: it has no whole sidecar, or other bytes.
    """
    sidecar = read_sidecar(path)
    check_engine(path, sidecar, machine=sidecar.machine)
    layers = sidecar.facts.get("layers") or {}
    kept: dict[str, Any] = dict(layers) if isinstance(layers, dict) else {"layers": layers}
    why = "" if sidecar.backend == "tensorrt" else f"{sidecar.backend} has no inspector"
    if not why:
        try:
            kept |= _asked(path, sidecar)
        except TrtbenchError as error:
            why = str(error)
    return Inspection(path=path, sidecar=sidecar, layers=kept, is_live=not why, why_not_live=why)


def _asked(path: Path, sidecar: Sidecar) -> dict[str, Any]:
    from trtbench.engines.tensorrt.inspector import report_layers
    from trtbench.engines.tensorrt.plan import examine, refuse_version

    here = TENSORRT.facts(sidecar.options)
    refuse_version(sidecar, version=here.version)
    check_engine(path, sidecar, machine=here.machine)
    loaded = _loaded(path, sidecar)
    names = tuple(sidecar.facts.get("layers", {}).get("convolutions", ()))
    found: dict[str, Any] = to_jsonable(report_layers(examine(loaded.engine).layers, convolutions=names))
    return found
