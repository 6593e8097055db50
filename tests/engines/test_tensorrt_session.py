"""A TensorRT engine runs on one stream, by CUDA graph, in memory that fits, and is timed as it says."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from trtbench.bench.worker import Worker, _noise
from trtbench.errors import DeviceError, EngineError, OutOfMemoryError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

    from trtbench.engines.sidecar import Sidecar
    from trtbench.engines.tensorrt.session import TensorrtEngine, TensorrtSession

    Open = Callable[..., TensorrtEngine]

_WEIGHT_BYTES = 1000
_PLANS: dict[object, bytes] = {}  # what was built already: a build takes longer than most tests


@pytest.fixture
def opened(
    tensorrt_double: ModuleType,
    float_graph: Path,
    sidecar: Callable[..., Sidecar],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Open]:
    """Build an engine of the tiny network, or of another graph, and open it; keywords are the build's options."""
    engines: list[TensorrtEngine] = []

    def make(
        graph: Path | None = None,
        *,
        package: str = "cupy",
        settings: dict[str, Any] | None = None,
        num_classes: int = 4,
        batch_sizes: tuple[int, ...] = (1, 2, 6),
        **options: Any,
    ) -> TensorrtEngine:
        from trtbench.engines.base import BuildOptions, BuildRequest
        from trtbench.engines.tensorrt.backend import TensorRtBackend

        assert tensorrt_double.__version__
        backend = TensorRtBackend()
        if package == "pycuda":
            monkeypatch.setitem(sys.modules, "cupy", None)
        request = BuildRequest(
            source=graph or float_graph,
            engine=tmp_path / "e.plan",
            precision="fp32",
            num_classes=4,
            input_shape=(3, 8, 8),
            options=BuildOptions(batch_sizes=batch_sizes, **options),
        )
        key = (tensorrt_double.__version__, request.source.read_bytes(), repr(request.options))
        if key not in _PLANS:
            backend.build(request)
            _PLANS[key] = request.engine.read_bytes()
        request.engine.write_bytes(_PLANS[key])
        made = sidecar(
            backend_version=tensorrt_double.__version__,
            device="Simulated GPU",
            weight_bytes=_WEIGHT_BYTES,
            num_classes=num_classes,
        )
        engines.append(backend.open(request.engine, made, settings or {}))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()  # what is queued when its memory goes would be an illegal access


