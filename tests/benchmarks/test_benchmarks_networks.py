"""What became of networks as others define them: the committed tables, and a few of them anew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.networks_page import EVIDENCE, PAGE, REASONS, is_whole, page

if TYPE_CHECKING:
    from pathlib import Path


def test_the_page_is_that_of_the_committed_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_what_is_not_whole_has_its_reason() -> None:
    networks = json.loads((EVIDENCE / "networks-random.json").read_bytes())["networks"]
    broken = {one["name"] for one in networks if not is_whole(one)}
    assert broken == set(REASONS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "torchvision:mobilenet_v3_small", "timm:lcnet_050"])
def test_a_network_is_pruned_exported_and_built_anew_and_is_whole(name: str, tmp_path: Path) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="timm is not installed: its networks are measured where it is")
    from tests.benchmarks.networks import ARCHITECTURES, measured

    assert is_whole(measured(name, ARCHITECTURES[name], tmp_path))
