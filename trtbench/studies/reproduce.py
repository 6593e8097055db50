"""`trtbench reproduce`: the networks of a suite scored image by image, to stand beside what a study published.

A row is one network as one file of it computes: in float32, as its packed file with half precision gives it back, or
as the Q/DQ graph for TensorRT in exact arithmetic. Published checkpoints are scored on the same images, so that a
difference is paired. What was made before is found in the store; a run that is stopped goes on where it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping  # noqa: TC003  pydantic resolves the fields of records at run time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import requires
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

import trtbench
from trtbench.bench.accuracy import cross_entropy
from trtbench.compress.codec import halve, read_state
from trtbench.disk import file_sha256, storing, write_atomically
from trtbench.environment import collect_environment, using_gpu
from trtbench.errors import ConfigError, RowError
from trtbench.fleet.jobs import write_job
from trtbench.jsonable import to_jsonable
from trtbench.make.graphs import GRAPH, quantized_graph
from trtbench.make.makings import Makings
from trtbench.make.networks import PACKED, WEIGHTS, load_network, variant_network
from trtbench.models.container import to_bytes
from trtbench.models.masks import MASKS, masks_to_facts
from trtbench.precision import PRECISIONS
from trtbench.progress import Clock, Listener, nobody
from trtbench.running.bench import true_logits
from trtbench.running.plan import built_engines
from trtbench.running.run import run_suite
from trtbench.suite import FixedPointVariant
from trtbench.train.evaluate import predict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from trtbench.rows import Row
    from trtbench.running import Places
    from trtbench.studies.published import Published
    from trtbench.suite import Suite, Variant

Form = Literal["network", "half", "int8"]
_RUN = """#!/bin/sh
# Makes and scores the networks of job.zip here, and writes results/; options of `trtbench reproduce` may follow.
set -e
cd "$(dirname "$0")"
[ -d venv ] || "${PYTHON:-python3}" -m venv --system-site-packages venv
venv/bin/python -m pip install -q -r requirements.txt
PYTHONPATH=code exec venv/bin/python -m trtbench reproduce job.zip --output results "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a network gets right; `right` has a bit for each test image, the first highest, as hex digits."""

    correct: int
    total: int
    loss: float
    right: str

    @classmethod
    def of(cls, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Score:
        """Count from logits (images, classes), which chance may have made: a study may show just that.

        Raises:
            RowError: a logit is no number.
        """
        if not np.isfinite(logits).all():
            raise RowError("logits", expected="finite numbers", got="NaN or infinity")
        right = logits.argmax(axis=1) == labels
        return cls(
            correct=int(right.sum()),
            total=len(labels),
            loss=round(cross_entropy(logits, labels), 6),
            right=np.packbits(right).tobytes().hex(),
        )

    def mask(self) -> NDArray[np.bool_]:
        """Return which images it gets right."""
        return np.unpackbits(np.frombuffer(bytes.fromhex(self.right), np.uint8), count=self.total).astype(bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One network as one form of it computes; `score` is None where the suite has no labels worth a count.

    `bytes` are of the packed file, with `form` "half" rounded to half precision where it is float; of a form "int8"
    those of its engines stand in `engines`, by backend and precision. `samples` are the training images that it saw,
    each time counted, in the dense network's training here and those of all variants it goes on from. `seconds` is what
    its making took, `ms` the median latency at batch 1 by engine, where it was measured.
    """

    variant: str
    form: Form
    score: Score | None
    params: int
    macs: int
    sparsity: float
    bytes: int | None
    engines: Mapping[str, int] = field(default_factory=dict)
    ms: Mapping[str, float] = field(default_factory=dict)
    samples: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The variant, and its form where that is not the plain network."""
        return self.variant if self.form == "network" else f"{self.variant} {self.form}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Theirs:
    """A published checkpoint on the same images: its file, the sha256 of that, the bits its weights are rounded to."""

    checkpoint: str
    sha256: str
    bits: int | None
    score: Score
    sparsity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """One suite's networks beside published ones, with all that was asked and where it ran."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    suite: Mapping[str, Any]
    created: str
    argv: tuple[str, ...]
    git: Mapping[str, Any]
    environment: Mapping[str, Any]
    test_sha256: str
    train_images: int
    rows: tuple[Scored, ...]
    theirs: tuple[Theirs, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)

    def row(self, name: str) -> Scored | None:
        """Return the row of this name."""
        return next((row for row in self.rows if row.name == name), None)


def reproduce_suite(
    suite: Suite,
    places: Places,
    *,
    argv: Sequence[str],
    now: datetime,
    published: Published,
    theirs: Path | None = None,
    builds: bool = True,
    measured: Sequence[Row] = (),
    tell: Listener = nobody,
) -> Reproduction:
    """Make and score every network of a suite, and the published checkpoints that stand beside them.

    Args:
        suite: the validated suite.
        places: folders of the store and the engines.
        argv: the command, for the record.
        now: when it began.
        published: names the checkpoints of this suite.
        theirs: the folder of published checkpoints; those that are not there are left out.
        builds: whether the suite's engines are built, for their bytes.
        measured: the rows of a finished run of the suite, for its latencies.
        tell: told of progress.

    Raises:
        ConfigError: the suite's data or checkpoint cannot be used.
    """
    makings = Makings(suite, places, tell=tell)
    clock, rows, failed = Clock(tell), list[Scored](), dict[str, str]()
    with using_gpu(suite.device):
        engines = _engine_bytes(makings) if builds else {}
        times = _times(measured)
        for index, variant in enumerate(suite.variants):
            try:
                rows += _scored(makings, variant, engines, times)
            except RowError as error:
                failed[variant.name] = str(error)
            clock("score", "networks", (index + 1) / len(suite.variants))
        found = tuple(_theirs(makings, published, theirs)) if theirs is not None else ()
    environment = collect_environment()
    return Reproduction(
        suite=suite.as_written(),
        created=now.isoformat(timespec="seconds"),
        argv=tuple(argv),
        git=to_jsonable(environment.git) or {},
        environment=to_jsonable(environment),
        test_sha256=makings.dataset.test.sha256,
        train_images=len(makings.dataset.train),
        rows=tuple(rows),
        theirs=found,
        failed=failed,
    )


def restricted(suite: Suite, only: Sequence[str]) -> Suite:
    """Return a suite of these variants and those they go on from; of all where none is named.

    Raises:
        ConfigError: the suite has no variant of that name.
    """
    names = {variant.name for variant in suite.variants}
    if unknown := [name for name in only if name not in names]:
        raise ConfigError("--only", expected=f"one of {', '.join(sorted(names))}", got=unknown[0], cure="mend the name")
    kept = {one.name for variant in suite.variants if variant.name in only for one in suite.lineage(variant)}
    chosen = tuple(variant for variant in suite.variants if not only or variant.name in kept)
    return suite.model_copy(update={"variants": chosen})


def measured_rows(suite: Suite, places: Places, *, argv: Sequence[str], tell: Listener) -> tuple[Row, ...]:
    """Run a suite, and return its rows."""
    report, _ = run_suite(suite, places, argv=argv, now=datetime.now(UTC).astimezone(), tell=tell)
    return report.rows


def _engine_bytes(makings: Makings) -> dict[tuple[str, bool], dict[str, int]]:
    """Return the bytes of every engine that builds here, whether or not its GPU is here.

    They stand by name, under their variant and whether they are INT8.
    """
    found: dict[tuple[str, bool], dict[str, int]] = {}
    for one in built_engines(makings):
        if one.path is not None and one.plan.role == "candidate" and not one.plan.rescued:
            form = one.plan.variant.name, PRECISIONS[one.plan.precision].is_int8
            found.setdefault(form, {})[f"{one.plan.precision} {one.plan.backend}"] = one.path.stat().st_size
    return found


def _times(measured: Sequence[Row]) -> dict[tuple[str, bool], dict[str, float]]:
    """Return the median latency of every engine at batch 1 in ms, as `_engine_bytes` has their bytes."""
    found: dict[tuple[str, bool], dict[str, float]] = {}
    for row in measured:
        if row.latency is not None and row.batch_size == 1:
            form = row.variant, PRECISIONS[row.precision].is_int8
            found.setdefault(form, {})[f"{row.shown_precision} {row.backend}"] = row.latency.p50_ms
    return found


def _scored(
    makings: Makings,
    variant: Variant,
    engines: Mapping[tuple[str, bool], Mapping[str, int]],
    times: Mapping[tuple[str, bool], Mapping[str, float]],
) -> Iterator[Scored]:
    artefact = variant_network(makings, variant)
    state = read_state(artefact.path(PACKED) if artefact.path(PACKED).is_file() else artefact.path(WEIGHTS))
    network = load_network(makings, artefact)
    state = replace(state, facts={**state.facts, MASKS: masks_to_facts(network)})  # as files are written today
    yield (
        plain := Scored(
            variant=variant.name,
            form="network",
            score=_score(makings, network),
            params=artefact.facts.params,
            macs=artefact.facts.macs,
            sparsity=artefact.facts.sparsity,
            bytes=len(to_bytes(state)),
            engines=engines.get((variant.name, False), {}),
            ms=times.get((variant.name, False), {}),
            samples=_samples(makings, variant),
            seconds=artefact.seconds,
            notes=artefact.facts.notes,
        )
    )
    halved = halve(state)
    network.load_state_dict(halved.values())
    size = len(to_bytes(halved))
    yield replace(plain, form="half", score=_score(makings, network), bytes=size, engines={}, ms={})
    if any(PRECISIONS[one].is_int8 for engine in makings.suite.engines for one in engine.precisions or ()):
        logits = true_logits(quantized_graph(makings, variant, runtime="tensorrt").path(GRAPH), makings)
        score = Score.of(logits, makings.dataset.test.labels)
        held, took = engines.get((variant.name, True), {}), times.get((variant.name, True), {})
        yield replace(plain, form="int8", score=score, bytes=None, engines=held, ms=took)


def _score(makings: Makings, network: Any) -> Score:
    dataset = makings.dataset
    logits = predict(network, dataset.test.images, dataset.preprocessing, device=makings.computing.device)
    network.to("cpu")
    return Score.of(logits, dataset.test.labels)


def _samples(makings: Makings, variant: Variant) -> int:
    """Count the training images that a variant's network saw, over all trainings of this suite."""
    suite, images = makings.suite, len(makings.dataset.train)
    first = 0 if suite.model.train is None else suite.model.train.epochs
    return images * (first + sum(suite.budget_of(one).epochs for one in suite.lineage(variant) if one.fine_tune))


def _theirs(makings: Makings, published: Published, folder: Path) -> Iterator[Theirs]:
    """Score what is there of the published checkpoints, rounded as they are run."""
    from trtbench.compress.method import Context, method_of
    from trtbench.compress.sparsity import sparsity_of

    dataset, suite = makings.dataset, makings.suite
    for name, bits in published.checkpoints(suite.name):
        path = folder / name
        if not path.is_file():
            continue
        network = makings.architecture.load(path).model
        if bits is not None:
            rounding = FixedPointVariant(kind="fixed_point", name="theirs", bits=bits, scheme="asymmetric")
            context = Context(dataset=dataset, budget=suite.fine_tune, tune=_no_training)
            network = method_of(rounding)(network, rounding, context).model
        yield Theirs(
            checkpoint=name,
            sha256=file_sha256(path),
            bits=bits,
            score=_score(makings, network),
            sparsity=sparsity_of(network),
        )


def _no_training(*_args: object, **_keywords: object) -> Any:
    raise AssertionError("a published checkpoint is not trained")


def write_bundle(suite: Suite, places: Places, folder: Path, *, tell: Listener = nobody) -> Path:
    """Write code, suite and images into a folder; `sh run.sh` there makes and scores the networks on that machine.

    Returns:
        The script.

    Raises:
        ConfigError: the suite's data or checkpoint cannot be used.
        StoreError: the folder cannot be written.
    """
    write_job(Makings(suite, places, tell=tell), folder / "job.zip", artefacts=[], lost={})
    package = Path(trtbench.__file__).parent
    with storing(folder):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, folder / "code" / package.name, ignore=ignored, dirs_exist_ok=True)
    needed = [one for one in requires(package.name) or () if "extra ==" not in one]
    write_atomically(folder / "requirements.txt", "\n".join(needed) + "\n")
    write_atomically(folder / "run.sh", _RUN)
    return folder / "run.sh"


def write_reproduction(found: Reproduction, folder: Path) -> Path:
    """Write NAME.json, and read it back before it replaces the old one.

    Raises:
        StoreError: the folder cannot be written.
    """
    text = json.dumps(to_jsonable(found), indent=1, ensure_ascii=False) + "\n"
    path = folder / f"{found.suite['name']}.json"
    parsed(text, origin=path.name)
    write_atomically(path, text)
    return path


def parsed(text: str, *, origin: str) -> Reproduction:
    """Read what `write_reproduction` wrote.

    Raises:
        ConfigError: it is not that.
    """
    try:
        return TypeAdapter(Reproduction).validate_json(text, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = ".".join(map(str, fault["loc"]))
        raise ConfigError(
            f"{origin}: {key}", expected=fault["msg"], cure="write it again with `trtbench reproduce`"
        ) from error
