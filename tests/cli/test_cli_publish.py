"""Where else the verbs hand results: JUnit XML, GitHub's summary, MLflow."""

from __future__ import annotations

import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from short_cuts import save_blank

from trtbench.cli import main
from trtbench.report.disk import write_report
from trtbench.report.document import Report, read_report

GOLDEN = Path(__file__).parent.parent / "report" / "twenty-four-rows.json"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", save_blank)
        write_report(read_report(GOLDEN), folder)
    return folder


def _trtbench(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> int:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["trtbench", *arguments])
    code: Any = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    return int(code)


def test_report_writes_junit_and_adds_to_the_summary_of_the_job(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))

    assert _trtbench(monkeypatch, tmp_path, "report", str(run_folder), "--junit", "out/junit.xml") == 0

    assert len(list(ET.parse(tmp_path / "out" / "junit.xml").iter("testcase"))) == 25  # noqa: S314  our own
    assert "### trtbench: quickstart" in page.read_text(encoding="utf-8")


def test_compare_writes_junit_and_the_summary_before_it_exits_4(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after: Report = read_report(run_folder)
    rows = tuple(
        row if row.accuracy is None else replace(row, accuracy=replace(row.accuracy, top1=row.accuracy.top1 - 0.02))
        for row in after.rows
    )
    (tmp_path / "after").mkdir()
    write_report(replace(after, rows=rows), tmp_path / "after")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))

    code = _trtbench(
        monkeypatch, tmp_path, "compare", str(run_folder), "after", "--fail-on", "drop:0.5", "--junit", "junit.xml"
    )

    assert code == 4
    assert len(list(ET.parse(tmp_path / "junit.xml").iter("failure"))) == len(rows)  # noqa: S314  our own
    assert "lost 2.00 pp" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_mlflow_that_is_absent_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # an import of it fails

    assert _trtbench(monkeypatch, tmp_path, "run", "--mlflow", "sqlite://") == 5
    assert "pip install 'trtbench[mlflow]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_one_engine_file_makes_no_report_to_hand_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _trtbench(monkeypatch, tmp_path, "bench", "--engine", "x.onnx", "--junit", "junit.xml") == 2
    assert "--junit: expected only without --engine" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:::mlflow", "ignore:::sqlalchemy", "ignore::ResourceWarning")  # not ours
def test_report_logs_to_mlflow_and_says_where(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies, while they are imported
        mlflow = pytest.importorskip("mlflow", reason="needs MLflow: pip install 'trtbench[mlflow]'")

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert _trtbench(monkeypatch, tmp_path, "report", str(run_folder), "--mlflow", uri) == 0

    said = re.search(rf"MLflow run (\w+) at {uri}", capsys.readouterr().err)
    assert said
    run = mlflow.MlflowClient(tracking_uri=uri).get_run(said.group(1))
    assert run.info.run_name == read_report(run_folder).run_id
