"""A suite small enough to run for real: a tiny folder of images, untrained weights, real exports and engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from trtbench.models import build_model, save_model
from trtbench.running import Places
from trtbench.suite import parse_suite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trtbench.suite import Suite

CLASSES = ("circle", "square", "star")


@pytest.fixture(autouse=True)
def _short(in_short: None) -> None:
    """Processes have their tests in tests/bench, figures in tests/report; those marked `whole` have both here."""


@pytest.fixture(scope="session")
def images(noise: Callable[..., Path]) -> Path:
    """PATH/train and PATH/test with three classes of noise around a colour of their own."""
    return noise(train=12, test=6)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet8.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("tiny_nets:resnet8", num_classes=len(CLASSES)).eval()
    save_model(path, network, name="tiny_nets:resnet8", num_classes=len(CLASSES), metadata={})
    return path


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(runs=tmp_path / "runs", engines=tmp_path / "engines", calib=tmp_path / "calib")


@pytest.fixture
def suite(images: Path, checkpoint: Path) -> Callable[..., Suite]:
    """Write the tiny suite; `more` is YAML appended to it, `variants` and `batch_sizes` replace its own."""

    def make(
        more: str = "", variants: str = "[{kind: dense, name: dense}]", batch_sizes: tuple[int, ...] = (1,)
    ) -> Suite:
        text = f"""
name: tiny
data: {{source: 'folder:{images}', size: 16, validation: 0.25}}
model: {{name: 'tiny_nets:resnet8', checkpoint: '{checkpoint}'}}
variants: {variants}
fine_tune: {{epochs: 1, batch_size: 9, lr: 0.01}}
export: {{exporter: torchscript}}
calibration: {{per_class: 4, method: minmax}}
bench: {{batch_sizes: {[*batch_sizes]}, duration: 0.01, warm_up: 0, block_ms: 2, processes: 1}}
decision: {{max_drop_pp: 40}}
"""
        replaced = tuple(f"{line.partition(':')[0]}:" for line in more.splitlines() if line and line[0].isalpha())
        kept = [line for line in text.splitlines() if not (replaced and line.startswith(replaced))]
        return parse_suite("\n".join([*kept, more]), origin="tiny.yaml")

    return make
