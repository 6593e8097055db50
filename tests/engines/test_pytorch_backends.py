"""PyTorch's rows: each precision computes what it says, and what this device lacks is refused with the cure."""

from __future__ import annotations

import contextlib
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from trtbench.engines import pytorch
from trtbench.engines.base import BuildRequest, backend
from trtbench.engines.pytorch import COMPILE, CUDAGRAPH, EAGER, AtPrecision, TorchBackend, TorchSession
from trtbench.errors import EngineError, UnsupportedError
from trtbench.models import build_model, save_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from trtbench.engines.base import Scope, Session
    from trtbench.engines.sidecar import Sidecar

_ROUNDOFF = {"fp16": 2.0**-11, "bf16": 2.0**-8}
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="the refusals of a machine without a GPU")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(0)
    made = build_model("resnet20", num_classes=4).eval()
    path = tmp_path_factory.mktemp("eager") / "model.safetensors"
    save_model(path, made, name="resnet20", num_classes=4, metadata={})
    return path, made


def _request(source: Path, tmp_path: Path, precision: str) -> BuildRequest:
    engine = tmp_path / "engine.safetensors"
    return BuildRequest(source=source, engine=engine, precision=precision, model="resnet20", num_classes=4)


def _run(session: Session, images: NDArray[np.float32]) -> NDArray[np.float32]:
    session.copy_in(images)
    session.enqueue()
    session.synchronize()
    return session.copy_out()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_rounds_the_logits_and_halves_the_weights(
    trained: tuple[Path, torch.nn.Module],
    tmp_path: Path,
    sidecar: Callable[..., Sidecar],
    images: NDArray[np.float32],
    precision: str,
) -> None:
    source, made = trained
    result = EAGER.build(_request(source, tmp_path, precision))

    engine = EAGER.open(tmp_path / "engine.safetensors", sidecar(precision=precision), {"threads": 1})
    session = engine.session(len(images))
    logits = _run(session, images)

    with torch.inference_mode():
        exact = made(torch.from_numpy(images)).numpy()
    error = np.abs(logits - exact).max() / np.abs(exact).max()
    assert _ROUNDOFF[precision] / 16 < error < 16 * _ROUNDOFF[precision]
    assert logits.dtype == np.float32
    assert session.describe().settings["memory_format"] == "channels_last"
    assert result.weight_bytes == sum(
        tensor.numel() * (2 if tensor.is_floating_point() else 8) for tensor in made.state_dict().values()
    )


def test_fp32_says_that_tf32_is_off(trained: tuple[Path, torch.nn.Module], sidecar: Callable[..., Sidecar]) -> None:
    found = EAGER.open(trained[0], sidecar(), {"threads": 1}).session(1).describe()

    assert found.settings == {"threads": 1, "tf32": False, "memory_format": "contiguous"}
    assert not torch.backends.cudnn.allow_tf32


@without_gpu
@pytest.mark.parametrize("name", ["eager", "compile"])
def test_tf32_on_the_cpu_is_refused(name: str, trained: tuple[Path, torch.nn.Module], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=f"'tf32' on {name}: expected a CUDA device, got the CPU"):
        backend(name).build(_request(trained[0], tmp_path, "tf32"))


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_what_a_gpu_before_ampere_only_imitates_is_refused(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))

    with pytest.raises(UnsupportedError, match=r"expected a GPU of SM 8\.0 or later, got SM 7\.x"):
        pytorch.require_device(precision, backend="eager")
    pytorch.require_device("fp16", backend="eager")


@without_gpu
def test_cuda_graphs_without_cuda_are_refused_with_the_cure(
    trained: tuple[Path, torch.nn.Module], tmp_path: Path, sidecar: Callable[..., Sidecar]
) -> None:
    with pytest.raises(UnsupportedError, match="eager-cudagraph: expected a CUDA device, got the CPU; use the backend"):
        CUDAGRAPH.build(_request(trained[0], tmp_path, "fp32"))
    with pytest.raises(UnsupportedError, match="eager-cudagraph"):
        CUDAGRAPH.open(trained[0], sidecar(), {})


