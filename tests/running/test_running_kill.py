"""A build or a run that is killed again and again ends where one left in peace ends."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from trtbench.suite import Suite


_FLOAT = "engines: [{backend: onnxruntime-cpu, precisions: [fp32]}]"


def _script() -> ModuleType:
    path = Path(__file__).parent.parent / "kill_and_resume.py"
    spec = importlib.util.spec_from_file_location("kill_and_resume", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _killed(suite: Suite, folder: Path, *, times: int, verbs: tuple[str, ...]) -> dict[str, Any]:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(suite.model_dump(mode="json")))
    found: dict[str, Any] = _script().compare(str(path), folder, times=times, each=times, seed=2, verbs=verbs)
    return found


def test_a_build_that_is_killed_twice_comes_to_the_same_and_leaves_no_part_of_a_file(
    suite: Callable[..., Suite], tmp_path: Path
) -> None:
    seen = _killed(suite(_FLOAT), tmp_path, times=2, verbs=("build",))

    assert (seen["kills"], seen["differing"], seen["partial_files"]) == (2, [], 0)


@pytest.mark.slow
@pytest.mark.whole
def test_builds_and_benches_that_are_killed_come_to_the_same_rows(suite: Callable[..., Suite], tmp_path: Path) -> None:
    variants = "[{kind: dense, name: tuned, fine_tune: true}, {kind: channels, name: half, ratio: 0.5, round_to: 8}]"

    seen = _killed(suite(_FLOAT, variants=variants, batch_sizes=(1, 2)), tmp_path, times=6, verbs=("build", "bench"))

    assert (seen["kills"], seen["rows"]) == (6, 4)
    assert seen["is_equal"], seen
