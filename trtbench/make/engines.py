"""One engine: what it is built from, all that decides the build, and the file with its sidecar."""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench.disk import file_sha256, locked, require_room, storing, write_atomically
from trtbench.engines.base import BuildOptions, BuildRequest, CalibrationImages, backend
from trtbench.engines.sidecar import Sidecar, check_engine, read_sidecar, sidecar_path, write_sidecar
from trtbench.errors import EngineError, SidecarError, StoreError, UnsupportedError
from trtbench.jsonable import sha256_of, to_jsonable
from trtbench.make.calibration import calibration_pixels, manifest
from trtbench.make.gains import calibration_notes, calibration_record
from trtbench.make.graphs import (
    GRAPH,
    GraphFacts,
    HalfFacts,
    float_graph,
    fp8_graph,
    half_graph,
    notes_of,
    outputs_of,
    quantized_graph,
)
from trtbench.make.networks import WEIGHTS, variant_network
from trtbench.make.recipe import Absent
from trtbench.make.rescue import is_in_doubt, rescue
from trtbench.precision import PRECISIONS, shown_precision
from trtbench.progress import Event
from trtbench.records import AsTheyAre
from trtbench.suite import BACKENDS, EngineConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbench.make.makings import Makings, Places
    from trtbench.make.rescue import Rescue
    from trtbench.rows import CalibrationRecord, Role
    from trtbench.store import Artefact
    from trtbench.suite import Variant

_ENGINE_OVER_SOURCE = 2  # as many times as large as what it is built from an engine may be
_OWN_QDQ = "int8 (own Q/DQ)"  # of a graph that came quantized: whatever was asked for, it computes in its own codes


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """One engine to build: a variant at a precision on a runtime, as `config` asks; `build` counts repeated builds.

    `rescued` int8 is what `make.rescue` finds to hold it.
    """

    variant: Variant
    precision: str
    backend: str
    role: Role = "candidate"
    config: EngineConfig = field(default_factory=EngineConfig)
    rescued: bool = False
    build: int = 1

    @property
    def name(self) -> str:
        """The engine's name as people say it, unique within a suite."""
        return f"{self.variant.name} {self.shown_precision} {self.backend}"

    @property
    def shown_precision(self) -> str:
        """The precision as rows and files name it: with what else tells two engines of it apart."""
        return shown_precision(self.precision, sparse=self.config.sparse, rescued=self.rescued, build=self.build)

    def options(self, batch_sizes: tuple[int, ...]) -> BuildOptions:
        """Return what the suite asks of the build, but for where timings of tactics are kept."""
        config = self.config
        return BuildOptions(
            batch_sizes=batch_sizes,
            profile=config.profile,
            workspace_mib=config.workspace_mib,
            optimization_level=config.optimization_level,
            sparse=config.sparse,
            hardware_compatible=config.hardware_compatible,
            version_compatible=config.version_compatible,
            targets=config.targets or (),
        )


def source(makings: Makings, plan: EnginePlan) -> Artefact[Any]:
    """Return the artefact an engine is built from: a network or a graph."""
    if plan.rescued:
        runtime = BACKENDS[plan.backend].placement
        return quantized_graph(_rescue(makings, plan).makings, plan.variant, runtime=runtime)
    if BACKENDS[plan.backend].is_baseline:
        return variant_network(makings, plan.variant)
    if PRECISIONS[plan.precision].graph == "half":
        return half_graph(makings, plan.variant, precision=plan.precision, method=plan.config.half)
    if PRECISIONS[plan.precision].codes == "fp8":
        return fp8_graph(makings, plan.variant)
    if PRECISIONS[plan.precision].graph == "qdq":
        return quantized_graph(makings, plan.variant, runtime=BACKENDS[plan.backend].placement)
    return float_graph(makings, plan.variant)


def engine_path(places: Places, suite_name: str, plan: EnginePlan) -> Path:
    """Return where an engine's file stands."""
    name = f"{plan.variant.name}.{plan.shown_precision}.{plan.backend}{backend(plan.backend).suffix}"
    return places.engines / suite_name / name


