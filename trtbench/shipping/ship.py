"""From a run to a bundle: the row, its engine, what that was built from, and all that running it takes."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench._optional import version
from trtbench.decide.limits import shown_bound_pp
from trtbench.disk import file_sha256, storing, write_atomically
from trtbench.engines.base import backend
from trtbench.engines.sidecar import check_engine, read_sidecar, write_sidecar
from trtbench.errors import CapabilityError, ConfigError, GateError, TrtbenchError
from trtbench.graph.reference import parted
from trtbench.jsonable import sha256_of, to_jsonable
from trtbench.make.engines import source
from trtbench.make.graphs import GRAPH
from trtbench.make.makings import Makings
from trtbench.make.recipe import Absent
from trtbench.progress import Event, Listener, nobody
from trtbench.records import AsTheyAre
from trtbench.report.disk import read_predictions
from trtbench.report.document import Report, read_report
from trtbench.running.again import find_engines
from trtbench.running.bench import reference_logits
from trtbench.running.plan import plan_engines
from trtbench.running.run import read_origin
from trtbench.shipping.bundle import Bundle, Proof, read_bundle, seal, zipped
from trtbench.shipping.card import card
from trtbench.shipping.prove import proof_words, prove, prove_outputs
from trtbench.shipping.templates.predict import write_arrays
from trtbench.shipping.triton import largest_batch, serve_check, write_repositories
from trtbench.store import Store
from trtbench.suite import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from trtbench.engines.sidecar import Sidecar
    from trtbench.rows import Row
    from trtbench.running.run import Origin
    from trtbench.shipping.triton import Served

_GOLDEN = 10
# What the module of a bundle that runs its engine needs beside the runtime
_BESIDE = {"onnxruntime": (), "tensorrt": ("cupy-cuda12x", "cupy-cuda13x")}
# What a bundle says of its row and of its sidecar, under the same names
_OF_ROW = ("variant", "precision", "backend", "device", "batch_size", "fidelity", "latency")
_OF_SIDECAR = ("achieved", "backend_version", "machine", "model", "preprocessing", "outputs", "source_sha256")
_CALIB, _CACHE = "--calib=", "calibration.cache"
_AGAIN = "run the suite again: `trtbench run SUITE`; it makes only what is not there"
_REBUILD_ON_CPU = (
    'python -c "import onnxruntime as ort; o = ort.SessionOptions();'
    " o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC;"
    " o.optimized_model_filepath = '{engine}';"
    " ort.InferenceSession('model.onnx', o, providers=['CPUExecutionProvider'])\""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """A bundle that was written: its folder, what it says of itself, and the file it was packed into, if it was."""

    folder: Path
    bundle: Bundle
    zip: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cargo:
    """What goes into a bundle: the row of a report, its engine file, and the suite that both came of."""

    run: Path
    report: Report
    row: Row
    engine: Path
    sidecar: Sidecar
    origin: Origin
    makings: Makings
    graph: Path
    why_not_run: str


def ship_row(
    run: Path,
    output: Path,
    *,
    row: str | None = None,
    engines: Sequence[Path] = (),
    licence: str | None = None,
    zips: bool = False,
    triton: Path | None = None,
    tell: Listener = nobody,
) -> Shipped:
    """Write the bundle of a row, and prove it; one that is not proven is not left behind.

    Args:
        run: a run's folder, or its report.json.
        output: the folder to write; nothing may be there.
        row: as in `decision.winner`; by default the one that the run recommends.
        engines: folders to look for the engine's file in, where it is no longer where the run had it.
        licence: of the weights, as its identifier; nothing knows it but the user.
        zips: pack it into one file too.
        triton: serve it by Triton too, with the Python of this path, which has nvidia-pytriton; its figures go on the
            card, and the bytes are then not reproducible.
        tell: told of progress.

    Raises:
        ConfigError: there is no such run, row or engine, it cannot be shipped, or something is there already.
        GateError: the run recommends no row, or the bundle does not score what the run did, by itself or served.
        CapabilityError: Triton cannot be started.
        StoreError: it cannot be written.
    """
    if output.exists():
        raise ConfigError(f"--output {output}", expected="nothing there", cure="choose another, or remove it")
    cargo = _cargo(run, row, engines)
    if triton is not None and cargo.row.fidelity is not None:
        got, cure = "a network that is no classifier", "ship it without --serve-check"
        raise CapabilityError(f"serving {cargo.row.name}", expected="classes to count by", got=got, cure=cure)
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    tell(Event(stage="ship", item=cargo.row.name, state="started"))
    try:
        with storing(partial):
            partial.mkdir(parents=True)
        _load(partial, cargo, licence=licence, triton=triton, tell=tell)
        with storing(output):
            partial.replace(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    tell(Event(stage="ship", item=cargo.row.name, state="done", detail=str(output)))
    return Shipped(folder=output, bundle=read_bundle(output), zip=zipped(output) if zips else None)


def _load(folder: Path, cargo: _Cargo, *, licence: str | None, triton: Path | None, tell: Listener) -> None:
    row = cargo.row
    described = _described(cargo, licence=licence)
    with storing(folder):
        shutil.copyfile(cargo.engine, folder / described["engine"])
        shutil.copyfile(cargo.graph, folder / GRAPH)
    write_sidecar(folder / described["engine"], _sidecar(folder, cargo, described))
    write_atomically(folder / "report.json", _report_of(cargo))
    templates = resources.files("trtbench.shipping.templates")
    for name, file in (
        ("predict.py", templates / "predict.py"),
        ("runtime.py", templates / f"{BACKENDS[row.backend].ships}.py"),
        ("pixels.py", resources.files("trtbench.data") / "pixels.py"),
    ):
        write_atomically(folder / name, file.read_text(encoding="utf-8"))
    if not isinstance(cargo.sidecar.preprocessing, AsTheyAre):
        _write_triton(folder, cargo, described)
    seal(folder, described)
    if cargo.why_not_run:
        proof, logits = Proof(why_not=f"not proven: {cargo.why_not_run}"), None
    else:
        tell(Event(stage="prove", item=row.name, state="started"))
        proof, logits = _proof(folder, cargo)
        tell(Event(stage="prove", item=row.name, state="done", detail=f"{proof_words(proof)} again"))
    _write_golden(folder, cargo, logits)
    described["proof"] = proof
    if triton is not None:
        described["served"] = _served(folder, cargo, described, python=triton, tell=tell)
    write_atomically(folder / "README.md", card(described, row=row, report=cargo.report))
    seal(folder, described)


def _proof(folder: Path, cargo: _Cargo) -> tuple[Proof, NDArray[np.float32]]:
    """Prove a bundle by its classes, or by its outputs where it has none; return what it gave of the test images."""
    row, test = cargo.row, cargo.makings.dataset.test
    if row.fidelity is not None:
        try:
            reference = reference_logits(cargo.makings)
        except Absent as error:
            what = f"float network of {cargo.makings.suite.name}"
            raise ConfigError(what, expected="its graph in the store", got="none", cure=_AGAIN) from error
        outputs = cargo.sidecar.outputs
        return prove_outputs(
            folder, test.images, batch=row.batch_size, reference=reference, noted=row.fidelity, outputs=outputs
        )
    assert row.accuracy is not None, "an engine that runs was scored"
    noted = read_predictions(cargo.run if cargo.run.is_dir() else cargo.run.parent, row)
    return prove(folder, test, batch=row.batch_size, correct=row.accuracy.correct, noted=noted)


def _cargo(run: Path, name: str | None, engines: Sequence[Path]) -> _Cargo:
    report = read_report(run)
    row = _row(report, name)
    origin = read_origin(run)
    engine = _engine(row, origin, engines)
    sidecar = read_sidecar(engine)
    makings = Makings(origin.suite, origin.places, is_dry=True)
    return _Cargo(
        run=run,
        report=report,
        row=row,
        engine=engine,
        sidecar=sidecar,
        origin=origin,
        makings=makings,
        graph=_graph(makings, sidecar),
        why_not_run=_why_not_run(engine, sidecar, row),
    )


def _row(report: Report, name: str | None) -> Row:
    """Return the row of this name, or the one that a report recommends, if it can be shipped."""
    wanted = report.decision.winner if name is None else name
    if wanted is None:
        raise GateError("ship", expected="a row within every limit", got="none", cure="name one with --row")
    row = next((one for one in report.rows if one.name == wanted), None)
    names = [one.name for one in report.rows if BACKENDS[one.backend].ships and one.status in {"ok", "built"}]
    if row is None or row.name not in names:
        got = repr(wanted) if row is None else f"{wanted}, of status {row.status} on {row.backend}"
        raise ConfigError("--row", expected=" or ".join(names) or "a row to ship", got=got, cure="name one of these")
    return row


def _engine(row: Row, origin: Origin, folders: Sequence[Path]) -> Path:
    """Return the engine file of a row: where the run had it, or anywhere in the folders."""
    named = Path(row.engine_path or "")
    for path in (origin.folder / named, named):
        if path.is_file() and file_sha256(path) == row.engine_sha256:
            return path
    found = find_engines([*folders, origin.places.engines]).get(row.engine_sha256 or "")
    if found is None or file_sha256(found) != row.engine_sha256:
        what = f"engine of {row.name}"
        raise ConfigError(what, expected=f"a file of sha256 {row.engine_sha256}", got="none", cure=_AGAIN)
    return found


def _graph(makings: Makings, sidecar: Sidecar) -> Path:
    """Return the graph that an engine was built from: what the suite makes, else what the store has of those bytes.

    The second is of runs of an earlier version, whose keys are no longer those of today.
    """
    plans = plan_engines(makings.suite)
    name = (sidecar.variant, sidecar.precision, sidecar.backend, sidecar.sparse)
    plan = next(
        (one for one in plans if (one.variant.name, one.precision, one.backend, one.config.sparse) == name), None
    )
    try:
        made = None if plan is None else source(makings, replace(plan, rescued=sidecar.rescued))
        if made is not None and made.sha256 == sidecar.source_sha256:
            return made.path(GRAPH)
    except Absent:
        made = None
    store = Store(makings.places.store)
    kept = next((one for one in store.artefacts() if one.sha256 == sidecar.source_sha256), None)
    if kept is not None:
        return kept.path(GRAPH)
    what = f"graph of {sidecar.variant} {sidecar.shown_precision}"
    got = "none" if made is None else "another"
    raise ConfigError(what, expected=f"the one that it was built from in {store.root}", got=got, cure=_AGAIN)


def _why_not_run(engine: Path, sidecar: Sidecar, row: Row) -> str:
    if row.status == "built":
        return row.reason or "it was not run"
    try:
        facts = backend(sidecar.backend).facts(sidecar.options)
        check_engine(engine, sidecar, machine=facts.machine)
    except TrtbenchError as error:  # it is for another machine, or the runtime or its device is absent
        return str(error)
    return facts.why_not_run


def _described(cargo: _Cargo, *, licence: str | None) -> dict[str, Any]:
    row, sidecar, report, suite = cargo.row, cargo.sidecar, cargo.report, cargo.origin.suite
    scored, is_run = row.accuracy, row.status == "ok"
    profile = sidecar.options.get("profile")
    packages = (*BACKENDS[row.backend].packages, *_BESIDE[BACKENDS[row.backend].ships], "numpy", "pillow")
    fields = {
        **{name: getattr(row, name) for name in _OF_ROW},
        **{name: getattr(sidecar, name) for name in _OF_SIDECAR},
        "engine": f"engine{cargo.engine.suffix}",
        "row": row.name,
        "versions": {name: found for name in packages if (found := version(name)) is not None},
        "batch_sizes": suite.bench.batch_sizes,
        "profile": None if profile is None else tuple(profile),
        "is_version_compatible": bool(sidecar.options.get("version_compatible")),
        "settings": row.settings or sidecar.settings,
        "resample": sidecar.preprocessing.interpolation,
        "classes": () if sidecar.outputs else cargo.makings.dataset.classes,
        "is_run": is_run,
        "is_chosen": row.name == report.decision.winner,
        "correct": scored.correct if scored is not None else None,
        "total": scored.total if scored is not None else None,
        "drop_upper_pp": shown_bound_pp(row, report.rows),
        "limits": report.suite.get("decision", {}),
        "run_id": report.run_id,
        "suite_sha256": sha256_of(report.suite),
        "manifest_sha256": sidecar.calibration_sha256,
        "rebuild": _rebuild(sidecar, cargo),
        "licence": licence,
    }
    described: dict[str, Any] = to_jsonable(Bundle(**fields))
    return described


def _rebuild(sidecar: Sidecar, cargo: _Cargo) -> str:
    """Return the line that, in a bundle's folder on another machine, builds the engine of its model.onnx."""
    engine = f"engine{cargo.engine.suffix}"
    if line := sidecar.facts.get("trtexec"):
        left_out = ("--timingCacheFile", "--onnx", "--saveEngine")
        kept = [part for part in line.split() if not part.startswith(left_out)]
        parts = [f"{_CALIB}{_CACHE}" if part.startswith(_CALIB) else part for part in kept]
        return " ".join([parts[0], f"--onnx={GRAPH}", f"--saveEngine={engine}", *parts[1:]])
    if sidecar.backend == "onnxruntime-cpu":
        return _REBUILD_ON_CPU.format(engine=engine)
    return f"cp {GRAPH} {engine}" if sidecar.backend == "onnxruntime-cuda" else sidecar.rebuild


