"""Whole builds for TensorRT 10 and 11 through the strict double: every precision, every way to fail, what is kept."""

from __future__ import annotations

import _thread
import gc
import json
import signal
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from trtbench.disk import file_sha256
from trtbench.engines.base import BuildOptions, BuildRequest, CalibrationImages, backend, resolve_backend
from trtbench.errors import (
    CalibrationError,
    DeviceError,
    EngineError,
    GraphError,
    OutOfMemoryError,
    SidecarError,
    UnsupportedError,
)
from trtbench.jsonable import to_jsonable
from trtbench.records import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

    from trtbench.engines.base import BuildResult
    from trtbench.engines.sidecar import Sidecar

    Make = Callable[..., BuildRequest]
    Images = NDArray[np.float32]

_SIZE = 8
_STRONG = ("fp32", "tf32", "fp16", "bf16", "int8", "int8+fp16")
_IMPLICIT = ("int8-implicit", "int8-implicit+fp16")
# How far logits may be from ONNX Runtime's of the float or the Q/DQ graph, as a share of the largest.
_TOLERANCE = {"fp32": 1e-5, "tf32": 1e-5, "fp16": 5e-3, "bf16": 5e-2, "int8": 1e-3, "int8+fp16": 2e-2}


@pytest.fixture
def graphs(float_graph: Path, quantized_graph: Path, tmp_path: Path) -> dict[str, Path]:
    """The tiny network as each precision wants it."""
    from trtbench.graph.half import to_half

    def half(source: Path, dtype: Any, name: str) -> Path:
        path = tmp_path / f"{name}.onnx"
        onnx.save(to_half(onnx.load(source), dtype=dtype).proto, path)
        return path

    return {
        **dict.fromkeys(("fp32", "tf32", *_IMPLICIT), float_graph),
        "fp16": half(float_graph, "fp16", "fp16"),
        "bf16": half(float_graph, "bf16", "bf16"),
        "int8": quantized_graph,
        "int8+fp16": half(quantized_graph, "fp16", "int8-fp16"),
    }


@pytest.fixture
def calibration(tmp_path: Path) -> CalibrationImages:
    """Ten uint8 images and a place for the cache."""
    path = tmp_path / "images.npy"
    np.save(path, np.random.default_rng(3).integers(0, 256, (10, 3, _SIZE, _SIZE), dtype=np.uint8))
    return CalibrationImages(
        images=path,
        preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), size=_SIZE),
        batch_size=4,
        algorithm="entropy",
        cache=tmp_path / "calibration" / "key.cache",
    )


@pytest.fixture
def request_of(graphs: dict[str, Path], calibration: CalibrationImages, tmp_path: Path) -> Make:
    """Make the request of a precision; keywords replace the build's options, or the request's own fields."""

    def make(precision: str, **changes: Any) -> BuildRequest:
        own = {name: changes.pop(name) for name in ("on_progress", "source") if name in changes}
        made = BuildRequest(
            source=graphs[precision],
            engine=tmp_path / "engines" / f"dense.{precision}.plan",
            precision=precision,
            num_classes=4,
            input_shape=(3, _SIZE, _SIZE),
            calibration=calibration if precision in _IMPLICIT else None,
            options=BuildOptions(**{"batch_sizes": (1, 2), **changes}),
        )
        return replace(made, **own)

    return make


@pytest.fixture
def sidecar_of(sidecar: Callable[..., Sidecar]) -> Callable[..., Sidecar]:
    """Make the sidecar of a build; keywords replace its fields."""

    def make(request: BuildRequest, result: BuildResult, **changes: object) -> Sidecar:
        found = backend("tensorrt")
        fields: dict[str, object] = {
            "precision": request.precision,
            "achieved": result.achieved,
            "backend": "tensorrt",
            "backend_version": found.facts().version,
            "device": found.facts().device,
            "machine": found.facts(to_jsonable(request.options)).machine,
            "engine_sha256": file_sha256(request.engine),
            "engine_bytes": request.engine.stat().st_size,
            "weight_bytes": result.weight_bytes,
            "options": {**to_jsonable(request.options), "timing_cache": None},
            "settings": result.settings,
            "facts": to_jsonable(dict(result.facts)),
            "rebuild": "trtbench build mine.yaml",
        }
        return sidecar(**{**fields, **changes})

    return make


