"""INT8 of a depthwise network, trained on real photos, stays near FP32.

Training takes half an hour; TRTBENCH_MOBILENET names a checkpoint that `trtbench train` made as the script says.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

_TESTS = Path(__file__).parent.parent


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("depthwise", _TESTS / "benchmarks" / "depthwise.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checkpoint(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if given := os.environ.get("TRTBENCH_MOBILENET"):
        return Path(given)
    from trtbench.steps import step, training
    from trtbench.suite import DataConfig, TrainConfig, adhoc_suite

    folder = tmp_path_factory.mktemp("mobilenet")
    data = DataConfig(source=f"folder:{shared / 'data' / 'cifar10-lossless.tar.xz'}")
    config = TrainConfig(epochs=10, batch_size=64, optimizer="adamw", lr=0.003, schedule="one-cycle", weight_decay=0.02)
    step(adhoc_suite(model={"name": "mobilenet_v2_cifar", "train": config.model_dump()}, data=data), training, folder)
    return folder / "model.safetensors"


@pytest.mark.slow
@pytest.mark.shared
def test_int8_of_a_depthwise_network_is_at_most_five_images_below_fp32(checkpoint: Path, shared: Path) -> None:
    archive = shared / "data" / "cifar10-lossless.tar.xz"
    found = _script().measure(checkpoint, archive, [{}])
    assert found["fp32"]["test"]["correct"] > 400
    assert found["int8"][0]["test"]["below_fp32"] <= 5


def test_the_committed_measurement_is_of_that_network_and_reaches_the_target() -> None:
    path = _TESTS.parent / "docs" / "evidence" / "calibration-depthwise.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert found["fp32"]["test"]["total"] == 1017
    default = next(row for row in found["int8"] if row["options"] == {"method": "mse"})
    assert default["test"]["below_fp32"] <= 5
