"""A job is made here and measured there: nothing in it is made again, and nothing in it is trusted."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from trtbench._optional import version
from trtbench.errors import ConfigError, RowError
from trtbench.fleet import open_job, pack_job
from trtbench.fleet.jobs import write_job
from trtbench.make.makings import Makings
from trtbench.make.networks import variant_network
from trtbench.make.trial import ComputingFacts
from trtbench.report.document import read_report
from trtbench.report.matrix import merge_reports
from trtbench.running import Places, run_suite
from trtbench.running.run import read_origin
from trtbench.suite import parse_suite

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbench.rows import Row
    from trtbench.suite import Suite

pytestmark = pytest.mark.usefixtures("in_short")
GOLDEN = Path(__file__).parent.parent / "report" / "twenty-four-rows.json"
_NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _refuse(*_args: object, **_options: object) -> NoReturn:
    raise AssertionError("it is made again")


def _told(row: Row) -> tuple[str, str | None, int | None]:
    return row.name, row.engine_sha256, None if row.accuracy is None else row.accuracy.correct


def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be another machine: other versions of every package, another number of threads, and no way to train or prune."""
    monkeypatch.setattr("trtbench.make.recipe.installed", lambda name: f"{version(name)}.elsewhere")
    monkeypatch.setattr("trtbench.train.fit", _refuse)
    monkeypatch.setattr("trtbench.graph.export.export_onnx", _refuse)
    monkeypatch.setattr("trtbench.make.graphs.quantize", _refuse)
    monkeypatch.setattr("trtbench.make.trial._ask_torch", lambda: ComputingFacts(device="cpu", threads=7))


def test_a_job_is_built_scored_and_timed_elsewhere_as_here(
    suite: Suite, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = run_suite(suite, places, argv=[], now=_NOW)
    packed = pack_job(suite, places, tmp_path / "job.zip")
    _elsewhere(monkeypatch)

    asked, there = open_job(tmp_path / "job.zip", Places(runs=tmp_path / "there", engines=tmp_path / "engines there"))
    report, folder = run_suite(asked, there, argv=[], now=_NOW)

    assert (packed.lost, packed.bytes) == ({}, (tmp_path / "job.zip").stat().st_size)
    assert [row.reason for row in report.rows] == [""] * 4
    assert [_told(row) for row in report.rows] == [_told(row) for row in here.rows]
    assert any(note.startswith("Networks and graphs were made on ") for note in report.notes)
    assert report.suite["data"]["source"].startswith("folder:images")  # a name, no place
    assert read_origin(folder).places.job == there.job
    matrix = merge_reports([read_report(folder), read_report(GOLDEN)])
    assert [column.run_id for column in matrix.columns] == [report.run_id, read_report(GOLDEN).run_id]


def test_a_network_that_could_not_be_made_is_not_tried_again_elsewhere(
    suite: Suite, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> NoReturn:
        raise RowError("half", got="no channels")

    monkeypatch.setattr("trtbench.compress.channels.remove_channels", fail)
    monkeypatch.setattr("trtbench.running.plan.prepare_engine", lambda *_: None)  # what is lost is told before

    packed = pack_job(suite, places, tmp_path / "job.zip")
    monkeypatch.setattr("trtbench.compress.channels.remove_channels", _refuse)
    makings = Makings(*open_job(tmp_path / "job.zip", Places(runs=tmp_path / "there")))

    assert packed.lost == {"half": "half: got no channels"}
    with pytest.raises(RowError, match="where the job was made: half: got no channels"):
        variant_network(makings, suite.variants[1])


@pytest.fixture(scope="module")
def job(suite_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job in which nothing is made yet but the manifest."""
    root = tmp_path_factory.mktemp("job")
    makings = Makings(parse_suite(suite_text, origin="tiny.yaml"), Places(runs=root / "runs"))
    return write_job(makings, root / "job.zip", artefacts=[], lost={})


def _rewritten(job: Path, target: Path, change: Callable[[dict[str, bytes]], Any]) -> Path:
    with zipfile.ZipFile(job) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    change(files)
    with zipfile.ZipFile(target, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return target


def _later_format(files: dict[str, bytes]) -> None:
    files["job/job.json"] = json.dumps(json.loads(files["job/job.json"]) | {"format": 2}).encode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda files: files.update({"job/suite.yaml": b"name: other"}), "suite.yaml"),
        (lambda files: files.update({"job/../../escaped": b""}), "escaped"),
        (lambda files: files.update({"/escaped": b""}), ""),
        (lambda files: files.pop("job/images.npz"), "images.npz"),
        (lambda files: files.pop("job/job.json"), "No such file"),
        (_later_format, "format 2, not 1"),
    ],
)
def test_a_job_that_was_changed_is_refused_and_leaves_nothing(
    job: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], Any], words: str
) -> None:
    changed = _rewritten(job, tmp_path / "changed.zip", change)
    there = Places(runs=tmp_path / "there")

    if words:
        with pytest.raises(ConfigError, match=words):
            open_job(changed, there)
        assert not list((tmp_path / "there" / ".jobs").glob("[!.]*"))
    else:  # what stands beside the job's folder is left behind with it
        open_job(changed, there)
    assert not list(tmp_path.rglob("escaped"))


def test_what_is_no_job_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    with zipfile.ZipFile(tmp_path / "large.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("job/job.json", b"0" * 10**6)
    monkeypatch.setattr("trtbench.data.folder._LARGEST_BYTES", 10**5)
    there = Places(runs=tmp_path / "there")

    for name, words in (("text.zip", "not a zip file"), ("large.zip", "above"), ("none.zip", "No such file")):
        with pytest.raises(ConfigError, match=words):
            open_job(tmp_path / name, there)
    with pytest.raises(ConfigError, match="brings its manifest"):
        open_job(tmp_path / "text.zip", Places(runs=tmp_path, calib=tmp_path))


def test_a_job_is_unpacked_on_a_machine_that_has_had_no_images_yet(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no such folder"))

    asked, there = open_job(job, Places(runs=tmp_path / "there"))

    assert asked.name == "tiny"
    assert len(Makings(asked, there).dataset.test) == 18
