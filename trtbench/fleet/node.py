"""What a task does on a node of a cluster, and the keeper of the driver's store that nodes ask; Ray only calls it."""

from __future__ import annotations

import io
import os
import tempfile
import time
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench.data.decode import data_cache
from trtbench.errors import RowError
from trtbench.fleet.jobs import PIXELS, described, open_job
from trtbench.jsonable import sha256_of
from trtbench.make.images import overlap_notes
from trtbench.make.makings import Makings, Places
from trtbench.make.networks import dense
from trtbench.make.trial import ComputingFacts
from trtbench.running.plan import prepare_suite
from trtbench.running.run import run_suite
from trtbench.store import Store, but

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    from trtbench.fleet.jobs import AnyPlaces
    from trtbench.progress import Event, Listener
    from trtbench.store import Artefact
    from trtbench.suite import Suite

    Ask = Callable[..., Any]  # calls the keeper by the name of a method; of `tell` no answer is waited for

_OFTEN_S = 0.5  # between two events of progress
Files = dict[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An artefact that a node made: what people call it, where, and the seconds it took."""

    kind: str
    item: str
    node: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a task has made or found: the places of artefacts in every store, and why a variant has no network.

    `why` says that what all variants share cannot be made.
    """

    artefacts: tuple[tuple[str, str], ...] = ()
    lost: Mapping[str, str]
    why: str = ""
    node: str = ""
    described: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The run of one kind of device as files: `run/` and `engines/` of an archive, and the node's folder of engines."""

    node: str
    run: str
    engines: str
    content: bytes


class Keeper:
    """The driver's store as the nodes reach it, and their news: an actor on the driver's machine.

    An artefact is kept here before the task that made it ends, so that it outlives its node. One that a node made in
    other circumstances, with other versions, stands in on all others during this run.

    Args:
        root: the folder of the driver's store.
    """

    def __init__(self, root: str) -> None:
        self._store = Store(Path(root))
        self._kept: dict[str, str] = {}
        self._news: list[Event] = []
        self._made: list[Made] = []

    def find(self, kind: str, key: str, identity: str) -> tuple[str, Files] | None:
        """Return the key and the files of an artefact: of this key, or of one that is alike."""
        for known in (key, self._kept.get(identity, "")):
            if known and (found := self._store.read(kind, known)) is not None:
                return known, files_of(found)
        return None

    def has(self, kind: str, key: str, identity: str) -> bool:
        """Say whether an artefact of this key is here; if so it stands in for what is alike."""
        if is_here := self._store.read(kind, key) is not None:
            self._kept.setdefault(identity, key)
        return is_here

    def keep(self, kind: str, key: str, identity: str, files: Files, made: Made | None) -> None:
        """Keep an artefact, and who made it."""
        self._store.adopt(kind, key, files)
        self._kept.setdefault(identity, key)
        self._made += [] if made is None else [made]

    def tell(self, event: Event) -> None:
        """Take the news of a node."""
        self._news.append(event)

    def news(self) -> tuple[list[Event], list[Made]]:
        """Hand out the news since the last time."""
        found, self._news, self._made = (self._news, self._made), [], []
        return found


class NodeStore(Store):
    """A node's own store, behind which the driver's stands: what one has all have.

    Args:
        root: the folder.
        user: the suite that uses it.
        ask: calls the keeper.
        node: its name.
    """

    def __init__(self, root: Path, *, user: str, ask: Ask, node: str) -> None:
        super().__init__(root, user=user)
        self._ask, self._node = ask, node

    def find(
        self, kind: str, inputs: Mapping[str, Any], *, circumstances: Collection[str] = ()
    ) -> Artefact[Mapping[str, Any]] | None:
        """Return the artefact of this node, which the driver has then too; else the driver's."""
        found = super().find(kind, inputs)
        if kind == PIXELS:
            return found
        key, identity = self.key(kind, inputs), _identity(kind, inputs, circumstances)
        if found is not None:
            if not self._ask("has", kind, key, identity):
                self._ask("keep", kind, key, identity, files_of(found), None)
            return found
        there = self._ask("find", kind, key, identity)
        return None if there is None else self.adopt(kind, *there)

    def make(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        maker: Callable[[Path], Any],
        *,
        content: tuple[str, ...],
        label: str = "",
        circumstances: Collection[str] = (),
    ) -> Artefact[Mapping[str, Any]]:
        """Return the artefact, made here and kept by the driver."""
        found = super().make(kind, inputs, maker, content=content, label=label)
        if kind != PIXELS:
            made = Made(kind=kind, item=label.partition("/")[2], node=self._node, seconds=found.seconds)
            self._ask("keep", kind, found.key, _identity(kind, inputs, circumstances), files_of(found), made)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlaces(Places):
    """Where things stand on a node."""

    ask: Ask
    node: str

    def open_store(self, *, user: str = "") -> Store:
        """Return the node's store."""
        return NodeStore(self.store, user=user, ask=self.ask, node=self.node)


def make_there(
    job: bytes, ask: Ask, node: str, *, variant: str, shared: Prepared | None, device: str, threads: int
) -> Prepared:
    """Make on this node what the engines of a variant are built from; where nothing is shared yet, what all share.

    Args:
        job: the suite, its images and its files.
        ask: calls the keeper.
        node: the name of this node.
        variant: its name.
        shared: what all variants share, made before.
        device: what a local run would train on; "cpu" where no node has a GPU to make graphs for.
        threads: on how many a local run would.
    """
    suite, places = _at_home(job, NodePlaces(ask=ask, node=node))
    makings = Makings(suite, places, tell=_teller(ask, node))
    makings.computing = ComputingFacts(device=device, threads=threads)
    lost: dict[str, str] = {}
    try:
        if shared is None:
            overlap_notes(makings)
            if makings.onnx_path is None:
                dense(makings)
        else:
            only = next(one for one in suite.variants if one.name == variant)
            lost = prepare_suite(makings, only=only, anywhere=device != "cpu")
    except RowError as error:
        return Prepared(lost={}, why=str(error), node=node, described=described())
    kept = tuple((one.kind, one.key) for one in makings.book.at_hand if one.kind != PIXELS)
    return Prepared(artefacts=kept, lost=lost, node=node, described=described())


def measure_there(
    job: bytes, ask: Ask, node: str, *, kind: str, argv: list[str], now: datetime, cores: int
) -> Measured:
    """Build, score and time a suite on this node; rows name their engines below its folder of engines."""
    if os.environ.get("OMP_NUM_THREADS") == str(cores):  # Ray's, of all cores; a local run has none
        del os.environ["OMP_NUM_THREADS"]
    suite, places = _at_home(job, Places())
    places = replace(places, engines=places.runs.parent / "engines" / kind)
    _, folder = run_suite(suite, places, argv=argv, now=now, tell=_teller(ask, f"{node} ({kind})"), kind=kind)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for root, name in ((folder, "run"), (places.engines / suite.name, f"engines/{suite.name}")):
            for path in sorted(root.rglob("*")):
                if path.is_file() and not path.name.startswith("."):
                    archive.write(path, f"{name}/{path.relative_to(root).as_posix()}")
    return Measured(node=node, run=folder.name, engines=str(places.engines), content=content.getvalue())


def files_of(artefact: Artefact[Any]) -> Files:
    """Return the files of an artefact by their names."""
    paths = [path for path in artefact.folder.rglob("*") if path.is_file()]
    return {path.relative_to(artefact.folder).as_posix(): path.read_bytes() for path in paths}


def _teller(ask: Ask, where: str) -> Listener:
    """Pass a node's events on to the driver, progress not too often; what is found again is no news."""
    last_s = 0.0

    def tell(event: Event) -> None:
        nonlocal last_s
        now = time.monotonic()
        if event.state == "cached" or (event.state == "progress" and now - last_s < _OFTEN_S):
            return
        last_s = now if event.state == "progress" else last_s
        ask("tell", replace(event, item=f"{event.item} on {where}"))

    return tell


def _at_home(job: bytes, places: AnyPlaces) -> tuple[Suite, AnyPlaces]:
    """Unpack a job in this node's folder, which later runs find again."""
    home = data_cache().parent / "fleet"
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=home, suffix=".zip") as packed:
        packed.write(job)
        packed.flush()
        return open_job(Path(packed.name), replace(places, runs=home / "runs"))


def _identity(kind: str, inputs: Mapping[str, Any], circumstances: Collection[str]) -> str:
    """Return what artefacts share that differ in their circumstances only."""
    return sha256_of({"kind": kind, "inputs": but(inputs, circumstances)})
