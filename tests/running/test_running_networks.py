"""What stands for the source of a network: a change of it makes the network again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from trtbench._optional import version
from trtbench.make.makings import Architecture

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_source_of_a_package_is_its_version_and_of_a_module_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "my_networks.py"
    module.write_text("def small(num_classes): ...")
    monkeypatch.syspath_prepend(str(tmp_path))

    def source_of(model: str) -> str | None:
        return Architecture.of(model, num_classes=2).source

    before = source_of("my_networks:small")
    module.write_text("def small(num_classes): return None")
    sys.modules.pop("my_networks", None)

    assert source_of("resnet20") is None  # recipes have a version for ours
    assert source_of("torchvision:resnet18") == version("torchvision")
    assert before is not None
    assert source_of("my_networks:small") != before
    assert source_of("no.such.package:model") is None
