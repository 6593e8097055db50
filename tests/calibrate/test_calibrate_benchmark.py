"""The calibration benchmark measures what it says, and its committed results reach their targets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

_TESTS = Path(__file__).parent.parent
_EVIDENCE = _TESTS.parent / "docs" / "evidence"
_MODELS = {"akamaster-resnet20", "akamaster-resnet56"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network, and images that would fill 25 MB as uint8 and 100 MB as float."""
    folder = tmp_path_factory.mktemp("bench")
    rng = np.random.default_rng(0)
    body = "a = Conv(input, w) x = Relu(a) logits = Conv(x, v)"
    signature = "n (float[batch, 3, 32, 32] input) => (float[batch, 4, 32, 32] logits)"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {signature} {{ {body} }}')
    for name, shape in {"w": (8, 3, 1, 1), "v": (4, 8, 1, 1)}.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    onnx.save(model, folder / "model.onnx")
    np.save(folder / "images.npy", rng.integers(0, 256, (8192, 3, 32, 32), np.uint8))
    return folder


def _measured(folder: Path, tool: str, *, count: int) -> dict[str, Any]:
    command = [sys.executable, str(_TESTS / "benchmarks" / "contenders.py"), "--tool", tool, "--method", "entropy"]
    command += ["--graph", str(folder / "model.onnx"), "--images", str(folder / "images.npy"), "--count", str(count)]
    command += ["--mean", "0.5", "0.5", "0.5", "--std", "0.2", "0.2", "0.2", "--output", str(folder / f"{tool}.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["trtbench", "onnxruntime"])
def test_each_contender_is_timed_in_a_process_of_its_own(tool: str, folder: Path) -> None:
    found = _measured(folder, tool, count=64)
    assert found["tensors"] >= 2
    assert 0 < found["wall_s"] < 600
    assert found["peak_rss_bytes"] > 10**7


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_images(folder: Path) -> None:
    few, many = (_measured(folder, "trtbench", count=count)["peak_rss_bytes"] for count in (256, 8192))
    assert many / few < 1.1


def _committed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_EVIDENCE / "calibration.json").read_text(encoding="utf-8"))
    return found


def test_the_committed_results_reach_their_targets() -> None:
    found = _committed()
    figures = ("speedup_vs_ort_entropy_512", "rss_ratio_5000_to_250", "images_below_fp32")
    assert all(set(found[figure]) == _MODELS for figure in figures)
    assert min(found["speedup_vs_ort_entropy_512"].values()) >= 5
    assert max(found["rss_ratio_5000_to_250"].values()) <= 1.1
    assert max(found["images_below_fp32"].values()) <= 2


def test_the_committed_figures_follow_from_the_raw_ones() -> None:
    found = _committed()
    for model, raw in found["raw"].items():
        walls = {name: float(np.median([run["wall_s"] for run in runs])) for name, runs in raw["timed_512"].items()}
        ratio = walls["onnxruntime-entropy"] / walls["trtbench-entropy"]
        assert found["speedup_vs_ort_entropy_512"][model] == pytest.approx(ratio)
        accuracy = raw["accuracy"]
        assert accuracy["total"] == 1017
        below = accuracy["fp32_correct"] - accuracy["correct_by_seed"]["0"]
        assert found["images_below_fp32"][model] == below
