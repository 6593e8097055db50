"""The double of TensorRT is held to the API of both majors, to the orders of the real library and to ONNX Runtime."""

from __future__ import annotations

import importlib
import json
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from numpy.typing import NDArray

_API = Path(__file__).parents[1] / "doubles" / "api"
_SHAPES = ((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))


def _facts(trt: Any) -> dict[str, Any]:
    short = ".".join(trt.__version__.split(".")[:2])
    read: dict[str, Any] = json.loads((_API / f"tensorrt-{short}.json").read_text(encoding="utf-8"))
    return read


class _Bench:
    """A builder of either major with what it said."""

    def __init__(self, trt: Any) -> None:
        said = self.said = []  # type: list[tuple[str, str]]

        class Logger(trt.ILogger):  # type: ignore[misc]  # the base is known when the double is there
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                said.append((severity.name, msg))

        self.trt, self.logger = trt, Logger()
        self.builder = trt.Builder(self.logger)
        self.config = self.builder.create_builder_config()
        self.strong = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    @property
    def errors(self) -> str:
        return " | ".join(text for severity, text in self.said if severity == "ERROR")

    @property
    def warnings(self) -> str:
        return " | ".join(text for severity, text in self.said if severity == "WARNING")

    def parsed(self, graph: Path, *, flags: int | None = None) -> Any:
        network = self.builder.create_network(self.strong if flags is None else flags)
        parser = self.trt.OnnxParser(network, self.logger)
        assert parser.parse(graph.read_bytes(), path=str(graph)), parser.get_error(0).desc()
        return network

    def profile(self, *shapes: Sequence[int]) -> Any:
        made = self.builder.create_optimization_profile()
        made.set_shape("input", *(shapes or _SHAPES))
        return made

    def plan(self, graph: Path, *profiles: Any) -> Any:
        for each in profiles or (self.profile(),):
            assert self.config.add_optimization_profile(each) >= 0
        return self.builder.build_serialized_network(self.parsed(graph), self.config)

    def engine(self, graph: Path, *profiles: Any) -> Any:
        engine = self.trt.Runtime(self.logger).deserialize_cuda_engine(self.plan(graph, *profiles))
        assert engine is not None, self.errors
        return engine


@pytest.fixture
def bench(tensorrt_double: ModuleType) -> _Bench:
    return _Bench(tensorrt_double)


@pytest.fixture
def bench_10(tensorrt_10_double: ModuleType) -> _Bench:
    return _Bench(tensorrt_10_double)


class _Run:
    """A context with its stream and buffers."""

    def __init__(self, context: Any, images: NDArray[np.float32]) -> None:
        cupy: Any = importlib.import_module("cupy")
        self.cupy, self.context = cupy, context
        self.stream = cupy.cuda.Stream(non_blocking=True)
        with self.stream:
            self.input = cupy.asarray(images)
            self.output = cupy.zeros((len(images), 4), np.float32)
        self.stream.synchronize()
        assert context.set_input_shape("input", images.shape)
        assert context.infer_shapes() == []
        assert context.set_tensor_address("input", self.input.data.ptr)
        assert context.set_tensor_address("logits", self.output.data.ptr)

    def logits(self) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self.output.get(stream=self.stream)
        return values


