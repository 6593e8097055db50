"""A suite over real nodes of Ray: what is made and counted is what a local run makes and counts, whatever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trtbench.errors import CapabilityError, ConfigError
from trtbench.fleet.cluster import Node, _Asking, run_on_ray
from trtbench.fleet.node import Keeper
from trtbench.report.document import read_report
from trtbench.report.matrix import merge_reports
from trtbench.running import Places, run_suite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trtbench.progress import Event
    from trtbench.rows import Row
    from trtbench.suite import Suite

_NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
real = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Any]:
    """Start a head of one core; `add(resources)` adds a node of one core with a disk of its own."""
    found = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed: pip install 'trtbench[ray]'")
    ray = pytest.importorskip("ray")

    def disk(number: int) -> dict[str, str]:
        path = os.pathsep.join((*sys.path, *filter(None, [os.environ.get("PYTHONPATH")])))
        return {"XDG_CACHE_HOME": str(tmp_path / f"disk {number}"), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    soon = {"health_check_period_ms": 500, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 4}
    head = {"num_cpus": 1, "env_vars": disk(0), "_system_config": soon}
    started = found.Cluster(initialize_head=True, head_node_args=head)
    started.add = lambda number, **resources: started.add_node(num_cpus=1, resources=resources, env_vars=disk(number))
    try:
        yield started
    finally:
        ray.shutdown()
        started.shutdown()


def _told(row: Row) -> tuple[str, str, str | None, int | None]:
    return row.name, row.status, row.engine_sha256, None if row.accuracy is None else row.accuracy.correct


def _on(suite: Suite, *devices: str) -> Suite:
    return suite.model_copy(update={"devices": devices})


@real
@pytest.mark.slow
@pytest.mark.usefixtures("in_short")
def test_three_nodes_of_two_kinds_count_what_a_local_run_counts(
    suite: Suite, cluster: Any, places: Places, tmp_path: Path
) -> None:
    cluster.add(1, A10G=1)
    cluster.add(2, L4=1)
    there = Places(runs=tmp_path / "fleet", engines=tmp_path / "engines of all")

    found = run_on_ray(_on(suite, "A10G", "L4", "T4"), there, address=cluster.address, argv=[], now=_NOW)
    local, _ = run_suite(suite, places, argv=[], now=_NOW)

    assert list(found.reports) == ["A10G", "L4"], found.lost
    assert found.lost == {"T4": "no node of the cluster is of kind T4"}
    assert len(set(found.where.values())) == 2
    for report in found.reports.values():
        assert [_told(row) for row in report.rows] == [_told(row) for row in local.rows]
        assert all(Path(row.engine_path or "").is_file() for row in report.rows)
    made = [(one.kind, one.item) for one in found.made]
    assert len(made) == len(set(made))
    assert {"dense", "variant", "graph", "qdq"} <= {kind for kind, _ in made}
    assert found.matrix == merge_reports([read_report(folder) for folder in found.folders.values()])
    assert {path.name for path in Path(found.folder or "").iterdir()} == {"fleet.json", "matrix.html", "matrix.md"}


@real
@pytest.mark.usefixtures("in_short")
def test_one_node_makes_and_measures_a_suite(suite: Suite, cluster: Any, places: Places) -> None:
    """Where Ray is installed this is the one test of it among the fast: it takes less than 30 s."""
    suite = suite.model_copy(update={"variants": suite.variants[:1]})

    found = run_on_ray(suite, places, address=cluster.address, argv=[], now=_NOW)

    assert [row.status for row in found.reports["cpu"].rows] == ["ok"] * 2
    assert len(found.nodes) == 1
    assert {one.node for one in found.made} == set(found.where.values()) == set(found.nodes)


@real
@pytest.mark.slow
def test_a_task_keeps_its_cores_while_it_asks_the_driver(cluster: Any, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    ray.init(address=cluster.address)
    ask = _Asking(ray.remote(_Slow).options(num_cpus=0).remote(str(tmp_path)))

    def asking() -> tuple[float, float]:
        began = time.monotonic()
        for _ in range(4):
            ask("has", "dense", "0" * 64, "")
        return began, time.monotonic()

    task = ray.remote(asking).options(num_cpus=1)
    first, second = sorted(ray.get([task.remote() for _ in range(2)]))

    assert first[1] <= second[0]


class _Slow(Keeper):
    def has(self, kind: str, key: str, identity: str) -> bool:
        time.sleep(0.5)
        return super().has(kind, key, identity)


@real
@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_from_its_store(suite_text: str, cluster: Any, tmp_path: Path) -> None:
    """It is killed when one of two networks is made: the next run makes the other one only."""
    cluster.add(1, L4=1)
    (tmp_path / "tiny.yaml").write_text(suite_text + "devices: [L4]\n")
    command = [sys.executable, "-m", "trtbench", "run", "tiny.yaml", "--on", f"ray:{cluster.address}", "--json"]
    path = os.pathsep.join(filter(None, sys.path))
    env = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL) as driver:
        while driver.poll() is None and not [*tmp_path.glob("runs/.store/dense/*/artefact.json")]:
            time.sleep(0.02)
        assert driver.poll() is None
        driver.kill()

    again = subprocess.run(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, check=True)

    found = json.loads(again.stdout)
    assert found["lost"] == {}
    made = {one["kind"] for one in found["made"]}
    assert "dense" not in made
    assert {"variant", "graph", "qdq"} <= made
    assert [row["status"] for row in found["reports"]["L4"]["rows"]] == ["ok"] * 4


@real
@pytest.mark.slow
@pytest.mark.parametrize("stage", ["variant", "score"])
def test_what_a_node_does_that_is_killed_is_done_by_another(
    suite: Suite, cluster: Any, places: Places, stage: str
) -> None:
    """The node is killed when it has made the pruned network, or while it measures."""
    nodes = [cluster.add(number, L4=1) for number in (1, 2)]
    killed: list[str] = []

    def kill(event: Event) -> None:
        if event.stage != stage or killed:
            return
        for node in nodes:
            if node.node_id[:6] in event.item:
                killed.append(node.node_id)
                os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)

    found = run_on_ray(_on(suite, "L4"), places, address=cluster.address, argv=[], now=_NOW, tell=kill)

    assert [row.status for row in found.reports["L4"].rows] == ["ok"] * 4
    assert not found.lost
    assert not killed or killed[0][:6] not in found.where["L4"]


@real
@pytest.mark.slow
def test_ctrl_c_ends_all_tasks_within_ten_seconds(suite_text: str, cluster: Any, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    cluster.add(1, L4=1)
    text = suite_text.replace("epochs: 2, batch_size: 9, lr: 0.02", "epochs: 100000, batch_size: 9, lr: 0.02")
    (tmp_path / "long.yaml").write_text(text + "devices: [L4]\n")
    command = [sys.executable, "-m", "trtbench", "run", "long.yaml", "--on", f"ray:{cluster.address}"]
    path = os.pathsep.join(filter(None, sys.path))
    with subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stderr is not None
        for line in driver.stderr:
            if "overlap" in line:
                break
        time.sleep(1)
        stopped = time.monotonic()
        driver.send_signal(signal.SIGINT)
        driver.communicate(timeout=20)
        took = time.monotonic() - stopped

    ray.init(address=cluster.address, log_to_driver=False)
    assert driver.returncode == 130
    assert took < 10
    while ray.available_resources().get("CPU", 0) < 2:  # of both nodes: no task holds one
        assert time.monotonic() - stopped < 10
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("resources", "labels", "kinds"),
    [
        ({"CPU": 4.0, "memory": 1.0, "node:10.0.0.1": 1.0}, {}, {"cpu"}),
        ({"CPU": 4.0, "L4": 1.0}, {}, {"cpu", "L4"}),
        ({"CPU": 4.0, "GPU": 1.0, "accelerator_type:A10G": 1.0}, {}, {"gpu", "A10G"}),
        ({"CPU": 4.0, "GPU": 2.0}, {"ray.io/accelerator-type": "H100"}, {"gpu", "H100"}),
        ({"memory": 1.0}, {}, set()),
    ],
)
def test_a_node_is_of_the_kinds_that_its_resources_name(
    resources: dict[str, float], labels: dict[str, str], kinds: set[str]
) -> None:
    found = Node.of({"NodeID": "1", "Resources": resources, "Labels": labels})

    assert found.kinds == kinds
    assert found.whole == {name: value for name, value in resources.items() if name in {"CPU", "GPU"}}


def test_a_cluster_that_cannot_be_joined_is_told_with_its_cure(
    suite: Suite, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def join(address: str) -> None:
        run_on_ray(suite, places, address=address, argv=[], now=_NOW)

    with pytest.raises(ConfigError, match="run trtbench on a node of the cluster"):
        join("ray://10.0.0.1:10001")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CapabilityError, match=r"package 'ray': .*pip install 'trtbench\[ray\]'"):
        join("")
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(CapabilityError, match="pack-job"):
        join("")
