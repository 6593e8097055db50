"""`trtbench run --on ray`: a suite as tasks of a Ray cluster, which schedules them; what they do is in `node`.

Networks and graphs are made on any node, once. Then each kind of device has one node to itself, on which all that is
compared there is built, scored and timed as a local run does it.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench import _optional
from trtbench.disk import storing, write_atomically
from trtbench.ending import unstoppable
from trtbench.errors import CapabilityError, ConfigError, TrtbenchError
from trtbench.fleet.jobs import write_job
from trtbench.fleet.node import Keeper, Measured, Prepared, make_there, measure_there
from trtbench.jsonable import to_jsonable
from trtbench.make.makings import Makings
from trtbench.progress import Event, Listener, nobody
from trtbench.report.document import read_report
from trtbench.report.matrix import merge_reports, write_matrix
from trtbench.running.run import point_latest, run_name, write_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from trtbench.fleet.node import Ask, Made
    from trtbench.make.makings import Places
    from trtbench.report.document import Report
    from trtbench.report.matrix import Matrix
    from trtbench.suite import Suite

_LOOK_S = 0.3  # between two looks at what has ended
_RETRIES = 2  # of a task whose node or process died, on whatever node Ray finds
_LOST_S = 30.0  # without any node that could do it, a task is given up
_END_S = 5.0  # that tasks have to end in when the run is stopped
_TEXTS = (".json", ".md", ".html", ".csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of the cluster: its kinds, by which a suite may ask for it, and what of it there is in all."""

    id: str
    kinds: frozenset[str]
    whole: Mapping[str, float]

    @classmethod
    def of(cls, listed: Mapping[str, Any]) -> Node:
        """Return a node as Ray lists it; one without a core has no kind, for nothing runs there."""
        resources, labels = listed["Resources"], listed.get("Labels") or {}
        own = {name for name in resources if ":" not in name} - {"CPU", "GPU", "memory", "object_store_memory"}
        own |= {name.removeprefix("accelerator_type:") for name in resources if name.startswith("accelerator_type:")}
        own |= {labels["ray.io/accelerator-type"]} if labels.get("ray.io/accelerator-type") else set()
        whole = {name: resources[name] for name in ("CPU", "GPU") if resources.get(name)}
        own |= {"gpu" if "GPU" in whole else "cpu"}
        return cls(id=listed["NodeID"], kinds=frozenset(own if "CPU" in whole else ()), whole=whole)


@dataclass(slots=True, kw_only=True)
class Fleet:
    """What a run over a cluster came to: a report for each kind of device, and its folder; and all of them as a matrix.

    `lost` says why a kind has no report, `where` on which node each was measured, `made` what was made where, and
    `nodes` what each node that made something is, with its versions. `folder` holds the matrix.
    """

    reports: dict[str, Report] = field(default_factory=dict)
    matrix: Matrix | None = None
    folder: str | None = None
    folders: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    made: list[Made] = field(default_factory=list)
    nodes: dict[str, str] = field(default_factory=dict)