@pytest.fixture
def reference(float_graph: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """What ONNX Runtime says of all six images."""
    session = ort.InferenceSession(str(float_graph), providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(None, {"input": images})[0]
    return logits


def _logits(session: TensorrtSession, images: NDArray[np.float32]) -> NDArray[np.float32]:
    session.copy_in(images)
    session.enqueue()
    session.synchronize()
    return session.copy_out()


@pytest.mark.parametrize("package", ["cupy", "pycuda"])
@pytest.mark.parametrize("batch", [1, 2, 6])
def test_logits_are_those_of_onnx_runtime_at_the_first_inference_and_after(
    opened: Open, images: NDArray[np.float32], reference: NDArray[np.float32], package: str, batch: int
) -> None:
    session = opened(package=package).session(batch)

    for start in (0, 6 - batch, 0):
        found = _logits(session, images[start : start + batch])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, reference[start : start + batch], rtol=1e-5, atol=1e-5)


def test_logits_are_the_callers_own(opened: Open, images: NDArray[np.float32]) -> None:
    session = opened().session(1)
    first = _logits(session, images[:1])
    kept = first.copy()

    _logits(session, images[1:2])

    np.testing.assert_array_equal(first, kept)


def test_images_are_not_replaced_while_their_copy_is_under_way(
    opened: Open, images: NDArray[np.float32], reference: NDArray[np.float32]
) -> None:
    session = opened().session(1)
    session.copy_in(images[:1])
    session.enqueue()

    session.copy_in(images[1:2])

    np.testing.assert_allclose(session.copy_out(), reference[:1], rtol=1e-5, atol=1e-5)


# -- profiles


def test_each_batch_size_runs_at_its_own_profile(opened: Open) -> None:
    engine = opened()

    profiles = [engine.session(batch)._context.handle.active_optimization_profile for batch in (6, 1, 2)]  # type: ignore[union-attr]

    assert profiles == [2, 0, 1]


def test_a_batch_size_without_a_profile_is_unsupported_and_the_known_ones_are_told(opened: Open) -> None:
    with pytest.raises(UnsupportedError) as raised:
        opened().session(3)

    assert "expected (1, 3, 8, 8) or (2, 3, 8, 8) or (6, 3, 8, 8), got (3, 3, 8, 8)" in str(raised.value)
    assert "build with 3 among the batch sizes" in raised.value.cure


def test_one_dynamic_profile_takes_each_batch_it_spans(
    opened: Open, images: NDArray[np.float32], reference: NDArray[np.float32]
) -> None:
    engine = opened(profile=(1, 4, 6))

    for batch in (1, 5):
        found = _logits(engine.session(batch), images[:batch])
        np.testing.assert_allclose(found, reference[:batch], rtol=1e-5, atol=1e-5)
    with pytest.raises(UnsupportedError, match=r"\(1, 3, 8, 8\) to \(6, 3, 8, 8\)"):
        engine.session(7)


class _Profiles:
    """An engine of profiles alone."""

    def __init__(self, *profiles: tuple[int, int, int]) -> None:
        self._profiles = profiles
        self.num_optimization_profiles = len(profiles)

    def get_tensor_shape(self, _: str) -> tuple[int, ...]:
        return (-1, 3)

    def get_tensor_profile_shape(self, _: str, index: int) -> list[tuple[int, int]]:
        return [(batch, 3) for batch in self._profiles[index]]


@pytest.mark.usefixtures("tensorrt_10_double")
@pytest.mark.parametrize(("batch", "profile"), [(1, 0), (8, 0), (10, 1), (23, 1), (30, 2), (64, 2)])
def test_the_profile_tuned_for_the_nearest_batch_is_taken(batch: int, profile: int) -> None:
    from trtbench.engines.tensorrt.tensors import choose_profile

    engine: Any = _Profiles((1, 2, 32), (1, 16, 32), (24, 32, 64))

    assert choose_profile(engine, "input", shape=(batch, 3)) == profile


@pytest.fixture
def fixed_graph(float_graph: Path) -> Path:
    proto = onnx.load(float_graph)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    path = float_graph.with_name("fixed.onnx")
    onnx.save(proto, path)
    return path


def test_an_engine_of_one_fixed_shape_takes_that_alone(
    opened: Open, fixed_graph: Path, images: NDArray[np.float32], reference: NDArray[np.float32]
) -> None:
    engine = opened(fixed_graph, batch_sizes=(2,))

    np.testing.assert_allclose(_logits(engine.session(2), images[:2]), reference[:2], rtol=1e-5, atol=1e-5)
    with pytest.raises(UnsupportedError, match=r"expected \(2, 3, 8, 8\), got \(1, 3, 8, 8\)"):
        engine.session(1)


# -- CUDA graphs


def _counted(session: TensorrtSession) -> list[str]:
    """Note each plain inference and each launch of a graph from now on."""
    done: list[str] = []
    plain, capture = session._plain, session._cuda.capture

    def run() -> None:
        done.append("plain")
        plain()

    def captured(launch: Any) -> Any:
        replay = capture(launch)
        done.append("captured")

        def launch_graph() -> None:
            done.append("graph")
            replay()

        return launch_graph

    session._plain = session._launch = run
    session._cuda.capture = captured  # type: ignore[method-assign]  # watches the seam
    return done


def test_the_first_inference_is_plain_and_all_later_ones_are_one_graph(opened: Open) -> None:
    session = opened().session(1)
    done = _counted(session)

    for _ in range(3):
        session.enqueue()

    # The plain one inside the capture is recorded, not run.
    assert done == ["plain", "plain", "captured", "graph", "graph"]
    assert session.describe().settings["cuda_graph"] is True


def test_a_session_that_is_timed_first_is_warmed_and_captured_before_the_clock(opened: Open) -> None:
    session = opened().session(1)
    done = _counted(session)

    session.time(2, launches_per_sample=3, scope="device")

    assert done == ["plain", "plain", "captured", *["graph"] * 6]


def test_no_graph_is_captured_where_none_is_wanted(opened: Open) -> None:
    session = opened(settings={"cuda_graph": False}).session(1)
    done = _counted(session)

    session.enqueue()
    session.time(2, launches_per_sample=1, scope="device")

    assert done == ["plain"] * 3
    assert session.describe().notes == ()
    assert "cuda_graph_reason" not in session.describe().settings


def test_without_capture_it_runs_plainly_and_says_so_everywhere(
    opened: Open,
    images: NDArray[np.float32],
    reference: NDArray[np.float32],
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = opened(package="pycuda").session(1)
    assert session.describe().settings["cuda_graph"] is True

    session.enqueue()
    found = _logits(session, images[:1])

    np.testing.assert_allclose(found, reference[:1], rtol=1e-5, atol=1e-5)
    told = session.describe()
    assert told.settings["cuda_graph"] is False
    assert "CUDA graphs by PyCUDA" in told.settings["cuda_graph_reason"]
    assert told.notes[0].startswith("no CUDA graph: CUDA graphs by PyCUDA")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    _logits(session, images[:1])
    assert len(caplog.records) == 1


def test_a_capture_that_fails_is_not_tried_again_and_does_no_harm(
    opened: Open, images: NDArray[np.float32], reference: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened().session(2)
    tries = []

    def refuse(_: object) -> None:
        tries.append(1)
        raise DeviceError("CUDA graph", got="cudaErrorStreamCaptureInvalidated")

    monkeypatch.setattr(session._cuda, "capture", refuse)

    for _ in range(3):
        np.testing.assert_allclose(_logits(session, images[:2]), reference[:2], rtol=1e-5, atol=1e-5)

    assert len(tries) == 1
    assert session.describe().settings["cuda_graph"] is False


# -- timing


def test_a_sample_holds_as_many_launches_as_asked(opened: Open) -> None:
    session = opened().session(1)

    found = session.time(5, launches_per_sample=2, scope="device")

    assert found.shape == (5,)
    assert found.dtype == np.int64
    assert (found > 0).all()


def _steps(session: TensorrtSession) -> list[str]:
    """Put names in the place of what is launched and copied."""
    steps: list[str] = []
    session.enqueue()
    session.time(1, launches_per_sample=1, scope="device")
    session._upload = lambda: steps.append("up")
    session._launch = lambda: steps.append("run")
    session._download = lambda: steps.append("down")
    return steps


@pytest.mark.parametrize(
    ("scope", "expected"),
    [("device", ["run"] * 4), ("host-to-host", ["up", "run", "down"] * 4)],
)
@pytest.mark.parametrize("clock", ["wall", "events"])
def test_host_to_host_has_both_copies_of_each_launch_and_device_none(
    opened: Open, scope: Any, expected: list[str], clock: str
) -> None:
    session = opened(settings={"clock": clock}).session(1)
    steps = _steps(session)

    session.time(2, launches_per_sample=2, scope=scope)

    ahead = expected[: len(expected) // 2] if clock == "events" else []  # met an idle device, and is not counted
    assert steps == [*ahead, *expected]


def test_the_clock_is_the_hosts_or_that_of_events(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = itertools.count(step=5)
    session = opened(settings={"clock": "wall"}).session(1)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(readings))
    steps = _steps(session)

    assert session.time(3, launches_per_sample=1, scope="device").tolist() == [5, 5, 5]
    assert steps == ["run"] * 3


def test_events_time_what_the_device_does_without_the_way_to_it(opened: Open) -> None:
    session = opened(settings={"clock": "events"}).session(1)
    assert session.describe().clock == "cuda-events"
    steps = _steps(session)

    found = session.time(3, launches_per_sample=1, scope="device")

    assert steps == ["run"] * 4
    assert (found < 1_000_000).all()  # between the two events nothing was queued


@pytest.mark.parametrize("is_in_parts", [False, True])
def test_a_second_inference_is_queued_before_the_first_is_waited_for(
    opened: Open, monkeypatch: pytest.MonkeyPatch, *, is_in_parts: bool
) -> None:
    from trtbench.engines.cuda.cupy import CupyEvent

    session = opened(settings={"clock": "events"}).session(1)
    steps = _steps(session)
    wait = CupyEvent.wait

    def waited(event: CupyEvent) -> None:
        steps.append("wait")
        wait(event)

    monkeypatch.setattr(CupyEvent, "wait", waited)

    if is_in_parts:
        session.time_parts(3)
    else:
        session.time(3, launches_per_sample=1, scope="device")

    launched = [step for step in steps if step in {"run", "wait"}]
    assert launched == ["run", "run", "run", "wait", "run", "wait", "wait"]  # the first of all is not waited for


def test_the_parts_of_an_inference_are_told_apart(opened: Open) -> None:
    session = opened().session(6)

    found = session.time_parts(4)

    assert all(part.shape == (4,) and (part > 0).all() for part in (found.h2d, found.enqueue, found.compute, found.d2h))
    # On the double the network runs when the stream is waited for: launching it is the least of the work.
    assert np.median(found.enqueue) < np.median(found.compute)


# -- memory


def test_memory_is_that_of_weights_activations_and_buffers(opened: Open) -> None:
    session = opened().session(6)

    buffers = 4 * 6 * (3 * 8 * 8 + 4)

    assert session.describe().memory_bytes == _WEIGHT_BYTES + session._engine.device_memory_size_v2 + buffers


def test_a_context_that_does_not_fit_works_in_memory_of_ours(
    opened: Open, images: NDArray[np.float32], reference: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened()
    monkeypatch.setenv("TRTBENCH_DOUBLE_FAULT", "oom-context")

    session = engine.session(2)

    np.testing.assert_allclose(_logits(session, images[:2]), reference[:2], rtol=1e-5, atol=1e-5)
    (note,) = [note for note in session.describe().notes if "CUDA graph" not in note]
    assert note.startswith(f"the context works in {session._engine.device_memory_size_v2} bytes of ours")
    assert "OutOfMemory" in note
    np.testing.assert_allclose(_logits(session, images[2:4]), reference[2:4], rtol=1e-5, atol=1e-5)


def test_a_context_that_fits_nowhere_is_out_of_memory(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened()
    monkeypatch.setenv("TRTBENCH_DOUBLE_FAULT", "oom-context,oom-alloc")

    with pytest.raises(OutOfMemoryError) as raised:
        engine.session(2)

    assert "TensorRT's execution context: expected" in str(raised.value)
    assert "bytes free" in raised.value.got


def test_no_context_at_all_is_an_error_with_tensorrts_words(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = opened()
    monkeypatch.setattr(type(engine._engine), "create_execution_context", lambda *_: None)
    engine._lines.add("ERROR", "Error Code 1: Myelin")

    with pytest.raises(EngineError, match="TensorRT's execution context: got Error Code 1: Myelin"):
        engine.session(1)


def test_markers_of_a_detailed_engine_are_silenced(opened: Open) -> None:
    import tensorrt as trt

    context = opened().session(1)._context.handle

    assert context is not None
    assert context.nvtx_verbosity == trt.ProfilingVerbosity.NONE


def _free_bytes() -> int:
    from simulated_cuda import memory

    return memory.free_bytes()


@pytest.mark.parametrize("fault", ["", "oom-context"])
def test_closing_gives_all_memory_back_and_twice_is_no_harm(
    opened: Open, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened()
    before = _free_bytes()
    monkeypatch.setenv("TRTBENCH_DOUBLE_FAULT", fault)
    for batch in (1, 6):
        session = engine.session(batch)
        session.enqueue()
        session.time(1, launches_per_sample=1, scope="host-to-host")
    assert _free_bytes() < before

    engine.close()
    engine.close()
    session.close()

    assert _free_bytes() == before


def test_what_is_closed_says_so(opened: Open) -> None:
    engine = opened()
    session = engine.session(1)
    engine.close()

    with pytest.raises(EngineError, match="session: expected an open one"):
        session.enqueue()
    with pytest.raises(EngineError, match="engine: expected an open one"):
        engine.session(1)


def test_an_engine_names_its_device_and_what_is_in_force(opened: Open) -> None:
    engine = opened(settings={"threads": 1})

    assert engine.device == "Simulated GPU"
    told = engine.session(1).describe()
    assert told.settings == {"cuda_graph": True, "clock": "wall", "threads": 1}
    assert (told.clock, told.notes) == ("wall", ())


# -- several at once


def test_streams_of_a_load_are_recorded_by_one_thread_and_each_session_has_its_own(
    opened: Open, sidecar: Callable[..., Sidecar], monkeypatch: pytest.MonkeyPatch
) -> None:
    from simulated_cuda import streams

    recorded: list[tuple[int, int]] = []
    begin = streams.begin_capture

    def begun(handle: int, *, mode: int) -> None:
        recorded.append((handle, threading.get_ident()))
        begin(handle, mode=mode)

    monkeypatch.setattr(streams, "begin_capture", begun)
    worker = Worker()
    worker._engine, worker._sidecar, worker._images = opened(), sidecar(), _noise(sidecar().preprocessing)

    served = worker.load(batch=2, streams=4, duration_s=0.05, cores=[], rate=None, seed=0)

    assert len({handle for handle, _ in recorded}) == len(recorded) == 4
    assert {thread for _, thread in recorded} == {threading.get_ident()}
    assert len(served["ns"]) >= 4


@pytest.mark.parametrize("package", ["cupy", "pycuda"])
def test_streams_do_not_wait_for_one_another(opened: Open, images: NDArray[np.float32], package: str) -> None:
    from simulated_cuda import streams

    engine = opened(package=package)
    one, other = engine.session(1), engine.session(1)
    one.copy_in(images[:1])
    one.enqueue()
    other.synchronize()

    assert not streams.queue_of(one._cuda.stream).is_blocking
    assert not streams.is_done(one._cuda.stream)


# -- what TensorRT may refuse


class _Refuses:
    """A context that answers False, or that lacks shapes."""

    def __init__(self, *, missing: tuple[str, ...] = (), shape: bool = True, address: bool = True) -> None:
        self._missing, self._shape, self._address = missing, shape, address

    def set_input_shape(self, _name: str, _shape: object) -> bool:
        return self._shape

    def infer_shapes(self) -> list[str]:
        return list(self._missing)

    def set_tensor_address(self, _name: str, _address: int) -> bool:
        return self._address

    def execute_async_v3(self, _stream: int) -> bool:
        return False

    def set_optimization_profile_async(self, _index: int, _stream: int) -> bool:
        return False


@pytest.mark.usefixtures("tensorrt_double")
def test_a_false_of_tensorrt_is_an_error_with_the_lines_of_its_log() -> None:
    from trtbench.engines.cuda import open_cuda
    from trtbench.engines.tensorrt.library import LogLines
    from trtbench.engines.tensorrt.session import _inference
    from trtbench.engines.tensorrt.tensors import _prepare, set_shape

    lines = LogLines()
    lines.add("ERROR", "Error Code 3: API Usage Error (why)")
    cuda, context = open_cuda(), _Refuses(shape=False)
    refused: list[tuple[str, Callable[[], object]]] = [
        ("refuses to run the engine", _inference(context, cuda=cuda, lines=lines)),  # type: ignore[arg-type]  # a part of one
        ("refuses shape", lambda: set_shape(context, "input", shape=(1, 3), lines=lines)),  # type: ignore[arg-type]
        ("refuses optimisation profile 4", lambda: _prepare(context, cuda=cuda, profile=4, lines=lines)),  # type: ignore[arg-type]
    ]

    for words, call in refused:
        with pytest.raises(EngineError, match=rf"{words}.*: got Error Code 3: API Usage Error \(why\)"):
            call()


@pytest.mark.usefixtures("tensorrt_double")
def test_shapes_that_tensorrt_still_wants_are_named() -> None:
    from trtbench.engines.tensorrt.library import LogLines
    from trtbench.engines.tensorrt.tensors import set_shape

    context: Any = _Refuses(missing=("mask", "size"))

    with pytest.raises(EngineError, match="got unknown: mask, size"):
        set_shape(context, "input", shape=(1, 3), lines=LogLines())


def test_a_refused_address_is_an_error(opened: Open) -> None:
    from trtbench.engines.tensorrt.library import LogLines
    from trtbench.engines.tensorrt.tensors import set_addresses

    session = opened().session(1)
    context: Any = _Refuses(address=False)

    with pytest.raises(EngineError, match=r"TensorRT refuses the address 0x[0-9a-f]+ of 'input'"):
        set_addresses(context, session._tensors, lines=LogLines())


class _Told:
    """An engine that tells other things of its tensors than it did."""

    def __init__(self, engine: Any, **answers: Any) -> None:
        self._engine, self._answers = engine, answers

    def __getattr__(self, name: str) -> Any:
        if name in self._answers:
            return self._answers[name]
        return getattr(self._engine, name)


def _bound(engine: TensorrtEngine, *, num_classes: int = 4, **answers: Any) -> Any:
    """Allocate the tensors of an engine that tells other things, at batch 2."""
    from trtbench.engines.tensorrt.tensors import allocate

    session = engine.session(2)
    context = session._context.handle
    told: Any = _Told(engine._engine, **answers)
    answer: Any = context if "shapes" not in answers else _Told(context, get_tensor_shape=answers["shapes"].get)
    with session._cuda.current():
        return allocate(told, answer, cuda=session._cuda, num_classes=num_classes)


def test_an_engine_without_logits_of_these_classes_is_refused(opened: Open) -> None:
    with pytest.raises(EngineError, match=r"expected logits \(batch, 7\), got logits \(2, 4\)"):
        opened(num_classes=7).session(2)


def test_an_engine_of_half_precision_inputs_is_refused_with_the_cure(opened: Open) -> None:
    import tensorrt as trt

    with pytest.raises(EngineError) as raised:
        _bound(opened(), get_tensor_dtype=lambda _: trt.DataType.HALF)

    assert "tensor 'input' of the engine: expected FLOAT, got HALF" in str(raised.value)
    assert "keeps them by casts" in raised.value.cure


def test_logits_of_half_precision_are_refused_too(opened: Open) -> None:
    import tensorrt as trt

    types = {"input": trt.DataType.FLOAT, "logits": trt.DataType.HALF}

    with pytest.raises(EngineError, match="tensor 'logits' of the engine: expected FLOAT, got HALF"):
        _bound(opened(), get_tensor_dtype=types.__getitem__)


def test_an_output_whose_shape_the_data_decides_is_refused(opened: Open) -> None:
    with pytest.raises(EngineError, match=r"expected a shape that follows from the input's, got \(-1, 4\)"):
        _bound(opened(), shapes={"input": (2, 3, 8, 8), "logits": (-1, 4)})


def test_an_engine_of_two_inputs_is_refused(opened: Open) -> None:
    import tensorrt as trt

    with pytest.raises(EngineError, match="expected one, of images, got input, logits"):
        _bound(opened(), get_tensor_mode=lambda _: trt.TensorIOMode.INPUT)
    with pytest.raises(EngineError, match="expected one, of images, got none"):
        _bound(opened(), get_tensor_mode=lambda _: trt.TensorIOMode.OUTPUT)


@pytest.fixture
def two_outputs(float_graph: Path) -> Path:
    """The tiny network that puts out its pooled features too."""
    proto = onnx.load(float_graph)
    proto.graph.output.append(helper.make_tensor_value_info("p", TensorProto.FLOAT, ["batch", 8, 1, 1]))
    path = float_graph.with_name("two.onnx")
    onnx.save(proto, path)
    return path


def test_other_outputs_have_memory_of_their_own(
    opened: Open, two_outputs: Path, images: NDArray[np.float32], reference: NDArray[np.float32]
) -> None:
    session = opened(two_outputs).session(2)

    np.testing.assert_allclose(_logits(session, images[:2]), reference[:2], rtol=1e-5, atol=1e-5)
    assert [(one.name, one.host.shape) for one in session._tensors] == [
        ("input", (2, 3, 8, 8)),
        ("logits", (2, 4)),
        ("p", (2, 8, 1, 1)),
    ]


def test_a_type_that_numpy_does_not_have_is_told(opened: Open, two_outputs: Path) -> None:
    import tensorrt as trt

    types = {"input": trt.DataType.FLOAT, "logits": trt.DataType.FLOAT, "p": trt.DataType.BF16}

    with pytest.raises(EngineError, match="tensor 'p' of the engine: expected a type NumPy has, got BF16"):
        _bound(opened(two_outputs), get_tensor_dtype=types.__getitem__)


@pytest.mark.parametrize("how", ["get_tensor_location", "is_shape_inference_io"])
def test_a_tensor_that_tensorrt_wants_on_the_host_stands_there(opened: Open, two_outputs: Path, how: str) -> None:
    import tensorrt as trt

    from trtbench.engines.tensorrt.tensors import download, upload

    engine = opened(two_outputs)
    places = {True: trt.TensorLocation.HOST, False: trt.TensorLocation.DEVICE}
    answers: dict[str, Any] = {how: lambda name: places[name == "p"] if "location" in how else name == "p"}
    found = _bound(engine, **answers)

    (host,) = found.others
    assert host.buffer is None
    assert host.address == host.host.ctypes.data
    assert upload(engine._cuda, host)() is download(engine._cuda, host)() is None
    assert found.images.address == found.images.buffer.ptr
    assert found.device_bytes == 4 * 2 * (3 * 8 * 8 + 4)
    found.free()
