"""The verbs that explain INT8: on one model, on a run, and what they refuse."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.command import Answer

_MODEL = "--model onnx:net.onnx --data digits --size 16"
_GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 3, 16, 16] input) => (float[batch, 10] out)
{
  conv = Conv <pads = [1, 1, 1, 1], strides = [4, 4]> (input, kernel)
  relu = Relu(conv)
  pooled = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (relu)
  flat = Flatten(pooled)
  out = Gemm <transB = 1> (flat, head)
}
"""
_SUITE = """
name: tiny
data: {source: digits, size: 16}
model: {name: 'onnx:net.onnx'}
variants: [{kind: dense, name: dense}]
calibration: {per_class: 1, method: minmax}
decision: {max_drop_pp: 100}
bench: {batch_sizes: [1], duration: 0.01, warm_up: 0, block_ms: 2}
"""


@pytest.fixture
def trtbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Answer]
) -> Callable[[str], tuple[int, str, str]]:
    """Run a command line in a folder that holds a network, in this process; answer code, out and err."""
    proto = onnx.parser.parse_model(_GRAPH)
    random = np.random.default_rng(0)
    for name, shape in (("kernel", (4, 3, 3, 3)), ("head", (10, 16))):
        proto.graph.initializer.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
    onnx.save(proto, tmp_path / "net.onnx")
    (tmp_path / "tiny.yaml").write_text(_SUITE)
    monkeypatch.chdir(tmp_path)
    return lambda arguments: command(*arguments.split())


def test_one_model_is_explained_and_a_second_call_answers_in_json(
    trtbench: Callable[[str], tuple[int, str, str]], tmp_path: Path
) -> None:
    options = "--per-class 1 --method minmax --max-drop 100 --output why"
    code, out, err = trtbench(f"explain-int8 {_MODEL} {options}")

    assert code == 0, err
    assert "The drop in parts: 900 test images" in out
    assert "onnxruntime-cpu" in out
    assert "no layer needs higher precision" in out
    assert {path.name for path in (tmp_path / "why").iterdir()} >= {"explain.json", "exclude.yaml", "explain.png"}

    code, out, err = trtbench(f"explain-int8 {_MODEL} {options} --json --quiet")
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads((tmp_path / "why" / "explain.json").read_text())


def test_a_study_of_one_model_says_what_balance_gains(
    trtbench: Callable[[str], tuple[int, str, str]], tmp_path: Path
) -> None:
    options = "--per-class 2,1 --seeds 2 --method minmax --split test --output study"
    code, out, err = trtbench(f"calibration-study {_MODEL} {options}")

    assert code == 0, err
    assert "What class balance gains" in out
    assert "minmax, balanced against long-tailed" in out
    assert (tmp_path / "study" / "calibration-study.png").exists()

    code, out, _ = trtbench(f"calibration-study {_MODEL} {options} --json --quiet")
    assert code == 0
    assert json.loads(out)["split"] == "test"


def test_a_run_is_explained_beside_its_report(trtbench: Callable[[str], tuple[int, str, str]], tmp_path: Path) -> None:
    code, _, err = trtbench("run tiny.yaml --quiet")
    assert code == 0, err

    code, out, err = trtbench("explain-int8 runs/latest --max-drop 100 --quiet")
    assert code == 0, err
    assert (tmp_path / "runs" / "latest" / "explain-int8" / "explain.md").exists()

    code, out, _ = trtbench("explain-int8 tiny.yaml --max-drop 100 --quiet --json")
    assert code == 0
    assert json.loads(out)["splits"][0]["placement"] == "tensorrt"
    assert (tmp_path / "runs" / "explain-int8-tiny" / "explain.md").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("explain-int8", "RUN and --model: expected one of them"),
        ("explain-int8 runs/latest --model resnet20", "RUN: expected only without --model"),
        ("explain-int8 quickstart --data digits --per-class 3", "--per-class, --data: expected only with --model"),
        ("explain-int8 no-such-run.json", "report"),
        (f"calibration-study {_MODEL} --per-class one,two", "whole numbers joined by commas, got 'one,two'"),
        (f"calibration-study {_MODEL} --per-class 0,5", "numbers of at least 1"),
        (f"calibration-study {_MODEL} --split train", "expected validation or test"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_cure(
    arguments: str, words: str, trtbench: Callable[[str], tuple[int, str, str]]
) -> None:
    code, _, err = trtbench(arguments)

    assert code == 2
    assert words in err
