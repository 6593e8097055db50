"""ONNX Runtime's CPU engine computes what the graph says, where it was asked to, and says what it made of int8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from trtbench.engines.base import BuildRequest
from trtbench.engines.onnxruntime import cpu as runtime
from trtbench.engines.onnxruntime import iterate_activations
from trtbench.engines.onnxruntime.cpu import ONNXRUNTIME_CPU
from trtbench.engines.onnxruntime.sessions import CPU, start
from trtbench.errors import EngineError, OutOfMemoryError, ProviderError, UnsupportedError
from trtbench.graph.reference import run_reference
from trtbench.precision import NONE_IN_INT8

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from trtbench.engines.base import BuildResult, Scope
    from trtbench.engines.sidecar import Sidecar


def _build(source: Path, tmp_path: Path, precision: str) -> tuple[Path, BuildResult]:
    engine = tmp_path / f"{precision}.onnx.engine"
    return engine, ONNXRUNTIME_CPU.build(BuildRequest(source=source, engine=engine, precision=precision, num_classes=4))


def _logits(engine: Path, made: Sidecar, images: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ONNXRUNTIME_CPU.open(engine, made, {}).session(len(images))
    session.copy_in(images)
    session.enqueue()
    session.synchronize()
    logits = session.copy_out()
    session.close()
    return logits


def test_a_float_engine_gives_the_graphs_logits(
    float_graph: Path, tmp_path: Path, sidecar: Callable[..., Sidecar], images: NDArray[np.float32]
) -> None:
    engine, result = _build(float_graph, tmp_path, "fp32")
    expected = run_reference(onnx.load(float_graph), {"input": images})["logits"]

    np.testing.assert_allclose(_logits(engine, sidecar(), images), expected, atol=1e-5)
    assert result.achieved == "fp32"


def test_an_int8_engine_is_within_a_step_of_true_arithmetic_and_stores_int8_weights(
    quantized_graph: Path, tmp_path: Path, sidecar: Callable[..., Sidecar], images: NDArray[np.float32]
) -> None:
    engine, _ = _build(quantized_graph, tmp_path, "int8")
    expected = run_reference(onnx.load(quantized_graph), {"input": images})["logits"]
    kinds = {item.data_type for item in onnx.load(engine).graph.initializer if len(item.dims) == 4}

    np.testing.assert_allclose(_logits(engine, sidecar(precision="int8"), images), expected, atol=0.1)
    assert kinds == {onnx.TensorProto.INT8}


def test_building_twice_gives_equal_bytes(quantized_graph: Path, tmp_path: Path) -> None:
    engine, _ = _build(quantized_graph, tmp_path, "int8")
    first = engine.read_bytes()
    _build(quantized_graph, tmp_path, "int8")

    assert engine.read_bytes() == first


def test_what_became_of_int8_is_counted_and_noted_where_it_is_not_all() -> None:
    from collections import Counter

    partly = runtime._achieved("int8", Counter({"QLinearConv": 9, "Conv": 11, "FusedConv": 1}))
    wholly = runtime._achieved("int8", Counter({"QLinearConv": 2}))

    assert partly[0] == "int8 in 9 of 21 convolutions"
    assert partly[1][0].startswith("requested int8, achieved 9 of 21 convolutions")
    assert wholly == ("int8 in 2 of 2 convolutions", ())


def test_int8_of_no_layer_is_called_the_float_that_it_is() -> None:
    from collections import Counter

    none = runtime._achieved("int8", Counter({"Conv": 2, "ConvTranspose": 1, "QGemm": 1}))
    linear = runtime._achieved("int8", Counter({"Conv": 1, "MatMulIntegerToFloat": 3, "MatMul": 1}))

    assert none[0] == f"fp32{NONE_IN_INT8}3 convolutions"
    assert none[1][0].startswith("requested int8, achieved 0 of 3 convolutions")
    assert linear[0] == "int8 in 3 of 4 linear layers"


@pytest.mark.parametrize(("has_int8_dot", "is_exact"), [(True, False), (False, True)])
def test_exact_int8_kernels_are_chosen_where_the_fast_ones_saturate(
    quantized_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_int8_dot: bool, is_exact: bool
) -> None:
    from dataclasses import replace

    from trtbench.environment.host import collect_host

    host = collect_host()
    other = replace(host, cpu=replace(host.cpu, has_int8_dot=has_int8_dot))
    monkeypatch.setattr(runtime, "collect_host", lambda: other)

    _, result = _build(quantized_graph, tmp_path, "int8")

    assert result.settings == {"x64quantprecision": is_exact}
    assert any("no VNNI" in note for note in result.notes) == is_exact


def test_a_precision_it_does_not_have_is_refused(float_graph: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="fp16"):
        _build(float_graph, tmp_path, "fp16")


def test_a_file_that_is_no_graph_is_an_engine_error_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "broken.onnx"
    source.write_bytes(b"not a graph")

    with pytest.raises(EngineError, match=r"cannot load broken\.onnx"):
        _build(source, tmp_path, "fp32")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.onnx"]


class _Elsewhere:
    """ONNX Runtime as it behaves when it falls back: a session that runs on another provider."""

    def __init__(self, *, error: str = "") -> None:
        self._error = error

    def InferenceSession(self, *_: object, **__: object) -> _Elsewhere:  # noqa: N802  the real name
        if self._error:
            raise RuntimeError(self._error)
        return self

    def get_providers(self) -> list[str]:
        return ["AzureExecutionProvider"]


def test_a_silent_fallback_to_another_provider_is_an_error() -> None:
    with pytest.raises(ProviderError, match="AzureExecutionProvider"):
        start(_Elsewhere(), Path("a.onnx"), None, providers={CPU: {}})


def test_running_out_of_memory_is_its_own_error() -> None:
    with pytest.raises(OutOfMemoryError):
        start(_Elsewhere(error="Failed to allocate memory for requested buffer"), b"graph", None, providers={CPU: {}})


@pytest.mark.parametrize("scope", ["device", "host-to-host"])
def test_timing_gives_one_positive_duration_a_sample(
    float_graph: Path, tmp_path: Path, sidecar: Callable[..., Sidecar], scope: Scope
) -> None:
    engine, _ = _build(float_graph, tmp_path, "fp32")
    session = ONNXRUNTIME_CPU.open(engine, sidecar(), {"threads": 1}).session(2)

    durations = session.time(5, launches_per_sample=2, scope=scope)

    assert durations.shape == (5,)
    assert (durations > 0).all()


def test_the_settings_in_force_are_those_of_the_build_over_the_callers(
    float_graph: Path, tmp_path: Path, sidecar: Callable[..., Sidecar]
) -> None:
    engine, _ = _build(float_graph, tmp_path, "fp32")

    opened = ONNXRUNTIME_CPU.open(engine, sidecar(settings={"x64quantprecision": True}), {"threads": 2})

    assert opened.session(1).describe().settings == {"threads": 2, "spin": False, "x64quantprecision": True}


def test_activations_are_those_of_the_float_graph_batch_by_batch(
    float_graph: Path, images: NDArray[np.float32]
) -> None:
    batches = [images[:4], images[4:]]

    found = list(iterate_activations(onnx.load(float_graph), ("input", "r", "logits"), iter(batches)))

    for batch, values in zip(batches, found, strict=True):
        expected = run_reference(onnx.load(float_graph), {"input": batch}, outputs=("r", "logits"))
        np.testing.assert_array_equal(values["input"], batch)
        np.testing.assert_allclose(values["r"], expected["r"], atol=1e-5)
        np.testing.assert_allclose(values["logits"], expected["logits"], atol=1e-5)
