"""The seam to CUDA does the same by CuPy and by PyCUDA, on one stream of ours and the primary context."""

from __future__ import annotations

import sys
import threading
import types
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trtbench.errors import DeviceError, OutOfMemoryError, UnsupportedError

if TYPE_CHECKING:
    from types import ModuleType

    from trtbench.engines.cuda.device import Cuda

pytestmark = pytest.mark.usefixtures("tensorrt_10_double")
_BYTES = np.arange(1000, dtype=np.uint8)


def _open(monkeypatch: pytest.MonkeyPatch, package: str) -> Cuda:
    from trtbench.engines.cuda import open_cuda

    if package == "pycuda":
        monkeypatch.setitem(sys.modules, "cupy", None)
    return open_cuda()


@pytest.fixture(params=["cupy", "pycuda"])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return _open(monkeypatch, request.param)


@pytest.fixture
def by_cupy(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return _open(monkeypatch, "cupy")


@pytest.fixture
def by_pycuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    return _open(monkeypatch, "pycuda")


def test_cupy_is_taken_where_it_is_and_pycuda_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _open(monkeypatch, "cupy").package == "cupy 14.2.0"
    assert _open(monkeypatch, "pycuda").package == "pycuda 2026.1"


def test_without_either_the_reason_of_each_and_the_cure_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)

    with pytest.raises(DeviceError) as raised:
        _open(monkeypatch, "pycuda")

    assert "package 'cupy'" in str(raised.value)
    assert "package 'pycuda.driver'" in str(raised.value)
    assert "trtbench gpu-info" in raised.value.cure


def test_a_driver_without_a_device_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTBENCH_DOUBLE_FAULT", "no-device")

    with pytest.raises(DeviceError) as raised:
        _open(monkeypatch, "cupy")

    assert "cupy 14.2.0: 0 devices" in str(raised.value)
    assert "pycuda: " in str(raised.value)


def test_cupy_13_raises_what_14_answers_where_the_driver_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    def insufficient() -> bool:
        raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    old = types.SimpleNamespace(__version__="13.6.0", cuda=types.SimpleNamespace(is_available=insufficient))
    monkeypatch.setitem(sys.modules, "cupy", old)
    from trtbench.engines.cuda.cupy import open_cupy

    with pytest.raises(DeviceError, match=r"cupy 13\.6\.0: expected a driver that fits it, got cudaErrorInsufficient"):
        open_cupy(0)


@pytest.mark.parametrize("package", ["cupy", "pycuda"])
@pytest.mark.parametrize("index", [1, -1])
def test_a_device_that_is_not_there_is_refused(package: str, index: int) -> None:
    from trtbench.engines.cuda.cupy import open_cupy
    from trtbench.engines.cuda.pycuda import open_pycuda

    opened = {"cupy": open_cupy, "pycuda": open_pycuda}[package]

    with pytest.raises(DeviceError, match=f"expected device {index}, got 1 devices"):
        opened(index)


def test_pycuda_works_in_the_primary_context_and_leaves_none_current(by_pycuda: Cuda) -> None:
    from pycuda import driver

    primary = driver.Device(0).retain_primary_context()
    with by_pycuda.current():
        assert driver.Context.get_current() is primary
    assert driver.Context.get_current() is None

    by_pycuda.device()
    by_pycuda.memory()
    by_pycuda.close()

    assert driver.Context.get_current() is None
    assert "pycuda.autoinit" not in sys.modules


def test_an_error_inside_leaves_no_context_current_either(by_pycuda: Cuda) -> None:
    from pycuda import driver

    with pytest.raises(OutOfMemoryError), by_pycuda.current():
        by_pycuda.allocate(1 << 40)

    assert driver.Context.get_current() is None


def test_the_stream_is_not_the_default_one(cuda: Cuda) -> None:
    assert cuda.stream != 0


def test_bytes_go_to_the_device_and_back_in_the_order_of_the_stream(cuda: Cuda) -> None:
    with cuda.current():
        source, target = (cuda.pinned((10, 100), dtype=np.uint8) for _ in range(2))
        buffer = cuda.allocate(source.nbytes)
        assert buffer.ptr % 256 == 0
        assert buffer.nbytes == 1000
        source[...] = _BYTES.reshape(10, 100)
        target.fill(0)

        cuda.upload(buffer, source)()
        cuda.download(target, buffer)()
        assert not target.any()  # both only wait in the stream
        cuda.synchronize()

        np.testing.assert_array_equal(target.ravel(), _BYTES)


