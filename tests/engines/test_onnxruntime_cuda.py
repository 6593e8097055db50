"""ONNX Runtime on a GPU: refused with the reason where it cannot be, and all but the device proved on the CPU."""

from __future__ import annotations

import contextlib
import ctypes
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from trtbench.engines.base import BuildOptions, BuildRequest, backend
from trtbench.engines.onnxruntime import cuda, sessions, tensorrt_provider
from trtbench.engines.onnxruntime.cuda import ONNXRUNTIME_CUDA, DeviceEngine, gpu_machine, gpu_name
from trtbench.engines.onnxruntime.sessions import CPU, CUDA, TENSORRT, require_provider, session_options, start
from trtbench.engines.onnxruntime.tensorrt_provider import ONNXRUNTIME_TENSORRT
from trtbench.environment import Driver, Environment, Gpu, Package, collect_environment
from trtbench.errors import EngineError, ProviderError, UnsupportedError
from trtbench.graph.reference import onnxruntime, run_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.engines.base import Scope
    from trtbench.engines.cuda.device import Cuda
    from trtbench.engines.sidecar import Sidecar

_HAS_GPU = bool(collect_environment().usable_gpus)
without_gpu = pytest.mark.skipif(_HAS_GPU, reason="the refusals of a machine without a GPU")


def _request(source: Path, tmp_path: Path, precision: str, **changes: Any) -> BuildRequest:
    return BuildRequest(source=source, engine=tmp_path / "engine.onnx", precision=precision, num_classes=4, **changes)


@without_gpu
def test_asking_for_cuda_without_a_gpu_is_a_provider_error_with_the_cure(float_graph: Path, tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match=r"expected CUDAExecutionProvider, got lib\w+\.so.*`trtbench gpu-info`"):
        ONNXRUNTIME_CUDA.build(_request(float_graph, tmp_path, "fp32"))
    assert not (tmp_path / "engine.onnx").exists()


@without_gpu
def test_opening_on_cuda_without_a_gpu_is_a_provider_error_too(
    float_graph: Path, sidecar: Callable[..., Sidecar]
) -> None:
    with pytest.raises(ProviderError, match="CUDAExecutionProvider"):
        ONNXRUNTIME_CUDA.open(float_graph, sidecar(), {})


@without_gpu
def test_the_silent_fallback_of_a_session_is_an_error(float_graph: Path) -> None:
    ort = onnxruntime()
    options = session_options("ORT_ENABLE_ALL")

    with pytest.raises(ProviderError, match=r"float\.onnx: provider: expected CUDA\w+, got CPU\w+ for some"):
        start(ort, float_graph, options, providers={CUDA: {}})


@pytest.mark.parametrize("precision", ["int8", "int8+fp16"])
def test_int8_on_cuda_is_refused_because_it_would_be_float(float_graph: Path, tmp_path: Path, precision: str) -> None:
    with pytest.raises(UnsupportedError, match="computes Q/DQ nodes in float"):
        ONNXRUNTIME_CUDA.build(_request(float_graph, tmp_path, precision))


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_other_precisions_are_refused_by_name(float_graph: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"'bf16' on {name}"):
        backend(name).build(_request(float_graph, tmp_path, "bf16"))


@pytest.mark.parametrize(
    ("name", "precisions"), [("onnxruntime-cuda", ("fp32", "fp16")), ("onnxruntime-tensorrt", ("fp32", "fp16", "int8"))]
)
def test_both_are_runtimes_by_name(name: str, precisions: tuple[str, ...]) -> None:
    found = backend(name)

    assert found.facts().usual_precisions == found.precisions == precisions
    assert not found.is_simulated()
    assert found.facts().version.startswith(onnxruntime().__version__)
    assert found.facts().device
    assert found.facts().machine == found.facts({"hardware_compatible": True}).machine


