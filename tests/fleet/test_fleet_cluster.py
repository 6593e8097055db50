"""A suite over a double of Ray: what is tried again, what is given up, and what is left behind; `test_fleet_ray` has
the real one.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fleet.ray_double import Ray
from trtbench.errors import CapabilityError, ConfigError, EngineError
from trtbench.fleet.cluster import Fleet, run_on_ray
from trtbench.fleet.jobs import write_job
from trtbench.fleet.node import Keeper, Made, Measured, NodeStore, Prepared, _teller, make_there, measure_there
from trtbench.make.makings import Makings
from trtbench.progress import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.command import Answer
    from trtbench.running import Places
    from trtbench.store import Store
    from trtbench.suite import Suite

GOLDEN = Path(__file__).parent.parent / "report" / "twenty-four-rows.json"
_NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    """Return a cluster of a node without a device and two with, on which making and measuring take no time."""
    double = Ray({"head": {}, "one": {"A10G": 1.0}, "two": {"L4": 1.0}})
    double.install(monkeypatch)
    monkeypatch.setattr("trtbench.fleet.cluster.make_there", _make)
    monkeypatch.setattr("trtbench.fleet.cluster.measure_there", _measure)
    return double


def _make(_job: bytes, ask: Any, node: str, *, variant: str, **_options: Any) -> Prepared:
    ask("tell", Event(stage="train", item=variant, state="done"))
    return Prepared(lost={}, node=node, described="a machine")


def _measure(_job: bytes, _ask: Any, node: str, *, kind: str, **_options: Any) -> Measured:
    run, content = f"run-{kind}", io.BytesIO()
    report = json.loads(GOLDEN.read_text(encoding="utf-8"))
    report["rows"][0]["engine_path"] = "/node/engines/tiny/x.onnx"
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("run/report.json", json.dumps(report))
        archive.writestr("engines/tiny/x.onnx", b"engine")
    return Measured(node=node, run=run, engines="/node/engines", content=content.getvalue())


def _on(suite: Suite, *devices: str) -> Suite:
    return suite.model_copy(update={"devices": devices})


def _run(suite: Suite, places: Places, events: list[Event] | None = None) -> Fleet:
    told: list[Event] = [] if events is None else events
    return run_on_ray(suite, places, address="", argv=[], now=_NOW, tell=told.append)


def test_each_kind_is_measured_once_and_what_died_is_tried_again(ray: Ray, suite: Suite, places: Places) -> None:
    ray.dies["A10G"] = 2
    events: list[Event] = []

    found = _run(_on(suite, "A10G", "L4", "T4"), places, events)

    assert list(found.lost.items()) == [("T4", "no node of the cluster is of kind T4")]
    assert set(found.reports) == {"A10G", "L4"}
    assert found.nodes == {"head (head)": "a machine"}
    again = [event.detail for event in events if event.state == "note"]
    assert again == ["tried again: its node died"] * 2
    assert {event.item for event in events if event.stage == "train"} == {"", "dense", "half"}
    engine = places.engines / "L4" / "tiny" / "x.onnx"
    assert found.reports["L4"].rows[0].engine_path == str(engine)
    assert engine.read_bytes() == b"engine"
    assert (places.runs / "latest").resolve() == Path(found.folders["A10G"]).resolve()
    assert {path.name for path in Path(found.folder or "").iterdir()} == {"fleet.json", "matrix.html", "matrix.md"}
    assert (ray.groups, ray.is_up) == ([], False)


def test_what_dies_again_and_again_or_raises_is_given_up(
    ray: Ray, suite: Suite, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, kind: str, **_options: object) -> Measured:
        raise EngineError("engine", got="bytes") if kind == "L4" else ValueError("odd")

    ray.dies["A10G"] = 9
    monkeypatch.setattr("trtbench.fleet.cluster.measure_there", refuse)

    found = _run(_on(suite, "A10G", "L4", "cpu"), places)

    assert found.lost == {
        "A10G": "its node died",
        "L4": str(EngineError("engine", got="bytes")),
        "cpu": "ValueError: odd",
    }
    assert (found.reports, found.folder, ray.groups) == ({}, None, [])


def test_what_all_share_and_cannot_be_made_is_why_every_variant_is_lost(
    ray: Ray, suite: Suite, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[dict[str, str]] = []

    def write(*_args: object, lost: dict[str, str], **_options: object) -> Path:
        packed.append(lost)
        places.runs.mkdir(exist_ok=True)
        (places.runs / "job.zip").touch()
        return places.runs / "job.zip"

    monkeypatch.setattr("trtbench.fleet.cluster.make_there", lambda *_, **__: Prepared(lost={}, why="no checkpoint"))
    monkeypatch.setattr("trtbench.fleet.cluster.write_job", write)

    _run(_on(suite, "L4"), places)

    assert packed == [{}, {"dense": "no checkpoint", "half": "no checkpoint"}]
    assert not ray.is_up


def test_a_run_that_is_stopped_ends_its_tasks_and_lets_go(ray: Ray, suite: Suite, places: Places) -> None:
    def stop() -> None:
        if ray.groups:
            ray.at_wait = lambda: None
            raise KeyboardInterrupt

    ray.at_wait = stop
    with pytest.raises(KeyboardInterrupt):
        _run(_on(suite, "A10G", "L4"), places)

    assert [one.kind for one in ray.cancelled] == ["A10G", "L4"]
    assert (ray.groups, ray.is_up) == ([], False)


def test_a_kind_whose_last_node_is_gone_is_given_up_after_a_while(
    ray: Ray, suite: Suite, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trtbench.fleet.cluster._LOST_S", 0)

    def leave() -> None:
        ray.listed[2]["Alive"] = not ray.groups

    ray.at_wait = leave
    found = _run(_on(suite, "L4"), places)

    assert found.lost == {"L4": "cancelled"}


def test_a_cluster_without_such_a_node_or_without_an_answer_is_refused(ray: Ray, suite: Suite, places: Places) -> None:
    with pytest.raises(ConfigError, match=r"devices: H100.*one of A10G, L4, cpu"):
        _run(_on(suite, "H100"), places)
    ray.refuses = ConnectionError("nobody there\nat all")
    with pytest.raises(CapabilityError, match="nobody there; "):
        _run(suite, places)


def test_the_verb_tells_where_the_matrix_is_and_fails_where_a_kind_is_lost(
    ray: Ray, suite_text: str, tmp_path: Path, command: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(suite_text + "devices: [A10G, T4]\n", encoding="utf-8")

    told = command("run", "tiny.yaml", "--on", "ray")

    assert told.code == 3
    assert "T4 has no report: no node of the cluster is of kind T4" in told.err
    assert "matrix.html" in told.err
    assert command("run", "tiny.yaml", "--on", "slurm").code == 2
    assert "publish the run of one device afterwards" in command("run", "tiny.yaml", "--on", "ray", "--junit", "x").err
    assert not ray.is_up


def test_what_a_node_makes_or_finds_the_driver_keeps_and_another_node_gets(tmp_path: Path) -> None:
    keeper = Keeper(str(tmp_path / "driver"))
    nodes = [_node(tmp_path / name, keeper, name) for name in ("one", "two")]
    inputs = {"weights": 1, "torch": "2.9"}

    made = nodes[0].make("dense", inputs, _write, content=("w",), label="tiny/dense", circumstances=("torch",))
    found = nodes[1].find("dense", {**inputs, "torch": "2.8"}, circumstances=("torch",))

    assert found is not None
    assert found.path("w").read_bytes() == b"weights"
    assert found.key == made.key  # of other circumstances
    assert nodes[1].find("dense", {"weights": 2}) is None
    assert keeper.news()[1] == [Made(kind="dense", item="dense", node="one", seconds=made.seconds)]
    assert keeper.news() == ([], [])
    late = Keeper(str(tmp_path / "late"))
    assert _node(tmp_path / "one", late, "one").find("dense", inputs) is not None
    assert late.has("dense", made.key, "x")  # what it had it told


def test_a_node_makes_what_all_share_then_a_variant_and_sends_its_run_back(
    suite: Suite, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr("trtbench.fleet.node.data_cache", lambda: tmp_path / "there" / "data")
    monkeypatch.setattr("trtbench.fleet.node.overlap_notes", lambda _: ())
    monkeypatch.setattr("trtbench.fleet.node.dense", lambda makings: made.append(makings.computing.device))
    monkeypatch.setattr("trtbench.fleet.node.prepare_suite", lambda _, only, anywhere: {only.name: str(anywhere)})
    monkeypatch.setattr("trtbench.fleet.node.run_suite", _measured_there)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    job = write_job(Makings(suite, places), tmp_path / "job.zip", artefacts=[], lost={}).read_bytes()
    keeper = Keeper(str(tmp_path / "driver"))

    def ask(method: str, *rest: Any) -> Any:
        return getattr(keeper, method)(*rest)

    given: dict[str, Any] = {"device": "cuda:0", "threads": 2}
    shared = make_there(job, ask, "one", variant="", shared=None, **given)
    variant = make_there(job, ask, "one", variant="half", shared=shared, **given)
    sent = measure_there(job, ask, "one", kind="L4", argv=[], now=_NOW, cores=4)

    assert made == ["cuda:0"]
    assert (shared.why, shared.lost, variant.lost) == ("", {}, {"half": "True"})
    assert "OMP_NUM_THREADS" not in os.environ  # Ray's, which a local run has not
    with zipfile.ZipFile(io.BytesIO(sent.content)) as archive:
        assert archive.namelist() == ["run/report.json", "engines/tiny/x.onnx"]
    assert (sent.run, sent.engines) == ("run", str(tmp_path / "there" / "fleet" / "engines" / "L4"))


def _measured_there(suite: Suite, places: Places, **_options: Any) -> tuple[None, Path]:
    for path in (places.runs / "run" / "report.json", places.engines / suite.name / "x.onnx"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return None, places.runs / "run"


def _node(root: Path, keeper: Keeper, name: str) -> Store:
    return NodeStore(root, user="tiny", ask=lambda method, *rest: getattr(keeper, method)(*rest), node=name)


def _write(folder: Path) -> dict[str, int]:
    (folder / "w").write_bytes(b"weights")
    return {}


def test_progress_of_a_node_is_passed_on_now_and_then() -> None:
    told: list[Event] = []
    tell = _teller(lambda _, event: told.append(event), "one")

    for state in ("started", "progress", "progress", "cached", "done"):
        tell(Event(stage="train", item="dense", state=state))

    assert [(event.state, event.item) for event in told] == [
        ("started", "dense on one"),
        ("progress", "dense on one"),
        ("done", "dense on one"),
    ]