def test_memory_that_is_freed_is_free_again(cuda: Cuda) -> None:
    before = cuda.memory()
    with cuda.current():
        buffer = cuda.allocate(1 << 20)
        assert cuda.memory() == (before[0] - (1 << 20), before[1])
        buffer.free()
        buffer.free()
        cuda.trim()
    assert cuda.memory() == before


def test_a_full_device_is_an_error_of_its_own(cuda: Cuda) -> None:
    with pytest.raises(OutOfMemoryError, match="CUDA device 0"), cuda.current():
        cuda.allocate(1 << 40)


@pytest.mark.parametrize(
    ("words", "kind"),
    [("cudaErrorMemoryAllocation: out of memory", OutOfMemoryError), ("cudaErrorIllegalAddress", DeviceError)],
)
def test_errors_of_the_cuda_runtime_are_told_apart(by_cupy: Cuda, words: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=words), by_cupy.current():
        raise RuntimeError(words)


def test_errors_of_the_driver_api_are_ours(by_pycuda: Cuda) -> None:
    with pytest.raises(DeviceError, match="never recorded"), by_pycuda.current():
        by_pycuda.event().ns_since(by_pycuda.event())


def test_an_allocator_that_does_not_align_is_refused(by_cupy: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    import cupy

    alloc = cupy.cuda.alloc
    monkeypatch.setattr(cupy.cuda, "alloc", lambda size: alloc(size + 8) + 8)

    with pytest.raises(DeviceError, match="aligned to 256 bytes"), by_cupy.current():
        by_cupy.allocate(16)


def test_events_tell_the_nanoseconds_between_them(cuda: Cuda) -> None:
    with cuda.current():
        buffer, array = cuda.allocate(1 << 20), cuda.pinned((1 << 20,), dtype=np.uint8)
        begin, middle, end = (cuda.event() for _ in range(3))
        begin.record()
        cuda.upload(buffer, array)()
        middle.record()
        for _ in range(50):
            cuda.upload(buffer, array)()
        end.record()
        cuda.synchronize()

        assert 0 < middle.ns_since(begin) < end.ns_since(middle)
        assert end.ns_since(begin) == pytest.approx(middle.ns_since(begin) + end.ns_since(middle), abs=2)


def test_a_captured_launch_runs_when_it_is_launched_and_as_often(by_cupy: Cuda) -> None:
    with by_cupy.current():
        source, target = (by_cupy.pinned((8,), dtype=np.uint8) for _ in range(2))
        buffer = by_cupy.allocate(8)
        upload, download = by_cupy.upload(buffer, source), by_cupy.download(target, buffer)
        source[...], target[...] = 1, 0

        replay = by_cupy.capture(lambda: (upload(), download()))
        by_cupy.synchronize()
        assert not target.any()

        for value in (3, 4):
            source[...] = value
            replay()
            by_cupy.synchronize()
            assert (target == value).all()


def test_other_threads_allocate_while_a_capture_is_under_way(by_cupy: Cuda) -> None:
    # In the global mode CUDA would refuse them and spoil the capture.
    problems: list[Exception] = []

    def allocate() -> None:
        try:
            with by_cupy.current():
                by_cupy.allocate(16)
        except DeviceError as error:
            problems.append(error)

    def launch() -> None:
        other = threading.Thread(target=allocate)
        other.start()
        other.join()

    with by_cupy.current():
        by_cupy.capture(launch)

    assert problems == []


def test_a_capture_refuses_what_is_unsafe_in_this_thread_and_the_stream_works_on(by_cupy: Cuda) -> None:
    # In CuPy's default mode, relaxed, the allocation would pass unseen and the graph would miss it.
    with by_cupy.current():
        with pytest.raises(DeviceError, match="cudaErrorStreamCaptureUnsupported"):
            by_cupy.capture(lambda: by_cupy.allocate(16))

        with pytest.raises(OutOfMemoryError, match="CUDA graph"):
            by_cupy.capture(lambda: (_ for _ in ()).throw(MemoryError("full")))

        by_cupy.synchronize()
        by_cupy.capture(lambda: None)()


def test_pycuda_captures_nothing_and_compiles_nothing_and_says_so(by_pycuda: Cuda) -> None:
    with pytest.raises(UnsupportedError, match="CUDA graphs by PyCUDA: expected CuPy"):
        by_pycuda.capture(lambda: None)

    assert by_pycuda.kernel("", name="none") is None


def test_a_kernel_runs_with_buffers_and_integers(by_cupy: Cuda) -> None:
    signature = 'extern "C" __global__ void put(long long* out, const long long n)'
    source = signature + "{ if (threadIdx.x < n) out[threadIdx.x] = n; }"
    with by_cupy.current():
        buffer, host = by_cupy.allocate(64), by_cupy.pinned((8,), dtype=np.int64)
        host.fill(0)
        by_cupy.upload(buffer, host)()
        kernel = by_cupy.kernel(source, name="put")
        assert kernel is not None
        kernel(1, 32, (buffer, 5))
        by_cupy.download(host, buffer)()
        by_cupy.synchronize()

    assert host.tolist() == [5, 5, 5, 5, 5, 0, 0, 0]


def test_a_kernel_that_does_not_compile_is_told_with_the_compilers_words(by_cupy: Cuda) -> None:
    with (
        pytest.raises(DeviceError, match=r"kernel f: expected NVRTC to compile it.*'cupy-cuda12x\[ctk\]'"),
        by_cupy.current(),
    ):
        by_cupy.kernel('extern "C" __global__ void f(int n) { nonsense; }', name="f")


def test_the_device_is_described(cuda: Cuda) -> None:
    found = cuda.device()

    assert (found.name, found.compute_capability, found.runtime) == ("Simulated GPU", (8, 9), "12.9")
    free, total = cuda.memory()
    assert 0 < free <= total == 8 << 30


def test_the_uuid_of_cupy_stands_where_libcuda_does_not_tell(by_cupy: Cuda, by_pycuda: Cuda) -> None:
    assert by_cupy.device().uuid == "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert by_pycuda.device().uuid == ""


def _libcuda(answer: int) -> Any:
    def fill(raw: Any, _: object) -> int:
        raw[:] = range(15, -1, -1)
        return answer

    return types.SimpleNamespace(cuDeviceGet=lambda _handle, _index: 0, cuDeviceGetUuid_v2=fill)


@pytest.mark.parametrize(
    ("name", "prefix"), [("NVIDIA H200", "GPU"), ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "MIG"), ("MIGHTY", "GPU")]
)
def test_the_uuid_of_libcuda_is_written_as_nvidia_smi_does(name: str, prefix: str) -> None:
    from trtbench.engines.cuda.device import device_uuid

    found = device_uuid(0, name=name, known=b"x" * 16, load=lambda _: _libcuda(0))

    assert found == f"{prefix}-0f0e0d0c-0b0a-0908-0706-050403020100"