def _sidecar(folder: Path, cargo: _Cargo, described: Mapping[str, Any]) -> Sidecar:
    """Return the sidecar with the bundle's own line in place of one that names this machine's folders.

    The calibration cache that such a line reads goes along.
    """
    line = str(cargo.sidecar.facts.get("trtexec", ""))
    if not line:
        return cargo.sidecar
    for part in line.split():
        cache = Path(part.removeprefix(_CALIB))
        if part.startswith(_CALIB) and cache.is_file():
            with storing(folder):
                shutil.copyfile(cache, folder / _CACHE)
    return replace(cargo.sidecar, facts={**cargo.sidecar.facts, "trtexec": described["rebuild"]})


def _report_of(cargo: _Cargo) -> str:
    """Return the run's report with the row alone, and the anchor that its ratio is to: `trtbench compare` reads it."""
    row = cargo.row
    anchor = row.latency.anchor if row.latency is not None else None
    rows = tuple(one for one in cargo.report.rows if one.name in {row.name, anchor})
    return json.dumps(to_jsonable(replace(cargo.report, rows=rows)), indent=1) + "\n"


def _takes_any(row: Row) -> bool:
    """Whether the engine takes batches of every size: a runtime that takes options has profiles."""
    return not backend(row.backend).takes_options


def _write_triton(folder: Path, cargo: _Cargo, described: Mapping[str, Any]) -> None:
    import onnx

    graph = onnx.load(cargo.graph, load_external_data=False).graph
    write_repositories(
        folder,
        described,
        ships=BACKENDS[cargo.row.backend].ships,
        takes_any=_takes_any(cargo.row),
        tensors=(graph.input[0].name, graph.output[0].name),
    )


