"""The doubles of CuPy and PyCUDA offer only what those have, run streams late, and refuse what CUDA refuses."""

from __future__ import annotations

import importlib
import inspect
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_API = Path(__file__).parents[1] / "doubles" / "api"
_CUPY = json.loads((_API / "cupy-14.2.json").read_text(encoding="utf-8"))
_PYCUDA = json.loads((_API / "pycuda-2026.1.json").read_text(encoding="utf-8"))
_SCALE = r"""
extern "C" __global__ void scale(const unsigned char* __restrict__ x, float* y, const int n, float factor) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;  // one thread a value
    if (i < n) y[i] = x[i] * factor;
}
"""


@pytest.fixture
def cupy(tensorrt_11_double: ModuleType) -> Any:
    assert tensorrt_11_double.IS_SIMULATED
    return importlib.import_module("cupy")


@pytest.fixture
def stream(cupy: Any) -> Iterator[Any]:
    with cupy.cuda.Stream(non_blocking=True) as made:
        yield made


def _public(module: Any) -> list[str]:
    listed = getattr(module, "__all__", None)
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "").startswith("cupy")]
    return list(listed) if listed is not None else [name for name in own if not name.startswith("_")]


@pytest.mark.parametrize("name", list(_CUPY["modules"]))
@pytest.mark.usefixtures("cupy")
def test_the_double_offers_no_name_that_cupy_lacks(name: str) -> None:
    module = importlib.import_module(name)

    assert set(_public(module)) <= set(_CUPY["modules"][name])
    for each, known in _CUPY["modules"][name].items():
        if isinstance(known, list):
            own = list(inspect.signature(getattr(module, each)).parameters)
            assert [part.rstrip("_") for part in own] == known[: len(own)], each
        if isinstance(known, int):
            assert getattr(module, each) == known


@pytest.mark.parametrize("name", list(_CUPY["classes"]))
def test_the_doubles_classes_have_no_member_that_cupys_lack(cupy: Any, name: str) -> None:
    kind = next(getattr(each, name) for each in (cupy, cupy.cuda) if hasattr(each, name))
    facts = _CUPY["classes"][name]

    assert {each for each in dir(kind) if not each.startswith("_")} <= set(facts["members"])
    for method, known in facts["parameters"].items():
        if method in vars(kind) and (own := list(inspect.signature(getattr(kind, method)).parameters)[1:]) != ["_"]:
            positional = [part.rstrip("_") for part in own]
            assert [part for part in known if part in positional] == positional, f"{name}.{method}"


@pytest.mark.usefixtures("cupy")
def test_the_double_of_pycuda_offers_no_name_that_pycuda_lacks() -> None:
    driver = importlib.import_module("pycuda.driver")
    own = {
        name: each
        for name, each in vars(driver).items()
        if not name.startswith("_") and getattr(each, "__module__", "") == "pycuda.driver"
    }

    assert set(own) == {*_PYCUDA["functions"], *_PYCUDA["classes"]}
    for name, known in _PYCUDA["functions"].items():
        assert list(inspect.signature(own[name]).parameters) == known
    for name, members in _PYCUDA["classes"].items():
        base = set(dir(Exception)) if issubclass(own[name], Exception) else set()
        assert {each for each in dir(own[name]) if not each.startswith("_")} - base <= set(members)


def test_a_copy_is_only_there_when_the_stream_was_waited_for(cupy: Any, stream: Any) -> None:
    pinned = np.frombuffer(cupy.cuda.alloc_pinned_memory(16), np.float32, 4)
    device = cupy.asarray(np.arange(4, dtype=np.float32))

    device.data.copy_to_host_async(pinned.ctypes.data, 16, stream)
    before = pinned.copy()
    stream.synchronize()

    assert not np.array_equal(before, pinned)
    assert np.array_equal(pinned, [0, 1, 2, 3])


def test_pageable_memory_is_read_at_once_and_waited_for_when_written(cupy: Any, stream: Any) -> None:
    runtime = cupy.cuda.runtime
    source, target = np.ones(4, np.float32), np.zeros(4, np.float32)
    device = cupy.cuda.alloc(16)

    runtime.memcpyAsync(device.ptr, source.ctypes.data, 16, runtime.memcpyHostToDevice, stream.ptr)
    source[:] = 7
    runtime.memcpyAsync(target.ctypes.data, device.ptr, 16, runtime.memcpyDeviceToHost, stream.ptr)

    assert np.array_equal(target, np.ones(4))


def test_streams_do_not_see_each_others_work_before_an_event(cupy: Any) -> None:
    first, second = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
    with first:
        values = cupy.zeros(4, np.float32)
    first.synchronize()
    with first:
        values.fill(3)
    early = values.get(stream=second)
    second.wait_event(first.record())

    assert early.tolist() == [0, 0, 0, 0]
    assert values.get(stream=second).tolist() == [3, 3, 3, 3]


