"""What the package asks of an installer, on each platform that it names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import warnings
from pathlib import Path

import onnx
import pytest
import torch
import yaml
from PIL import Image

from tests.calibration_cache import format_cache
from tests.test_pages import PAGES, blocks, shell_lines
from trtbench import __version__
from trtbench.engines.tensorrt.caches import CalibrationCache
from trtbench.graph.placement import activation_tensors, plan_qdq
from trtbench.steps import float_onnx, step
from trtbench.suite import adhoc_suite

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


# What no test runs of a page, by a pattern of the line, and why; all else is run as it stands.
_NOT_RUN = {
    r"^(pip|uv) ": "installs from a package index",
    r"^make engines": "sets itself up from a package index",
    r"^make docker|docker compose": "needs a Docker engine; `docker/check` builds the container without one",
    r"^tritonserver|/triton/client|--serve-check": "needs NVIDIA's Triton",
    r"ray:10\.0\.0\.1": "needs a cluster of several machines",
    r"\.to_pandas\(": "needs pandas, which nothing of the package brings",
}
# What is run and refused here, where the page's machine has what it takes, and the exit code of the refusal.
_REFUSED = {
    r"--require": 5,
    r"--device cuda:1": 5,
    r"^trtbench crosscheck": 5,
    r"--precision int8\+fp16": 3,
    r"--on ray$": 5,
}


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
    refusals = {code for pattern, code in _REFUSED.items() if re.search(pattern, script)}
    assert found.returncode in {0, *refusals}, f"{script}\n{found.stdout}\n{found.stderr}"
    return found.stdout


def _programs(page: Path) -> list[str]:
    """Return the blocks of Python of a page, or the cells of a notebook."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return [block for kind, block in blocks(text) if kind == "python"]
    return ["".join(cell["source"]) + "\n" for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]


_RUN = [
    page
    for page in (*PAGES, ROOT / "docs" / "python.ipynb")
    if _programs(page) or shell_lines(page.read_text(encoding="utf-8"))
]


def _is_run(line: str) -> bool:
    return not any(re.search(pattern, line) for pattern in _NOT_RUN)


def _follow(page: Path, home: Path, folder: Path) -> str:
    """Do what a page shows: write the files that it names, run its Python, then its commands; return what they told."""
    text = page.read_text(encoding="utf-8")
    for suite, name in re.findall(r"^```yaml\n(name: (\w+)\n.*?)^```$", text, re.MULTILINE | re.DOTALL):
        (folder / f"{name}.yaml").write_text(suite, encoding="utf-8")
    program = ""
    for block in _programs(page):
        if named := re.match(r"# (\w+\.py)", block):
            (folder / named[1]).write_text(block, encoding="utf-8")
        else:
            program += "".join(filter(_is_run, block.splitlines(keepends=True)))
    if program and page.name != "README.md":  # whose lines stand on python.md too
        (folder / "program.py").write_text(program, encoding="utf-8")
        _told("python program.py", home, folder)
    return "".join(_told(line, home, folder) for line in filter(_is_run, shell_lines(text)))


