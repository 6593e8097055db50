"""A suite that trains and prunes a tiny network, for jobs and for clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trtbench.running import Places
from trtbench.suite import parse_suite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trtbench.suite import Suite


@pytest.fixture(scope="session")
def images(noise: Callable[..., Path]) -> Path:
    """PATH/train and PATH/test with three classes of noise around a colour of their own."""
    return noise(train=8, test=6)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(runs=tmp_path / "runs", engines=tmp_path / "engines")


@pytest.fixture(scope="session")
def suite_text(images: Path) -> str:
    return f"""
name: tiny
data: {{source: 'folder:{images}', size: 16, validation: 0.25}}
model:
  name: tiny_nets:resnet8
  train: {{epochs: 2, batch_size: 9, lr: 0.02, augment: {{flip: false}}}}
variants:
  - {{kind: dense, name: dense}}
  - {{kind: channels, name: half, ratio: 0.25, round_to: 4, fine_tune: true}}
fine_tune: {{epochs: 1, batch_size: 9, lr: 0.01}}
export: {{exporter: torchscript}}
calibration: {{per_class: 3, method: minmax}}
engines: [{{backend: onnxruntime-cpu}}]
bench: {{batch_sizes: [1], duration: 0.01, warm_up: 0, block_ms: 2, processes: 1, baselines: []}}
decision: {{max_drop_pp: 90}}
"""


@pytest.fixture
def suite(suite_text: str) -> Suite:
    return parse_suite(suite_text, origin="tiny.yaml")
