"""`trtbench build`: every engine of a suite, each once, with its sidecar; a failed one does not stop the others."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import filelock

from trtbench.engines.base import BuildRequest, CalibrationImages, backend
from trtbench.engines.sidecar import Sidecar, check_engine, read_sidecar, write_sidecar
from trtbench.errors import CapabilityError, OutOfMemoryError, RowError, SidecarError, UnsupportedError
from trtbench.jsonable import sha256_of, to_jsonable
from trtbench.pipeline.artefacts import Artefacts
from trtbench.pipeline.events import Event, Listener, nobody
from trtbench.pipeline.plan import needs_calibration, plan_engines, source
from trtbench.store import file_sha256, storing
from trtbench.suite import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trtbench.pipeline.keeper import Places
    from trtbench.pipeline.plan import EnginePlan
    from trtbench.rows import Status
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
    name = f"{plan.variant.name}.{plan.shown_precision}.{plan.backend}{backend(plan.backend).suffix}"
    return places.engines / suite_name / name


def status_of(error: RowError | CapabilityError) -> Status:
    """Return the status of a row that ended with this error."""
    if isinstance(error, OutOfMemoryError):
        return "oom"
    return "unsupported" if isinstance(error, (UnsupportedError, CapabilityError)) else "failed"


def _built(artefacts: Artefacts, plan: EnginePlan, tell: Listener) -> BuiltEngine:
    try:
        path, sidecar = build_engine(artefacts, plan, tell=tell)
    except (RowError, CapabilityError) as error:  # what this machine lacks, other runtimes may not need
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
        if (found := existing_engine(path, key, machine=identity["machine"])) is not None:  # another run has built it
            return path, found
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
    request = _request(artefacts, plan, made_from, path, tell=tell)
    with storing(path):
        start = time.monotonic()
        result = backend(plan.backend).build(request)
        build_s = time.monotonic() - start
    is_graph = artefacts.is_onnx or plan.variant.makes == "graph"
    facts = artefacts.graph(plan.variant).facts if is_graph else artefacts.variant(plan.variant).facts
    sidecar = Sidecar(
        **identity,
        key=key,
        achieved=result.achieved,
        device=backend(plan.backend).facts().device,
        engine_sha256=file_sha256(path),
        engine_bytes=path.stat().st_size,
        weight_bytes=result.weight_bytes,
        build_s=build_s,
        params=facts.get("params"),
        macs=facts.get("macs"),
        channels=tuple((facts.get("widths") or {}).values()),
        sparsity=facts.get("sparsity"),
        settings=result.settings,
        facts=result.facts,
        notes=(*facts["notes"], *_source_notes(artefacts, plan, made_from), *result.notes),
        rebuild=f"trtbench build {artefacts.suite.origin}",
    )
    write_sidecar(path, sidecar)
    tell(Event(stage="engine", item=plan.name, state="done", detail=result.achieved, seconds=build_s))
    return path, sidecar


def _request(
    artefacts: Artefacts, plan: EnginePlan, made_from: Artefact, path: Path, *, tell: Listener
) -> BuildRequest:
    timings = artefacts.places.timing_caches if plan.config.timing_cache else None

    def progress(phase: str, share: float) -> None:
        tell(Event(stage="engine", item=plan.name, state="progress", detail=phase, share=share))

    return BuildRequest(
        source=made_from.path("model.safetensors" if BACKENDS[plan.backend].is_baseline else "model.onnx"),
        engine=path,
        precision=plan.precision,
        model=artefacts.suite.model.name,
        num_classes=artefacts.dataset.num_classes,
        input_shape=artefacts.input_shape,
        calibration=_calibration(artefacts, plan, made_from) if "implicit" in plan.precision else None,
        options=replace(plan.options(artefacts.suite.bench.batch_sizes), timing_cache=timings),
        on_progress=progress,
    )


def _calibration(artefacts: Artefacts, plan: EnginePlan, made_from: Artefact) -> CalibrationImages:
    """Return what TensorRT's own calibrator is fed with, its cache keyed by all that decides it."""
    images, config = artefacts.calibration_images(), artefacts.suite.calibration
    batch_size = full_batches(images.facts["images"], config.batch_size)
    key = sha256_of(
        {
            "graph": made_from.sha256,
            "images": images.sha256,
            "preprocessing": artefacts.dataset.preprocessing.fingerprint,
            "batch_size": batch_size,
            "algorithm": plan.config.calibrator,
            "runtime": backend(plan.backend).facts().version,
        }
    )
    return CalibrationImages(
        images=images.path("calibration.npy"),
        preprocessing=artefacts.dataset.preprocessing,
        batch_size=batch_size,
        algorithm=plan.config.calibrator,
        cache=artefacts.places.calibration_caches / f"{key}.cache",
    )


def full_batches(images: int, wanted: int) -> int:
    """Return the batch size nearest below `wanted` that leaves no image out, or `wanted` where none is near."""
    wanted = min(images, wanted)
    return next((size for size in range(wanted, wanted // 2, -1) if images % size == 0), wanted)


def _source_notes(artefacts: Artefacts, plan: EnginePlan, made_from: Artefact) -> tuple[str, ...]:
    """Return what there is to say of the graph an engine is built from: of its half precision, of its calibration."""
    notes = tuple(made_from.facts["notes"]) if made_from.kind == "half" else ()
    if not needs_calibration(plan.precision):
        return notes
    return (*notes, *artefacts.calibration_notes(plan.variant, precision=plan.precision))


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
    is_calibrated, config = needs_calibration(plan.precision), artefacts.suite.calibration
    options = to_jsonable(plan.options(artefacts.suite.bench.batch_sizes)) if runtime.takes_options else {}
    if "implicit" in plan.precision:
        options |= {"calibrator": plan.config.calibrator, "calibration_batch_size": config.batch_size}
    if plan.build > 1:
        options |= {"build": plan.build}
    here = runtime.facts(options)
    return {
        "variant": plan.variant.name,
        "precision": plan.shown_precision,
        "backend": plan.backend,
        "backend_version": here.version,
        "machine": here.machine,
        "source_sha256": made_from.sha256,
        "calibration_sha256": artefacts.manifest.facts["sha256"] if is_calibrated else None,
        "preprocessing": artefacts.dataset.preprocessing,
        "model": artefacts.suite.model.name,
        "num_classes": artefacts.dataset.num_classes,
        "options": options,
    }


def existing_engine(path: Path, key: str, *, machine: str) -> Sidecar | None:
    """Return the sidecar of an engine that is whole, of the same key and for this machine."""
    try:
        sidecar = read_sidecar(path)
        check_engine(path, sidecar, machine=machine)
    except SidecarError:
        return None
    return sidecar if sidecar.key == key else None