def _photos(folder: Path) -> None:
    """Write half of the digits as a folder of classes, 60 of each to calibrate on, and two pictures beside them."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number in range(0, len(digits.images), 2):
        place = folder / "photos" / ("train" if number % 5 else "test") / str(digits.target[number])
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((digits.images[number] * 15).astype("uint8")).convert("RGB")
        picture.save(place / f"{number}.png")
    for name in ("7.png", "photos/cat.png"):
        picture.save(folder / name)


class _Detector(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 8, stride=8)
        self.boxes, self.scores = torch.nn.Conv2d(8, 4, 1), torch.nn.Conv2d(8, 5, 1)

    def forward(self, photo: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = self.stem(photo).relu()
        return self.boxes(seen).flatten(2), self.scores(seen).amax((2, 3))


class _Ranker(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.see, self.taste = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Embedding(100, 8)
        self.rank = torch.nn.Linear(8, 1)

    def forward(self, photo: torch.Tensor, user: torch.Tensor) -> torch.Tensor:
        ranked: torch.Tensor = self.rank(self.see(photo).relu().mean((2, 3)) * self.taste(user))
        return ranked


def _write_graph(path: Path, network: torch.nn.Module, *outputs: str, **inputs: torch.Tensor) -> None:
    free = {name: {0: "n"} for name in inputs} if len(inputs) > 1 else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that exporter is the one that needs no onnxscript
        torch.onnx.export(
            network,
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=free,
            dynamo=False,
        )


_SUITE = """
name: suite
data: {source: "folder:photos", size: 32}
model: {name: resnet20, checkpoint: mine.pth}
variants: [{kind: dense, name: dense}]
engines: [{backend: onnxruntime-cpu}]
bench: {duration: 0.3, warm_up: 10, budget_s: 5}
decision: {max_drop_pp: 2.0}
"""


def _bring(folder: Path) -> None:
    """Put what the reader brings where the pages name it: the digits and their network, small ones of other kinds."""
    _photos(folder)
    (dense,) = folder.glob("runs/.store/dense/*/model.safetensors")
    for name in ("mine.safetensors", "mine.pth"):
        shutil.copy(dense, folder / name)
    (folder / "bundle" / "model.onnx").replace(folder / "mine.onnx")
    shutil.rmtree(folder / "bundle")
    (folder / "suite.yaml").write_text(_SUITE, encoding="utf-8")
    _write_graph(folder / "detector.onnx", _Detector(), "boxes", "scores", photo=torch.zeros(1, 3, 320, 320))
    photo, user = torch.zeros(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64)
    _write_graph(folder / "ranker.onnx", _Ranker(), "rank", photo=photo, user=user)
    exported = folder / "exported.onnx"
    step(adhoc_suite(model={"name": "resnet20", "checkpoint": folder / "mine.pth"}, data={}), float_onnx, exported)
    scales = dict.fromkeys(activation_tensors(plan_qdq(onnx.load(exported))), 0.05)
    cache = CalibrationCache(version="101601", algorithm="EntropyCalibration2", scales=scales)
    (folder / "calibration.cache").write_text(format_cache(cache), encoding="utf-8")
    for machine in ("A4", "L4"):
        shutil.copytree((folder / "runs" / "latest").resolve(), folder / "runs" / machine)
    of_runs = shutil.ignore_patterns(".store")
    shutil.copytree(folder / "runs", folder / "baseline" / "runs", symlinks=True, ignore=of_runs)
    shutil.copytree(folder / "engines", folder / "baseline" / "engines")
    store, shared = folder / "runs" / ".store", folder.with_name(f"{folder.name}-store")
    store.rename(shared)  # what one page trains need not be trained for the next
    store.symlink_to(shared)


@pytest.fixture(scope="module")
def first_run(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder where the first run was made, and where the reader's own files stand; and what the first run told."""
    folder = tmp_path_factory.mktemp("first")
    told = _follow(ROOT / "docs" / "first-run.md", home, folder)
    _bring(folder)
    return folder, told


@pytest.mark.slow
def test_a_wheel_in_a_fresh_environment_does_the_first_run(home: Path, first_run: tuple[Path, str]) -> None:
    folder, told = first_run

    imported = _told("python -c 'import trtbench; print(trtbench.__file__)'", home, folder).strip()
    assert Path(imported).is_relative_to(home)
    assert told.startswith(f"trtbench {__version__}\n24 rows of quickstart")
    assert "\nShip " in told
    assert len(re.findall(r"^digit.png: \d 0\.\d+", told, re.MULTILINE)) == 2  # by trtbench, by the bundle alone


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in _RUN if page.name != "first-run.md"], ids=lambda page: page.name)
def test_what_a_page_shows_runs(page: Path, home: Path, first_run: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "here"
    shutil.copytree(first_run[0], folder, symlinks=True)
    if "trtbench init" in page.read_text(encoding="utf-8"):
        (folder / "suite.yaml").unlink()

    _follow(page, home, folder)


def test_what_is_not_run_stands_on_a_page() -> None:
    shown = [line for page in PAGES for line in shell_lines(page.read_text(encoding="utf-8"))]
    shown += [line for page in _RUN for program in _programs(page) for line in program.splitlines()]

    for pattern in (*_NOT_RUN, *_REFUSED):
        assert any(re.search(pattern, line) for line in shown), f"no page has {pattern} any more"


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