@pytest.fixture
def cancelled(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """An event that is set when a build is asked to stop; it needs the double in place before it.

    Ctrl-C interrupts meanwhile, also where a parent that ignores it has handed that down.
    """
    from trtbench.engines.tensorrt.builder import BuildWatch

    heard, cancel = threading.Event(), BuildWatch.cancel

    def tell(watch: BuildWatch) -> None:
        cancel(watch)
        heard.set()

    monkeypatch.setattr(BuildWatch, "cancel", tell)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield heard
    signal.signal(signal.SIGINT, before)


def _header(engine: Path) -> dict[str, Any]:
    """Return what the double was told, of its plan."""
    from simulated_tensorrt import plan  # type: ignore[import-not-found,unused-ignore]  # of the doubles' folder

    header: dict[str, Any] = plan.unpacked(engine.read_bytes())[0]
    return header


def _reference(graph: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(None, {"input": images})[0]
    return logits


@pytest.mark.usefixtures("tensorrt_double")
@pytest.mark.parametrize("precision", _STRONG)
def test_every_explicit_precision_builds_and_runs_on_both_majors(
    precision: str, request_of: Make, sidecar_of: Callable[..., Sidecar], graphs: dict[str, Path], images: Images
) -> None:
    request = request_of(precision)
    result = backend("tensorrt").build(request)
    engine = backend("tensorrt").open(request.engine, sidecar_of(request, result), {})
    session = engine.session(2)
    session.copy_in(images[:2])
    session.enqueue()
    session.synchronize()
    logits = session.copy_out()
    session.close()

    exact = _reference(graphs["int8" if precision.startswith("int8") else "fp32"], images[:2])
    assert np.abs(logits - exact).max() <= _TOLERANCE[precision] * np.abs(exact).max()
    header = _header(request.engine)
    assert not {"FP16", "BF16", "INT8"} & set(header["flags"])
    assert ("TF32" in header["flags"]) == (precision == "tf32")
    assert result.facts["strongly_typed"] is True
    words = {"int8+fp16": "int8 in 1 of 1 convolutions", "tf32": "tf32 in 0 of 1 convolutions"}
    assert result.achieved == words.get(precision, precision)


@pytest.mark.usefixtures("tensorrt_10_double")
@pytest.mark.parametrize("algorithm", ["entropy", "minmax"])
@pytest.mark.parametrize("precision", _IMPLICIT)
def test_tensorrt_10_calibrates_by_itself_and_keeps_its_cache(
    precision: str,
    algorithm: Any,
    request_of: Make,
    calibration: CalibrationImages,
) -> None:
    request = request_of(precision)
    request = replace(request, calibration=replace(calibration, algorithm=algorithm))

    result = backend("tensorrt").build(request)
    header = _header(request.engine)

    assert {"INT8"} <= set(header["flags"])
    assert ("FP16" in header["flags"]) == precision.endswith("+fp16")
    assert calibration.cache.is_file()
    assert result.facts["strongly_typed"] is False
    assert result.facts["calibration"]["algorithm"] == algorithm
    assert result.facts["calibration"]["images_sha256"] == file_sha256(calibration.images)
    assert "--calib=" in result.facts["trtexec"]
    assert result.achieved == "int8 in 1 of 1 convolutions"


@pytest.mark.usefixtures("tensorrt_11_double")
@pytest.mark.parametrize("precision", _IMPLICIT)
def test_tensorrt_11_refuses_to_calibrate_before_it_is_asked(
    precision: str,
    request_of: Make,
) -> None:
    with pytest.raises(UnsupportedError, match="11 has neither calibrators"):
        backend("tensorrt").build(request_of(precision))


@pytest.mark.usefixtures("tensorrt_10_double")
def test_an_implicit_build_without_images_is_refused(request_of: Make) -> None:
    with pytest.raises(EngineError, match="expected calibration images"):
        backend("tensorrt").build(replace(request_of("int8-implicit"), calibration=None))


@pytest.mark.usefixtures("tensorrt_10_double")
@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (OutOfMemoryError("no room for this batch"), OutOfMemoryError, "no room for this batch"),
        (ZeroDivisionError("a bug"), CalibrationError, r"calibration: got ZeroDivisionError\('a bug'\)"),
    ],
)
def test_an_error_in_a_calibrators_callback_is_raised_although_tensorrt_swallows_it(
    error: Exception, kind: type[Exception], told: str, request_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtbench.engines.tensorrt import calibrator

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(calibrator.Feed, "next", fail)
    request = request_of("int8-implicit")

    with pytest.raises(kind, match=told):
        backend("tensorrt").build(request)
    assert not request.engine.exists()


def test_what_the_sidecar_keeps_is_json_and_names_all_that_decided_the_build(
    tensorrt_double: ModuleType, request_of: Make, graphs: dict[str, Path]
) -> None:
    request = request_of("int8", workspace_mib=64, optimization_level=5)
    facts = dict(backend("tensorrt").build(request).facts)

    assert json.loads(json.dumps(facts)) == facts
    assert facts["tensorrt"] == tensorrt_double.__version__
    assert facts["gpu"] == "Simulated GPU"
    assert facts["uuid"].startswith("GPU-")
    assert facts["sm"] == "8.9"
    assert facts["onnx_sha256"] == file_sha256(graphs["int8"])
    assert facts["flags"] == []
    assert facts["cleared_flags"] == ["TF32"]
    assert [profile["input"][0][0] for profile in facts["profiles"]] == [1, 2]
    assert facts["tensors"] == [
        {"name": "input", "mode": "INPUT", "shape": [-1, 3, _SIZE, _SIZE], "dtype": "FLOAT"},
        {"name": "logits", "mode": "OUTPUT", "shape": [-1, 4], "dtype": "FLOAT"},
    ]
    assert facts["layers"]["convolutions"] == {"conv": "int8"}
    assert facts["timing_cache"] is None
    assert facts["calibration"] is None
    assert f"--saveEngine={request.engine}" in facts["trtexec"]
    assert ("--stronglyTyped" in facts["trtexec"]) == tensorrt_double.__version__.startswith("10")
    assert _header(request.engine)["verbosity"] == "DETAILED"


def test_options_reach_the_builder_by_name(tensorrt_double: ModuleType, request_of: Make) -> None:
    request = request_of("fp16", sparse=True, version_compatible=True, hardware_compatible=True)
    backend("tensorrt").build(request)
    header = _header(request.engine)

    assert {"SPARSE_WEIGHTS", "VERSION_COMPATIBLE"} <= set(header["flags"])
    assert header["hardware"] == "AMPERE_PLUS"
    assert tensorrt_double.__version__ == header["version"]


@pytest.mark.usefixtures("tensorrt_double")
def test_one_dynamic_profile_takes_the_place_of_the_fixed_ones(
    request_of: Make,
    sidecar_of: Callable[..., Sidecar],
) -> None:
    request = request_of("fp32", profile=(1, 2, 5))
    result = backend("tensorrt").build(request)
    engine = backend("tensorrt").open(request.engine, sidecar_of(request, result), {})

    assert [shape[0] for shape in result.facts["profiles"][0]["input"]] == [1, 2, 5]
    assert len(result.facts["profiles"]) == 1
    engine.session(5).close()
    with pytest.raises(UnsupportedError):
        engine.session(6)


def _fixed(source: Path, path: Path, *, batch: int | str = "batch", height: int | str = _SIZE) -> Path:
    """Write a graph whose input has that batch and height; a name is a free axis."""
    proto = onnx.load(source)
    for tensor in (*proto.graph.input, *proto.graph.output):
        for axis, size in zip(tensor.type.tensor_type.shape.dim[:3:2], (batch, height), strict=False):
            axis.Clear()
            if isinstance(size, int):
                axis.dim_value = size
            else:
                axis.dim_param = size
    onnx.save(proto, path)
    return path


@pytest.mark.usefixtures("tensorrt_double")
def test_a_graph_of_a_fixed_batch_builds_for_that_batch_only(
    request_of: Make,
    float_graph: Path,
    tmp_path: Path,
) -> None:
    source = _fixed(float_graph, tmp_path / "fixed.onnx", batch=4)
    request = request_of("fp32", source=source, batch_sizes=(4,))

    result = backend("tensorrt").build(request)

    assert result.facts["tensors"][0]["shape"] == [4, 3, _SIZE, _SIZE]
    assert _header(request.engine)["profiles"] == []
    with pytest.raises(GraphError, match="batch sizes: expected 4, got 1, 2"):
        backend("tensorrt").build(request_of("fp32", source=source))


@pytest.mark.usefixtures("tensorrt_10_double")
def test_a_graph_of_a_fixed_batch_is_calibrated_at_that_batch_only(
    request_of: Make,
    float_graph: Path,
    tmp_path: Path,
) -> None:
    fitting = _fixed(float_graph, tmp_path / "four.onnx", batch=4)
    other = _fixed(float_graph, tmp_path / "two.onnx", batch=2)

    backend("tensorrt").build(request_of("int8-implicit", source=fitting, batch_sizes=(4,)))
    with pytest.raises(GraphError, match="expected 2, got 4"):
        backend("tensorrt").build(request_of("int8-implicit", source=other, batch_sizes=(2,)))


@pytest.mark.usefixtures("tensorrt_double")
def test_a_free_image_size_is_refused(
    request_of: Make,
    float_graph: Path,
    tmp_path: Path,
) -> None:
    source = _fixed(float_graph, tmp_path / "free.onnx", height="height")

    with pytest.raises(GraphError, match="axis 2 is free"):
        backend("tensorrt").build(request_of("fp32", source=source))


@pytest.mark.usefixtures("tensorrt_double")
def test_what_the_parser_refuses_is_told_by_node_and_operator(
    request_of: Make,
    float_graph: Path,
    tmp_path: Path,
) -> None:
    proto = onnx.load(float_graph)
    relu = next(node for node in proto.graph.node if node.op_type == "Relu")
    relu.op_type, relu.name = "DeformConv", "odd_activation"
    path = tmp_path / "odd.onnx"
    onnx.save(proto, path)
    request = request_of("fp32", source=path)

    with pytest.raises(
        GraphError,
        match=r"node odd_activation \(DeformConv\): TensorRT's parser does not know this operator \[UNSUPPORTED_NODE\]",
    ):
        backend("tensorrt").build(request)
    assert not request.engine.exists()


@pytest.mark.usefixtures("tensorrt_double")
def test_progress_is_told_from_nothing_to_all(request_of: Make) -> None:
    told: list[tuple[str, float]] = []
    backend("tensorrt").build(request_of("fp32", on_progress=lambda phase, share: told.append((phase, share))))
    shares = [share for _, share in told]

    assert told[0] == ("Building engine", 0.0)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    inner = ("Building engine from subgraph", "Optimizing layers 0", "Optimizing layers 1")
    assert {phase for phase, _ in told} == {"Building engine", *inner}


@pytest.mark.usefixtures("tensorrt_double")
def test_a_plan_that_does_not_load_leaves_no_file(request_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTBENCH_DOUBLE_FAULT", "oom-engine")
    request = request_of("fp32")

    with pytest.raises(OutOfMemoryError):
        backend("tensorrt").build(request)
    assert not request.engine.exists()


@pytest.mark.usefixtures("tensorrt_double")
def test_a_listener_that_fails_stops_the_build_and_its_error_is_raised(request_of: Make) -> None:
    def fail(_phase: str, _share: float) -> None:
        raise RuntimeError("the screen is gone")

    request = request_of("fp32", on_progress=fail)

    with pytest.raises(RuntimeError, match="the screen is gone"):
        backend("tensorrt").build(request)
    assert not request.engine.exists()


@pytest.mark.usefixtures("tensorrt_double")
def test_ctrl_c_stops_the_build_at_its_next_step_and_leaves_nothing(
    request_of: Make, cancelled: threading.Event
) -> None:
    told: list[float] = []

    def interrupt(_phase: str, share: float) -> None:
        told.append(share)
        if len(told) == 3:
            _thread.interrupt_main()
            cancelled.wait(60)

    request = request_of("fp32", on_progress=interrupt)

    with pytest.raises(KeyboardInterrupt):
        backend("tensorrt").build(request)
    assert max(told) < 1.0
    assert not list(request.engine.parent.glob("*"))


@pytest.mark.usefixtures("tensorrt_double")
def test_ctrl_c_while_the_build_is_being_started_stops_it_too(
    request_of: Make, cancelled: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, told = threading.Thread.start, list[float]()

    def start_and_be_interrupted(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "trtbench-build":
            raise KeyboardInterrupt

    def slow(_phase: str, share: float) -> None:
        told.append(share)
        cancelled.wait(60)

    monkeypatch.setattr(threading.Thread, "start", start_and_be_interrupted)

    with pytest.raises(KeyboardInterrupt):
        backend("tensorrt").build(request_of("fp32", on_progress=slow))
    assert max(told, default=0.0) < 1.0
    assert not [thread for thread in threading.enumerate() if thread.name == "trtbench-build"]


@pytest.mark.usefixtures("tensorrt_double")
def test_what_the_library_raises_in_its_thread_is_raised_to_the_caller(
    request_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorrt as trt

    def fail(*_: object) -> None:
        raise RuntimeError("a binding's own error")

    monkeypatch.setattr(trt.Builder, "build_serialized_network", fail)

    with pytest.raises(DeviceError, match="a binding's own error"):
        backend("tensorrt").build(request_of("fp32"))


@pytest.mark.usefixtures("tensorrt_10_double")
def test_a_parser_that_takes_no_configuration_builds_too(request_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorrt as trt

    monkeypatch.delattr(trt.OnnxParser, "set_builder_config")  # as before 10.15

    assert backend("tensorrt").build(request_of("fp32")).achieved == "fp32"


@pytest.mark.usefixtures("tensorrt_double")
def test_a_profile_that_tensorrt_refuses_is_an_error(request_of: Make) -> None:
    with pytest.raises(EngineError, match="optimisation profile: got refused by TensorRT"):
        backend("tensorrt").build(request_of("fp32", profile=(5, 2, 1)))


@pytest.mark.usefixtures("tensorrt_10_double")
def test_a_calibration_profile_that_tensorrt_refuses_is_an_error(graphs: dict[str, Path]) -> None:
    from trtbench.engines.tensorrt import library, precision, source

    plan = precision.plan_precision(
        "fp32", abilities=library.abilities(), options=BuildOptions(), compute_capability=(8, 9)
    )
    lines = library.LogLines()
    logger = library.make_logger(lines)
    builder = library.create_builder(logger, lines)
    config = builder.create_builder_config()
    parsed = source.parse_network(
        builder, config, source.read_source(graphs["fp32"], plan), is_strongly_typed=True, logger=logger
    )

    with (
        pytest.warns(DeprecationWarning, match="uperseded"),
        pytest.raises(EngineError, match="calibration profile"),
    ):
        source.set_calibration_profile(builder, config, parsed, batch_size=-4)


@pytest.mark.usefixtures("tensorrt_double")
def test_the_logger_keeps_what_is_wrong_and_not_what_is_told() -> None:
    import tensorrt as trt

    from trtbench.engines.tensorrt.library import LogLines, make_logger

    lines = LogLines()
    logger = make_logger(lines)
    for severity in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
        logger.log(getattr(trt.ILogger, severity), severity.lower())

    assert lines.errors == ("internal_error", "error")
    assert lines.warnings == ("warning",)


@pytest.mark.usefixtures("tensorrt_10_double")
def test_a_builder_that_gives_nothing_is_an_error_in_tensorrts_own_words(
    request_of: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from trtbench.engines.tensorrt import builder, precision

    right = precision.plan_precision
    monkeypatch.setattr(builder, "plan_precision", lambda *a, **k: replace(right(*a, **k), flags=("FP16",)))

    with pytest.raises(EngineError, match="kFP16 is not compatible with a strongly typed network"):
        backend("tensorrt").build(request_of("fp32"))


@pytest.mark.usefixtures("tensorrt_double")
@pytest.mark.parametrize("fault", ["oom-build", "oom-engine"])
def test_out_of_memory_is_an_error_of_its_own(
    fault: str,
    request_of: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRTBENCH_DOUBLE_FAULT", fault)

    with pytest.raises(OutOfMemoryError, match=r"Requested size was.*workspace_mib"):
        backend("tensorrt").build(request_of("fp32"))


def test_without_a_device_auto_is_another_runtime_and_the_reason_is_told(
    tensorrt_double: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtbench.engines.base import why_not_tensorrt
    from trtbench.engines.tensorrt.library import LogLines, create_builder, create_runtime, make_logger

    assert why_not_tensorrt() == ""
    assert resolve_backend("auto") == "tensorrt"
    monkeypatch.setenv("TRTBENCH_DOUBLE_FAULT", "no-device")

    assert tensorrt_double.__version__
    assert resolve_backend("auto") == "onnxruntime-cpu"
    assert "CUDA device 0" in why_not_tensorrt()
    from simulated_tensorrt.strict import Unusable

    before = Unusable.ends
    for create in (create_builder, create_runtime):
        lines = LogLines()
        with pytest.raises(DeviceError, match=r"got create.*CUDA initialization failure.*; `trtbench gpu-info`"):
            create(make_logger(lines), lines)
    gc.collect()
    assert Unusable.ends == before  # the real one ends the process then


def test_timings_are_kept_between_builds_and_added_to_those_of_others(
    tensorrt_double: ModuleType, request_of: Make, tmp_path: Path
) -> None:
    folder = tmp_path / "timing"
    first = backend("tensorrt").build(request_of("fp32", timing_cache=folder))
    (path,) = folder.glob("*.timing")
    kept = path.read_bytes()
    second = backend("tensorrt").build(request_of("int8", timing_cache=folder))

    assert first.facts["timing_cache"] == {"file": path.name, "read_bytes": 0}
    assert second.facts["timing_cache"] == {"file": path.name, "read_bytes": len(kept)}
    assert path.name.startswith(f"tensorrt-{tensorrt_double.__version__}_Simulated-GPU-sm8.9_driver-")
    assert len(path.read_bytes()) > len(kept)
    assert f"--timingCacheFile={path}" in second.facts["trtexec"]
    assert not first.notes
    assert not second.notes


@pytest.mark.usefixtures("tensorrt_double")
def test_at_level_0_it_is_said_that_timings_are_passed_over(request_of: Make, tmp_path: Path) -> None:
    build = backend("tensorrt").build

    assert build(request_of("fp32", timing_cache=tmp_path / "t", optimization_level=0)).notes == (
        "at optimization_level 0 TensorRT passes over the timing cache",
    )
    assert build(request_of("fp32", optimization_level=0)).notes == ()


@pytest.mark.usefixtures("tensorrt_double")
def test_what_another_build_wrote_meanwhile_is_kept_beside_what_this_one_learned(
    request_of: Make, tmp_path: Path
) -> None:
    folder = tmp_path / "timing"
    build = backend("tensorrt").build
    told: list[str] = []

    def build_another(phase: str, _share: float) -> None:
        told.append(phase)
        if len(told) == 1:
            build(request_of("int8", timing_cache=folder))

    build(request_of("fp32", timing_cache=folder, on_progress=build_another))
    (path,) = folder.glob("*.timing")

    assert b"INT8" in path.read_bytes()
    assert b"FP32" in path.read_bytes()


@pytest.mark.usefixtures("tensorrt_double")
@pytest.mark.parametrize(("content", "why"), [(b"damaged", "cannot be read"), (None, "is of another TensorRT, GPU")])
def test_a_damaged_or_foreign_timing_cache_starts_empty_and_says_so(
    content: bytes | None, why: str, request_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "timing"
    monkeypatch.setenv("TRTBENCH_DOUBLE_SM", "8.6")
    backend("tensorrt").build(request_of("fp32", timing_cache=folder))
    (foreign,) = folder.glob("*.timing")
    monkeypatch.setenv("TRTBENCH_DOUBLE_SM", "8.9")
    path = folder / foreign.name.replace("sm8.6", "sm8.9")
    path.write_bytes(foreign.read_bytes() if content is None else content)

    result = backend("tensorrt").build(request_of("fp32", timing_cache=folder))
    again = backend("tensorrt").build(request_of("fp32", timing_cache=folder))

    assert result.notes == (f"timing cache {path.name} {why if content else why + ' or driver'}: it starts empty",)
    assert result.facts["timing_cache"]["read_bytes"] == 0
    assert again.facts["timing_cache"]["read_bytes"] > 0
    assert not again.notes


@pytest.mark.usefixtures("tensorrt_double")
def test_an_engine_of_another_version_is_refused_before_it_is_read(
    request_of: Make,
    sidecar_of: Callable[..., Sidecar],
) -> None:
    request = request_of("fp32")
    made = sidecar_of(request, backend("tensorrt").build(request), backend_version="10.15.0.1")
    request.engine.unlink()

    with pytest.raises(SidecarError, match=r"got one of 10\.15\.0\.1; build it here: `trtbench build mine.yaml`"):
        backend("tensorrt").open(request.engine, made, {})


@pytest.mark.usefixtures("tensorrt_double")
def test_a_plan_that_does_not_load_is_told_in_tensorrts_words_with_the_rebuild_command(
    request_of: Make,
    sidecar_of: Callable[..., Sidecar],
) -> None:
    request = request_of("fp32")
    made = sidecar_of(request, backend("tensorrt").build(request))
    request.engine.write_bytes(request.engine.read_bytes()[:-1])

    with pytest.raises(EngineError, match=r"Serialization.*`trtbench build mine.yaml`"):
        backend("tensorrt").open(request.engine, made, {})


@pytest.mark.usefixtures("tensorrt_double")
def test_a_version_compatible_engine_is_opened_with_its_host_code_allowed(
    request_of: Make,
    sidecar_of: Callable[..., Sidecar],
) -> None:
    request = request_of("fp32", version_compatible=True)
    made = sidecar_of(request, backend("tensorrt").build(request))

    backend("tensorrt").open(request.engine, made, {}).session(1).close()
    with pytest.raises(EngineError, match="host code"):
        backend("tensorrt").open(request.engine, replace(made, options={}), {})


@pytest.mark.usefixtures("tensorrt_double")
def test_an_engine_of_another_gpu_is_another_machines_unless_it_is_hardware_compatible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = backend("tensorrt")
    here, anywhere = found.facts().machine, found.facts({"hardware_compatible": True}).machine
    monkeypatch.setenv("TRTBENCH_DOUBLE_SM", "8.6")

    assert "Simulated GPU, SM 8.9" in here
    assert found.facts().machine != here
    assert found.facts({"hardware_compatible": True}).machine == anywhere


def test_the_double_is_simulated_and_says_what_it_is(tensorrt_double: ModuleType) -> None:
    found = backend("tensorrt")

    assert found.is_simulated()
    assert found.facts().device == "Simulated GPU"
    assert found.facts().version == tensorrt_double.__version__
    assert ("int8-implicit+fp16" in found.facts().usual_precisions) == tensorrt_double.__version__.startswith("10")
    assert set(found.facts().usual_precisions) <= set(found.precisions)
    assert found.takes_options
    assert "torch" not in {name.partition(".")[0] for name in vars(sys.modules["trtbench.engines.tensorrt"])}