def build_engine(makings: Makings, plan: EnginePlan) -> tuple[Path, Sidecar]:
    """Build one engine, or take the one that is there if its sidecar says that it is the same.

    Raises:
        RowError: it cannot be built; the message says why.
        StoreError: it cannot be written, or another run measures an engine of this name that is made otherwise.
        Absent: the book is dry, and it, or what it is built from, is not there.
    """
    _require_outputs(makings, plan)
    made_from = source(makings, plan)
    path, tell = engine_path(makings.places, makings.suite.name, plan), makings.tell
    identity = engine_identity(makings, plan, made_from)
    key = sha256_of(identity)
    if (found := _leased(makings, path, key, machine=identity["machine"])) is not None:
        tell(Event(stage="engine", item=plan.name, state="cached", seconds=found.build_s))
        return path, found
    if makings.book.is_dry:
        raise Absent("engine")
    with locked(path.with_name(f".{path.name}.lock")):
        if (found := _leased(makings, path, key, machine=identity["machine"])) is not None:  # another run has built it
            return path, found
        tell(Event(stage="engine", item=plan.name, state="started"))
        with _replacing(makings, path):
            sidecar = _build(makings, plan, made_from, path, identity=identity, key=key)
        tell(Event(stage="engine", item=plan.name, state="done", detail=sidecar.achieved, seconds=sidecar.build_s))
        return path, sidecar


def prepare_engine(makings: Makings, plan: EnginePlan) -> None:
    """Make all that a build of an engine reads, and what its sidecar tells, but not the engine: that is of a machine.

    Raises:
        RowError: it cannot be made.
        Absent: the book is dry, and it is not there.
    """
    made_from, precision = source(makings, plan), PRECISIONS[plan.precision]
    if precision.calibrates_itself:
        calibration_pixels(makings)
    elif precision.codes:
        manifest(makings)
    _network_facts(makings, plan)
    for _ in _notes(makings, plan, made_from):
        pass
    if precision.codes == "int8" and not plan.rescued:
        quantized_graph(makings, plan.variant)  # which forecasts what TensorRT's kernels come to


def engine_identity(makings: Makings, plan: EnginePlan, made_from: Artefact[Any]) -> dict[str, Any]:
    """Return all that decides a build, as the sidecar names it."""
    runtime, suite = backend(plan.backend), makings.suite
    precision, config = PRECISIONS[plan.precision], suite.calibration
    calibrated_on = manifest(makings) if precision.codes else None
    options = to_jsonable(plan.options(suite.bench.batch_sizes)) if runtime.takes_options else {}
    if not options.get("targets"):  # engines of before there were any keep their keys
        options.pop("targets", None)
    if precision.calibrates_itself:
        options |= {"calibrator": plan.config.calibrator, "calibration_batch_size": config.batch_size}
    here = runtime.facts(options)
    return {
        "variant": plan.variant.name,
        "precision": plan.precision,
        **({"sparse": True} if plan.config.sparse else {}),
        **({"rescued": True} if plan.rescued else {}),
        **({"build": plan.build} if plan.build > 1 else {}),
        "backend": plan.backend,
        "backend_version": here.version,
        "machine": here.machine,
        "source_sha256": made_from.sha256,
        "calibration_sha256": calibrated_on.facts.sha256 if calibrated_on is not None else None,
        "preprocessing": makings.dataset.preprocessing,
        "model": suite.model.name,
        "num_classes": _width(makings),
        "options": options,
    }


def _width(makings: Makings) -> int:
    """Return how many numbers an image gives: logits, or of a network that is no classifier all its outputs'."""
    return sum(one.size for one in outputs_of(makings)) or makings.dataset.num_classes


def _require_outputs(makings: Makings, plan: EnginePlan) -> None:
    """Refuse what a runtime cannot be given or give back: all but one picture, and one output (batch, numbers)."""
    outputs, fit = outputs_of(makings), makings.dataset.preprocessing
    if isinstance(fit, AsTheyAre) and not BACKENDS[plan.backend].any_outputs:
        raise UnsupportedError(
            f"{plan.backend} of {makings.suite.model.name}",
            expected="one input, a picture",
            got=", ".join(f"{one.name} {one.dtype} {('batch', *one.shape)}" for one in fit.tensors),
            cure="engines: onnxruntime-cpu takes any inputs",
        )
    if BACKENDS[plan.backend].any_outputs or (all(len(one.shape) == 1 for one in outputs) and len(outputs) < 2):  # noqa: PLR2004
        return
    raise UnsupportedError(
        f"{plan.backend} of {makings.suite.model.name}",
        expected="one output (batch, numbers)",
        got=", ".join(f"{one.name} {('batch', *one.shape)}" for one in outputs),
        cure="engines: onnxruntime-cpu takes any outputs",
    )