def _absent(_: str) -> Any:
    raise OSError("libcuda.so.1: cannot open shared object file")


@pytest.mark.parametrize("load", [_absent, lambda _: types.SimpleNamespace(), lambda _: _libcuda(1)])
def test_a_uuid_that_nobody_tells_or_that_is_cut_short_is_empty(load: Any) -> None:
    from trtbench.engines.cuda.device import device_uuid

    assert device_uuid(0, name="x", known=b"cut at a zero", load=load) == ""
    assert device_uuid(0, name="x", known=bytes(range(16)), load=load) == "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"


def test_the_driver_is_named_by_its_version_or_else_by_its_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    from trtbench.engines.cuda import device as seam

    monkeypatch.setattr(seam, "find_driver_version", lambda: "580.65.06")
    assert seam.driver_version(13000) == "580.65.06"
    monkeypatch.setattr(seam, "find_driver_version", lambda: None)
    assert seam.driver_version(12080) == "CUDA 12.8"


def test_another_thread_works_with_the_device_too(cuda: Cuda) -> None:
    found: list[int] = []

    def work() -> None:
        with cuda.current():
            array, buffer = cuda.pinned((4,), dtype=np.uint8), cuda.allocate(4)
            cuda.upload(buffer, array)()
            cuda.synchronize()
            found.append(buffer.nbytes)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert found == [4]


def test_closing_waits_for_the_stream(cuda: Cuda) -> None:
    with cuda.current():
        source, target = (cuda.pinned((4,), dtype=np.uint8) for _ in range(2))
        buffer = cuda.allocate(4)
        source[...], target[...] = 7, 0
        cuda.upload(buffer, source)()
        cuda.download(target, buffer)()

    cuda.close()

    assert (target == 7).all()


def test_the_package_imports_neither_cupy_nor_pycuda_by_itself(tensorrt_10_double: ModuleType) -> None:
    import trtbench.engines.cuda.cupy
    import trtbench.engines.cuda.pycuda  # noqa: F401  what importing it loads is the test

    assert tensorrt_10_double.__version__.startswith("10.")
    assert "cupy" not in sys.modules
    assert "pycuda" not in sys.modules