def run_on_ray(
    suite: Suite, places: Places, *, address: str, argv: Sequence[str], now: datetime, tell: Listener = nobody
) -> Fleet:
    """Run a suite over a Ray cluster: make what it needs once, then measure it on each kind of device.

    Args:
        suite: the validated suite.
        places: folders; the store is the one that survives.
        address: of the cluster, as `ray.init` takes it; "" is the one at hand, else one of this machine alone.
        argv: the command, for the record.
        now: when the run began; names its folders.
        tell: told of progress on all nodes.

    Raises:
        CapabilityError: Ray is absent, or there is no such cluster.
        ConfigError: the suite's data cannot be used, or no node is of a kind that it asks for.
        KeyboardInterrupt: someone stopped it; tasks have ended, and what was measured is written.
    """
    with _connected(address) as ray:
        run = _Run(ray, suite, places, argv=argv, now=now, tell=tell)
        try:
            run.measure(run.make())
        finally:
            run.end()
            with unstoppable():
                run.write()
    return run.found


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Join a cluster that this machine is a node of, and leave it unless somebody had joined it before."""
    if not sys.platform.startswith("linux"):
        cure = "run it on Linux, or pack a job: `trtbench pack-job`"
        raise CapabilityError("--on ray", expected="Linux", got=sys.platform, cure=cure)
    if "://" in address:
        cure = "run trtbench on a node of the cluster, whose disk then has the store: ray[:HOST:PORT]"
        raise ConfigError("--on ray", expected="a cluster that this machine is a node of", got=address, cure=cure)
    ray = _optional.load("ray")
    was_joined = ray.is_initialized()
    try:
        if not was_joined:
            ray.init(address=address or None, log_to_driver=False, logging_level="warning")
    except (ConnectionError, RuntimeError, ValueError) as error:
        cure = "start one: `ray start --head`, or leave the address out"
        raise CapabilityError(f"Ray cluster {address}", got=str(error).partition("\n")[0], cure=cure) from error
    try:
        yield ray
    finally:
        if not was_joined:
            ray.shutdown()


class _Asking:
    """Calls the keeper from a node.

    It waits in a thread of its own: while the main thread of a task waits, Ray lends the task's cores to the next one,
    and both then train on cores that are there once.
    """

    def __init__(self, keeper: Any) -> None:
        self._keeper = keeper

    def __call__(self, method: str, *arguments: Any) -> Any:
        answer = getattr(self._keeper, method).remote(*arguments)
        if method == "tell":
            return None
        with ThreadPoolExecutor(1) as waiting:
            return waiting.submit(_optional.load("ray").get, answer).result()


class _Run:
    def __init__(
        self, ray: Any, suite: Suite, places: Places, *, argv: Sequence[str], now: datetime, tell: Listener
    ) -> None:
        self._ray, self._suite, self._places = ray, suite, places
        self._argv, self._now, self._tell = list(argv), now, tell
        self._makings = Makings(suite, places, tell=tell)
        self._pending: dict[Any, str] = {}  # tasks, by what they are of
        self._groups: dict[str, Any] = {}
        self._failed: set[str] = set()
        self._job: Any = None
        self._artefacts: tuple[str, ...] = ()
        self.found = Fleet()
        self._kinds = self._asked()
        strategies = _optional.load("ray.util.scheduling_strategies")
        self._in_group = strategies.PlacementGroupSchedulingStrategy
        here = strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        keeper = ray.remote(Keeper).options(num_cpus=0, scheduling_strategy=here)
        self._keeper = keeper.remote(str(places.store.absolute()))

    def make(self) -> list[Prepared]:
        """Make on whatever nodes there are what all engines are built from; a task waits for those it goes on from."""
        nodes, ask, job = self._alive(), _Asking(self._keeper), self._packed([])
        cores, gpus = (max((one.whole.get(name, 0) for one in nodes), default=0) for name in ("CPU", "GPU"))
        task = self._ray.remote(_made).options(
            num_cpus=min(self._makings.computing.threads, cores), num_gpus=1 if gpus else 0, max_retries=_RETRIES
        )
        options = {"device": "cuda:0" if gpus else "cpu", "threads": self._makings.computing.threads}
        shared = task.remote(job, ask, None, variant="", shared=None, **options)
        tasks = {"": shared}
        for variant in self._suite.variants:
            after = tasks[variant.after or ""]
            tasks[variant.name] = task.remote(job, ask, after, variant=variant.name, shared=shared, **options)
        self._pending = {made: name for name, made in tasks.items()}
        prepared: list[Prepared] = []
        self._follow(lambda _, nodes: bool(nodes), lambda _, result: prepared.append(result))
        for name, why in [*self.found.lost.items()]:  # of a variant whose task died
            prepared.append(Prepared(lost={name: why} if name else {}, why="" if name else why))
        self.found.lost.clear()
        return prepared

    def measure(self, prepared: Sequence[Prepared]) -> None:
        """Measure on each kind of device, one node of it reserved as a whole."""
        self.found.nodes.update({one.node: one.described for one in prepared if one.node})
        self._job = self._packed(prepared)
        nodes = self._alive()
        for kind in self._kinds:
            if not self._begin(kind, nodes):
                self._lose(kind, f"no node of the cluster is of kind {kind}")
        self._follow(lambda kind, nodes: bool(_of_kind(kind, nodes)), self._keep, again=self._begin)

    def _begin(self, kind: str, alive: Sequence[Node]) -> bool:
        """Measure on a node of a kind when one is free, and say whether there is any; Ray finds and reserves it."""
        if (group := self._groups.get(kind)) is not None:  # it died there, which Ray may not know yet
            self._failed |= set(self._ray.util.placement_group_table(group)["bundles_to_node_id"].values())
        there = _of_kind(kind, alive)
        if not (nodes := [one for one in there if one.id not in self._failed] or there):
            return False
        whole = nodes[0].whole
        alike = ", ".join(one.id for one in nodes if one.whole == whole)
        self._release(kind)
        self._groups[kind] = group = self._ray.util.placement_group(
            [whole], strategy="STRICT_PACK", bundle_label_selector=[{"ray.io/node-id": f"in({alike})"}]
        )
        task = self._ray.remote(_measured).options(
            num_cpus=whole["CPU"],
            num_gpus=whole.get("GPU", 0),
            max_retries=0,  # a group that lost its node may never get another
            scheduling_strategy=self._in_group(group, placement_group_bundle_index=0),
        )
        options = {"argv": self._argv, "now": self._now, "cores": int(whole["CPU"])}
        self._pending[task.remote(self._job, _Asking(self._keeper), kind=kind, **options)] = kind
        return True

    def _release(self, kind: str) -> None:
        if (group := self._groups.pop(kind, None)) is not None:
            self._ray.util.remove_placement_group(group)

    def end(self) -> None:
        """End every task that still runs, and let go of what was reserved."""
        for pending, name in self._pending.items():
            self._ray.cancel(pending, force=True)
            self.found.lost[name] = "the run was stopped"
        if self._pending:
            self._ray.wait(list(self._pending), num_returns=len(self._pending), timeout=_END_S)
        for kind in self._kinds:
            self._release(kind)
        self._ray.kill(self._keeper)

    def write(self) -> None:
        """Write the matrix of what was measured, in the order in which devices were asked for."""
        found = self.found
        kinds = [kind for kind in self._kinds if kind in found.reports]
        if not kinds:
            return
        found.matrix = merge_reports([found.reports[kind] for kind in kinds])
        folder = self._places.runs / run_name(self._suite, self._now, "fleet")
        found.folder, pages = str(folder), [f"../{Path(found.folders[kind]).name}/report.html" for kind in kinds]
        for name in ("matrix.html", "matrix.md"):
            write_matrix(found.matrix, folder / name, pages=pages)
        write_atomically(folder / "fleet.json", json.dumps(to_jsonable(replace(found, reports={})), indent=1))

    def _asked(self) -> tuple[str, ...]:
        """Return the kinds of device to measure on, of which there is a node of one at least."""
        nodes = self._alive()
        there = {kind for one in nodes for kind in one.kinds}
        accelerators = {kind for one in nodes if "GPU" in one.whole for kind in one.kinds - {"gpu"} or {"gpu"}}
        kinds = self._suite.devices or tuple(sorted(accelerators)) or ("cpu",)
        if not there.intersection(kinds):
            known = ", ".join(sorted(there)) or "no kind"
            cure = "mend devices, or add such a node"
            raise ConfigError(f"devices: {', '.join(kinds)}", expected=f"one of {known}", got="no such node", cure=cure)
        return kinds

    def _packed(self, prepared: Sequence[Prepared]) -> Any:
        """Return the suite, its images and what was made of it as an object that every node can fetch."""
        places = dict.fromkeys(place for one in prepared for place in one.artefacts)
        self._artefacts = tuple(f"{kind}/{key}" for kind, key in places)
        lost = {name: why for one in prepared for name, why in one.lost.items()}
        if why := next((one.why for one in prepared if one.why), ""):
            lost |= {variant.name: why for variant in self._suite.variants}
        with tempfile.TemporaryDirectory() as scratch:
            folders = [self._places.store / kind / key for kind, key in places]
            made = "; ".join(sorted(set(self.found.nodes.values())))
            job = write_job(self._makings, Path(scratch) / "job.zip", artefacts=folders, lost=lost, made=made)
            return self._ray.put(job.read_bytes())

    def _alive(self) -> list[Node]:
        return [Node.of(one) for one in self._ray.nodes() if one["Alive"]]

    def _follow(
        self,
        is_possible: Callable[[str, Sequence[Node]], bool],
        take: Callable[[str, Any], None],
        *,
        again: Callable[[str, Sequence[Node]], bool] = lambda _, __: False,
    ) -> None:
        """Wait for all that is pending, passing on the news of all nodes; what no node can do any more is given up."""
        tries = dict.fromkeys(self._pending.values(), 0)
        possible_s = dict.fromkeys(self._pending.values(), time.monotonic())
        while self._pending:
            ended, _ = self._ray.wait(list(self._pending), num_returns=len(self._pending), timeout=_LOOK_S)
            self._pass_on()
            for one in ended:
                name = self._pending.pop(one)
                try:
                    result = self._ray.get(one)
                except self._ray.exceptions.RayTaskError as error:
                    self._lose(name, _reason(error))
                except self._ray.exceptions.RayError as error:  # its process or its node died
                    why = " ".join(str(error).split())[:200]
                    tries[name] += 1
                    if tries[name] > _RETRIES or not again(name, self._alive()):
                        self._lose(name, why)
                    else:
                        self._tell(Event(stage="node", item=name, state="note", detail=f"tried again: {why}"))
                else:
                    take(name, result)
            now, nodes = time.monotonic(), self._alive()  # listed once a look, whatever is pending
            possible_s |= {name: now for name in set(self._pending.values()) if is_possible(name, nodes)}
            for one, name in self._pending.items():
                if now - possible_s[name] > _LOST_S:
                    self._ray.cancel(one, force=True)

    def _pass_on(self) -> None:
        events, made = self._ray.get(self._keeper.news.remote())
        self.found.made.extend(made)
        for event in events:
            self._tell(event)

    def _lose(self, name: str, why: str) -> None:
        self.found.lost[name] = why
        self._tell(Event(stage="node", item=name, state="failed", detail=why))

    def _keep(self, kind: str, measured: Measured) -> None:
        """Unpack the run and the engines of a kind of device where those of a local run stand."""
        places, found = replace(self._places, engines=self._places.engines / kind), self.found
        folder = places.runs / measured.run
        with storing(folder), zipfile.ZipFile(io.BytesIO(measured.content)) as archive:
            for name in archive.namelist():
                top, _, rest = name.partition("/")
                data = archive.read(name)
                if top == "run" and "/" not in rest and rest.endswith(_TEXTS):
                    data = data.replace(measured.engines.encode(), places.engines.as_posix().encode())
                write_atomically((folder if top == "run" else places.engines) / rest, data)
        write_origin(folder, self._suite, places, artefacts=self._artefacts)
        point_latest(places.runs, folder)
        found.reports[kind], found.folders[kind], found.where[kind] = read_report(folder), str(folder), measured.node
        self._tell(Event(stage="device", item=kind, state="done", detail=f"measured on {measured.node}"))


def _of_kind(kind: str, nodes: Sequence[Node]) -> list[Node]:
    return [one for one in nodes if kind in one.kinds]


def _reason(error: Any) -> str:
    """Say why a task of ours ended: in our words, or as what it is."""
    cause = error.cause
    return str(cause) if isinstance(cause, TrtbenchError) else f"{type(cause).__name__}: {cause}"


def _here() -> str:
    context = _optional.load("ray").get_runtime_context()
    listed = next(one for one in _optional.load("ray").nodes() if one["NodeID"] == context.get_node_id())
    return f"{listed.get('NodeName') or listed['NodeManagerHostname']} ({listed['NodeID'][:6]})"


def _made(job: bytes, ask: Ask, after: Prepared | None, *, shared: Prepared | None, **options: Any) -> Prepared:
    """Make what comes after another, unless that cannot be made: then it is known why this cannot."""
    variant = options["variant"]
    if after is not None and (why := after.why or next(iter(after.lost.values()), "")):
        return Prepared(lost={variant: why}, node=_here())
    return make_there(job, ask, _here(), shared=shared, **options)


def _measured(job: bytes, ask: Ask, **options: Any) -> Measured:
    return measure_there(job, ask, _here(), **options)
