"""What a fleet costs and gains: python -m tests.benchmarks.fleet --out DIR --work DIR --part NAME.

    local     the quick start, run as ever: what the other parts are held against
    overhead  the same with `--on ray` on this machine alone, beyond what Ray itself takes to start
    nodes     the same on three nodes of one core that claim two kinds of device: counts and hashes
    scaling   variants trained on two nodes of one core and on one
    replay    what the driver takes for a row, on 4 and on 100 nodes

Each part runs alone, some minutes on two quiet cores, and writes its section of `DIR/fleet.json`. `replay` runs the
driver's own code (`fleet.cluster`) on durations that the local run recorded, 100 times as fast: a node waits as long as
each engine took to build and each row to score and to time, tells what a real one tells, and hands over a run of as
many rows as it has, with their samples. Four nodes are real ones of Ray; a hundred do not fit into one machine, and
there, and once with four to compare, threads stand in for nodes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import queue
import shutil
import statistics
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench import _optional
from trtbench.disk import write_atomically
from trtbench.environment import collect_environment
from trtbench.fleet import cluster
from trtbench.fleet.node import Keeper, Measured
from trtbench.jsonable import to_jsonable
from trtbench.make.makings import Places
from trtbench.progress import Event
from trtbench.report.document import read_report
from trtbench.suite import load_suite, parse_suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from trtbench.report import Report

_SUITE = "quickstart"
_KINDS = ("A10G", "L4")
_SCALE = 100  # times as fast as it was
_REPLAYS = ((4, 250), (4, 1000), (100, 10), (100, 100))  # nodes, and rows of each
_STAGES = ("engine", "score", "time")
_START = "import ray; ray.init(log_to_driver=False); ray.get(ray.remote(lambda: 1).remote()); ray.shutdown()"
_VARIANTS = 6
_TRAINED = """
name: trained
data: {source: digits}
model:
  name: resnet20
  train: {epochs: 1, batch_size: 64, lr: 0.1, schedule: one-cycle, augment: {crop_padding: 2}}
variants: VARIANTS
fine_tune: {epochs: EPOCHS, batch_size: 32, lr: 0.05, augment: {crop_padding: 2}}
export: {exporter: torchscript}
engines: [{backend: onnxruntime-cpu, precisions: [fp32]}]
bench: {batch_sizes: [1], baselines: []}
"""


def main() -> int:
    """Run one part, and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--part", choices=_PARTS, required=True)
    parser.add_argument("--suite", default=_SUITE)
    parser.add_argument("--epochs", type=int, default=5, help="scaling: that a variant trains")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    path = options.out / "fleet.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    command = f"python -m tests.benchmarks.fleet --out DIR --work DIR --part {options.part}"
    section = {"command": command, **_PARTS[options.part](options)}
    found |= {options.part: section, "environment": to_jsonable(collect_environment())}
    write_atomically(path, json.dumps(found, indent=1) + "\n")
    print(json.dumps(section, indent=1))  # noqa: T201  a benchmark's answer
    return 0


