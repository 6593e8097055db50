"""One small run, and the bundle of its INT8 row, for all tests of the room; a test that changes one takes a copy."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from short_cuts import save_blank, worker_here

from trtbench.running import Places, run_suite
from trtbench.shipping import ship_row
from trtbench.suite import parse_suite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trtbench.suite import Suite

ROW = "dense int8 onnxruntime-cpu b2"


@pytest.fixture(autouse=True)
def _unpainted(unpainted: None) -> None:
    """Figures have their tests in tests/report."""


@pytest.fixture(scope="session")
def images(noise: Callable[..., Path]) -> Path:
    """PATH/train and PATH/test with three classes of noise around a colour of their own."""
    return noise(train=8, test=6)


@pytest.fixture(scope="session")
def small_suite(images: Path) -> Suite:
    """A suite that trains until it gets all 18 test images right, so that a row is recommended."""
    return parse_suite(
        f"""
name: tiny
data: {{source: 'folder:{images}', size: 16, validation: 0.25}}
model:
  name: tiny_nets:resnet8
  train: {{epochs: 10, batch_size: 9, lr: 0.02, augment: {{flip: false}}}}
variants: [{{kind: dense, name: dense}}]
export: {{exporter: torchscript}}
calibration: {{per_class: 3, method: minmax}}
engines: [{{backend: onnxruntime-cpu}}]
bench: {{batch_sizes: [1, 2], duration: 0.01, warm_up: 0, block_ms: 2, processes: 1, baselines: [eager]}}
decision: {{max_drop_pp: 50}}
""",
        origin="tiny.yaml",
    )


@pytest.fixture(scope="session")
def small_run(small_suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of it, measured without worker processes and painting, as `in_short` does for one test."""
    root = tmp_path_factory.mktemp("work")
    places = Places(runs=root / "runs", engines=root / "engines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trtbench.bench.processes.WorkerProcess", worker_here)
        patch.setattr("trtbench.bench.worker._pin", list)
        patch.setattr("matplotlib.figure.Figure.savefig", save_blank)
        return run_suite(small_suite, places, argv=["trtbench", "run"], now=datetime(2026, 1, 2, tzinfo=UTC))[1]


@pytest.fixture(scope="session")
def shipped(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle as it was shipped: not to be changed."""
    return ship_row(small_run, tmp_path_factory.mktemp("shipped") / "bundle", row=ROW, licence="MIT").folder


@pytest.fixture
def bundle(shipped: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(shipped, tmp_path / "bundle")