@pytest.mark.parametrize("name", ["eager", "eager-cudagraph", "compile"])
def test_each_is_a_runtime_by_name(name: str) -> None:
    found = backend(name)

    assert found.precisions == ("fp32", "tf32", "fp16", "bf16")
    assert found.facts().usual_precisions == ("fp32",)
    assert found.suffix == ".safetensors"
    assert not found.is_simulated()
    assert not found.takes_options
    assert found.facts().machine == found.facts({"sparse": True}).machine == "any"
    assert found.facts().version == torch.__version__
    assert (found.facts().device == "cpu") == (not torch.cuda.is_available())


def _summed(network: torch.nn.Module, images: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: network(images).sum((1, 2, 3)).reshape(-1, 1)


@pytest.mark.parametrize("scope", ["device", "host-to-host"])
def test_every_launch_of_a_sample_is_made(scope: Scope) -> None:
    launches: list[int] = []

    def prepare(network: torch.nn.Module, images: torch.Tensor) -> Callable[[], torch.Tensor]:
        def launch() -> torch.Tensor:
            launches.append(1)
            return _summed(network, images)()

        return launch

    session = TorchSession(
        torch.nn.Identity(), shape=(2, 3, 4, 4), device=torch.device("cpu"), prepare=prepare, settings={}
    )
    durations = session.time(5, launches_per_sample=3, scope=scope)

    assert durations.dtype == np.int64
    assert (durations > 0).all()
    assert len(launches) == 5 * 3 + (scope == "host-to-host")  # one to learn the shape of the logits


def test_timing_host_to_host_leaves_the_images_where_they_are() -> None:
    images = np.random.default_rng(0).standard_normal((2, 3, 4, 4), dtype=np.float32)
    session = TorchSession(
        torch.nn.Identity(), shape=images.shape, device=torch.device("cpu"), prepare=_summed, settings={}
    )
    session.copy_in(images)
    session.time(3, launches_per_sample=1, scope="host-to-host")
    session.enqueue()

    np.testing.assert_allclose(session.copy_out()[:, 0], images.sum((1, 2, 3)), rtol=1e-5)
    session.close()
    session.enqueue()
    assert session.copy_out().size == 0


def test_a_network_that_does_not_compile_in_one_piece_is_an_engine_error() -> None:
    def broken(images: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return images

    whole = torch.compile(broken, fullgraph=True, backend="eager")

    with pytest.raises(EngineError, match=r"torch\.compile: expected one compiled graph, got .*; install a C\+\+"):
        pytorch._guarded(whole, torch.zeros(1))()


class _Tiny(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.fc = torch.nn.Linear(4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(torch.relu(self.conv(images)).mean((2, 3)))
        return logits


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Inductor's own, of Python's ast and of its subprocesses
@pytest.mark.filterwarnings("ignore:dynamo_pgo force disabled:UserWarning")  # told once a process: caches are off
def test_a_compiled_network_gives_the_logits_of_eager(
    tmp_path: Path, sidecar: Callable[..., Sidecar], images: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    tiny = _Tiny().eval()
    monkeypatch.setattr(pytorch, "load_model", lambda *_, **__: SimpleNamespace(model=tiny))

    engine = COMPILE.open(tmp_path, sidecar(backend="compile"), {"threads": 1})
    session = engine.session(len(images))
    logits = _run(session, images)

    with torch.inference_mode():
        np.testing.assert_allclose(logits, tiny(torch.from_numpy(images)).numpy(), atol=1e-5)
    assert session.describe().settings["compiler"] == "inductor"


_COMPILES = """
import torch
from trtbench.engines.pytorch import _compiled
with torch.inference_mode():
    images = torch.randn(1, 3, 8, 8)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
    torch.testing.assert_close(_compiled(network, images)(), network(images))
print(torch.__version__)
"""


def _versions_of_torch() -> list[str]:
    """Return the oldest PyTorch that the package allows, and the one that the container pins."""
    root = Path(__file__).parents[2]
    oldest = re.search(r'"torch>=([\d.]+)"', (root / "pyproject.toml").read_text(encoding="utf-8"))
    pinned = re.search(
        r"^torch==(\S+)", (root / "docker/constraints-cu12.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert oldest
    assert pinned
    return [f"{oldest[1]}.*", pinned[1]]


@pytest.mark.slow
@pytest.mark.parametrize("version", _versions_of_torch())
def test_compile_starts_on_the_oldest_pytorch_and_on_the_containers(version: str) -> None:
    root = Path(__file__).parents[2]
    run = ["uv", "run", "--no-project", "--isolated", "--with", f"torch=={version}", "--with", str(root)]

    found = subprocess.run([*run, "python", "-c", _COMPILES], capture_output=True, text=True, check=False)

    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(version.rstrip("*"))


def test_compile_without_a_compiler_is_refused_before_anything_is_built(
    trained: tuple[Path, torch.nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", "")

    with pytest.raises(UnsupportedError, match=r"compile: expected a C\+\+ compiler, got none on the PATH; install g"):
        COMPILE.build(_request(trained[0], tmp_path, "fp32"))
    assert EAGER.build(_request(trained[0], tmp_path, "fp32")).achieved == "fp32"


def test_compile_copies_the_checkpoint(trained: tuple[Path, torch.nn.Module], tmp_path: Path) -> None:
    result = COMPILE.build(_request(trained[0], tmp_path, "fp32"))

    assert (tmp_path / "engine.safetensors").read_bytes() == trained[0].read_bytes()
    assert result.achieved == "fp32"


class _Cuda:
    """The calls of torch.cuda that recording needs, in the only order that PyTorch takes them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, error: str = "") -> None:
        self.calls: list[str] = []
        self._error = error
        for name in ("Stream", "current_stream", "stream", "CUDAGraph", "graph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def Stream(self) -> SimpleNamespace:  # noqa: N802  PyTorch's name
        return SimpleNamespace(wait_stream=lambda other: self.calls.append(f"side waits for {other.name}"), name="side")

    def current_stream(self) -> SimpleNamespace:
        return SimpleNamespace(wait_stream=lambda other: self.calls.append(f"main waits for {other.name}"), name="main")

    @contextlib.contextmanager
    def stream(self, stream: SimpleNamespace) -> Iterator[None]:
        self.calls.append(f"on {stream.name}")
        yield

    def CUDAGraph(self) -> SimpleNamespace:  # noqa: N802  PyTorch's name
        return SimpleNamespace(replay=lambda: self.calls.append("replay"))

    @contextlib.contextmanager
    def graph(self, _: SimpleNamespace, *, capture_error_mode: str) -> Iterator[None]:
        self.calls.append(f"capture {capture_error_mode}")
        yield
        if self._error:
            raise RuntimeError(self._error)


def test_a_graph_is_recorded_after_a_warm_up_on_another_stream_and_then_replayed(
    monkeypatch: pytest.MonkeyPatch, sidecar: Callable[..., Sidecar], tmp_path: Path
) -> None:
    seam = _Cuda(monkeypatch)

    class Told(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seam.calls.append("run")
            return images.sum((1, 2, 3)).reshape(-1, 1)

    monkeypatch.setattr(pytorch, "load_model", lambda *_, **__: SimpleNamespace(model=Told()))
    monkeypatch.setattr(TorchBackend, "_require_cuda", lambda _: None)

    engine = CUDAGRAPH.open(tmp_path, sidecar(), {})
    session = engine.session(2)
    session.enqueue()

    assert session.describe().settings["cuda_graph"] is True
    warm_up = ["side waits for main", "on side", "run", "run", "run", "main waits for side"]
    assert seam.calls == [*warm_up, "capture thread_local", "run", "replay"]
    assert session.copy_out().shape == (2, 1)


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keep tensors on the CPU and write down what is asked of streams: `1+` entered, `1-` left, `1.` waited for."""
    calls: list[str] = []
    zeros = torch.zeros

    class Stream:
        made = 0

        def __init__(self, _device: torch.device) -> None:
            Stream.made += 1
            self.number = Stream.made

        def synchronize(self) -> None:
            calls.append(f"{self.number}.")

    @contextlib.contextmanager
    def entered(stream: Stream) -> Iterator[None]:
        calls.append(f"{stream.number}+")
        yield
        calls.append(f"{stream.number}-")

    monkeypatch.setattr(torch, "zeros", lambda *shape, **_: zeros(*shape))
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "GPU")
    monkeypatch.setattr(AtPrecision, "to", lambda self, _: self)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 70_000)
    return calls


def test_each_session_on_a_gpu_has_a_stream_of_its_own_and_waits_for_no_other(
    on_gpu: list[str], sidecar: Callable[..., Sidecar], trained: tuple[Path, torch.nn.Module]
) -> None:
    engine = EAGER.open(trained[0], sidecar(), {})
    one, other = engine.session(1), engine.session(1)
    on_gpu.clear()

    other.copy_in(np.zeros((1, 3, 8, 8), np.float32))
    other.enqueue()
    other.time(1, launches_per_sample=1, scope="device")
    other.synchronize()
    one.synchronize()

    assert on_gpu == ["2.", "2+", "2-", "2+", "2-", "2+", "2.", "2.", "2-", "2.", "1."]


@pytest.mark.parametrize(
    ("precision", "layout"), [("fp32", "contiguous"), ("tf32", "channels_last"), ("fp16", "channels_last")]
)
@pytest.mark.usefixtures("on_gpu")
def test_the_baseline_on_a_gpu_is_tuned_and_tells_its_memory(
    sidecar: Callable[..., Sidecar],
    trained: tuple[Path, torch.nn.Module],
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    layout: str,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    told = EAGER.open(trained[0], sidecar(precision=precision), {}).session(1).describe()

    assert torch.backends.cudnn.benchmark
    assert (told.settings["cudnn_benchmark"], told.settings["memory_format"]) == (True, layout)
    assert told.memory_bytes == 70_000


def test_what_breaks_a_capture_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _Cuda(monkeypatch, error="operation not permitted when stream is capturing")

    with pytest.raises(EngineError, match="capture of a CUDA graph: got operation not permitted"):
        pytorch._recorded(torch.nn.Identity(), torch.zeros(1))


def test_on_cuda_a_graph_is_built_from_the_checkpoint(
    trained: tuple[Path, torch.nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TorchBackend, "_require_cuda", lambda _: None)

    CUDAGRAPH.build(_request(trained[0], tmp_path, "fp32"))

    assert (tmp_path / "engine.safetensors").read_bytes() == trained[0].read_bytes()


def test_each_session_is_compiled_in_one_piece_for_its_own_shape(
    trained: tuple[Path, torch.nn.Module], sidecar: Callable[..., Sidecar], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def compile_(module: torch.nn.Module, **options: Any) -> torch.nn.Module:
        asked.append(options)
        return module

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(torch.compiler.config, "force_disable_caches", False)
    engine = COMPILE.open(trained[0], sidecar(), {"threads": 1})
    engine.session(1)
    logits = _run(engine.session(2), np.zeros((2, 3, 8, 8), np.float32))

    once = {"fullgraph": True, "dynamic": False, "backend": "inductor"}  # options: see the test in other environments
    assert asked == [once, once]
    assert torch.compiler.config.force_disable_caches
    assert logits.shape == (2, 4)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["eager", "eager-cudagraph"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16"])
def test_on_cuda_each_precision_is_near_the_exact_logits(  # noqa: PLR0917  pytest passes fixtures by name
    trained: tuple[Path, torch.nn.Module],
    tmp_path: Path,
    sidecar: Callable[..., Sidecar],
    images: NDArray[np.float32],
    name: str,
    precision: str,
) -> None:
    source, made = trained
    backend(name).build(_request(source, tmp_path, precision))
    engine = backend(name).open(tmp_path / "engine.safetensors", sidecar(precision=precision), {})
    session = engine.session(len(images))
    logits = [_run(session, batch) for batch in (images, images[::-1].copy())]

    with torch.inference_mode():
        exact = made(torch.from_numpy(images)).numpy()
    tolerance = {"fp32": 1e-5, "tf32": 16 * 2.0**-11}.get(precision) or 16 * _ROUNDOFF[precision]
    np.testing.assert_allclose(logits[0], exact, atol=tolerance * np.abs(exact).max())
    np.testing.assert_allclose(logits[1], exact[::-1], atol=tolerance * np.abs(exact).max())
    assert session.describe().settings["tf32"] == (precision == "tf32")
    assert (session.time(20, launches_per_sample=2, scope="host-to-host") > 0).all()
    session.close()


@pytest.mark.gpu
def test_a_network_that_waits_for_the_device_cannot_be_recorded() -> None:
    class Waiting(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images * images.sum().item()

    with pytest.raises(EngineError, match="capture of a CUDA graph"):
        pytorch._recorded(Waiting(), torch.zeros(1, device="cuda"))
