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


def test_the_images_are_named_by_digest_and_the_last_stage_asks_for_no_driver() -> None:
    images = dict(re.findall(r"^ARG (\w+_IMAGE)=(.+)$", DOCKERFILE, re.MULTILINE))

    assert all(re.search(r"@sha256:[0-9a-f]{64}$", image) for image in images.values())
    assert images["BASE_IMAGE"].startswith("ubuntu:24.04@")  # NVIDIA's would set NVIDIA_REQUIRE_CUDA
    assert images["DEVEL_IMAGE"].startswith("nvidia/cuda:12.8.1-devel-ubuntu24.04@")
    assert "FROM ${BASE_IMAGE} AS run" in DOCKERFILE


def test_what_is_installed_is_pinned_by_hash_and_is_what_the_constraints_say() -> None:
    def pins(name: str) -> dict[str, str]:
        text = (ROOT / "docker" / name).read_text(encoding="utf-8")
        return {one.lower().replace("_", "-"): v for one, v in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}

    wanted, hashed = pins("constraints-cu12.txt"), pins("requirements-cu12.txt")
    text = (ROOT / "docker/requirements-cu12.txt").read_text(encoding="utf-8")

    assert {name: version for name, version in hashed.items() if name in wanted} == {
        name: version for name, version in wanted.items() if name in hashed
    }
    assert {"torch", "onnxruntime-gpu", "cupy-cuda12x", "constriction", "pytools"} <= hashed.keys()
    assert all("--hash=sha256:" in one for one in re.split(r"\n(?=\S)", text) if not one.startswith("#"))
    installs = re.findall(r"pip (?:install|wheel) (.+?)(?: && |; |\n)", DOCKERFILE)
    assert [one for one in installs if "-r docker/" in one and "--require-hashes" not in one] == []


def test_the_container_runs_as_nobody_special_and_checks_its_gpu() -> None:
    stage = _last_stage()
    healthcheck = next(index for index, line in enumerate(stage) if line.startswith("HEALTHCHECK"))

    assert [line for line in stage if line.startswith("USER")] == ["USER 10001"]
    assert (
        stage[healthcheck + 1].strip().startswith('CMD ["sh", "-c", "test -e /dev/nvidiactl')
    )  # no Python beside a run


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
    places = {mount.split(":")[1].rpartition("/")[2] for mount in _compose()["volumes"] if isinstance(mount, str)}

    assert places == {"calib", "engines", "runs"}


def test_compose_shows_a_users_own_folder_read_only_and_hands_signals_on() -> None:
    service = _compose()
    (project,) = (mount for mount in service["volumes"] if isinstance(mount, dict))

    assert project == {
        "type": "bind",
        "source": "${PROJECT:-..}",
        "target": "/workspace/project",
        "read_only": True,
    }
    assert service["init"] is True
    text = (ROOT / "docker/compose.yaml").read_text(encoding="utf-8")
    assert "PROJECT=~/shapes docker compose -f docker/compose.yaml run --rm trtbench run project/suite.yaml" in text


def test_any_user_has_a_name_and_a_home_that_is_writable() -> None:
    stage = "\n".join(_last_stage())

    assert "USER=trtbench" in stage  # getpass.getuser, which torch asks, fails for a uid without a name
    assert "HOME=/cache" in stage
    assert "--mode=1777" in stage


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