def test_a_gpu_is_named_with_what_binds_an_engine_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    h100 = Gpu(index=0, uuid="GPU-1", name="NVIDIA H100", compute_capability=(9, 0))
    found = Environment(host=collect_environment().host, driver=Driver(version="580.1"), gpus=(h100,))
    monkeypatch.setattr(cuda, "collect_environment", lambda: found)
    assert gpu_name() == "NVIDIA H100"
    assert gpu_machine() == "NVIDIA H100, SM 9.0, driver 580.1"

    monkeypatch.setattr(cuda, "collect_environment", lambda: Environment(host=found.host))
    assert (gpu_name(), gpu_machine()) == ("cuda:0", "no GPU")


def _libraries(tmp_path: Path, *names: str) -> Any:
    """Return what looks like the module, with these provider libraries."""
    (tmp_path / "capi").mkdir()
    for name in names:
        (tmp_path / "capi" / f"libonnxruntime_providers_{name}.so").touch()
    return SimpleNamespace(__file__=str(tmp_path / "__init__.py"), preload_dlls=lambda: print("Failed to load"))  # noqa: T201  as it does


def test_the_libraries_of_a_provider_are_loaded_in_order_and_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded: list[tuple[str, int]] = []

    def load(path: str, *, mode: int) -> None:
        loaded.append((path.rpartition("_")[2], mode))

    require_provider(_libraries(tmp_path, "shared", "cuda"), CUDA, load=load)

    assert loaded == [("shared.so", ctypes.RTLD_GLOBAL), ("cuda.so", ctypes.RTLD_LOCAL)]
    assert capsys.readouterr().out == ""


def test_the_cpu_package_of_onnx_runtime_is_told_by_its_missing_libraries(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match=f"expected {TENSORRT}, got its package for the CPU"):
        require_provider(_libraries(tmp_path, "shared"), TENSORRT, load=lambda *_, **__: None)


class _HostMemory:
    def __init__(self, nbytes: int) -> None:
        self.array = np.zeros(nbytes, np.uint8)
        self.ptr, self.nbytes, self.is_free = self.array.ctypes.data, nbytes, False

    def free(self) -> None:
        self.is_free = True


class _HostCuda:
    """The seam to CUDA over host memory, so that ONNX Runtime's CPU provider can stand for the device."""

    index, package = 0, "host memory"

    def __init__(self, *, stream: int = 1) -> None:
        self.stream = stream
        self.waits = 0
        self.buffers: list[_HostMemory] = []

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        yield

    def beside(self) -> _HostCuda:
        return _HostCuda(stream=self.stream + 1)

    def allocate(self, nbytes: int) -> _HostMemory:
        self.buffers.append(_HostMemory(nbytes))
        return self.buffers[-1]

    def pinned(self, shape: tuple[int, ...], *, dtype: Any) -> NDArray[Any]:
        return np.full(shape, np.nan, dtype)

    def upload(self, buffer: _HostMemory, array: NDArray[Any]) -> Callable[[], object]:
        return lambda: np.copyto(buffer.array.view(array.dtype).reshape(array.shape), array)

    def download(self, array: NDArray[Any], buffer: _HostMemory) -> Callable[[], object]:
        return lambda: np.copyto(array, buffer.array.view(array.dtype).reshape(array.shape))

    def synchronize(self) -> None:
        self.waits += 1