def _emptied(options: argparse.Namespace, name: str) -> Path:
    """Return a folder of ours with nothing in it: what was made by an earlier try is not found."""
    folder = Path(options.work) / name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _timed(command: Sequence[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def _command_line(options: argparse.Namespace, name: str, *more: str) -> list[str]:
    folder = _emptied(options, name)
    folders = ("--out", str(folder), "--engines", str(folder / "engines"))
    return [sys.executable, "-m", "trtbench", "run", options.suite, *folders, *more]


def local(options: argparse.Namespace) -> dict[str, Any]:
    """Run the suite as ever, from nothing."""
    taken = _timed(_command_line(options, "local"))
    return {"suite": options.suite, "seconds": taken, "rows": len(_local(options).rows)}


def _local(options: argparse.Namespace) -> Report:
    return read_report(options.work / "local" / "latest")


def overhead(options: argparse.Namespace) -> dict[str, Any]:
    """Run it with `--on ray`, from nothing, between two starts of Ray alone."""
    here = json.loads((options.out / "fleet.json").read_text(encoding="utf-8"))["local"]["seconds"]
    os.environ["XDG_CACHE_HOME"] = str(_emptied(options, "disk of ray"))
    starts = [_timed([sys.executable, "-c", _START])]
    there = _timed(_command_line(options, "ray", "--on", "ray"))
    starts.append(_timed([sys.executable, "-c", _START]))
    start = statistics.mean(starts)
    return {"local_s": here, "ray_s": there, "start_s": starts, "share": (there - start) / here - 1, "limit": 0.1}


@contextlib.contextmanager
def _nodes(options: argparse.Namespace, nodes: Sequence[Mapping[str, Any]], **head: Any) -> Iterator[str]:
    """Start a cluster of one head and more nodes, each with a disk of its own, and yield its address."""
    ray = _optional.load("ray")

    disks = _emptied(options, "disks")

    def disk(number: int) -> dict[str, str]:
        path = os.pathsep.join(filter(None, sys.path))
        return {"XDG_CACHE_HOME": str(disks / str(number)), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    started = _optional.load("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={"env_vars": disk(0), **head}
    )
    try:
        for number, given in enumerate(nodes, start=1):
            started.add_node(num_cpus=1, env_vars=disk(number), **given)
        ray.init(address=started.address, log_to_driver=False)
        yield started.address
    finally:
        ray.shutdown()
        started.shutdown()


def nodes(options: argparse.Namespace) -> dict[str, Any]:
    """Run it on three nodes of two kinds and count what is as in the local run."""
    suite = load_suite(options.suite).model_copy(update={"devices": _KINDS})
    folder = _emptied(options, "three")
    places = Places(runs=folder, engines=folder / "engines")
    with _nodes(options, [{"resources": {kind: 1}} for kind in _KINDS], num_cpus=1) as address:
        began = time.monotonic()
        found = cluster.run_on_ray(suite, places, address=address, argv=sys.argv, now=datetime.now(UTC))
        taken = time.monotonic() - began
    expected = {row.name: row for row in _local(options).rows}
    same: dict[str, dict[str, int]] = {}
    for kind, report in found.reports.items():
        pairs = [(row, expected[row.name]) for row in report.rows]
        same[kind] = {
            "rows": len(pairs),
            "same_status": sum(one.status == other.status for one, other in pairs),
            "same_engine_sha256": sum(one.engine_sha256 == other.engine_sha256 for one, other in pairs),
            "same_correct": sum(_correct(one) == _correct(other) for one, other in pairs),
        }
    by_node = {node: sum(one.node == node for one in found.made) for node in found.nodes}
    return {"seconds": taken, "kinds": same, "lost": found.lost, "where": found.where, "made_by_node": by_node}


def _correct(row: Any) -> int | None:
    return None if row.accuracy is None else row.accuracy.correct


def scaling(options: argparse.Namespace) -> dict[str, Any]:
    """Train variants on one node of one core, then on two; the dense network is there already."""
    os.environ["OMP_NUM_THREADS"] = "1"
    seconds = {}
    _emptied(options, "trained")
    for count in (1, 2):
        with _nodes(options, [{}] * count, num_cpus=0) as address:
            _made(options, count, {"dense": None}, address)
            ratios = {f"channels-{number}": 0.1 * (1 + number) for number in range(_VARIANTS)}
            seconds[str(count)] = _made(options, count, ratios, address)
    return {
        "variants": _VARIANTS,
        "epochs": options.epochs,
        "seconds": seconds,
        "ratio": seconds["1"] / seconds["2"],
        "least": 1.6,
    }


def _made(options: argparse.Namespace, count: int, names: Mapping[str, float | None], address: str) -> float:
    """Return the seconds in which a cluster makes the variants of these names and their graphs."""
    variants = [
        {"kind": "dense", "name": name}
        if ratio is None
        else {"kind": "channels", "name": name, "ratio": ratio, "round_to": 4}
        for name, ratio in names.items()
    ]
    text = _TRAINED.replace("VARIANTS", json.dumps(variants)).replace("EPOCHS", str(options.epochs))
    suite = parse_suite(text, origin="trained.yaml")
    places = Places(runs=options.work / "trained" / str(count))
    with _run(suite, places, address=address) as run:
        began = time.monotonic()
        prepared = run.make()
        taken = time.monotonic() - began
    assert not any(one.why or one.lost for one in prepared), prepared
    return taken


@contextlib.contextmanager
def _run(suite: Any, places: Places, *, address: str) -> Iterator[Any]:
    with cluster._connected(address) as ray:
        run = cluster._Run(ray, suite, places, argv=[], now=datetime.now(UTC), tell=lambda _: None)
        try:
            yield run
        finally:
            run.end()


def replay(options: argparse.Namespace) -> dict[str, Any]:
    """Let the driver follow nodes that wait as long as the local run worked, and tell what a row costs it."""
    run = _local(options).run_id
    found = [_replayed(options, count, run, rows=rows) for count, rows in _REPLAYS]
    kinds = [f"kind-{number}" for number in range(4)]
    with _nodes(options, [{"resources": {kind: 1}} for kind in kinds], num_cpus=0) as address:
        real = [_replayed(options, 4, run, rows=_REPLAYS[0][1], address=address)]
    return {"of": options.suite, "times_as_fast": _SCALE, "threads_for_nodes": found, "nodes_of_ray": real}


def _replayed(
    options: argparse.Namespace, count: int, run: str, *, rows: int, address: str | None = None
) -> dict[str, Any]:
    kinds = tuple(f"kind-{number}" for number in range(count))
    suite = load_suite(options.suite).model_copy(update={"devices": kinds})
    name = f"replay {count} {rows} {'threads' if address is None else 'ray'}"
    folder = _emptied(options, name)
    places = Places(runs=folder, engines=folder / "engines")
    player = _Player(recorded=str(options.work / "local" / run), rows=rows)
    swapped: dict[str, Any] = {"_measured": lambda job, ask, **given: player.play(ask, **given)}  # noqa: ARG005  as it is
    there: Any = _optional.load("ray")
    if address is None:
        there = _Nodes(kinds)
        swapped["_Asking"] = there.asking
    kept = {key: getattr(cluster, key) for key in swapped}
    for key, value in swapped.items():
        setattr(cluster, key, value)
    try:
        follower = cluster._Run(there, suite, places, argv=[], now=datetime.now(UTC), tell=lambda _: None)
        began, computed = time.monotonic(), time.thread_time()
        follower.measure([])
        follower.end()
        follower.write()
        taken, used = time.monotonic() - began, time.thread_time() - computed
    finally:
        for key, value in kept.items():
            setattr(cluster, key, value)
    total = sum(len(report.rows) for report in follower.found.reports.values())
    assert total == rows * count, follower.found.lost
    return {"nodes": count, "rows": total, "seconds": taken, "driver_ms_a_row": 1e3 * used / total}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Player:
    """The task that measures, played from a run: it waits, tells and hands over, for `rows` rows."""

    recorded: str
    rows: int

    def play(self, ask: Any, *, kind: str, **_: Any) -> Measured:
        """Return the run of a node."""
        report = read_report(Path(self.recorded))
        seconds = {stage: report.stages.get(stage, 0.0) / len(report.rows) for stage in _STAGES}
        content = io.BytesIO()
        rows = []
        with zipfile.ZipFile(content, "w") as archive:
            for number in range(self.rows):
                row = report.rows[number % len(report.rows)]
                again = replace(row, variant=f"{row.variant}-{number // len(report.rows)}")
                for stage in _STAGES:
                    ask("tell", Event(stage=stage, item=again.name, state="started"))
                    time.sleep(((row.build_s if stage == "engine" else None) or seconds[stage]) / _SCALE)
                    ask("tell", Event(stage=stage, item=again.name, state="done"))
                rows.append(again)
                raw = Path(self.recorded) / "raw" / f"{row.name.replace(' ', '_')}.json"
                if raw.exists():
                    archive.writestr(f"run/raw/{again.name.replace(' ', '_')}.json", raw.read_bytes())
            whole = replace(report, rows=tuple(rows), run_id=f"{report.run_id}-{kind}")
            for name in ("report.html", "report.md"):
                archive.write(Path(self.recorded) / name, f"run/{name}")
            archive.writestr("run/report.json", json.dumps(to_jsonable(whole)))
        return Measured(node=kind, run=whole.run_id, engines="/nowhere", content=content.getvalue())


@dataclass(slots=True)
class _Group:
    node: str = ""


class _Keeping:
    """An actor: each method is called at once, on the thread that asks."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def __getattr__(self, name: str) -> Any:
        return _Task(lambda *given: _done(getattr(self._keeper, name)(*given)))


@dataclass(slots=True)
class _Task:
    """What `remote` makes of a function."""

    call: Callable[..., Any]
    given: dict[str, Any] = field(default_factory=dict)

    def options(self, **given: Any) -> _Task:
        return _Task(self.call, given)

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        kwargs |= {"_options": self.given} if self.given else {}
        return self.call(*args, **kwargs)


def _done(value: Any) -> Future[Any]:
    found: Future[Any] = Future()
    found.set_result(value)
    return found


class _Nodes:
    """As much of Ray as a run that measures calls, with a thread for each node, which does one task after the other."""

    class exceptions:  # noqa: N801  Ray's name
        """What a task may end in."""

        RayTaskError = RayError = ArithmeticError  # of which the driver catches none here

    def __init__(self, kinds: Sequence[str]) -> None:
        self._listed: list[dict[str, Any]] = [
            {
                "NodeID": f"{number:056x}",
                "NodeManagerHostname": kind,
                "Alive": True,
                "Resources": {"CPU": 1.0, kind: 1.0},
            }
            for number, kind in enumerate(kinds)
        ]
        self._tasks: dict[str, queue.Queue[Any]] = {one["NodeID"]: queue.Queue() for one in self._listed}
        self.util = self
        for tasks in self._tasks.values():
            threading.Thread(target=self._work, args=(tasks,), daemon=True).start()

    @staticmethod
    def _work(tasks: queue.Queue[Any]) -> None:
        while True:
            future, call = tasks.get()
            try:
                future.set_result(call())
            except Exception as error:  # noqa: BLE001  it is raised where the result is asked for
                future.set_exception(error)

    @staticmethod
    def asking(keeper: _Keeping) -> Callable[..., Any]:
        return lambda method, *given: getattr(keeper, method).remote(*given).result()

    def remote(self, function: Any) -> _Task:
        if function is Keeper:
            return _Task(lambda *given, **_: _Keeping(Keeper(*given)))
        return _Task(lambda *given, **named: self._begun(function, given, named))

    def _begun(self, function: Any, given: Any, named: dict[str, Any]) -> Future[Any]:
        strategy = named.pop("_options")["scheduling_strategy"]
        future: Future[Any] = Future()
        self._tasks[strategy.placement_group.node].put(
            (future, lambda: function(given[0].result(), *given[1:], **named))
        )
        return future

    def put(self, value: Any) -> Future[Any]:
        return _done(value)

    def get(self, future: Future[Any]) -> Any:
        return future.result()

    def wait(self, futures: list[Future[Any]], *, num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:  # noqa: ARG002  as Ray's
        found = wait(futures, timeout=timeout, return_when=FIRST_COMPLETED)
        return list(found.done), list(found.not_done)

    def nodes(self) -> list[dict[str, Any]]:
        return self._listed

    def get_runtime_context(self) -> Any:
        return self

    def get_node_id(self) -> str:
        return str(self._listed[0]["NodeID"])

    def placement_group(self, _whole: Any, *, strategy: str, bundle_label_selector: Any) -> _Group:  # noqa: ARG002  as Ray's
        (selector,) = bundle_label_selector
        return _Group(selector["ray.io/node-id"].removeprefix("in(").partition(",")[0].removesuffix(")"))

    def remove_placement_group(self, group: _Group) -> None:
        """Free nothing: a node does one task after the other."""

    def cancel(self, future: Future[Any], *, force: bool) -> None:
        """Cancel nothing: what was begun ends."""

    def kill(self, actor: Any) -> None:
        """End nothing: it has no process."""


_PARTS: Mapping[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "local": local,
    "overhead": overhead,
    "nodes": nodes,
    "scaling": scaling,
    "replay": replay,
}

if __name__ == "__main__":
    sys.exit(main())
