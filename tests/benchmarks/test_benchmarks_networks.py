"""What became of networks as others define them: the committed tables, and each of them anew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.networks_page import EVIDENCE, PAGE, REASONS, is_whole, page

if TYPE_CHECKING:
    from pathlib import Path

NETWORKS = json.loads((EVIDENCE / "networks-random.json").read_bytes())["networks"]


def test_the_page_is_that_of_the_committed_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_nine_of_ten_networks_are_whole_and_the_others_have_their_reason() -> None:
    broken = {one["name"] for one in NETWORKS if not is_whole(one)}
    assert len(NETWORKS) >= 30
    assert len(NETWORKS) - len(broken) >= 27
    assert broken == set(REASONS)


@pytest.mark.slow
@pytest.mark.parametrize("name", [one["name"] for one in NETWORKS if is_whole(one)])
def test_a_network_is_pruned_exported_and_built_anew_and_is_whole(name: str, tmp_path: Path) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="timm is not installed: its networks are measured where it is")
    from tests.benchmarks.networks import ARCHITECTURES, measured

    assert is_whole(measured(name, ARCHITECTURES[name], tmp_path))