def existing_engine(path: Path, key: str, *, machine: str) -> Sidecar | None:
    """Return the sidecar of an engine that is whole, of the same key and for this machine."""
    try:
        sidecar = read_sidecar(path)
        check_engine(path, sidecar, machine=machine)
    except SidecarError:
        return None
    return sidecar if sidecar.key == key else None


def _leased(makings: Makings, path: Path, key: str, *, machine: str) -> Sidecar | None:
    """Return the sidecar of an existing engine, which no other run can replace any more while this one goes on."""
    found = existing_engine(path, key, machine=machine)
    if found is None or makings.book.is_dry:
        return found
    makings.lease(path)
    return existing_engine(path, key, machine=machine)  # it may have been replaced before it was leased


@contextlib.contextmanager
def _replacing(makings: Makings, path: Path) -> Iterator[None]:
    """Let an engine be replaced that no other run uses; one that a report names is kept, where `ship` finds it."""
    lease = makings.lease(path)
    if not lease.alone():
        expected, got = "no other run that measures it", "one of a suite of this name, which makes it otherwise"
        cure = "wait for its end, or give this suite another name or another --engines"
        raise StoreError(f"engine {path}", expected=expected, got=got, cure=cure)
    try:
        _keep_reported(path, makings.places.runs)
        yield
    finally:
        lease.share()


def _keep_reported(path: Path, runs: Path) -> None:
    """Copy an engine and its sidecar to a folder of its sha256 where a report names it."""
    if not (path.is_file() and sidecar_path(path).is_file()):
        return
    sha256 = file_sha256(path)
    if any(sha256.encode() in report.read_bytes() for report in runs.glob("*/report.json")):
        for file in (path, sidecar_path(path)):
            write_atomically(path.parent / "replaced" / sha256[:12] / file.name, file.read_bytes())