def _by_onnxruntime(graph: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(None, {"input": images})[0]
    return logits


def test_each_major_is_imported_in_its_turn(tensorrt_double: ModuleType) -> None:
    assert tensorrt_double.__version__ in {"10.16.1.11", "11.4.0.106"}
    assert hasattr(tensorrt_double, "IInt8EntropyCalibrator2") == tensorrt_double.__version__.startswith("10.")


def test_the_double_says_that_it_is_one(tensorrt_double: ModuleType) -> None:
    assert tensorrt_double.IS_SIMULATED
    assert all("IS_SIMULATED" not in part for part in _facts(tensorrt_double))


def test_a_worker_process_sees_the_same_double(tensorrt_double: ModuleType) -> None:
    code = "import tensorrt, cupy, pycuda.driver; print(tensorrt.__version__, cupy.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)

    assert done.stdout.split() == [tensorrt_double.__version__, "14.2.0"]


def test_the_module_has_the_names_of_its_major_and_no_other(tensorrt_double: ModuleType) -> None:
    facts = _facts(tensorrt_double)
    known = {*(name for name in facts["classes"] if "." not in name), *facts["functions"], *facts["constants"]}

    assert {name for name in dir(tensorrt_double) if not name.startswith("_")} == known | {"IS_SIMULATED"}


def test_each_class_has_the_members_of_its_major_and_no_other(tensorrt_double: ModuleType) -> None:
    facts = _facts(tensorrt_double)["classes"]

    for name in (name for name in facts if "." not in name and "enum" not in facts[name]):
        known: set[str] = {"Severity"} if name.endswith("Logger") else set()
        for each in (name, *facts[name]["bases"]):
            parts = (facts[each].get(part, ()) for part in ("methods", "properties", "attributes"))
            known |= {member for part in parts for member in part if not member.startswith("_")}
        found = {each for each in dir(getattr(tensorrt_double, name)) if not each.startswith("_")}
        if name == "IHostMemory":  # it is a buffer at heart; see the test of its names
            found &= known
        assert found == known, name


def test_each_enumeration_has_the_numbers_of_its_major(tensorrt_double: ModuleType) -> None:
    for name, fact in _facts(tensorrt_double)["classes"].items():
        if "enum" in fact and "." not in name:
            kind = getattr(tensorrt_double, name)
            assert {each: int(member) for each, member in kind.__members__.items()} == fact["enum"]
            assert all(getattr(kind, each) == kind(number) for each, number in fact["enum"].items())


def test_flags_are_not_joined_by_or(tensorrt_double: Any) -> None:
    with pytest.raises(TypeError):
        tensorrt_double.BuilderFlag.TF32 | tensorrt_double.BuilderFlag.DEBUG


@pytest.mark.parametrize(
    "wrong",
    [
        lambda bench: bench.builder.create_network(flag=0),
        lambda bench: bench.builder.create_network(0, 0),
        lambda bench: bench.builder.create_network("0"),
        lambda bench: bench.config.set_flag(7),
        lambda bench: bench.config.set_memory_pool_limit(bench.trt.MemoryPoolType.WORKSPACE),
        lambda bench: bench.config.set_timing_cache(None, ignore_mismatch=False),
        lambda bench: bench.trt.OnnxParser(bench.logger, bench.builder.create_network(0)),
        lambda bench: bench.trt.Runtime("logger"),
        lambda bench: bench.trt.IBuilderConfig(),
        lambda bench: bench.trt.Builder(),
        lambda bench: setattr(bench.config, "builder_optimization_level", "3"),
        lambda bench: setattr(bench.config, "progress_monitor", print),
    ],
)
def test_a_call_of_another_arity_keyword_or_type_is_refused(bench: _Bench, wrong: Callable[[_Bench], object]) -> None:
    with pytest.raises(TypeError):
        wrong(bench)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda bench: setattr(bench.config, "max_workspace_size", 1),
        lambda bench: setattr(bench.config, "num_optimization_profiles", 1),
        lambda bench: bench.builder.build_engine,
        lambda bench: bench.trt.BuilderFlag.STRICT_TYPES,
        lambda bench: bench.trt.Logger.CRITICAL,
    ],
)
def test_a_name_that_no_major_has_is_an_attribute_error(bench: _Bench, wrong: Callable[[_Bench], object]) -> None:
    with pytest.raises(AttributeError):
        wrong(bench)


def test_a_subclass_must_call_its_bases_constructor(tensorrt_double: Any) -> None:
    class Monitor(tensorrt_double.IProgressMonitor):  # type: ignore[misc]  # the base is the double's
        def __init__(self) -> None:
            self.steps = 0

    with pytest.raises(TypeError, match=r"IProgressMonitor.__init__\(\) must be called when overriding"):
        Monitor()