def _served(folder: Path, cargo: _Cargo, described: Mapping[str, Any], *, python: Path, tell: Listener) -> Served:
    row = cargo.row
    if cargo.why_not_run or row.accuracy is None:
        raise CapabilityError(f"serving {row.name}", expected="an engine that runs here", got=cargo.why_not_run)
    tell(Event(stage="serve", item=row.name, state="started"))
    found = serve_check(
        folder,
        cargo.makings.dataset.test,
        largest=largest_batch(described, takes_any=_takes_any(row)),
        batch=row.batch_size,
        correct=row.accuracy.correct,
        python=python,
    )
    tell(Event(stage="serve", item=row.name, state="done", detail=f"{row.accuracy.correct} right, by HTTP and gRPC"))
    return found


def _write_golden(folder: Path, cargo: _Cargo, logits: NDArray[np.float32] | None) -> None:
    """Write ten test images, class-balanced, as pixels and as input, with their labels and their logits.

    Of a network that is no classifier each output stands as `output NAME` in place of labels and logits. Of an engine
    that is not run here the logits are the graph's, in exact arithmetic.
    """
    from trtbench.data.batches import fed, spread
    from trtbench.data.preprocess import normalise

    dataset = cargo.makings.dataset
    chosen = spread(dataset.test.labels, count=_GOLDEN)
    images = dataset.test.images[chosen]
    inputs = normalise(images, dataset.preprocessing)
    if logits is None:
        import onnx

        from trtbench.graph.half_rules import rounding_graph
        from trtbench.graph.reference import exact_logits

        wanted = exact_logits(rounding_graph(onnx.load(cargo.graph)), images, dataset.preprocessing, size=_GOLDEN)
    else:
        wanted = logits[chosen]
    told: dict[str, NDArray[Any]] = {"logits": wanted, "labels": dataset.test.labels[chosen]}
    if outputs := cargo.sidecar.outputs:
        told = {f"output {name}": values for name, values in parted(wanted, outputs).items()}
    taken: dict[str, NDArray[Any]]
    if images.dtype.names:
        taken = {f"input {name}": values for name, values in fed(images).items()}
    else:
        taken = {"images": images.transpose(0, 2, 3, 1), "inputs": inputs}
    with storing(folder):
        write_arrays(folder / "golden.npz", taken | told)