def full_batches(images: int, wanted: int) -> int:
    """Return the batch size nearest below `wanted` that leaves no image out, or `wanted` where none is near."""
    wanted = min(images, wanted)
    return next((size for size in range(wanted, wanted // 2, -1) if images % size == 0), wanted)


def _build(
    makings: Makings, plan: EnginePlan, made_from: Artefact[Any], path: Path, *, identity: dict[str, Any], key: str
) -> Sidecar:
    """Build an engine file and write its sidecar; the caller holds the engine's lock."""
    runtime, request = backend(plan.backend), _request(makings, plan, made_from, path)
    facts = made_from.facts
    for leftover in path.parent.glob(f".{path.name}.*.partial"):  # of a build that was killed
        leftover.unlink(missing_ok=True)
    try:
        with storing(path):
            start = time.monotonic()
            result = runtime.build(request)
            build_s = time.monotonic() - start
    except EngineError:
        for folder in (path.parent, Path(tempfile.gettempdir())):
            require_room(folder, _ENGINE_OVER_SOURCE * request.source.stat().st_size)
        raise
    sidecar = Sidecar(
        **identity,
        **_network_facts(makings, plan),
        key=key,
        achieved=_OWN_QDQ if isinstance(facts, GraphFacts) and facts.is_quantized else result.achieved,
        device=runtime.facts(identity["options"]).device,
        engine_sha256=file_sha256(path),
        engine_bytes=path.stat().st_size,
        weight_bytes=result.weight_bytes,
        build_s=build_s,
        classes=makings.dataset.classes if makings.dataset.is_labelled else (),
        outputs=outputs_of(makings),
        settings=result.settings,
        facts=result.facts,
        calibration=_calibration_record(makings, plan),
        notes=(*_notes(makings, plan, made_from), *result.notes),
        rebuild=f"trtbench build {makings.suite.origin}",
    )
    write_sidecar(path, sidecar)
    makings.book.store.note_made("engine", key, seconds=build_s, label=f"{makings.book.label}/{plan.name}")
    return sidecar


def _request(makings: Makings, plan: EnginePlan, made_from: Artefact[Any], path: Path) -> BuildRequest:
    timings = makings.places.timing_caches if plan.config.timing_cache else None
    calibrates = PRECISIONS[plan.precision].calibrates_itself

    def progress(phase: str, share: float) -> None:
        makings.tell(Event(stage="engine", item=plan.name, state="progress", detail=phase, share=share))

    return BuildRequest(
        source=made_from.path(WEIGHTS if BACKENDS[plan.backend].is_baseline else GRAPH),
        engine=path,
        precision=plan.precision,
        model=makings.suite.model.name,
        num_classes=_width(makings),
        input_shape=makings.input_shape,
        calibration=_calibration(makings, plan, made_from) if calibrates else None,
        options=replace(plan.options(makings.suite.bench.batch_sizes), timing_cache=timings),
        on_progress=progress,
    )


def _calibration(makings: Makings, plan: EnginePlan, made_from: Artefact[Any]) -> CalibrationImages:
    """Return what TensorRT's own calibrator is fed with, its cache keyed by all that decides it."""
    images = calibration_pixels(makings)
    batch_size = full_batches(images.facts.images, makings.suite.calibration.batch_size)
    key = sha256_of(
        {
            "graph": made_from.sha256,
            "images": images.sha256,
            "preprocessing": makings.dataset.preprocessing.fingerprint,
            "batch_size": batch_size,
            "algorithm": plan.config.calibrator,
            "runtime": backend(plan.backend).facts().version,
        }
    )
    return CalibrationImages(
        images=images.path("images.npy"),
        preprocessing=makings.dataset.preprocessing,
        batch_size=batch_size,
        algorithm=plan.config.calibrator,
        cache=makings.places.calibration_caches / f"{key}.cache",
    )


def _network_facts(makings: Makings, plan: EnginePlan) -> dict[str, Any]:
    """Return what the network behind an engine counts, where its source is known."""
    if makings.onnx_path is not None:
        return {}
    facts = variant_network(makings, plan.variant).facts
    widths = tuple(facts.widths.values())
    return {"params": facts.params, "macs": facts.macs, "widths": widths, "sparsity": facts.sparsity}


def _calibration_record(makings: Makings, plan: EnginePlan) -> CalibrationRecord | None:
    if not PRECISIONS[plan.precision].is_int8 or PRECISIONS[plan.precision].calibrates_itself:
        return None
    runtime = BACKENDS[plan.backend].placement
    if not plan.rescued:
        return calibration_record(makings, plan.variant, runtime=runtime)
    found = _rescue(makings, plan)
    record = calibration_record(found.makings, plan.variant, runtime=runtime)
    return replace(record, method=f"{record.method}, {found.kept}")


def _rescue(makings: Makings, plan: EnginePlan) -> Rescue:
    found = rescue(makings, plan.variant, runtime=BACKENDS[plan.backend].placement)
    assert found is not None, "a rescued engine is planned where there is a rescue"
    return found


def _notes(makings: Makings, plan: EnginePlan, made_from: Artefact[Any]) -> Iterator[str]:
    """Yield what there is to say of all that an engine is built from: network, graph, half precision, calibration."""
    if BACKENDS[plan.backend].is_baseline:
        yield from variant_network(makings, plan.variant).facts.notes
    else:
        yield from notes_of(makings, plan.variant)
    if isinstance(made_from.facts, HalfFacts):
        yield from made_from.facts.notes
    if PRECISIONS[plan.precision].codes == "int8":
        runtime = BACKENDS[plan.backend].placement
        yield from calibration_notes(makings, plan.variant, precision=plan.precision, runtime=runtime)
    if plan.rescued:
        yield _rescue(makings, plan).note
    elif makings.dataset.is_labelled and is_in_doubt(
        _calibration_record(makings, plan), max_drop_pp=makings.suite.decision.max_drop_pp
    ):
        why = f"`trtbench explain-int8 {makings.suite.origin} --variant {plan.variant.name}` tells why"
        yield f"INT8 may lose more than is accepted, by its held-out images; {why}"