def test_device_memory_is_aligned_and_freed_memory_is_illegal(cupy: Any, stream: Any) -> None:
    memory = cupy.cuda.alloc(10)
    address = memory.ptr
    free_before = cupy.cuda.runtime.memGetInfo()[0]
    del memory

    assert address % 256 == 0
    assert cupy.cuda.runtime.memGetInfo()[0] == free_before + 10
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorIllegalAddress"):
        cupy.cuda.runtime.memsetAsync(address, 0, 10, stream.ptr)


def test_a_copy_beyond_a_block_is_illegal(cupy: Any, stream: Any) -> None:
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="IllegalAddress"):
        cupy.cuda.alloc(256).copy_to_host_async(np.zeros(512, np.uint8).ctypes.data, 512, stream)


def test_a_full_device_is_cupys_out_of_memory_error(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError, match="Out of memory"):
        cupy.cuda.alloc(1 << 40)
    monkeypatch.setenv("TRTBENCH_DOUBLE_FAULT", "oom-alloc")
    with pytest.raises(MemoryError):
        cupy.cuda.alloc(1)


@pytest.mark.usefixtures("stream")
def test_a_kernels_text_runs_and_equals_numpy(cupy: Any) -> None:
    _needs_compiler()
    values = np.arange(1000, dtype=np.int64).astype(np.uint8)
    source, target = cupy.asarray(values), cupy.empty(1000, np.float32)

    cupy.RawKernel(_SCALE, "scale")((4,), (256,), (source, target, np.int32(1000), np.float32(1 / 255)))

    assert np.array_equal(target.get(), values * np.float32(1 / 255))


@pytest.mark.usefixtures("stream")
def test_an_argument_of_another_size_or_kind_is_refused(cupy: Any) -> None:
    _needs_compiler()
    kernel = cupy.RawModule(code=_SCALE).get_function("scale")
    source, target = cupy.zeros(4, np.uint8), cupy.empty(4, np.float32)

    for n, factor in ((4, np.float32(1)), (np.int32(4), 1.0), (np.int32(4), np.int32(1)), (source, np.float32(1))):
        with pytest.raises(TypeError, match=r"but .* was given"):
            kernel((1,), (4,), (source, target, n, factor))
    with pytest.raises(TypeError, match="takes 4 arguments, not 2"):
        kernel((1,), (4,), (source, target))


def test_a_kernel_that_does_not_compile_says_why(cupy: Any) -> None:
    _needs_compiler()
    with pytest.raises(cupy.cuda.compiler.CompileException, match="wrong_name"):
        cupy.RawKernel('extern "C" __global__ void f(int n) { wrong_name(n); }', "f").compile()
    with pytest.raises(cupy.cuda.compiler.CompileException, match="named symbol not found: g"):
        cupy.RawKernel('extern "C" __global__ void f(int n) {}', "g").compile()


def test_captured_work_runs_at_launch_and_not_before(cupy: Any, stream: Any) -> None:
    values = cupy.zeros(4, np.float32)
    stream.synchronize()

    stream.begin_capture(cupy.cuda.runtime.streamCaptureModeThreadLocal)
    values.fill(5)
    assert stream.is_capturing()
    graph = stream.end_capture()
    recorded = values.get()
    graph.launch(stream)

    assert recorded.tolist() == [0, 0, 0, 0]
    assert values.get().tolist() == [5, 5, 5, 5]


@pytest.mark.usefixtures("cupy")
def test_waiting_spoils_a_capture(stream: Any) -> None:
    stream.begin_capture()

    with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureUnsupported"):
        stream.synchronize()
    with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureInvalidated"):
        stream.end_capture()


def test_the_legacy_stream_cannot_be_captured(cupy: Any) -> None:
    with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureUnsupported"):
        cupy.cuda.Stream.null.begin_capture()


@pytest.mark.parametrize(("mode", "is_spoilt"), [("Global", True), ("ThreadLocal", False), ("Relaxed", False)])
def test_another_threads_allocation_spoils_a_global_capture_alone(
    cupy: Any, stream: Any, *, mode: str, is_spoilt: bool
) -> None:
    errors: list[Exception] = []

    def allocate() -> None:
        try:
            cupy.cuda.alloc(16)
        except RuntimeError as error:
            errors.append(error)

    stream.begin_capture(getattr(cupy.cuda.runtime, f"streamCaptureMode{mode}"))
    thread = threading.Thread(target=allocate)
    thread.start()
    thread.join()

    assert bool(errors) == is_spoilt
    if is_spoilt:
        with pytest.raises(RuntimeError, match="Invalidated"):
            stream.end_capture()
    else:
        stream.end_capture()


