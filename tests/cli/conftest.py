"""The command line as it is, what lies below it in short."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _short(in_short: None) -> None:
    """Processes have their tests in tests/bench, figures in tests/report; those marked `whole` have both here."""


@pytest.fixture
def tiny_weights(tmp_path: Path) -> Path:
    """The folder of the weights, net.safetensors, of a network that nobody trained."""
    import torch

    from trtbench.models import build_model, save_model

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("tiny_nets:resnet8", num_classes=10).eval()
    save_model(tmp_path / "net.safetensors", network, name="tiny_nets:resnet8", num_classes=10, metadata={})
    return tmp_path
