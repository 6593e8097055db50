"""A build that is killed again and again ends where one left in peace ends."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from trtbench.suite import Suite


def _script() -> ModuleType:
    path = Path(__file__).parent.parent / "kill_and_resume.py"
    spec = importlib.util.spec_from_file_location("kill_and_resume", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_killing_a_build_at_random_moments_changes_nothing(suite: Callable[..., Suite], tmp_path: Path) -> None:
    import yaml

    variants = "[{kind: dense, name: tuned, fine_tune: true}, {kind: channels, name: half, ratio: 0.5, round_to: 8}]"
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(suite(variants=variants).model_dump(mode="json")))

    seen = _script().compare(str(path), tmp_path / "folders", times=6, longest=0.0, seed=0)

    assert seen["kills"] == 6
    assert seen["differing"] == []
