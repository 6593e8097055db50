from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from trtbench.environment import Environment, collect_environment, gpu_info
from trtbench.environment.overview import git_state
from trtbench.jsonable import to_jsonable

if TYPE_CHECKING:
    from pathlib import Path


def test_this_machine_is_described_in_under_a_second_and_becomes_json(tmp_path: Path) -> None:
    started = time.perf_counter()
    environment = collect_environment(folder=tmp_path)
    seconds = time.perf_counter() - started

    assert isinstance(environment, Environment)
    assert environment.host.cpu.logical_cores >= 1
    assert environment.host.cpu.model
    assert environment.package("numpy") is not None
    assert environment.git is None
    assert json.loads(json.dumps(to_jsonable(environment)))["host"]["python"].startswith("3.")
    assert gpu_info(environment).summary
    assert seconds < 1


def test_collecting_imports_neither_torch_nor_a_runtime() -> None:
    program = (
        "import sys; from trtbench.environment import collect_environment, gpu_info; gpu_info(collect_environment());"
        "print(sorted({'torch', 'onnxruntime', 'numpy', 'cupy', 'tensorrt', 'pydantic'} & set(sys.modules)))"
    )

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout == "[]\n"


def test_a_machine_without_nvidia_ml_py_is_described_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trtbench._optional.is_installed", lambda _: False)

    assert collect_environment(folder=tmp_path).gpus == ()


def test_the_variable_that_hides_gpus_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")

    environment = collect_environment(folder=tmp_path)

    assert environment.cuda_visible_devices == "-1"
    assert environment.usable_gpus == ()


def test_a_checkout_tells_its_commit_and_whether_tracked_files_changed(checkout: Path) -> None:
    fresh = git_state(checkout)
    assert fresh is not None
    assert (fresh.commit, fresh.is_dirty) == (None, True)  # added, never committed

    _git(checkout, "commit", "-m", "first")
    clean = git_state(checkout)
    assert clean is not None
    assert clean.commit == _git(checkout, "rev-parse", "HEAD")
    assert not clean.is_dirty

    (checkout / "untracked").touch()
    assert git_state(checkout) == clean

    (checkout / "file").write_text("changed")
    dirty = git_state(checkout)
    assert dirty is not None
    assert dirty.is_dirty


def test_outside_a_checkout_there_is_no_git_state(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None


def test_without_git_there_is_no_git_state(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))

    assert git_state(checkout) is None


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(variable, "/dev/null")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "a")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "a@example.org")
    _git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("content")
    _git(tmp_path, "add", "file")
    return tmp_path


def _git(folder: Path, *arguments: str) -> str:
    answer = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)  # noqa: S607  git is found where the user has it
    return answer.stdout.strip()
