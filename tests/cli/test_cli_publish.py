"""Where else the verbs hand results: JUnit XML, GitHub's summary, MLflow."""

from __future__ import annotations

import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from short_cuts import save_blank

from trtbench.report.disk import write_report
from trtbench.report.document import Report, read_report

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.command import Answer

GOLDEN = Path(__file__).parent.parent / "report" / "twenty-four-rows.json"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", save_blank)
        write_report(read_report(GOLDEN), folder)
    return folder


def test_report_writes_junit_and_adds_to_the_summary_of_the_job(
    run_folder: Path, tmp_path: Path, command: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))

    assert command("report", run_folder, "--junit", tmp_path / "out" / "junit.xml").code == 0

    assert len(list(ET.parse(tmp_path / "out" / "junit.xml").iter("testcase"))) == 25  # noqa: S314  our own
    assert "### trtbench: quickstart" in page.read_text(encoding="utf-8")


def test_compare_writes_junit_and_the_summary_before_it_exits_4(
    run_folder: Path, tmp_path: Path, command: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    after: Report = read_report(run_folder)
    rows = tuple(
        row if row.accuracy is None else replace(row, accuracy=replace(row.accuracy, top1=row.accuracy.top1 - 0.02))
        for row in after.rows
    )
    (tmp_path / "after").mkdir()
    write_report(replace(after, rows=rows), tmp_path / "after")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))

    limit = ("--fail-on", "drop:0.5", "--junit", tmp_path / "junit.xml")
    assert command("compare", run_folder, tmp_path / "after", *limit).code == 4
    assert len(list(ET.parse(tmp_path / "junit.xml").iter("failure"))) == len(rows)  # noqa: S314  our own
    assert "lost 2.00 pp" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_mlflow_that_is_absent_is_refused_before_anything_is_measured(
    tmp_path: Path, command: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # an import of it fails

    told = command("run", "--mlflow", "sqlite://", "--out", tmp_path / "runs")

    assert told.code == 5
    assert "pip install 'trtbench[mlflow]'" in told.err
    assert not (tmp_path / "runs").exists()


def test_one_engine_file_makes_no_report_to_hand_on(command: Callable[..., Answer]) -> None:
    told = command("bench", "--engine", "x.onnx", "--junit", "junit.xml")

    assert told.code == 2
    assert "--junit: expected only without --engine" in told.err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:::mlflow", "ignore:::sqlalchemy", "ignore::ResourceWarning")  # not ours
def test_report_logs_to_mlflow_and_says_where(
    run_folder: Path, tmp_path: Path, command: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # artifacts go to ./mlruns
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies, while they are imported
        mlflow = pytest.importorskip("mlflow", reason="needs MLflow: pip install 'trtbench[mlflow]'")

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    said = re.search(rf"MLflow run (\w+) at {uri}", command("report", run_folder, "--mlflow", uri).err)
    assert said
    run = mlflow.MlflowClient(tracking_uri=uri).get_run(said.group(1))
    assert run.info.run_name == read_report(run_folder).run_id
