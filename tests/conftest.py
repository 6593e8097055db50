"""Fixtures every test may use: where real images and weights are, and what missing hardware means."""

from __future__ import annotations

import contextlib
import gc
import inspect
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import ModuleType

    from tests.command import Answer
    from trtbench.engines.sidecar import Sidecar

# The same examples each time; how long one takes says nothing on a shared machine.
hypothesis.settings.register_profile("whole", deadline=None, derandomize=True)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("whole"), max_examples=40)
_CORE = str(Path(__file__).parent / "doubles" / "core")  # `simulation` puts the doubles in place
sys.path.append(_CORE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), _CORE)))  # of worker processes
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read by ONNX Runtime when it is imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read by NumPy: processes of tests are as many as cores
# Doubles are imported anew in hundreds of tests, the package in each worker: they are compiled once.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

_REQUIRED = {"gpu": "TRTBENCH_REQUIRE_GPU", "tensorrt": "TRTBENCH_REQUIRE_TENSORRT", "rtx": "TRTBENCH_REQUIRE_RTX"}


_MAKING = {"files_of_at_most", "fed", "ray"}  # fixtures that patch or limit what makers do


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _has_tensorrt() -> bool:
    from trtbench._optional import is_installed

    return is_installed("tensorrt") and _has_cuda()


def _has_rtx() -> bool:
    from trtbench._optional import is_installed

    return is_installed("tensorrt_rtx_bindings")


_PRESENT = {"gpu": _has_cuda, "tensorrt": _has_tensorrt, "rtx": _has_rtx}


def _is_required(marker: str) -> bool:
    """Whether a test must not be skipped: the environment says so, and CI always has what needs no hardware."""
    is_ci = os.environ.get("CI", "").lower() in {"1", "true"} and marker == "rtx"
    return is_ci or os.environ.get(_REQUIRED[marker]) == "1"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a hardware test where the hardware is absent; fail it where the environment demands the hardware."""
    for marker, variable in _REQUIRED.items():
        if item.get_closest_marker(marker) is None or _PRESENT[marker]():
            continue
        if _is_required(marker):
            pytest.fail(f"{variable}=1 or CI, but {marker} is not available here", pytrace=False)
        pytest.skip(f"needs {marker}; set {variable}=1 to fail instead")


def pytest_configure(config: pytest.Config) -> None:
    """Try fewer examples of each property where slow tests are left out."""
    hypothesis.settings.load_profile("quick" if config.option.markexpr == "not slow" else "whole")


def pytest_collection_finish() -> None:
    """Spare the collector the million objects of imports and tests, which live as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Let tests run side by side: OpenMP threads that wait for a core another process holds take minutes."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_power_cut() -> Iterator[None]:
    """Write thousands of files without waiting for the disk: what a machine that loses power keeps, no test can see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


@pytest.fixture
def files_of_at_most() -> Callable[[int], AbstractContextManager[None]]:
    """Let the system refuse larger files, as it does where a disk is full or a quota is used up."""

    @contextlib.contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write PATH/train and PATH/test with three classes of noise around a colour of their own; return PATH."""
    import numpy as np
    from PIL import Image

    def write(*, train: int, test: int) -> Path:
        root = tmp_path_factory.mktemp("images")
        random = np.random.default_rng(0)
        for split, count in (("train", train), ("test", test)):
            for index, name in enumerate(("circle", "square", "star")):
                folder = root / split / name
                folder.mkdir(parents=True)
                for number in range(count):
                    pixels = random.integers(0, 100, (16, 16, 3), dtype=np.uint8)
                    pixels[..., index] += 120
                    Image.fromarray(pixels).save(folder / f"{number}.png")
        return root

    return write


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run `trtbench` with these words in this process; what it puts on the path of modules is taken off again."""
    from tests.command import Answer
    from trtbench.cli import main

    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["trtbench", *map(str, words)])
        code, path = 0, [*sys.path]
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        sys.path[:] = path
        told = capsys.readouterr()
        return Answer(code, told.out, told.err)

    return run


@pytest.fixture
def answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., Answer]) -> Callable[[str], Any]:
    """Run a command line that ends well, in a folder of its own, and return its JSON."""
    monkeypatch.chdir(tmp_path)

    def call(arguments: str) -> Any:
        told = command(*arguments.split(), "--json", "--quiet")
        assert not told.code, told.err
        return told.json

    return call


@pytest.fixture
def workers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers serve in this process."""
    from short_cuts import worker_here

    monkeypatch.setattr("trtbench.bench.processes.WorkerProcess", worker_here)
    monkeypatch.setattr("trtbench.bench.worker._pin", list)  # the cores asked for, and none taken from other tests


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the files of figures be blank."""
    from short_cuts import save_blank

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save_blank)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A `Store.make` that has everything made once in all the processes of these tests."""
    from short_cuts import making_once

    base = tmp_path_factory.getbasetemp()
    return making_once((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once")


@pytest.fixture
def in_short(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, made_once: Callable[..., Any]
) -> Iterator[None]:
    """Let workers serve and foreign graphs be read in this process, without figures, and copy what was made once.

    Tests that are marked `whole` have none of it, those that patch what makes, or watch it, make all themselves.
    """
    if request.node.get_closest_marker("whole"):
        yield
        return
    import torch
    from short_cuts import confined_here

    request.getfixturevalue("workers_here")
    monkeypatch.setattr("trtbench.graph.given.confined", confined_here)
    request.getfixturevalue("unpainted")
    if "monkeypatch" not in inspect.signature(request.function).parameters and not _MAKING & {*request.fixturenames}:
        monkeypatch.setattr("trtbench.store.Store.make", made_once)
    monkeypatch.setattr("trtbench.report.figures.draw_figures", lambda *_, **__: ())
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and weights, from $SHARED."""
    folder = Path(os.environ.get("SHARED", "../shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"SHARED={folder} holds no data; set SHARED to the folder of real images and weights")
    return folder


@pytest.fixture(scope="session")
def weights(shared: Path) -> Path:
    """The folder of other people's checkpoints."""
    return shared / "weights"


@pytest.fixture(scope="session")
def cifar10_lossless(shared: Path) -> Path:
    """Real CIFAR-10 images as PATH/train/CLASS and PATH/test/CLASS, unpacked once into the cache."""
    from trtbench.data.folder import unpacked

    return unpacked(shared / "data" / "cifar10-lossless.tar.xz")


@pytest.fixture
def sidecar() -> Callable[..., Sidecar]:
    """Make the sidecar of an engine of a tiny network; keywords replace its fields."""
    from tests.records import sidecar_of

    return sidecar_of


@pytest.fixture(params=["10.16", "11.4"])
def tensorrt_double(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The module `tensorrt`, simulated, once as 10.16 and once as 11.4; CuPy and PyCUDA are simulated beside it."""
    from simulation import simulated

    with simulated(request.param) as module:
        yield module


@pytest.fixture
def tensorrt_10_double() -> Iterator[ModuleType]:
    """The double of 10.16 alone: what 11 has not."""
    from simulation import simulated

    with simulated("10.16") as module:
        yield module


@pytest.fixture
def tensorrt_rtx_double() -> Iterator[ModuleType]:
    """The double of TensorRT for RTX 1.7, which has the GPU that the CUDA double has."""
    from simulation import simulated

    with simulated("rtx-1.7") as module:
        yield module


@pytest.fixture
def tensorrt_11_double() -> Iterator[ModuleType]:
    """The double of 11.4 alone."""
    from simulation import simulated

    with simulated("11.4") as module:
        yield module
