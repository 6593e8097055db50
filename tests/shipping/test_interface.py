"""The Python interface does what the command line does, and its examples and the README's lines run."""

from __future__ import annotations

import doctest
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import trtbench
from trtbench import interface
from trtbench.errors import CapabilityError, ConfigError
from trtbench.report.document import read_report
from trtbench.shipping import predictor as predictor_module

if TYPE_CHECKING:
    from types import ModuleType

    from trtbench.suite import Suite

_README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(autouse=True)
def _short(in_short: None) -> None:
    """Measure without worker processes and painting."""


@pytest.fixture
def scope(small_suite: Suite, small_run: Path, shipped: Path, images: Path, tmp_path: Path) -> dict[str, object]:
    """What the examples stand on; the folder has what an earlier run made."""
    for name in ("runs", "engines"):
        shutil.copytree(small_run.parents[1] / name, tmp_path / name, symlinks=True)
    tests = sorted((images / "test").rglob("*.png"))
    given = {"suite": small_suite, "run": small_run, "bundle": shipped, "images": tests, "folder": tmp_path}
    return {"trtbench": trtbench, **given}


@pytest.mark.parametrize("module", [interface, predictor_module], ids=lambda module: module.__name__)
def test_the_examples_run(module: ModuleType, scope: dict[str, object]) -> None:
    finder, runner = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner()

    tests = [one for one in finder.find(module, globs=scope) if one.examples]
    results = [runner.run(one) for one in tests]

    assert tests
    assert sum(result.failed for result in results) == 0


def test_a_report_knows_its_folder_and_writes_what_it_read(small_run: Path, tmp_path: Path) -> None:
    report = trtbench.RunReport.read(small_run / "report.json")

    trtbench.write_report(report, tmp_path)

    assert report.folder == small_run
    assert read_report(tmp_path) == read_report(small_run)
    assert len(repr(report)) < 1000
    assert replace(report, decision=replace(report.decision, winner=None)).best is None


def test_a_notebook_shows_the_answer_and_the_table(small_run: Path) -> None:
    report = trtbench.RunReport.read(small_run)
    odd = replace(report, rows=(replace(report.rows[0], variant="<b>"), *report.rows[1:]))

    page = odd._repr_html_()

    assert page.count("<tr>") == 1 + len(report.rows)
    assert "&lt;b&gt;" in page
    assert "trtbench ship" in page


def test_rows_become_a_data_frame(small_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = trtbench.RunReport.read(small_run)
    frame = SimpleNamespace(DataFrame=list)
    monkeypatch.setitem(sys.modules, "pandas", frame)

    lines: list[dict[str, Any]] = report.to_pandas()

    assert [line["variant"] for line in lines] == [row.variant for row in report.rows]
    assert [line["p50_ms"] for line in lines] == [row.latency and row.latency.p50_ms for row in report.rows]

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(CapabilityError, match="pandas"):
        report.to_pandas()


def test_a_suite_may_be_a_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Suite] = []

    def stop(suite: Suite, *_: object, **__: object) -> None:
        asked.append(suite)
        raise KeyboardInterrupt

    monkeypatch.setattr(interface, "run_suite", stop)
    with pytest.raises(KeyboardInterrupt):
        trtbench.run(
            {
                "name": "mine",
                "model": {"name": "resnet20", "train": {}},
                "variants": [{"kind": "dense", "name": "dense"}],
            }
        )
    with pytest.raises(ConfigError, match=r"suite.*name"):
        trtbench.run({"model": {"name": "resnet20", "train": {}}})

    assert [(one.name, one.model.name) for one in asked] == [("mine", "resnet20")]


@pytest.mark.usefixtures("scope")
def test_the_lines_of_python_in_the_readme_run(
    small_suite: Suite,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They name a shipped suite and a photo; here they get a small one, and an image of it."""
    (code,) = re.findall(r"```python\n(.*?)```", _README.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(interface, "opened", lambda _, places: (small_suite, places))
    (tmp_path / "7.png").write_bytes((images / "test" / "star" / "0.png").read_bytes())

    exec(code, {})  # noqa: S102  our own page

    out = capsys.readouterr().out
    assert out.startswith("Ship dense ")
    assert "star" in out


def test_the_notebook_was_executed_whole_and_its_lines_are_python() -> None:
    cells = json.loads((_README.parent / "docs" / "python.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]

    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        compile("".join(cell["source"]), "docs/python.ipynb", "exec")
        assert cell["outputs"]
        assert all(output["output_type"] != "error" for output in cell["outputs"])
