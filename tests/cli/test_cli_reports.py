"""The verbs on reports: what they show, and with which code they exit."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from trtbench.fleet.jobs import Packed
from trtbench.report.disk import write_report
from trtbench.report.document import Report, read_report
from trtbench.studies.reproduce import parsed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.command import Answer

GOLDEN = read_report(Path(__file__).parent.parent / "report" / "twenty-four-rows.json")


@pytest.fixture
def trtbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Answer]
) -> Callable[[str], Answer]:
    monkeypatch.chdir(tmp_path)
    return lambda arguments: command(*arguments.split())


def _with_hashes(report: Report, *, slower: float = 1.0, lost: float = 0.0) -> Report:
    """Give each engine bytes of its own; let all but the anchors be slower and less accurate by so much."""
    rows = []
    for row in report.rows:
        changed = replace(row, engine_sha256=row.name)
        if row.latency is not None and row.latency.ratio is not None and row.latency.anchor != row.name:
            assert row.latency.ratio_ci95 is not None
            low, high = row.latency.ratio_ci95
            latency = replace(row.latency, ratio=row.latency.ratio * slower, ratio_ci95=(low * slower, high * slower))
            changed = replace(changed, engine_sha256=f"{row.name} {slower} {lost}", latency=latency)
        if row.accuracy is not None:
            changed = replace(changed, accuracy=replace(row.accuracy, top1=row.accuracy.top1 - lost))
        rows.append(changed)
    return replace(report, rows=tuple(rows))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name, report in {
        "a": _with_hashes(GOLDEN),
        "slow": _with_hashes(GOLDEN, slower=1.5, lost=0.01),
    }.items():
        write_report(report, tmp_path / name)
    return tmp_path


@pytest.mark.usefixtures("runs")
def test_compare_tells_each_row_and_its_gates_decide_the_exit(trtbench: Callable[[str], tuple[int, str, str]]) -> None:
    code, out, _ = trtbench("compare a slow")
    assert code == 0
    assert "SLOWER" in out

    assert trtbench("compare a a")[0] == 0
    assert trtbench("compare a slow --fail-on slower:60%,drop:2")[0] == 0
    code, _, err = trtbench("compare a slow --fail-on slower:5%")
    assert code == 4
    assert "times as long (limit 5.00 %)" in err
    assert trtbench("compare a slow --fail-on drop:0.5")[0] == 4
    assert trtbench("compare a slow --fail-on slower:5")[0] == 2


@pytest.mark.usefixtures("runs")
def test_compare_says_what_is_in_one_only_and_writes_json(
    trtbench: Callable[[str], tuple[int, str, str]], runs: Path
) -> None:
    write_report(replace(_with_hashes(GOLDEN), rows=_with_hashes(GOLDEN).rows[1:]), runs / "less")

    _, _, err = trtbench("compare a less")
    code, out, _ = trtbench("compare less a --json --quiet")

    assert f"only in A: {GOLDEN.rows[0].name}" in err
    assert code == 0
    found = json.loads(out)
    assert found["only_second"] == [GOLDEN.rows[0].name]
    assert {one["verdict"] for one in found["comparisons"]} == {"SAME"}


def test_compare_that_decides_nothing_is_inconclusive(
    trtbench: Callable[[str], tuple[int, str, str]], tmp_path: Path
) -> None:
    write_report(GOLDEN, tmp_path / "before")
    rebuilt = tuple(replace(row, engine_sha256=f"rebuilt {row.name}") for row in GOLDEN.rows)
    write_report(replace(GOLDEN, rows=rebuilt), tmp_path / "after")  # the anchor too is another file now

    assert trtbench("compare before after")[0] == 6
    assert trtbench("compare before after --fail-on inconclusive")[0] == 4


@pytest.mark.usefixtures("runs")
def test_merge_shows_the_matrix_and_writes_it(trtbench: Callable[[str], tuple[int, str, str]], runs: Path) -> None:
    code, out, _ = trtbench("merge a slow --output matrix.md")
    assert code == 0
    assert "keeps the winner" in out
    assert (runs / "matrix.md").read_text().startswith("| Row")

    code, out, _ = trtbench("merge a slow --json")
    assert len(json.loads(out)["columns"]) == 2
    assert trtbench("merge a")[0] == 2


@pytest.mark.usefixtures("runs")
def test_recommend_decides_again_under_other_limits(trtbench: Callable[[str], tuple[int, str, str]]) -> None:
    code, out, _ = trtbench("recommend a")
    assert code == 0
    assert out.startswith("Ship ")

    code, out, _ = trtbench("recommend a --objective engine_bytes --json")
    assert code == 0
    assert json.loads(out)["objective"] == "engine_bytes"

    code, out, err = trtbench("recommend a --max-drop 0")
    assert code == 4
    assert out.startswith("Nothing qualifies")
    assert "widen a limit" in err
    assert trtbench("recommend a --batch-size 7")[0] == 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("streams:4", {"scenario": "streams", "streams": 4}),
        ("arrivals:200", {"scenario": "arrivals", "rate": 200.0}),
        ("arrivals:2.5ms", {"scenario": "arrivals", "p99_ms": 2.5}),
    ],
)
def test_a_load_is_read_as_people_write_it(text: str, expected: dict[str, Any]) -> None:
    from trtbench.cli.suite import _load_of

    assert _load_of(text) == expected


@pytest.mark.parametrize("text", ["streams", "streams:2.5", "arrivals:5s", "burst:3"])
def test_a_load_that_cannot_be_read_is_refused(trtbench: Callable[[str], tuple[int, str, str]], text: str) -> None:
    code, _, err = trtbench(f"bench --engine nothing.onnx --scenario {text}")

    assert code == 2
    assert "--scenario" in err


def test_under_ci_what_is_done_is_a_line_and_quiet_silences_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trtbench.cli.screen import Screen
    from trtbench.progress import Event

    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("FORCE_COLOR", "1")
    for is_quiet in (True, False):
        with Screen(is_quiet=is_quiet) as screen:
            screen(Event(stage="time", item="batch 1", state="done", seconds=1.0))
        assert ("batch 1" in capsys.readouterr().err) != is_quiet


def test_without_a_terminal_what_lasts_is_told_again_every_half_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trtbench.cli.screen import Screen
    from trtbench.progress import Event

    now = iter((0.0, 1.0, 29.0, 31.0, 40.0))
    monkeypatch.setattr("trtbench.cli.screen.time", SimpleNamespace(monotonic=lambda: next(now)))
    with Screen(is_quiet=False) as screen:
        for share in (0.1, 0.4, 0.5, 0.6):
            screen(Event(stage="train", item="dense", state="progress", share=share, detail="epoch 5"))

    assert capsys.readouterr().err == "still  train           dense epoch 5 50%, about 38 s left\n"


def test_the_terminal_says_what_the_run_observed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trtbench.cli.reports import show_report

    show_report(replace(GOLDEN, observations=("as the run saw it",)), tmp_path, as_json=False)

    assert "- as the run saw it\n" in capsys.readouterr().out


def test_a_narrow_terminal_does_without_columns_and_breaks_no_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from trtbench.cli.reports import show_report

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    show_report(GOLDEN, tmp_path, as_json=False)

    told = capsys.readouterr()
    table = [line for line in re.sub(r"\x1b\[\d+m", "", told.out).splitlines() if line[:1] in "┃│"]
    assert max(map(len, table)) <= 80
    assert not any("onnxruntime" in line for line in table)
    assert sum("eager fp32" in line for line in table) == 8
    assert sum("* channels-50" in line for line in table) == 1
    assert "not shown for want of width: Note, vs eager, Backend" in told.err


def test_the_live_line_tells_the_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from trtbench.cli.screen import Screen
    from trtbench.progress import Event

    monkeypatch.setenv("CI", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Screen(is_quiet=False) as screen:
        for share in (0.1, 0.5):
            screen(Event(stage="time", item="batch 1", state="progress", share=share))
        screen._progress.refresh()

    shown = capsys.readouterr().err
    assert "batch 1" in shown
    assert "left" in shown


@pytest.mark.parametrize(
    "line",
    [
        "ship {golden} --output {long}",
        "evaluate --model resnet20 --size 8 --checkpoint r2.safetensors --data folder:loop.tar",
    ],
)
def test_a_path_that_can_be_none_is_told_as_such(
    trtbench: Callable[[str], tuple[int, str, str]], tmp_path: Path, line: str
) -> None:
    (tmp_path / "loop.tar").symlink_to("loop.tar")
    golden = Path(__file__).parents[1] / "report" / "twenty-four-rows.json"

    code, _, err = trtbench(line.format(golden=golden, long="x" * 5000))

    assert code == 2
    assert "nobody foresaw" not in err


def test_a_reproduction_is_shown_beside_what_was_published(
    trtbench: Callable[[str], Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Path(__file__).parents[2] / "docs" / "results" / "study-001-structure-resnet20.json"
    found, asked = parsed(kept.read_text(encoding="utf-8"), origin=kept.name), dict[str, Any]()
    monkeypatch.setattr("trtbench.studies.reproduce.reproduce_suite", lambda *_, **more: asked.update(more) or found)
    monkeypatch.setattr("trtbench.studies.reproduce.write_bundle", lambda *_, **__: Path("bundle/run.sh"))

    told = trtbench("reproduce study-001-structure-resnet20 --only channels-50 --no-engines --theirs x/theirs")

    assert not told.code
    assert asked["argv"] == [
        *(
            "trtbench",
            "reproduce",
            "study-001-structure-resnet20",
            "--only=channels-50",
            "--no-engines",
            "--theirs=theirs",
        ),
    ]
    assert "ResNet-20" in told.out
    assert "Result: results/study-001-structure-resnet20.json" in told.err
    assert Path("results/study-001-structure-resnet20.json").read_bytes() == kept.read_bytes()
    assert trtbench("reproduce study-001-structure-resnet20 --json --quiet").json["argv"] == list(found.argv)
    assert "sh bundle/run.sh" in trtbench("reproduce study-001-structure-resnet20 --bundle bundle").err


def test_a_packed_job_says_what_is_not_in_it_and_how_it_is_run_there(
    trtbench: Callable[[str], Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = Packed(output="a b.zip", bytes=1_500_000, artefacts=3, lost={"half": "no checkpoint"})
    monkeypatch.setattr("trtbench.fleet.pack_job", lambda *_, **__: packed)
    suite = {
        "name": "tiny",
        "model": {"name": "resnet20", "train": {}},
        "variants": [{"kind": "dense", "name": "dense"}],
    }
    Path("suite.yaml").write_text(json.dumps(suite), encoding="utf-8")

    told = trtbench("pack-job suite.yaml")

    assert "half is not in it: no checkpoint" in told.err
    assert "Wrote a b.zip: 3 artefacts, 1.5 MB. There: trtbench run job.zip" in told.err
    assert trtbench("pack-job suite.yaml --json --quiet").json["lost"] == {"half": "no checkpoint"}
