"""What the package asks of an installer, on each platform that it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.test_pages import shell_blocks
from trtbench import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _markers(requirements: list[str]) -> dict[str, str]:
    """Return the marker of each distribution by its name."""
    return {re.match(r"[\w-]+", one)[0]: one.partition(";")[2].strip() for one in requirements}  # type: ignore[index]  # a name it has


def test_the_extras_keep_a_distribution_to_the_platforms_that_the_base_has_it_on() -> None:
    base = _markers(PROJECT["dependencies"])

    for name, requirements in PROJECT["optional-dependencies"].items():
        for distribution, marker in _markers(requirements).items():
            assert marker == base.get(distribution, marker), f"{distribution} of {name}"


def test_what_has_no_wheels_for_linux_on_arm_is_in_no_way_of_an_installation_there() -> None:
    assert "constriction" not in _markers(PROJECT["dependencies"])
    (codec,) = PROJECT["optional-dependencies"]["codec"]
    assert codec.partition(";")[2].strip() == "sys_platform != 'linux' or platform_machine == 'x86_64'"


def test_the_version_is_told_once_and_the_citation_has_it() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

    assert PROJECT["version"] == __version__ == cited["version"]
    assert cited["license"] == PROJECT["license"]
    assert cited["repository-code"] == PROJECT["urls"]["Homepage"]


def test_the_metadata_names_the_pythons_that_are_accepted_and_where_to_ask() -> None:
    pythons = [re.search(r"3\.\d+$", one) for one in PROJECT["classifiers"]]

    assert min(one[0] for one in pythons if one) == PROJECT["requires-python"].removeprefix(">=")
    assert {"Homepage", "Documentation", "Issues", "Changelog"} <= PROJECT["urls"].keys()
    assert PROJECT["authors"]


def test_what_pre_commit_runs_is_what_make_runs() -> None:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    made = (ROOT / "Makefile").read_text(encoding="utf-8")

    for hook in repo["hooks"]:
        command = hook["entry"].removesuffix(" --force-exclude").replace(".venv/bin/", "$(BIN)/")
        assert re.search(rf"^\t{re.escape(command)}( |$)", made, re.MULTILINE), command


@pytest.mark.slow
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("extra", ["", "cu12-base", "cu13-base", "dev"])
def test_linux_on_arm_can_install(extra: str, python: str) -> None:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    platform = ["--python-platform", "aarch64-unknown-linux-gnu", "--python-version", python]
    command = [uv, "pip", "compile", "--quiet", "pyproject.toml", *platform, *(["--extra", extra] if extra else [])]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if "error sending request" in found.stderr or "Failed to fetch" in found.stderr:
        pytest.skip("no package index can be reached")

    assert found.returncode == 0, found.stderr
    assert "onnxruntime==" in found.stdout
    assert "onnxruntime-gpu" not in re.sub(r"#.*", "", found.stdout)


# What this machine or this network cannot do, or a test must not: GPUs, servers, installing, other machines' runs.
_ELSEWHERE = re.compile(
    r"^(pip|uv|make|docker|PROJECT=|tritonserver|python bundle/triton)|--serve-check|--require|crosscheck|int8\+fp16|"
    r"--from-cache|--device|baseline/|runs/A4|job.zip|explain-int8 suite|calibration-study"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with a wheel; its dependencies are those installed here, by a path: no editable one comes."""
    place = tmp_path_factory.mktemp("wheel")
    source, home = place / "source", place / "home"
    shutil.copytree(ROOT / "trtbench", source / "trtbench", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(place), str(source)], check=True)
    venv.create(home, with_pip=True)
    packages = next(home.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    (wheel,) = place.glob("*.whl")
    subprocess.run([home / "bin" / "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    shutil.rmtree(source)
    return home


def _told(script: str, home: Path, folder: Path) -> str:
    around = {**os.environ, "PATH": f"{home / 'bin'}:/usr/bin:/bin"}
    around.pop("PYTHONPATH", None)
    command = ["sh", "-e", "-c", script]
    found = subprocess.run(command, cwd=folder, env=around, check=False, capture_output=True, text=True)
    assert found.returncode == 0, f"{script}\n{found.stdout}\n{found.stderr}"
    return found.stdout


def _commands(page: str) -> list[str]:
    text = "".join(shell_blocks((ROOT / "docs" / page).read_text(encoding="utf-8"))).replace("\\\n", " ")
    return [one for one in text.splitlines() if not _ELSEWHERE.search(one)]


def _photos(folder: Path) -> None:
    """Write the digits as a folder of classes, and one picture beside them."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / ("test" if number % 3 == 0 else "train") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype("uint8")).convert("RGB").save(place / f"{number}.png")
    shutil.copy(folder / "test" / "0" / "0.png", folder / "cat.png")


@pytest.mark.slow
def test_a_wheel_in_a_fresh_environment_does_what_the_pages_show(home: Path, tmp_path: Path) -> None:
    """First the first run, in an empty folder; then the pages that go on from there, with its network as the user's."""
    folder = tmp_path / "empty"
    folder.mkdir()
    imported = _told("python -c 'import trtbench; print(trtbench.__file__)'", home, folder).strip()
    assert Path(imported).is_relative_to(home)

    told = _told("\n".join(_commands("first-run.md")), home, folder)

    assert told.startswith(f"trtbench {__version__}\n24 rows of quickstart")
    assert "\nShip " in told
    assert len(re.findall(r"^digit.png: \d 0\.\d+", told, re.MULTILINE)) == 2  # by trtbench, by the bundle alone
    shutil.rmtree(folder / "bundle")
    _photos(folder / "photos")
    for page in ("report.md", "ship.md", "troubleshooting.md", "calibration.md", "your-onnx.md"):
        if page == "troubleshooting.md":
            (dense,) = folder.glob("runs/.store/dense/*/model.safetensors")
            for mine, theirs in (("safetensors", dense), ("pth", dense), ("onnx", folder / "bundle" / "model.onnx")):
                shutil.copy(theirs, folder / f"mine.{mine}")
        for command in _commands(page):
            _told(command, home, folder)


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "code"), [("--version", 0), ("schema", 0), ("plan quickstart", 5)])
def test_a_system_without_flock_is_refused_in_a_line_by_what_needs_it(verb: str, code: int) -> None:
    start = "import sys; sys.modules.update(fcntl=None, resource=None); import trtbench.__main__ as it; it.main()"
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", start, *verb.split()], capture_output=True, text=True, check=False
    )

    assert found.returncode == code
    assert bool(found.stdout) == (code == 0)
    assert "Traceback" not in found.stderr
    assert len(found.stderr.splitlines()) == (code != 0)
