"""What is known of an engine file: its sidecar, and what its runtime tells of it where that is at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trtbench.engines.sidecar import check_engine, read_sidecar
from trtbench.errors import TrtbenchError
from trtbench.jsonable import to_jsonable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trtbench.engines.sidecar import Sidecar


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """An engine as its sidecar and its runtime describe it.

    Args:
        path: the engine file; its bytes are those of the sidecar.
        sidecar: its sidecar.
        layers: what became of its layers; as the build noted it, or as the runtime tells now. Empty where nobody says.
        is_live: the runtime told.
        why_not_live: why it did not.
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
    if sidecar.backend != "tensorrt":
        why = f"{sidecar.backend} has no inspector"
        return Inspection(path=path, sidecar=sidecar, layers=kept, is_live=False, why_not_live=why)
    try:
        layers = kept | _asked(path, sidecar)
    except TrtbenchError as error:
        return Inspection(path=path, sidecar=sidecar, layers=kept, is_live=False, why_not_live=str(error))
    return Inspection(path=path, sidecar=sidecar, layers=layers, is_live=True)


def _asked(path: Path, sidecar: Sidecar) -> dict[str, Any]:
    """Load a TensorRT engine and return what its inspector tells.

    Raises:
        TrtbenchError: TensorRT, a GPU or the machine that it was built for is not here.
    """
    from trtbench.engines.tensorrt.backend import TENSORRT
    from trtbench.engines.tensorrt.inspector import report_layers
    from trtbench.engines.tensorrt.plan import examine, load_plan, refuse_version

    here = TENSORRT.facts(sidecar.options)
    refuse_version(sidecar, version=here.version)
    check_engine(path, sidecar, machine=here.machine)
    loaded = load_plan(
        path.read_bytes(),
        what=f"TensorRT cannot load {path.name}",
        cure=f"build it here: `{sidecar.rebuild or 'trtbench build'}`",
        is_version_compatible=bool(sidecar.options.get("version_compatible")),
    )
    names = tuple(sidecar.facts.get("layers", {}).get("convolutions", ()))
    found: dict[str, Any] = to_jsonable(report_layers(examine(loaded.engine).layers, convolutions=names))
    return found
