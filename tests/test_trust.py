"""What SECURITY.md says, each sentence with the test that holds it; those of no room of their own stand here."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image
from pydantic import BaseModel, ValidationError

from trtbench.calibrate.manifest import load_manifest, make_manifest, save_manifest
from trtbench.cli.main import app
from trtbench.cli.options import command_line
from trtbench.cli.screen import say, show, show_table
from trtbench.data import load_dataset
from trtbench.data.decode import require_few_pixels
from trtbench.engines.base import backend
from trtbench.engines.sidecar import read_sidecar, sidecar_path
from trtbench.errors import CheckpointError, ConfigError, SidecarError
from trtbench.jsonable import sha256_of
from trtbench.models.checkpoints import load_model
from trtbench.report.document import validate_report
from trtbench.report.markdown import render_markdown
from trtbench.report.tables import csv_cell, to_csv
from trtbench.shipping.bundle import read_bundle
from trtbench.suite import DataConfig, Suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.command import Answer

_TESTS = Path(__file__).parent
_PAGE = (_TESTS.parent / "SECURITY.md").read_text(encoding="utf-8")
_REPORT = (_TESTS / "report" / "twenty-four-rows.json").read_text(encoding="utf-8")


def test_every_sentence_has_its_test() -> None:
    rows = [line.split("|")[1:-1] for line in _PAGE.splitlines() if line.startswith("| ") and "held by" not in line]
    defined = {name for path in _TESTS.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())}

    assert len(rows) > 20
    assert all(re.fullmatch(r" `(test_\w+)` ", held) and held.strip(" `") in defined for _, held in rows), rows
    assert all(said.strip().endswith(".") for said, _ in rows)


def test_plan_says_that_a_suite_runs_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Answer]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs.py").write_text("raise SystemError('was run')\n")
    for name in ("theirs:build", "onnx:none.onnx"):
        train: dict[str, Any] = {} if name.startswith("onnx") else {"train": {}}
        suite = {"name": "x", "model": {"name": name, **train}, "variants": [{"kind": "dense", "name": "dense"}]}
        (tmp_path / "suite.yaml").write_text(json.dumps(suite))
        said, _, after = command("plan", "suite.yaml").err.partition(
            "runs code with your rights, here as when it is built: "
        )
        assert after.startswith("theirs:build.") == ("was run" in after) == (name == "theirs:build")
        assert "was run" not in said
    suite |= {"data": {"source": "images:none"}, "score": "theirs:score"}
    (tmp_path / "suite.yaml").write_text(json.dumps(suite))
    assert "here as when it is built: theirs:score." in command("plan", "suite.yaml").err


def _numbers(part: type[BaseModel], place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    document = part.model_json_schema()

    def walk(node: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(node, dict):
            if node.get("type") in {"integer", "number"}:
                yield place, node
            for key, value in node.items():
                yield from walk(value, f"{place}.{key}")
        elif isinstance(node, list):
            for index, value in enumerate(node):
                yield from walk(value, f"{place}.{index}")

    yield from walk({**document, "default": None}, place)


def test_every_number_of_a_suite_has_an_upper_bound() -> None:
    unbounded = [place for place, node in _numbers(Suite) if not {"maximum", "exclusiveMaximum", "enum"} & {*node}]

    assert [place for place in unbounded if ".properties.size." not in place] == []
    for size in (2049, [32, 20_000]):
        with pytest.raises(ValidationError, match="at most 2048"):
            DataConfig.model_validate({"size": size})


@pytest.mark.parametrize("stride", [(0, 0, 0, 0), (0, 0, 0, 1)])
def test_a_checkpoint_takes_what_its_file_explains(stride: tuple[int, ...], tmp_path: Path) -> None:
    claimed = torch.zeros(1000).as_strided((1000, 1000, 30, 30), stride)
    torch.save({"conv1.weight": claimed}, tmp_path / "net.pth")

    with pytest.raises(CheckpointError, match="GB"):
        load_model("resnet20", num_classes=10, checkpoint=tmp_path / "net.pth")


def test_an_image_of_too_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    Image.new("1", (8001, 8001)).save(tmp_path / "large.png")

    with Image.open(tmp_path / "large.png") as image, pytest.raises(ValueError, match="64 million pixels"):
        require_few_pixels(image)


def _engine(folder: Path, **changes: Any) -> Path:
    from tests.fuzz.valid import write_engine

    engine = folder / "engine.json"
    write_engine(engine)
    path = sidecar_path(engine)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return engine


@pytest.mark.parametrize("key", ["variant", "backend"])
@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/b", ".hidden", "", "a\n"])
def test_a_sidecar_names_no_path(key: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(SidecarError, match=f"{key}: "):
        read_sidecar(_engine(tmp_path, **{key: name}))


def test_a_sidecar_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs.py").write_text("open('was-run', 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    engine = _engine(tmp_path, model="theirs:build")

    with pytest.raises(SidecarError, match="a sidecar imports nothing"):
        backend("eager").open(engine, read_sidecar(engine), {"code": "mine:build"})
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("latency", "p50_ms"), 0.0),
        (("latency", "p50_ms"), -1.0),
        (("accuracy", "correct"), 9999),
        (("accuracy", "correct"), -1),
        (("engine_bytes",), -1),
        (("batch_size",), 0),
        (("params",), -5),
        (("variant",), "../../x"),
    ],
)
def test_a_report_of_nonsense_is_refused(place: tuple[str, ...], value: Any) -> None:
    document = json.loads(_REPORT)
    node = document["rows"][3]
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value

    with pytest.raises(ConfigError, match=rf"r\.json: rows\.3\.{place[0]}"):
        validate_report(json.dumps(document), origin="r.json")


def _doubled(document: dict[str, Any]) -> None:
    document["images"][1] = document["images"][0]


def _without(document: dict[str, Any]) -> None:
    document["images"] = []


def _miscounted(document: dict[str, Any]) -> None:
    document["histogram"][0] += 1


def _fewer(document: dict[str, Any]) -> None:
    document["images"] = document["images"][:3]


@pytest.mark.parametrize("change", [_doubled, _without, _miscounted, _fewer])
def test_a_manifest_that_was_signed_again_has_to_make_sense(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    path = tmp_path / "m.json"
    save_manifest(path, make_manifest(load_dataset(DataConfig(size=8)), per_class=2, seed=0))
    document = json.loads(path.read_text())
    del document["sha256"]
    change(document)
    path.write_text(json.dumps(document | {"sha256": sha256_of(document)}))

    with pytest.raises(ConfigError, match=r"no images|twice|histogram|disjointness"):
        load_manifest(path)


def test_a_bundle_that_makes_no_sense_is_told_in_one_short_sentence(tmp_path: Path) -> None:
    from tests.fuzz.valid import resealed, write_texts

    write_texts(tmp_path)
    path = tmp_path / "bundle" / "bundle.json"
    path.write_text(resealed(json.loads(path.read_text()) | {"batch_sizes": "x" * 50_000}))

    with pytest.raises(ConfigError, match=r"got batch_sizes: .{1,100}; ship it again: .{1,50}$"):
        read_bundle(path.parent)


def test_text_is_neither_markup_nor_formula() -> None:
    document = json.loads(_REPORT)
    hostile = "=HYPERLINK(1) | <script>alert(1)</script>\x1b[31m ```\n```\n# x"
    document["rows"][0]["reason"] = document["rows"][0]["notes"] = None
    document["rows"][0] |= {"status": "failed", "reason": hostile, "notes": [hostile]}
    document["notes"] = [hostile]
    document["argv"] = ["trtbench", "```\n<b>```` ```"]
    report = validate_report(json.dumps(document), origin="r.json")

    page, _, code = render_markdown(report).partition("## Environment")
    assert "<script" not in page
    assert "&lt;script>" in page
    assert "\x1b" not in page
    assert re.search(r"(?m)^`{5,}yaml$", code)
    cells = to_csv(report.rows)
    assert "'=HYPERLINK" in cells
    assert "\x1b" not in cells
    assert [csv_cell(one) for one in ("+1", "-1", "@x", -1, 0.5, "a=b")] == ["'+1", "'-1", "'@x", -1, 0.5, "a=b"]


def test_nothing_that_is_shown_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b]0;title\x07\x1b[2Jb\u202ec"
    say(hostile)
    show(hostile)
    show_table(hostile, ("x",), [(hostile,)])

    told = capsys.readouterr()
    assert not {*"\x1b\x07\u202e"} & {*told.out, *told.err}
    assert "b\N{REPLACEMENT CHARACTER}c" in told.out


def test_a_recorded_command_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    words = (
        *("run", "x.yaml", "--mlflow", "https://me:pa@ss@host/x?token=abc&a=1", "--api-key", "abc", "--token=abc"),
        *("MLFLOW_TRACKING_PASSWORD=abc", "--set", "data.size=8"),
    )
    monkeypatch.setattr(sys, "argv", ["/home/me/bin/trtbench", *words])

    told = command_line()

    assert " ".join(told) == (
        "trtbench run x.yaml --mlflow https://***@host/x?token=***&a=1 --api-key *** --token=***"
        " MLFLOW_TRACKING_PASSWORD=*** --set data.size=8"
    )


def test_an_unforeseen_error_is_a_sentence_and_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Answer]
) -> None:
    def break_down(*_: Any, **__: Any) -> None:
        raise KeyError("of our own")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(type(app), "__call__", break_down)

    told = command("plan")

    assert told.code == 70
    (log,) = tmp_path.glob("trtbench-*.log")
    assert str(log) in told.err.replace("\n", "")
    assert "Traceback" not in told.err
    assert "break_down" in log.read_text()