@pytest.fixture
def on_host(float_graph: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[DeviceEngine, _HostCuda]:
    """An engine whose session runs on the CPU, with buffers of ours bound to it by address."""
    ort, seam = onnxruntime(), _HostCuda()

    def load(_: Cuda) -> Any:
        options = session_options("ORT_ENABLE_ALL")
        return start(ort, float_graph, options, providers={CPU: {}})

    made = cuda.DeviceSession
    monkeypatch.setattr(cuda, "DeviceSession", lambda *a, **k: made(*a, **k, memory="cpu"))
    host: Cuda = seam  # type: ignore[assignment]  # what a session needs of it
    return DeviceEngine(load, cuda=host, device="GPU", num_classes=4, settings={"tf32": False}), seam


def test_bound_buffers_carry_images_in_and_logits_out(
    on_host: tuple[DeviceEngine, _HostCuda], float_graph: Path, images: NDArray[np.float32]
) -> None:
    engine, seam = on_host
    session = engine.session(len(images))
    for batch in (images, images[::-1].copy()):
        session.copy_in(batch)
        session.enqueue()
        session.synchronize()
        expected = run_reference(onnx.load(float_graph), {"input": batch})["logits"]
        np.testing.assert_allclose(session.copy_out(), expected, atol=1e-5)
    session.close()

    assert all(buffer.is_free for buffer in seam.buffers)
    assert (engine.device, session.describe().settings) == ("GPU", {"tf32": False})


@pytest.mark.parametrize("scope", ["device", "host-to-host"])
def test_each_sample_ends_with_a_wait_for_the_device(on_host: tuple[DeviceEngine, _HostCuda], scope: Scope) -> None:
    engine, seam = on_host
    session = engine.session(2)
    before = seam.waits

    durations = session.time(5, launches_per_sample=3, scope=scope)

    assert durations.shape == (5,)
    assert (durations > 0).all()
    assert seam.waits - before == 1 + 5


def test_sessions_are_opened_on_streams_of_ours_each_its_own_and_closed_to_the_cpu(
    float_graph: Path, sidecar: Callable[..., Sidecar], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def opened(_: Any, source: Path, options: Any, *, providers: Any) -> Any:
        asked.append({"providers": providers, "source": source, "options": options})
        return SimpleNamespace(number=len(asked))

    given: list[dict[str, Any]] = []
    monkeypatch.setattr(cuda, "DeviceSession", lambda one, **more: given.append({"number": one.number, **more}))

    monkeypatch.setattr(cuda, "open_cuda", _HostCuda)
    monkeypatch.setattr(cuda, "start", opened)
    monkeypatch.setattr(cuda, "require_provider", lambda *_: None)

    engine = ONNXRUNTIME_CUDA.open(float_graph, sidecar(device="GPU", settings={"tf32": False}), {"threads": 1})

    assert asked[0]["providers"] == {CUDA: {"device_id": "0", "use_tf32": "0", "user_compute_stream": "1"}}
    assert asked[0]["source"] == float_graph
    assert engine.device == "GPU"
    engine.session(1)
    engine.session(1)
    assert given[0]["settings"] == {"threads": 1, "tf32": False}
    assert [one["number"] for one in given] == [1, 2]
    assert [one["cuda"].stream for one in given] == [1, 2]
    assert asked[1]["providers"][CUDA]["user_compute_stream"] == "2"


def test_a_cuda_engine_is_the_graph_itself(float_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(cuda, "require_provider", lambda *_: None)
    monkeypatch.setattr(cuda, "start", lambda *_, providers: asked.append(providers))

    result = ONNXRUNTIME_CUDA.build(_request(float_graph, tmp_path, "fp16"))

    assert (tmp_path / "engine.onnx").read_bytes() == float_graph.read_bytes()
    assert asked == [{CUDA: {"device_id": "0", "use_tf32": "0"}}]
    assert (result.achieved, dict(result.settings)) == ("fp16", {"tf32": False})
    assert result.weight_bytes == 4 * (8 * 3 * 9 + 8 + 4 * 8 + 4)


def _environment(*packages: Package) -> Environment:
    return Environment(host=collect_environment().host, packages=packages)


def test_tensorrt_11_is_refused_because_the_provider_links_10() -> None:
    eleven = Package(module="tensorrt", distribution="tensorrt-cu13", version="11.4.0.106")

    with pytest.raises(UnsupportedError, match=r"it links libnvinfer\.so\.10, got tensorrt-cu13 11\."):
        tensorrt_provider.refuse_tensorrt(_environment(eleven))


def test_a_missing_libnvinfer_is_refused_with_the_loaders_words(float_graph: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"expected libnvinfer\.so\.10, got libnvinfer\.so\.10: cannot open"):
        ONNXRUNTIME_TENSORRT.build(_request(float_graph, tmp_path, "int8"))


def test_the_libraries_of_tensorrts_wheel_are_loaded_for_the_provider_to_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt_libs").mkdir()
    (tmp_path / "tensorrt_libs" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    loaded: list[str] = []

    ten = Package(module="tensorrt", distribution="tensorrt-cu12", version="10.16.1.11")
    tensorrt_provider.refuse_tensorrt(_environment(ten), load=lambda path, mode: loaded.append(f"{path} {mode}"))

    names = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
    assert loaded == [f"{tmp_path}/tensorrt_libs/{name} {ctypes.RTLD_GLOBAL}" for name in names]


def test_what_a_suite_asks_for_becomes_the_providers_options(tmp_path: Path) -> None:
    asked = BuildOptions(batch_sizes=(8, 1), workspace_mib=64, optimization_level=5, sparse=True, timing_cache=tmp_path)

    found = tensorrt_provider.build_options(asked, precision="int8", image=("input", 3, 32, 32))

    assert found == {
        "device_id": "0",
        "trt_fp16_enable": "0",
        "trt_int8_enable": "1",
        "trt_builder_optimization_level": "5",
        "trt_sparsity_enable": "1",
        "trt_engine_hw_compatible": "0",
        "trt_profile_min_shapes": "input:1x3x32x32",
        "trt_profile_opt_shapes": "input:8x3x32x32",
        "trt_profile_max_shapes": "input:8x3x32x32",
        "trt_max_workspace_size": str(64 * 2**20),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(tmp_path),
    }
    plain = BuildOptions(profile=(1, 4, 16))
    shapes = tensorrt_provider.build_options(plain, precision="fp16", image=("x", 1, 2, 3))
    assert [shapes[f"trt_profile_{kind}_shapes"] for kind in ("min", "opt", "max")] == [
        "x:1x1x2x3",
        "x:4x1x2x3",
        "x:16x1x2x3",
    ]
    assert shapes["trt_fp16_enable"] == "1"
    assert not {"trt_max_workspace_size", "trt_timing_cache_enable"} & set(shapes)


def test_every_option_is_one_that_the_providers_library_knows() -> None:
    found = tensorrt_provider.build_options(
        BuildOptions(workspace_mib=1, timing_cache=None), precision="fp32", image=("x", 1, 2, 3)
    )
    capi = next(iter(onnxruntime().__path__))
    with open(f"{capi}/capi/libonnxruntime_providers_tensorrt.so", "rb") as file:  # noqa: PTH123  a path of a module
        library = file.read()
    # Names of more than 16 letters are cut into immediates by the compiler: their first 16 stand in the library.
    assert all(name[:16].encode() in library for name in found)


def _built_by_tensorrt(monkeypatch: pytest.MonkeyPatch, nodes: list[str]) -> None:
    """Let opening a session write a file of these operators, as the provider writes its plan."""

    def write(_: Any, __: Path, options: Any, *, providers: Any) -> None:
        assert list(providers) == [TENSORRT, CUDA]
        made = [onnx.helper.make_node(name, [], [f"y{index}"]) for index, name in enumerate(nodes)]
        target = options.get_session_config_entry("ep.context_file_path")
        assert options.get_session_config_entry("ep.context_embed_mode") == "1"
        if nodes:
            onnx.save(onnx.helper.make_model(onnx.helper.make_graph(made, "context", [], [])), target)

    monkeypatch.setattr(tensorrt_provider, "_ready", onnxruntime)
    monkeypatch.setattr(tensorrt_provider, "start", write)


@pytest.mark.parametrize(
    ("nodes", "achieved", "notes"),
    [
        (["EPContext"], "int8", ("one TensorRT profile for batches 1 to 4",)),
        (
            ["EPContext", "TopK"],
            "int8 in 1 TensorRT parts",
            (
                "one TensorRT profile for batches 1 to 4",
                "1 nodes run outside TensorRT, on CUDA",
                tensorrt_provider._WAITS,
            ),
        ),
    ],
)
def test_a_plan_is_kept_with_what_runs_outside_of_it(
    float_graph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    nodes: list[str],
    achieved: str,
    notes: tuple[str, ...],
) -> None:
    _built_by_tensorrt(monkeypatch, nodes)

    result = ONNXRUNTIME_TENSORRT.build(
        _request(float_graph, tmp_path, "int8", options=BuildOptions(batch_sizes=(1, 4)), input_shape=(3, 8, 8))
    )

    assert (result.achieved, result.notes) == (achieved, notes)
    assert result.facts["provider_options"]["trt_profile_max_shapes"] == "input:4x3x8x8"
    assert result.weight_bytes == 4 * (8 * 3 * 9 + 8 + 4 * 8 + 4)
    assert (tmp_path / "engine.onnx").is_file()


@pytest.mark.parametrize(
    ("sm", "override", "achieved"),
    [((8, 9), "", "fp32, TF32 allowed"), ((8, 9), "0", "fp32"), ((7, 5), "", "fp32")],
)
def test_fp32_by_the_tensorrt_provider_says_where_it_may_be_tf32(
    float_graph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    sm: tuple[int, int],
    override: str,
    achieved: str,
) -> None:
    gpu = Gpu(index=0, uuid="GPU-1", name="GPU", compute_capability=sm)
    found = Environment(host=collect_environment().host, gpus=(gpu,))
    monkeypatch.setattr(tensorrt_provider, "collect_environment", lambda: found)
    plain = ONNXRUNTIME_TENSORRT.facts().version
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    _built_by_tensorrt(monkeypatch, ["EPContext"])

    result = ONNXRUNTIME_TENSORRT.build(_request(float_graph, tmp_path, "fp32"))

    assert (result.achieved, result.settings["tf32"]) == (achieved, achieved != "fp32")
    assert bool(result.notes) == (achieved != "fp32")
    assert (ONNXRUNTIME_TENSORRT.facts().version == plain) == (
        override != "0"
    )  # else the engine would not be built again


def test_a_build_without_a_plan_is_an_error(float_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _built_by_tensorrt(monkeypatch, [])

    with pytest.raises(EngineError, match="got no plan"):
        ONNXRUNTIME_TENSORRT.build(_request(float_graph, tmp_path, "fp32"))


def test_a_plan_is_opened_by_tensorrt_and_cuda_on_our_stream(
    float_graph: Path, sidecar: Callable[..., Sidecar], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(tensorrt_provider, "refuse_tensorrt", lambda _: None)
    monkeypatch.setattr(tensorrt_provider, "require_provider", lambda *_: None)
    monkeypatch.setattr(cuda, "open_cuda", _HostCuda)
    monkeypatch.setattr(cuda, "start", lambda *_, providers: asked.update(providers))

    ONNXRUNTIME_TENSORRT.open(float_graph, sidecar(), {})

    assert list(asked) == [TENSORRT, CUDA]
    assert {one["user_compute_stream"] for one in asked.values()} == {"1"}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_cuda_engine_gives_the_graphs_logits(
    float_graph: Path, tmp_path: Path, sidecar: Callable[..., Sidecar], images: NDArray[np.float32], precision: str
) -> None:
    from trtbench.graph.half import to_half

    source = tmp_path / "source.onnx"
    proto = onnx.load(float_graph)
    onnx.save(proto if precision == "fp32" else to_half(proto, dtype="fp16").proto, source)
    ONNXRUNTIME_CUDA.build(_request(source, tmp_path, precision))
    session = ONNXRUNTIME_CUDA.open(tmp_path / "engine.onnx", sidecar(), {}).session(len(images))
    session.copy_in(images)
    session.enqueue()
    expected = run_reference(proto, {"input": images})["logits"]

    tolerance = 1e-4 if precision == "fp32" else 4e-3
    np.testing.assert_allclose(session.copy_out(), expected, atol=tolerance * np.abs(expected).max())
    assert (session.time(10, launches_per_sample=2, scope="host-to-host") > 0).all()


def test_the_seam_has_a_name_for_each_provider() -> None:
    assert set(sessions._LIBRARIES) == {CUDA, TENSORRT}
