"""Collects the environment: the one place of this room that looks at the machine as a whole."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtbench import _optional
from trtbench.environment.facts import Environment, GitState
from trtbench.environment.gpus import collect_gpus
from trtbench.environment.host import collect_host
from trtbench.environment.packages import collect_packages

if TYPE_CHECKING:
    from types import ModuleType


def collect_environment(*, folder: Path = Path(), nvml: Any | None = None) -> Environment:
    """Describe this machine, its driver, its GPUs and the installed packages, in well under a second.

    CUDA is not initialised and neither torch nor ONNX Runtime is imported.

    Args:
        folder: the working directory whose git commit is recorded.
        nvml: the module to ask about GPUs; `pynvml` by default, where it is installed.
    """
    driver, gpus = collect_gpus(_nvml() if nvml is None else nvml)
    return Environment(
        host=collect_host(),
        driver=driver,
        gpus=gpus,
        packages=collect_packages(),
        git=git_state(folder),
        cuda_visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
    )


def git_state(folder: Path) -> GitState | None:
    """Return commit and dirty flag of the checkout around `folder`; None outside a checkout or without git."""
    # No optional locks: a report must not get in the way of a commit under way.
    command = ["git", "--no-optional-locks", "-C", str(folder), "status", "--porcelain=v2", "--branch", "-uno"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode:
        return None
    headers = dict(line.split(" ", 2)[1:] for line in answer.stdout.splitlines() if line.startswith("# "))
    commit = headers["branch.oid"]
    return GitState(
        commit=None if commit == "(initial)" else commit,
        is_dirty=any(not line.startswith("# ") for line in answer.stdout.splitlines()),
    )


def _nvml() -> ModuleType | None:
    return _optional.load("pynvml") if _optional.is_installed("pynvml") else None
