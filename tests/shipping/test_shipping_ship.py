"""A bundle holds all that running its engine takes, proves itself, and is refused where it was changed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.records import arrays_of
from trtbench.disk import file_sha256
from trtbench.engines.sidecar import read_sidecar
from trtbench.errors import ConfigError, GateError
from trtbench.make.recipe import Absent
from trtbench.report.disk import read_predictions, write_report
from trtbench.report.document import Report, read_report
from trtbench.shipping import prove as proving
from trtbench.shipping import read_bundle, ship_row
from trtbench.shipping.bundle import zipped
from trtbench.shipping.ship import _cargo

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.rows import Row

ROW = "dense int8 onnxruntime-cpu b2"


def _row(report: Report, name: str = ROW) -> Row:
    return next(row for row in report.rows if row.name == name)


def test_a_bundle_says_what_the_report_says_and_is_proven(shipped: Path, small_run: Path) -> None:
    found, report = read_bundle(shipped), read_report(small_run)
    row = _row(report)
    assert row.accuracy is not None

    assert found.row == ROW
    assert found.classes == ("circle", "square", "star")
    assert (found.batch_size, found.batch_sizes) == (2, (1, 2))
    assert (found.correct, found.total) == (row.accuracy.correct, row.accuracy.total)
    assert found.latency == row.latency
    assert found.licence == "MIT"
    assert found.proof is not None
    assert (found.proof.correct, found.proof.total, found.proof.flips) == (row.accuracy.correct, 18, 0)
    assert file_sha256(shipped / found.engine) == row.engine_sha256
    assert read_sidecar(shipped / found.engine).engine_sha256 == row.engine_sha256
    assert {name for name in found.files if not name.startswith("triton/")} == {
        *("README.md", "engine.onnx", "engine.onnx.json", "golden.npz", "model.onnx"),
        *("pixels.py", "predict.py", "report.json", "runtime.py"),
    }
    card = (shipped / "README.md").read_text(encoding="utf-8")
    assert f"{row.accuracy.correct} of 18" in card
    assert "circle, square, star" in card
    assert len((shipped / "predict.py").read_text(encoding="utf-8").splitlines()) < 190


@pytest.mark.parametrize("name", ["engine.onnx", "predict.py", "golden.npz", "bundle.json"])
def test_a_changed_file_is_refused_by_its_name(bundle: Path, name: str) -> None:
    path = bundle / name
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"circle"', b'"sphere"') if name == "bundle.json" else data[:-1] + b"x")

    with pytest.raises(ConfigError, match=name):
        read_bundle(bundle)

    run = subprocess.run([sys.executable, "-S", "-c", _READ, str(bundle)], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert name in run.stderr


# The bundle's own reader needs no package at all; without site-packages its process is quick to start.
_READ = """
import sys, types
for name in ("numpy", "PIL"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["PIL"].Image = None
sys.dont_write_bytecode = True
from pathlib import Path
folder = Path(sys.argv[1])
scope = {"__name__": "predict", "__file__": str(folder / "predict.py")}
text = (folder / "predict.py").read_text().removesuffix("x")
exec(compile(text, "predict.py", "exec"), scope)
scope["read_bundle"](folder)
"""


def test_a_file_that_is_gone_is_named(bundle: Path) -> None:
    (bundle / "model.onnx").unlink()

    with pytest.raises(ConfigError, match=r"model.onnx: expected sha256 \w+, got nothing"):
        read_bundle(bundle)


def test_a_folder_that_is_no_bundle_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bundle.json: expected a whole one, got No such file"):
        read_bundle(tmp_path)


def test_equal_bundles_are_equal_bytes(bundle: Path, shipped: Path, tmp_path: Path) -> None:
    os.utime(bundle / "engine.onnx", (0, 0))
    (bundle / "README.md").chmod(0o600)

    first, second = zipped(bundle), zipped(shutil.copytree(shipped, tmp_path / "other" / "bundle"))

    assert first.name == "bundle.zip"
    assert first.read_bytes() == second.read_bytes()


def test_shipping_again_writes_the_same_bytes(shipped: Path, small_run: Path, tmp_path: Path) -> None:
    again = ship_row(small_run, tmp_path / "bundle", row=ROW, licence="MIT", zips=True)

    assert read_bundle(again.folder).files == read_bundle(shipped).files
    assert (again.folder / "bundle.json").read_bytes() == (shipped / "bundle.json").read_bytes()
    assert again.zip is not None
    assert again.zip.is_file()


def test_the_line_in_the_card_builds_the_engine_again(bundle: Path) -> None:
    wanted = file_sha256(bundle / "engine.onnx")
    (bundle / "engine.onnx").unlink()
    program, *arguments = shlex.split(read_bundle_unchecked(bundle)["rebuild"])
    assert program == "python"

    subprocess.run([sys.executable, *arguments], cwd=bundle, check=True, capture_output=True)

    assert file_sha256(bundle / "engine.onnx") == wanted


def read_bundle_unchecked(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / "bundle.json").read_bytes())
    return found


def _changed(small_run: Path, folder: Path, **changes: object) -> Path:
    """Copy a run with its row changed; its origin and its engines stay where they are."""
    report = read_report(small_run)
    row = replace(_row(report), **changes)  # type: ignore[arg-type]  # fields of a row
    rows = tuple(row if one.name == row.name else one for one in report.rows)
    write_report(replace(report, rows=rows), folder)
    shutil.copy(small_run / "origin.json", folder / "origin.json")
    return folder


def test_a_bundle_that_scores_otherwise_than_the_run_is_not_left_behind(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = _row(read_report(small_run))
    assert row.accuracy is not None
    run = _changed(small_run, tmp_path / "run", accuracy=replace(row.accuracy, correct=row.accuracy.correct - 1))
    logits = np.eye(3, dtype=np.float32)[list(read_predictions(small_run, row))]
    monkeypatch.setattr(proving, "scored", lambda *_, **__: logits)

    with pytest.raises(GateError, match=f"expected {row.accuracy.correct - 1} of 18 images right") as told:
        ship_row(run, tmp_path / "bundle", row=ROW)

    assert told.value.exit_code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_flips_are_counted_where_they_are_near_ties_and_refused_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from trtbench.records import Split

    test = Split(images=np.zeros((2, 3, 4, 4), np.uint8), labels=np.array([0, 0]))
    found: list[NDArray[np.float32]] = []
    monkeypatch.setattr(proving, "scored", lambda *_, **__: found[-1])

    found.append(np.array([[1, 0, -1], [0.9999, 1, -1]], np.float32))
    proof, _ = proving.prove(tmp_path, test, batch=1, correct=1, noted=[0, 0])
    assert (proof.flips, proof.margin) == (1, 1e-3)

    found.append(np.array([[1, 0, -1], [0.9, 1, -1]], np.float32))
    with pytest.raises(GateError, match=r"image 1 flips beyond 0\.001 of its logits"):
        proving.prove(tmp_path, test, batch=1, correct=1, noted=[0, 0])


def test_an_engine_that_was_not_run_ships_with_what_is_not_proven(small_run: Path, tmp_path: Path) -> None:
    run = _changed(small_run, tmp_path / "run", status="built", reason="its GPU is not here", latency=None)

    found = ship_row(run, tmp_path / "bundle", row=ROW).bundle

    assert found.proof is not None
    assert (found.proof.correct, found.proof.why_not) == (None, "not proven: its GPU is not here")
    assert not found.is_run
    golden = arrays_of(tmp_path / "bundle" / "golden.npz")
    assert golden["logits"].shape == (10, 3)
    assert "Nothing here: not proven" in (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")


def test_only_rows_that_can_be_shipped_are(small_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--row: expected dense fp32 onnxruntime-cpu b1 or .*, got 'none such'"):
        ship_row(small_run, tmp_path / "bundle", row="none such")
    with pytest.raises(ConfigError, match="got dense fp32 eager b1, of status ok on eager"):
        ship_row(small_run, tmp_path / "bundle", row="dense fp32 eager b1")
    report = read_report(small_run)
    write_report(replace(report, decision=replace(report.decision, winner=None)), tmp_path / "undecided")
    with pytest.raises(GateError, match="a row within every limit"):
        ship_row(tmp_path / "undecided", tmp_path / "bundle")
    with pytest.raises(ConfigError, match=r"--output .* expected nothing there"):
        ship_row(small_run, tmp_path, row=ROW)


def test_an_engine_that_is_gone_or_was_built_anew_is_told(small_run: Path, tmp_path: Path) -> None:
    run = _changed(small_run, tmp_path / "run", engine_sha256="0" * 64)

    with pytest.raises(ConfigError, match=r"expected a file of sha256 0+, got none; run the suite again"):
        ship_row(run, tmp_path / "bundle", row=ROW)


def test_the_graph_of_an_earlier_versions_run_is_found_by_its_bytes(
    small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = _cargo(small_run, ROW, ()).graph

    def made_under_another_key(*_: object) -> None:
        raise Absent

    monkeypatch.setattr("trtbench.shipping.ship.source", made_under_another_key)
    assert _cargo(small_run, ROW, ()).graph == today

    monkeypatch.setattr("trtbench.store.Store.artefacts", lambda _: iter(()))
    with pytest.raises(ConfigError, match=r"graph of dense int8: expected .* got none; run the suite again: `trtbench"):
        _cargo(small_run, ROW, ())