def test_an_allocation_of_the_capturing_thread_is_refused_unless_relaxed(cupy: Any, stream: Any) -> None:
    stream.begin_capture(cupy.cuda.runtime.streamCaptureModeThreadLocal)
    with pytest.raises(RuntimeError, match="operation not permitted when stream is capturing"):
        cupy.cuda.alloc(16)
    with pytest.raises(RuntimeError, match="Invalidated"):
        stream.end_capture()
    stream.begin_capture(cupy.cuda.runtime.streamCaptureModeRelaxed)
    cupy.cuda.alloc(16)
    stream.end_capture()


def test_a_graph_keeps_no_array_alive(cupy: Any, stream: Any) -> None:
    _needs_compiler()
    source, target = cupy.zeros(4, np.uint8), cupy.empty(4, np.float32)
    kernel = cupy.RawKernel(_SCALE, "scale")
    stream.synchronize()
    stream.begin_capture(cupy.cuda.runtime.streamCaptureModeThreadLocal)
    kernel((1,), (4,), (source, target, np.int32(4), np.float32(1)))
    graph = stream.end_capture()
    del target
    graph.launch(stream)

    with pytest.raises(RuntimeError, match="IllegalAddress"):
        stream.synchronize()


def test_events_time_what_lies_between_them_once_passed(cupy: Any, stream: Any) -> None:
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    with pytest.raises(RuntimeError, match="never recorded"):
        cupy.cuda.get_elapsed_time(start, end)
    start.record(stream)
    cupy.zeros(1 << 16, np.float32)
    end.record(stream)
    with pytest.raises(RuntimeError, match="cudaErrorNotReady"):
        cupy.cuda.get_elapsed_time(start, end)

    end.synchronize()

    assert cupy.cuda.get_elapsed_time(start, end) > 0


def test_an_array_is_not_read_on_the_host_by_accident(cupy: Any) -> None:
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(cupy.zeros(3))


@pytest.mark.usefixtures("stream")
def test_slices_share_memory_and_indices_gather(cupy: Any) -> None:
    values = cupy.asarray(np.arange(12, dtype=np.float32).reshape(3, 4))
    chosen = values[cupy.asarray(np.array([2, 0]))]
    values[1] = 9

    assert values[1:].data.ptr == values.data.ptr + 16
    assert values[1].get().tolist() == [9, 9, 9, 9]
    assert chosen.get().tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]]
    assert values[:, 1].get().tolist() == [1, 9, 9]
    assert values.reshape(-1)[3:5].get().tolist() == [3, 9]


def test_the_device_says_what_it_is(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    properties = cupy.cuda.runtime.getDeviceProperties(0)

    assert (properties["major"], properties["minor"], properties["name"]) == (8, 9, b"Simulated GPU")
    assert cupy.cuda.Device(0).compute_capability == "89"
    assert cupy.is_available()
    with pytest.raises(RuntimeError, match="no device 3"):
        cupy.cuda.Device(3).use()
    monkeypatch.setenv("TRTBENCH_DOUBLE_FAULT", "no-device")
    assert not cupy.is_available()


@pytest.mark.usefixtures("cupy")
def test_pycuda_works_with_the_primary_context_pushed_and_not_without() -> None:
    driver: Any = importlib.import_module("pycuda.driver")
    with pytest.raises(driver.LogicError, match="not initialized"):
        driver.Device(0)
    driver.init()
    context = driver.Device(0).retain_primary_context()
    with pytest.raises(driver.LogicError, match="no currently active context"):
        driver.mem_alloc(16)

    context.push()
    stream, memory = driver.Stream(), driver.mem_alloc(16)
    given, taken = driver.pagelocked_empty(4, np.float32), driver.pagelocked_empty((4,), np.float32)
    given[:] = 2
    driver.memcpy_htod_async(memory, given, stream)
    driver.memcpy_dtoh_async(taken, memory, stream)
    early = taken.copy()
    stream.synchronize()
    driver.Context.pop()

    assert not np.array_equal(early, given)
    assert np.array_equal(taken, given)


@pytest.mark.usefixtures("cupy")
def test_importing_pycudas_autoinit_raises() -> None:
    with pytest.raises(ImportError, match="retain the primary"):
        importlib.import_module("pycuda.autoinit")


@pytest.mark.usefixtures("stream")
def test_cupy_sees_what_pycuda_allocates(cupy: Any) -> None:
    driver: Any = importlib.import_module("pycuda.driver")
    driver.init()
    driver.Device(0).retain_primary_context().push()
    memory = driver.mem_alloc(16)
    driver.memcpy_htod(memory, np.full(4, 6, np.float32))
    seen = cupy.ndarray((4,), np.float32, cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(int(memory), 16, memory), 0))

    assert seen.get().tolist() == [6, 6, 6, 6]
    driver.Context.pop()


def _needs_compiler() -> None:
    kernels = importlib.import_module("simulated_cuda.kernels")
    if not kernels.has_compiler():
        pytest.skip("g++ is absent: kernels cannot be compiled for the CPU")
