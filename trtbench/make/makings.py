"""What the artefacts of one suite are made of: its settings, its images, the folders, the book that keeps them."""

from __future__ import annotations

import copy
import functools
import importlib.util
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from trtbench._optional import version
from trtbench.disk import Lease, file_sha256
from trtbench.errors import ConfigError
from trtbench.foreign import read_json
from trtbench.make.images import PUBLISHERS, expected, input_notes
from trtbench.make.recipe import Book, Given
from trtbench.progress import Event, Listener, nobody
from trtbench.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trtbench.make.trial import ComputingFacts
    from trtbench.models import LoadedModel
    from trtbench.records import Dataset, Split
    from trtbench.suite import Suite

JOB, JOB_STORE, JOB_IMAGES = "job.json", "store", "images.npz"  # of a job's folder
_ONNX = "onnx:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where things stand: runs and the store below them, engines, committed manifests.

    A folder of manifests that a user names is read and written; without one `calib` is read and left as it is.
    `job` is the folder of an unpacked job: its images, and what was made of them elsewhere.
    """

    runs: Path = Path("runs")
    engines: Path = Path("engines")
    calib: Path | None = None
    job: Path | None = None

    @property
    def manifests(self) -> Path:
        """The folder that committed manifests are read from."""
        return self.calib or Path("calib")

    @property
    def store(self) -> Path:
        """The folder of the content-keyed store."""
        return self.runs / ".store"

    def open_store(self, *, user: str = "") -> Store:
        """Return the store for a user; what a job brought stands in for what it lacks."""
        return Store(self.store, user=user, brought=None if self.job is None else self.job / JOB_STORE)

    @property
    def timing_caches(self) -> Path:
        """The folder of TensorRT's timings of tactics."""
        return self.runs / ".timing"

    @property
    def calibration_caches(self) -> Path:
        """The folder of TensorRT 10's calibration caches, each named by what decides it."""
        return self.runs / ".calibration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A network by name; `source` stands for code of it that is not ours: a package's version or a module's sha256."""

    name: str
    num_classes: int
    source: str | None

    @property
    def circumstances(self) -> tuple[str, ...]:
        """What of its key says with what it is made, as recipes ask it: the version, but not the code of a module."""
        return ("source",) if self.name.partition(":")[0] in PUBLISHERS else ()

    @classmethod
    def of(cls, name: str, *, num_classes: int) -> Architecture:
        """Return the architecture of this name as it is installed here."""
        return cls(name=name, num_classes=num_classes, source=_source_of(name))

    def fresh(self, *, seed: int) -> Any:
        """Return the network with the weights that this seed gives."""
        import torch

        from trtbench.models import build_model

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return build_model(self.name, num_classes=self.num_classes)

    def load(self, checkpoint: Path, *, is_dense: bool = False, weights_from: str | None = None) -> LoadedModel:
        """Return the network with a checkpoint's weights, in eval mode on the CPU, and what there is to note.

        Of a dense one no zeros are kept; of a file of several networks `weights_from` is meant.
        """
        from trtbench.models import load_model

        return load_model(
            self.name,
            num_classes=self.num_classes,
            checkpoint=checkpoint,
            is_dense=is_dense,
            weights_from=weights_from,
        )


