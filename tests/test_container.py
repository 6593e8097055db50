"""The container: linted, and held to what its users are promised."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")


def _tool(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.mark.parametrize(
    ("tool", "file"), [("hadolint", "docker/Dockerfile"), ("shellcheck", "docker/check"), ("shellcheck", ".ci/run")]
)
def test_the_linter_has_nothing_to_say(tool: str, file: str) -> None:
    answer = subprocess.run([_tool(tool), file], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (answer.returncode, answer.stdout) == (0, "")


def _last_stage() -> list[str]:
    return DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :].strip().splitlines()


def test_the_base_image_is_named_by_an_exact_tag_of_cuda_12_8_on_ubuntu_24_04() -> None:
    images = re.findall(r"^ARG \w+_IMAGE=(.+)$", DOCKERFILE, re.MULTILINE)

    assert len(images) == 2
    assert all(re.fullmatch(r"nvidia/cuda:12\.8\.\d+-(base|devel)-ubuntu24\.04", image) for image in images)


def test_the_container_runs_as_nobody_special_and_checks_its_gpu() -> None:
    stage = _last_stage()
    healthcheck = next(index for index, line in enumerate(stage) if line.startswith("HEALTHCHECK"))

    assert [line for line in stage if line.startswith("USER")] == ["USER 10001"]
    assert stage[healthcheck + 1].strip() == 'CMD ["trtbench", "gpu-info", "--require", "fp16,int8"]'


def test_the_last_stage_installs_no_build_tools() -> None:
    stage = "\n".join(_last_stage())

    assert not re.search(r"g\+\+|gcc|-dev\b|venv --|pip install|nvcc", stage)


def _compose() -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load((ROOT / "docker/compose.yaml").read_text(encoding="utf-8"))["services"][
        "trtbench"
    ]
    return service


def test_compose_reserves_a_gpu_and_writes_as_the_user_who_started_it() -> None:
    service = _compose()

    assert service["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert service["user"] == "${UID:-1000}:${GID:-1000}"


def test_compose_mounts_what_must_outlive_the_container() -> None:
    places = {mount.split(":")[1].rpartition("/")[2] for mount in _compose()["volumes"]}

    assert places == {"calib", "engines", "runs"}


def test_only_named_files_reach_the_build_and_all_that_it_copies_are_named() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }

    assert lines[0] == "*"
    assert copied == allowed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "constraints", "cuda"),
    [("cu12-base", "docker/constraints-cu12.txt", "12"), ("cu13-base", "constraints.txt", "13")],
)
def test_the_extras_without_tensorrt_resolve_under_their_constraints(extra: str, constraints: str, cuda: str) -> None:
    command = [_tool("uv"), "pip", "compile", "--quiet", "pyproject.toml", "--extra", extra, "-c", constraints]
    answer = subprocess.run(
        [*command, "--python-version", "3.12"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if "error sending request" in answer.stderr or "Failed to fetch" in answer.stderr:
        pytest.skip("no package index can be reached")

    assert answer.returncode == 0, answer.stderr
    assert f"cupy-cuda{cuda}x==" in answer.stdout
    assert "tensorrt" not in re.sub(r"#.*", "", answer.stdout)
