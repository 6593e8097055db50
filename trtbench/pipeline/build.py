"""`trtbench build`: every engine of a suite, each once, with its sidecar; a failed one does not stop the others."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import filelock

from trtbench.engines.base import BuildRequest, backend
from trtbench.engines.sidecar import Sidecar, check_engine, read_sidecar, write_sidecar
from trtbench.errors import OutOfMemoryError, RowError, SidecarError, UnsupportedError
from trtbench.pipeline.artefacts import Artefacts
from trtbench.pipeline.events import Event, Listener, nobody
from trtbench.pipeline.plan import plan_engines, source
from trtbench.records import sha256_of
from trtbench.store import file_sha256, storing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trtbench.pipeline.keeper import Places
    from trtbench.pipeline.plan import EnginePlan
    from trtbench.records import Status
    from trtbench.store import Artefact
    from trtbench.suite import Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """One engine of the plan: its file and sidecar, or why there is none."""

    plan: EnginePlan
    status: Status
    reason: str = ""
    path: Path | None = None
    sidecar: Sidecar | None = None


def build_suite(suite: Suite, places: Places, *, tell: Listener = nobody) -> tuple[BuiltEngine, ...]:
    """Build every engine a suite asks for, reusing what is there.

    Args:
        suite: the validated suite.
        places: folders.
        tell: told of progress.

    Raises:
        ConfigError: the suite's data or checkpoint cannot be used: no row can be made.
        StoreError: nothing can be written.
    """
    return build_engines(Artefacts(suite, places, tell=tell))


def build_engines(artefacts: Artefacts) -> tuple[BuiltEngine, ...]:
    """Build every engine of the suite of these artefacts, as `build_suite` does."""
    return tuple(_built(artefacts, plan, artefacts.tell) for plan in plan_engines(artefacts.suite))


def engine_path(places: Places, suite_name: str, plan: EnginePlan) -> Path:
    """Return where an engine's file stands."""
    name = f"{plan.variant.name}.{plan.precision}.{plan.backend}{backend(plan.backend).SUFFIX}"
    return places.engines / suite_name / name


def status_of(error: RowError) -> Status:
    """Return the status of a row that ended with this error."""
    if isinstance(error, OutOfMemoryError):
        return "oom"
    return "unsupported" if isinstance(error, UnsupportedError) else "failed"


def _built(artefacts: Artefacts, plan: EnginePlan, tell: Listener) -> BuiltEngine:
    try:
        path, sidecar = build_engine(artefacts, plan, tell=tell)
    except RowError as error:
        tell(Event(stage="engine", item=plan.name, state="failed", detail=str(error)))
        return BuiltEngine(plan=plan, status=status_of(error), reason=str(error))
    return BuiltEngine(plan=plan, status="ok", path=path, sidecar=sidecar)


def build_engine(artefacts: Artefacts, plan: EnginePlan, *, tell: Listener = nobody) -> tuple[Path, Sidecar]:
    """Build one engine, or take the one that is there if its sidecar says that it is the same.

    Raises:
        RowError: it cannot be built; the message says why.
        StoreError: it cannot be written.
    """
    made_from = source(artefacts, plan)
    path, key, identity = identify(artefacts, plan, made_from)
    if (found := existing_engine(path, key, machine=identity["machine"])) is not None:
        tell(Event(stage="engine", item=plan.name, state="cached", seconds=found.build_s))
        return path, found
    with _lock(path):
        return _build(artefacts, plan, made_from, path, identity=identity, key=key, tell=tell)


def _build(
    artefacts: Artefacts,
    plan: EnginePlan,
    made_from: Artefact,
    path: Path,
    *,
    identity: dict[str, Any],
    key: str,
    tell: Listener,
) -> tuple[Path, Sidecar]:
    """Build an engine file and write its sidecar; the caller holds the engine's lock."""
    tell(Event(stage="engine", item=plan.name, state="started"))
    request = BuildRequest(
        source=made_from.path("model.safetensors" if plan.backend == "eager" else "model.onnx"),
        engine=path,
        precision=plan.precision,
        model=artefacts.suite.model.name,
        num_classes=artefacts.dataset.num_classes,
    )
    with storing(path):
        start = time.monotonic()
        result = backend(plan.backend).build(request)
        build_s = time.monotonic() - start
    facts = artefacts.graph(plan.variant).facts if artefacts.is_onnx else artefacts.variant(plan.variant).facts
    sidecar = Sidecar(
        **identity,
        key=key,
        achieved=result.achieved,
        device=backend(plan.backend).device_name(),
        engine_sha256=file_sha256(path),
        engine_bytes=path.stat().st_size,
        weight_bytes=result.weight_bytes,
        build_s=build_s,
        params=facts.get("params"),
        macs=facts.get("macs"),
        settings=result.settings,
        notes=(*facts["notes"], *_calibration_notes(artefacts, plan), *result.notes),
        rebuild=f"trtbench build {artefacts.suite.origin}",
    )
    write_sidecar(path, sidecar)
    tell(Event(stage="engine", item=plan.name, state="done", detail=result.achieved, seconds=build_s))
    return path, sidecar


def _calibration_notes(artefacts: Artefacts, plan: EnginePlan) -> tuple[str, ...]:
    if not plan.precision.startswith("int8"):
        return ()
    return artefacts.calibration_notes(plan.variant, precision=plan.precision)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one run at a time build an engine."""
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_name(f".{path.name}.lock")):
        yield


def identify(artefacts: Artefacts, plan: EnginePlan, made_from: Artefact) -> tuple[Path, str, dict[str, Any]]:
    """Return an engine's path, the key its sidecar must have, and all that decides the build."""
    identity = engine_identity(artefacts, plan, made_from)
    path = engine_path(artefacts.places, artefacts.suite.name, plan)
    return path, sha256_of(identity), identity


def engine_identity(artefacts: Artefacts, plan: EnginePlan, made_from: Artefact) -> dict[str, Any]:
    """Return all that decides a build, as the sidecar names it."""
    runtime = backend(plan.backend)
    has_calibration = plan.precision.startswith("int8")
    return {
        "variant": plan.variant.name,
        "precision": plan.precision,
        "backend": plan.backend,
        "backend_version": runtime.runtime_version(),
        "machine": runtime.machine(),
        "source_sha256": made_from.sha256,
        "calibration_sha256": artefacts.manifest.facts["sha256"] if has_calibration else None,
        "preprocessing": artefacts.dataset.preprocessing,
        "model": artefacts.suite.model.name,
        "num_classes": artefacts.dataset.num_classes,
    }


def existing_engine(path: Path, key: str, *, machine: str) -> Sidecar | None:
    """Return the sidecar of an engine that is whole, of the same key and for this machine."""
    try:
        sidecar = read_sidecar(path)
        check_engine(path, sidecar, machine=machine)
    except SidecarError:
        return None
    return sidecar if sidecar.key == key else None