class Makings:
    """One suite with what its artefacts are made of.

    The functions of this room take it, and give one artefact each, found or made: `networks.variant(makings, variant)`,
    `graphs.quantized_graph(makings, variant, precision="int8")`, `calibration.manifest(makings)`.

    Args:
        suite: the validated suite.
        places: folders.
        tell: told what is made, reused, or rebuilt and why.
        is_dry: look up only: what is not there is a Promise.
    """

    def __init__(self, suite: Suite, places: Places, *, tell: Listener = nobody, is_dry: bool = False) -> None:
        self.suite = suite
        self.places = places
        self._tell, self._notes = tell, set[Event]()
        self.book = Book(places.open_store(user=suite.name), label=suite.name, tell=tell, is_dry=is_dry)
        self._leases: dict[Path, Lease] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let others replace what was in use here."""
        while self._leases:
            self._leases.popitem()[1].close()

    def lease(self, path: Path) -> Lease:
        """Return the hold on a file that these makings use, until they are left or dropped."""
        if path not in self._leases:
            self._leases[path] = Lease(path.with_name(f".{path.name}.used"))
        return self._leases[path]

    def tell(self, event: Event) -> None:
        """Tell whoever listens; the same note once, however often an artefact is looked up."""
        if event.state == "note":
            if event in self._notes:
                return
            self._notes.add(event)
        self._tell(event)

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The images of the suite, loaded once; those of a job, where they come from one."""
        from trtbench.data import load_dataset, read_dataset

        self.tell(Event(stage="data", item=self.suite.data.source, state="started"))
        if self.places.job is not None:
            dataset = read_dataset(self.places.job / JOB_IMAGES)
        else:
            known = expected(self)
            dataset = load_dataset(self.suite.data, expected=known)
            dataset = replace(dataset, notes=(*dataset.notes, *input_notes(self, dataset, known)))
        counts = f"{len(dataset.train)} train, {len(dataset.validation)} validation, {len(dataset.test)} test"
        self.tell(Event(stage="data", item=dataset.name, state="done", detail=counts))
        return dataset

    @functools.cached_property
    def checkpoint(self) -> Given[Path] | None:
        """The suite's checkpoint, its bytes hashed once; None where it has none.

        Raises:
            ConfigError: it is not there.
        """
        path = self.suite.model.checkpoint
        if path is not None and not path.is_file():
            raise ConfigError(f"checkpoint {path}", expected="a file", cure="mend model.checkpoint")
        return None if path is None else Given(path, key=file_sha256(path))

    @functools.cached_property
    def brought(self) -> Mapping[str, Any]:
        """What a job says of itself: `made`, where and with what, and `lost`, why a variant has no network."""
        job = self.places.job
        found: dict[str, Any] = {} if job is None else read_json(job / JOB)
        return found

    def require_labels(self, what: str, cure: str = "give images by class: folder:PATH") -> None:
        """Refuse images without labels for what counts by them.

        Raises:
            ConfigError: they have none.
        """
        if not self.dataset.is_labelled:
            expected = f"images with labels for {what}"
            raise ConfigError(f"data.source {self.suite.data.source}", expected=expected, got="none", cure=cure)

    @functools.cached_property
    def architecture(self) -> Architecture:
        """The suite's network.

        Raises:
            ConfigError: the images have no labels, which tell how many classes it has.
        """
        if not self.dataset.is_labelled:
            cure = f"give folder:PATH, images by class; or onnx:network.onnx of {self.export_line(num_classes=None)}"
            self.require_labels("a network in PyTorch", cure)
        return Architecture.of(self.suite.model.name, num_classes=self.dataset.num_classes)

    def export_line(self, *, num_classes: int | None) -> str:
        """Return the shell line that writes the suite's network as network.onnx, whatever goes in and comes out."""
        from trtbench.models.zoo import export_line

        model, fit = self.suite.model, self.dataset.preprocessing
        return export_line(model.name, fit, num_classes=num_classes, checkpoint=model.checkpoint)

    @functools.cached_property
    def computing(self) -> ComputingFacts:
        """Where training and eager run, and on how many threads."""
        from trtbench.make.trial import computing

        return computing(self)

    @property
    def onnx_path(self) -> Path | None:
        """The user's file, where the network comes as ONNX, without its PyTorch source."""
        name = self.suite.model.name
        return Path(name.removeprefix(_ONNX)) if name.startswith(_ONNX) else None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return self.dataset.preprocessing.input_shape

    def without(self, option: str) -> Makings:
        """Return the makings of the same suite with one calibration option at its default."""
        default = getattr(type(self.suite.calibration)(), option)
        return self.calibrated(f"without-{option}", **{option: default})

    def excluding(self, nodes: tuple[str, ...]) -> Makings:
        """Return the makings of the same suite with these nodes, and no others, kept in higher precision."""
        return self.calibrated("excluding", exclude=nodes)

    def calibrated(self, name: str, **changes: Any) -> Makings:
        """Return the makings with other options; the images, and the artefacts they share, are at hand already."""
        _ = self.dataset
        other = copy.copy(self)
        config = self.suite.calibration.model_copy(update=changes)
        other.suite = self.suite.model_copy(update={"calibration": config})
        other.book = self.book.labelled(f"{self.book.label}-{name}")
        return other


def keeping(dataset: Dataset, *names: str) -> Dataset:
    """Return a dataset without a name, with these splits and the others empty, for makers that are to read no more."""

    def kept(name: str) -> Split:
        split: Split = getattr(dataset, name)
        return split if name in names else replace(split, images=split.images[:0], labels=split.labels[:0])

    return replace(dataset, name="", train=kept("train"), validation=kept("validation"), test=kept("test"))


def _source_of(model: str) -> str | None:
    """Return what stands for the source of a network that is not ours; recipes have a version for ours."""
    package, _, name = model.partition(":")
    if not name:
        return None
    if package in PUBLISHERS:
        return version(package)
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
            return file_sha256(Path(spec.origin))
    return None