def test_a_machine_without_a_device_gives_what_cannot_be_used(
    tensorrt_double: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTBENCH_DOUBLE_FAULT", "no-device")

    for kind in (tensorrt_double.Builder, tensorrt_double.Runtime):
        made = kind(tensorrt_double.Logger())
        with pytest.raises(SystemError, match="SIGSEGV: logger"):
            _ = made.logger


def test_host_memory_is_a_buffer_without_a_length(bench: _Bench, float_graph: Path) -> None:
    plan = bench.plan(float_graph)

    assert len(bytes(plan)) == plan.nbytes == memoryview(plan).nbytes
    with pytest.raises(TypeError, match="has no len"):
        len(plan)
    with pytest.raises(AttributeError):
        plan.append(1)


def test_the_engine_computes_what_onnxruntime_does(bench: _Bench, float_graph: Path, images: Any) -> None:
    run = _Run(bench.engine(float_graph).create_execution_context(), images[:3])
    assert run.context.execute_async_v3(run.stream.ptr)
    early = run.output._host().copy()
    run.stream.synchronize()

    assert not early.any()
    np.testing.assert_allclose(run.logits(), _by_onnxruntime(float_graph, images[:3]), atol=1e-5)


def test_quantized_graphs_run_and_show_their_int8_convolutions(
    bench: _Bench, quantized_graph: Path, images: Any
) -> None:
    bench.config.profiling_verbosity = bench.trt.ProfilingVerbosity.DETAILED
    engine = bench.engine(quantized_graph)
    run = _Run(engine.create_execution_context(), images[:2])
    run.context.execute_async_v3(run.stream.ptr)
    run.stream.synchronize()

    np.testing.assert_allclose(run.logits(), _by_onnxruntime(quantized_graph, images[:2]), atol=0.05)
    layers = {each["Name"]: each for each in _information(bench, engine)["Layers"]}
    (conv,) = (each for each in layers.values() if each["LayerType"] == "CaskConvolution")
    assert "Int8" in conv["Inputs"][0].get("Format/Datatype", conv["Inputs"][0].get("Datatype"))
    assert next(iter(layers.values()))["Origin"] == "QDQ"


def _information(bench: _Bench, engine: Any) -> dict[str, Any]:
    text = engine.create_engine_inspector().get_engine_information(bench.trt.LayerInformationFormat.JSON)
    read: dict[str, Any] = json.loads(text)
    return read


def test_the_inspector_speaks_the_schema_of_its_major(bench: _Bench, float_graph: Path) -> None:
    bench.config.profiling_verbosity = bench.trt.ProfilingVerbosity.DETAILED
    told = _information(bench, bench.engine(float_graph))
    tensor = told["Layers"][0]["Inputs"][0]

    if bench.trt.__version__.startswith("10."):
        assert told["Bindings"] == ["input", "logits"]
        assert tensor["Format/Datatype"] == "Row major linear FP32"
    else:
        assert [each["Name"] for each in told["I/O Tensors"]] == ["input", "logits"]
        assert told["I/O Tensors"][0]["ProfileInfo"][0]["MaxShape"] == [4, 3, 8, 8]
        assert "Bindings" not in told
        assert "Format/Datatype" not in tensor


def test_without_detailed_verbosity_only_names_are_told(bench: _Bench, float_graph: Path) -> None:
    assert _information(bench, bench.engine(float_graph))["Layers"][0] == "conv + relu"


def test_dynamic_inputs_need_a_profile(bench: _Bench, float_graph: Path) -> None:
    assert bench.builder.build_serialized_network(bench.parsed(float_graph), bench.config) is None
    assert "no optimization profile has been defined" in bench.errors


def test_an_empty_network_is_not_built(bench: _Bench) -> None:
    assert bench.builder.build_serialized_network(bench.builder.create_network(bench.strong), bench.config) is None
    assert "at least one output" in bench.errors


def test_unknown_network_flags_give_no_network(bench: _Bench) -> None:
    assert bench.builder.create_network(1 << 9) is None


def test_every_network_of_11_is_strongly_typed(bench: _Bench) -> None:
    is_11 = bench.trt.__version__.startswith("11.")
    strong = bench.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED

    assert bench.builder.create_network(0).get_flag(strong) == is_11
    assert bench.builder.create_network(bench.strong).get_flag(strong)


@pytest.mark.parametrize("flag", ["FP16", "INT8"])
def test_precision_flags_on_a_strongly_typed_network_are_an_error(
    bench_10: _Bench, float_graph: Path, *, flag: str
) -> None:
    bench_10.config.set_flag(getattr(bench_10.trt.BuilderFlag, flag))

    assert bench_10.plan(float_graph) is None
    assert f"BuilderFlag::k{flag} is not compatible with a strongly typed network" in bench_10.errors


def test_a_builders_lack_of_memory_is_told_in_its_log(
    bench: _Bench, float_graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTBENCH_DOUBLE_FAULT", "oom-build")

    assert bench.plan(float_graph) is None
    assert "OutOfMemory" in bench.errors


def test_tf32_is_on_until_cleared(bench: _Bench) -> None:
    flag = bench.trt.BuilderFlag.TF32
    before = bench.config.get_flag(flag)
    bench.config.clear_flag(flag)

    assert before
    assert not bench.config.get_flag(flag)


def _monitor(trt: Any, *, stops_at: int | None = None, raises: bool = False) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the base is the double's
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: list[tuple[str, str | None]] = []
            self.finished: list[str] = []
            self.threads: set[int] = set()
            self.told: list[tuple[str, int]] = []
            self.steps = 0

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            assert num_steps >= 1
            self.phases.append((phase_name, parent_phase))

        def step_complete(self, phase_name: str, step: int) -> bool:
            if raises:
                raise ValueError("broken monitor")
            self.threads.add(threading.get_ident())
            self.steps += 1
            self.told.append((phase_name, step))
            return stops_at is None or self.steps < stops_at

        def phase_finish(self, phase_name: str) -> None:
            self.finished.append(phase_name)

    return Monitor()


def test_a_monitor_hears_nested_phases_from_several_threads(bench: _Bench, float_graph: Path) -> None:
    monitor = bench.config.progress_monitor = _monitor(bench.trt)
    plans: list[Any] = []
    thread = threading.Thread(target=lambda: plans.append(bench.plan(float_graph)))
    thread.start()
    thread.join()

    assert plans[0] is not None
    assert monitor.phases[:2] == [("Building engine", None), ("Building engine from subgraph", "Building engine")]
    assert {parent for _, parent in monitor.phases[2:]} == {"Building engine from subgraph"}
    assert sorted(monitor.finished) == sorted(name for name, _ in monitor.phases)
    assert len(monitor.threads) >= 2


@pytest.mark.parametrize("stops_at", [1, 2, 4])
def test_a_monitor_that_says_stop_cancels(bench: _Bench, float_graph: Path, stops_at: int) -> None:
    monitor = bench.config.progress_monitor = _monitor(bench.trt, stops_at=stops_at)

    assert bench.plan(float_graph) is None
    assert "Building engine" in monitor.finished
    assert "BuildCanceled" in bench.errors


def test_a_monitors_exception_is_swallowed_and_cancels(
    bench: _Bench, float_graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.config.progress_monitor = _monitor(bench.trt, raises=True)

    assert bench.plan(float_graph) is None
    assert "Exception caught in step_complete()" in capsys.readouterr().err


def test_external_weights_need_the_models_path(bench: _Bench, float_graph: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    path = folder / "external.onnx"
    onnx.save_model(onnx.load(float_graph), path, save_as_external_data=True, location="weights", size_threshold=0)
    parser = bench.trt.OnnxParser(bench.builder.create_network(bench.strong), bench.logger)

    assert not parser.parse(path.read_bytes())
    assert "weights file" in parser.get_error(0).desc()
    assert parser.parse(path.read_bytes(), path=str(path))


def test_a_timing_cache_travels_and_one_of_elsewhere_does_not(
    bench: _Bench, float_graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.config.set_timing_cache(bench.config.create_timing_cache(b""), ignore_mismatch=False)
    bench.plan(float_graph)
    data = bytes(bench.config.get_timing_cache().serialize())

    assert b"conv + relu:FP32" in data
    assert bench.config.set_timing_cache(bench.config.create_timing_cache(data), ignore_mismatch=False)
    assert bench.config.create_timing_cache(b"rubbish") is None
    cache = bench.config.create_timing_cache(data)
    monkeypatch.setenv("TRTBENCH_DOUBLE_SM", "8.6")
    assert not bench.config.set_timing_cache(cache, ignore_mismatch=False)
    assert bench.config.set_timing_cache(cache, ignore_mismatch=True)


def _calibrator(
    trt: Any, batches: list[Any], *, kind: str = "IInt8EntropyCalibrator2", cache: bytes | None = None
) -> Any:
    class Calibrator(getattr(trt, kind)):  # type: ignore[misc]  # the base is the double's
        def __init__(self) -> None:
            getattr(trt, kind).__init__(self)
            self.asked: list[list[str]] = []
            self.written = b""

        def get_batch_size(self) -> int:
            return 2

        def get_batch(self, names: list[str]) -> list[int] | None:
            self.asked.append(names)
            batch = batches[len(self.asked) - 1] if len(self.asked) <= len(batches) else None
            if isinstance(batch, Exception):
                raise batch
            return None if batch is None else [int(batch.data.ptr)]

        def read_calibration_cache(self) -> bytes | None:
            return cache

        def write_calibration_cache(self, cache: memoryview) -> None:
            self.written = bytes(cache)

    return Calibrator()


def _on_device(images: NDArray[np.float32]) -> Any:
    cupy: Any = importlib.import_module("cupy")
    held = cupy.asarray(images)
    cupy.cuda.get_current_stream().synchronize()
    return held


def _implicit(bench: _Bench, graph: Path, calibrator: Any, *, profile: Any = None) -> Any:
    bench.config.set_flag(bench.trt.BuilderFlag.INT8)
    bench.config.add_optimization_profile(bench.profile())
    with pytest.warns(DeprecationWarning, match=r"Superseded by explicit quantization"):
        bench.config.int8_calibrator = calibrator
    with pytest.warns(DeprecationWarning, match="explicit quantization"):
        bench.config.set_calibration_profile(profile or bench.profile(*[(2, 3, 8, 8)] * 3))
    return bench.builder.build_serialized_network(bench.parsed(graph, flags=0), bench.config)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("IInt8EntropyCalibrator2", "EntropyCalibration2"), ("IInt8MinMaxCalibrator", "MinMaxCalibration")],
)
def test_the_calibrator_is_fed_batch_by_batch_and_its_cache_is_text(
    bench_10: _Bench, float_graph: Path, images: Any, kind: str, name: str
) -> None:
    batches = [_on_device(images[:2]), _on_device(images[2:4])]
    calibrator = _calibrator(bench_10.trt, batches, kind=kind)

    assert _implicit(bench_10, float_graph, calibrator) is not None
    assert calibrator.asked == [["input"]] * 3
    first, *lines = calibrator.written.decode().splitlines()
    assert first == f"TRT-101601-{name}"
    scales = {
        tensor: struct.unpack(">f", bytes.fromhex(digits))[0] for tensor, digits in (x.split(": ") for x in lines)
    }
    assert scales["input"] == pytest.approx(np.abs(images[:4]).max() / 127)
    assert set(scales) == {"input", "c", "r", "p", "f", "logits"}


def test_int8_scales_of_calibration_make_int8_convolutions(bench_10: _Bench, float_graph: Path, images: Any) -> None:
    bench_10.config.profiling_verbosity = bench_10.trt.ProfilingVerbosity.DETAILED
    bench_10.config.set_flag(bench_10.trt.BuilderFlag.FP16)
    plan = _implicit(bench_10, float_graph, _calibrator(bench_10.trt, [_on_device(images[:2])]))
    layers = _information(bench_10, bench_10.trt.Runtime(bench_10.logger).deserialize_cuda_engine(plan))["Layers"]

    assert layers[0]["Name"].startswith("Reformatting CopyNode for Input Tensor 0 to conv")
    assert layers[1]["Inputs"][0]["Format/Datatype"].endswith("Int8 format")


def test_a_good_cache_is_taken_and_a_stale_one_skipped(bench_10: _Bench, float_graph: Path, images: Any) -> None:
    lines = "\ninput: 3c010a14\nc: 3d010a14\n"
    batches = [_on_device(images[:2])]
    good = _calibrator(bench_10.trt, batches, cache=f"TRT-101601-EntropyCalibration2{lines}".encode())
    stale = _calibrator(bench_10.trt, batches, cache=f"TRT-100900-EntropyCalibration2{lines}".encode())

    assert _implicit(bench_10, float_graph, good) is not None
    assert good.asked == []
    assert _implicit(bench_10, float_graph, stale) is not None
    assert len(stale.asked) == 2
    assert "Skipping calibration cache read" in bench_10.warnings


def test_an_exception_in_get_batch_is_the_end_of_the_data(
    bench_10: _Bench, float_graph: Path, images: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    calibrator = _calibrator(bench_10.trt, [_on_device(images[:2]), ValueError("lost"), _on_device(images[2:4])])

    assert _implicit(bench_10, float_graph, calibrator) is not None
    assert len(calibrator.asked) == 2
    assert "Exception caught in get_batch(): ValueError: lost" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Use Deprecated:DeprecationWarning")
def test_int8_without_data_or_calibrator_fails(bench_10: _Bench, float_graph: Path) -> None:
    assert _implicit(bench_10, float_graph, _calibrator(bench_10.trt, [])) is None
    bench_10.config.int8_calibrator = None
    assert bench_10.builder.build_serialized_network(bench_10.parsed(float_graph, flags=0), bench_10.config) is None
    assert "no scaling factors detected" in bench_10.errors
    assert "Calibrator is not being used" in bench_10.warnings


def test_calibration_runs_at_the_profiles_usual_shape(bench_10: _Bench, float_graph: Path, images: Any) -> None:
    """get_batch_size says 2, the profile's usual shape 4: four images are read where two were meant."""
    calibrator = _calibrator(bench_10.trt, [_on_device(images[:2])])

    assert _implicit(bench_10, float_graph, calibrator, profile=bench_10.profile(*[(4, 3, 8, 8)] * 3)) is None
    assert "cudaErrorIllegalAddress" in bench_10.errors


def test_an_unsynchronised_batch_calibrates_on_garbage(bench_10: _Bench, float_graph: Path, images: Any) -> None:
    cupy: Any = importlib.import_module("cupy")
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        late = cupy.asarray(images[:2])
    calibrator = _calibrator(bench_10.trt, [late])
    _implicit(bench_10, float_graph, calibrator)

    assert b"input: " + struct.pack(">f", np.abs(images[:2]).max() / 127).hex().encode() not in calibrator.written


def test_a_plan_of_another_version_is_not_loaded(bench: _Bench, float_graph: Path) -> None:
    plan = bytes(bench.plan(float_graph))
    runtime = bench.trt.Runtime(bench.logger)
    short = ".".join(bench.trt.__version__.split(".")[:2])

    assert runtime.deserialize_cuda_engine(plan) is not None
    assert runtime.deserialize_cuda_engine(_of_version(plan, bench.trt.__version__, f"{short}.9.9")) is None
    assert "Version tag does not match" in bench.errors


def _of_version(plan: bytes, old: str, new: str) -> bytes:
    packing: Any = importlib.import_module("simulated_tensorrt.plan")
    header, model = packing.unpacked(plan)
    assert header["version"] == old
    packed: bytes = packing.packed({**header, "version": new}, model)
    return packed


@pytest.mark.parametrize("change", [lambda _: b"rubbish", lambda plan: plan[:-1], lambda plan: plan[:-1] + b"\0"])
def test_broken_bytes_are_not_loaded(bench: _Bench, float_graph: Path, change: Callable[[bytes], bytes]) -> None:
    broken = change(bytes(bench.plan(float_graph)))

    assert bench.trt.Runtime(bench.logger).deserialize_cuda_engine(broken) is None
    assert "Serialization assertion failed" in bench.errors


def test_a_plan_of_another_gpu_is_loaded_only_if_built_for_it(
    bench: _Bench, float_graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = bytes(bench.plan(float_graph))
    bench.config.hardware_compatibility_level = bench.trt.HardwareCompatibilityLevel.AMPERE_PLUS
    wide = bytes(bench.plan(float_graph))
    monkeypatch.setenv("TRTBENCH_DOUBLE_SM", "8.6")
    runtime = bench.trt.Runtime(bench.logger)

    assert runtime.deserialize_cuda_engine(own) is None
    assert "expecting compute 8.6 got compute 8.9" in bench.errors
    assert runtime.deserialize_cuda_engine(wide) is not None


def test_version_compatible_plans_need_host_code_and_do_not_go_back(bench: _Bench, float_graph: Path) -> None:
    bench.config.set_flag(bench.trt.BuilderFlag.VERSION_COMPATIBLE)
    plan = bytes(bench.plan(float_graph))
    runtime = bench.trt.Runtime(bench.logger)
    assert runtime.deserialize_cuda_engine(plan) is None
    runtime.engine_host_code_allowed = True

    assert runtime.deserialize_cuda_engine(plan) is not None
    assert runtime.deserialize_cuda_engine(_of_version(plan, bench.trt.__version__, "10.13.0.0")) is not None
    assert runtime.deserialize_cuda_engine(_of_version(plan, bench.trt.__version__, "12.0.0.0")) is None


def test_the_engine_tells_its_tensors_and_profiles(bench: _Bench, float_graph: Path) -> None:
    engine = bench.engine(float_graph, bench.profile(), bench.profile(*[(8, 3, 8, 8)] * 3))
    modes = bench.trt.TensorIOMode

    assert [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)] == ["input", "logits"]
    assert [engine.get_tensor_mode(name) for name in ("input", "logits", "x")] == [
        modes.INPUT,
        modes.OUTPUT,
        modes.NONE,
    ]
    assert tuple(engine.get_tensor_shape("input")) == (-1, 3, 8, 8)
    assert bench.trt.nptype(engine.get_tensor_dtype("logits")) is np.float32
    assert engine.get_tensor_location("input") == bench.trt.TensorLocation.DEVICE
    assert engine.num_optimization_profiles == 2
    assert [tuple(each) for each in engine.get_tensor_profile_shape("input", 1)] == [(8, 3, 8, 8)] * 3
    assert "no I/O tensor x" in bench.errors


def test_bfloat16_has_no_numpy_type(tensorrt_double: Any) -> None:
    with pytest.raises(TypeError, match="numpy"):
        tensorrt_double.nptype(tensorrt_double.DataType.BF16)


def test_shapes_come_before_addresses_and_both_before_the_launch(bench: _Bench, float_graph: Path) -> None:
    context = bench.engine(float_graph).create_execution_context()
    assert context.infer_shapes() == ["input"]
    assert tuple(context.get_tensor_shape("logits")) == (-1, 4)
    assert not context.execute_async_v3(0)
    assert "shapes of ['input'] are not set" in bench.errors
    assert not context.set_input_shape("input", (5, 3, 8, 8))
    assert context.set_input_shape("input", [3, 3, 8, 8])
    assert tuple(context.get_tensor_shape("logits")) == (3, 4)
    assert not context.execute_async_v3(0)

    assert "addresses of ['input', 'logits'] are not set" in bench.errors


@pytest.mark.parametrize("address", [0, 128, 257])
def test_addresses_are_multiples_of_256(bench: _Bench, float_graph: Path, address: int) -> None:
    context = bench.engine(float_graph).create_execution_context()

    assert not context.set_tensor_address("input", address)
    assert not context.set_tensor_address("nothing", 256)


def test_the_default_stream_is_warned_of(bench: _Bench, float_graph: Path, images: Any) -> None:
    run = _Run(bench.engine(float_graph).create_execution_context(), images[:1])

    assert run.context.execute_async_v3(0)
    assert "Using default stream" in bench.warnings


def test_execute_v2_runs_at_once(bench: _Bench, float_graph: Path, images: Any) -> None:
    run = _Run(bench.engine(float_graph).create_execution_context(), images[:2])

    assert run.context.execute_v2([run.input.data.ptr, run.output.data.ptr])
    np.testing.assert_allclose(run.logits(), _by_onnxruntime(float_graph, images[:2]), atol=1e-5)


def test_a_profile_is_chosen_before_its_shapes(bench: _Bench, float_graph: Path) -> None:
    context = bench.engine(float_graph, bench.profile(), bench.profile(*[(8, 3, 8, 8)] * 3)).create_execution_context()

    assert not context.set_input_shape("input", (8, 3, 8, 8))
    assert context.set_optimization_profile_async(1, 0)
    assert context.set_input_shape("input", (8, 3, 8, 8))
    assert context.active_optimization_profile == 1
    assert not context.set_optimization_profile_async(2, 0)


def _capture(run: _Run) -> bool:
    run.stream.begin_capture(run.cupy.cuda.runtime.streamCaptureModeThreadLocal)
    done: bool = run.context.execute_async_v3(run.stream.ptr)
    return done


def test_capture_needs_a_launch_before_it(bench: _Bench, float_graph: Path, images: Any) -> None:
    run = _Run(bench.engine(float_graph).create_execution_context(), images[:2])

    assert not _capture(run)
    with pytest.raises(RuntimeError, match="Invalidated"):
        run.stream.end_capture()
    assert "operation not permitted when stream is capturing" in bench.errors


def test_a_graph_repeats_the_launch_on_new_data(bench: _Bench, float_graph: Path, images: Any) -> None:
    run = _Run(bench.engine(float_graph).create_execution_context(), images[:2])
    run.context.execute_async_v3(run.stream.ptr)
    assert _capture(run)
    graph = run.stream.end_capture()
    run.input.set(images[2:4], stream=run.stream)
    graph.launch(run.stream)

    np.testing.assert_allclose(run.logits(), _by_onnxruntime(float_graph, images[2:4]), atol=1e-5)


def test_a_new_shape_needs_a_new_launch_before_capture(bench: _Bench, float_graph: Path, images: Any) -> None:
    run = _Run(bench.engine(float_graph).create_execution_context(), images[:2])
    run.context.execute_async_v3(run.stream.ptr)
    run.context.set_input_shape("input", (1, 3, 8, 8))

    assert not _capture(run)


def _profiler(trt: Any) -> Any:
    class Profiler(trt.IProfiler):  # type: ignore[misc]  # the base is the double's
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.layers: list[tuple[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.layers.append((layer_name, ms))

    return Profiler()


def test_a_profiler_makes_the_launch_wait_and_uncapturable(bench: _Bench, float_graph: Path, images: Any) -> None:
    run = _Run(bench.engine(float_graph).create_execution_context(), images[:2])
    profiler = run.context.profiler = _profiler(bench.trt)
    run.context.execute_async_v3(run.stream.ptr)

    assert [name for name, _ in profiler.layers] == ["conv + relu", "pool", "flatten", "fc"]
    assert all(ms > 0 for _, ms in profiler.layers)
    assert not _capture(run)


def test_a_profile_is_reported_when_asked_for(bench: _Bench, float_graph: Path, images: Any) -> None:
    run = _Run(bench.engine(float_graph).create_execution_context(), images[:2])
    profiler = run.context.profiler = _profiler(bench.trt)
    run.context.enqueue_emits_profile = False

    assert not run.context.report_to_profiler()
    run.context.execute_async_v3(run.stream.ptr)
    assert profiler.layers == []
    assert run.context.report_to_profiler()
    assert len(profiler.layers) == 4


def test_a_context_that_does_not_fit_takes_memory_of_the_clients(
    bench: _Bench, float_graph: Path, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = bench.engine(float_graph)
    monkeypatch.setenv("TRTBENCH_DOUBLE_FAULT", "oom-context")
    assert engine.create_execution_context() is None
    assert "OutOfMemory" in bench.errors
    context = engine.create_execution_context(bench.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    run = _Run(context, images[:1])
    assert not context.execute_async_v3(run.stream.ptr)
    memory = run.cupy.cuda.alloc(engine.device_memory_size_v2)
    context.set_device_memory(memory.ptr, engine.device_memory_size_v2)

    assert context.execute_async_v3(run.stream.ptr)
    np.testing.assert_allclose(run.logits(), _by_onnxruntime(float_graph, images[:1]), atol=1e-5)


def test_too_little_memory_for_a_context_is_an_error(bench: _Bench, float_graph: Path) -> None:
    engine = bench.engine(float_graph)
    context = engine.create_execution_context(bench.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    context.set_device_memory(256, engine.device_memory_size_v2 - 1)

    assert "not enough or not aligned" in bench.errors


def test_what_10_deprecates_is_warned_of(bench_10: _Bench, float_graph: Path) -> None:
    engine = bench_10.engine(float_graph)

    with pytest.warns(DeprecationWarning, match="device_memory_size_v2"):
        assert engine.device_memory_size == engine.device_memory_size_v2
    with pytest.warns(DeprecationWarning, match="create_execution_context"):
        engine.create_execution_context_without_device_memory()
    with pytest.warns(DeprecationWarning, match="strong typing"):
        assert bench_10.builder.platform_has_fast_int8


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_graphs_run_and_show_it(bench: _Bench, float_graph: Path, images: Any, dtype: str) -> None:
    path = _cast_weights(float_graph, dtype)
    bench.config.profiling_verbosity = bench.trt.ProfilingVerbosity.DETAILED
    engine = bench.engine(path)
    run = _Run(engine.create_execution_context(), images[:2])
    run.context.execute_async_v3(run.stream.ptr)

    np.testing.assert_allclose(run.logits(), _by_onnxruntime(float_graph, images[:2]), atol=0.1)
    (conv,) = (each for each in _information(bench, engine)["Layers"] if each["LayerType"] == "CaskConvolution")
    assert {"float16": "FP16", "bfloat16": "BF16"}[dtype] in str(conv["Inputs"][0])


def _cast_weights(graph: Path, dtype: str) -> Path:
    """Put casts at both ends and weights of half precision between: FP32 outside, `dtype` inside."""
    model = onnx.load(graph)
    kind = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}[dtype]
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).ravel()
        tensor.CopyFrom(helper.make_tensor(tensor.name, kind, tensor.dims, values))
    for node in model.graph.node:
        node.input[:] = ["inner" if name == "input" else name for name in node.input]
        node.output[:] = ["half" if name == "logits" else name for name in node.output]
    model.graph.node.insert(0, helper.make_node("Cast", ["input"], ["inner"], "cast_in", to=kind))
    model.graph.node.append(helper.make_node("Cast", ["half"], ["logits"], "cast_out", to=TensorProto.FLOAT))
    model.opset_import[0].version = 22
    path = graph.with_name(f"{dtype}.onnx")
    onnx.save(model, path)
    return path


@pytest.mark.usefixtures("tensorrt_10_double")
def test_a_second_major_in_one_process_is_refused() -> None:
    assembling: Any = importlib.import_module("simulated_tensorrt")

    with pytest.raises(ImportError, match="needs a process of its own"):
        assembling.assemble({}, api="tensorrt-11.4.json")


def test_nothing_of_the_double_is_left_behind() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("pycuda")
    assert "simulated_tensorrt.builder" not in sys.modules
