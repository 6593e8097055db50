"""The doubles do what the real library does, wherever it can be asked without a GPU: the same test runs on both."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from simulation import simulated

from tests.rtx.mutations import subjects

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.rtx

_GRAPH = subjects()[0].SerializeToString()


class _Bench:
    """A builder, the real one or a double's, with what it said; an RTX builder is told the GPU."""

    def __init__(self, trt: Any, *, raises: bool = False) -> None:
        said = self.said = []  # type: list[tuple[str, str]]

        class Logger(trt.ILogger):  # type: ignore[misc]  # the base is known at run time only
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                said.append((severity.name, msg))
                if raises:
                    raise ValueError("a logger that raises")

        self.trt, self.logger = trt, Logger()
        self.builder = trt.Builder(self.logger)
        self.config = self.builder.create_builder_config()
        if hasattr(trt, "ComputeCapability"):
            self.config.num_compute_capabilities = 1
            self.config.set_compute_capability(trt.ComputeCapability.SM89, 0)

    def of(self, severity: str) -> str:
        return " | ".join(text for each, text in self.said if each == severity and "catchCudaError" not in text)

    def parser(self) -> tuple[Any, Any]:
        network = self.builder.create_network(0)
        return network, self.trt.OnnxParser(network, self.logger)

    def plan(self, *shapes: Sequence[int], graph: bytes = _GRAPH) -> Any:
        network, parser = self.parser()
        assert parser.parse(graph)
        profile = self.builder.create_optimization_profile()
        profile.set_shape("input", *(shapes or ((1, 4, 8, 8),) * 3))
        self.config.add_optimization_profile(profile)
        return self.builder.build_serialized_network(network, self.config)


@pytest.fixture(params=["11.4", "rtx-1.7", "real"])
def trt(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "real":
        yield importlib.import_module("tensorrt_rtx_bindings")
        return
    with simulated(request.param) as module:
        yield module


@pytest.fixture
def bench(trt: Any) -> _Bench:
    return _Bench(trt)


def _static() -> bytes:
    graph = onnx.ModelProto()
    graph.CopyFrom(subjects()[0])
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    return bytes(graph.SerializeToString())


def _of(node: str, *, opset: int = 21) -> bytes:
    text = f'<ir_version: 10, opset_import: ["" : {opset}]> net (float[1, 4] input) => (float[1, 4] out) {{ {node} }}'
    return bytes(onnx.parser.parse_model(text).SerializeToString())


def test_no_bytes_at_all_are_taken_and_others_are_no_model(bench: _Bench) -> None:
    _network, parser = bench.parser()
    assert parser.parse(b"")
    _network, parser = bench.parser()
    assert not parser.parse(b"\xff" * 40)
    assert parser.get_error(0).code().name == "MODEL_DESERIALIZE_FAILED"
    assert parser.get_error(0).node() == -1
    parser.clear_errors()
    assert not parser.parse_from_file("nowhere.onnx")
    assert parser.get_error(parser.num_errors - 1).code().name == "INVALID_VALUE"
    assert parser.get_error(99) is None


@pytest.mark.parametrize("opset", [8, 25])
def test_the_parser_takes_old_and_new_opsets(bench: _Bench, opset: int) -> None:
    _network, parser = bench.parser()  # which must live as long as its parser

    assert parser.parse(_of("out = Relu(input)", opset=opset))


def test_every_operator_without_importer_is_named_by_a_word_that_says_nothing(bench: _Bench) -> None:
    _network, parser = bench.parser()

    assert not parser.parse(_of("a = Det(input) b = Relu(a) out = Unique(b)"))
    faults = [parser.get_error(index) for index in range(parser.num_errors)]
    assert [(one.code().name, one.desc()) for one in faults] == [("UNSUPPORTED_NODE", "false")] * 2
    assert [(one.node(), one.node_operator()) for one in faults] == [(0, "Det"), (2, "Unique")]
    assert [(one.file(), one.func()) for one in faults] == [
        ("onnxOpCheckers.cpp", "checkDet"),
        ("onnxOpCheckers.cpp", "checkUnique"),
    ]


def test_a_network_is_filled_once(bench: _Bench) -> None:
    _network, parser = bench.parser()
    assert parser.parse(_GRAPH)

    assert not parser.parse(_GRAPH)
    assert parser.num_errors == 0
    assert bench.of("ERROR")


def test_levels_beyond_five_are_five_and_below_zero_are_refused(bench: _Bench) -> None:
    bench.config.builder_optimization_level = -1
    assert bench.config.builder_optimization_level == 3
    assert bench.of("ERROR")
    bench.config.builder_optimization_level = 6
    assert bench.config.builder_optimization_level == 5


def test_a_flag_that_needs_another_is_not_set(bench: _Bench) -> None:
    flag = bench.trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME
    bench.config.set_flag(flag)

    assert not bench.config.get_flag(flag)
    assert bench.of("ERROR")
    assert bench.plan() is not None


def test_a_number_of_no_flag_makes_one_all_the_same(bench: _Bench) -> None:
    assert str(bench.trt.BuilderFlag(99)) == "BuilderFlag.???"


def test_profiles_of_unlike_ranks_are_set_and_none_is_given_back(bench: _Bench) -> None:
    profile = bench.builder.create_optimization_profile()

    profile.set_shape("input", (1, 4), (1, 4, 8), (1, 4, 8, 8))
    assert not profile


def test_a_profile_of_another_batch_than_a_static_networks_is_refused_at_the_build(bench: _Bench) -> None:
    assert bench.plan(*((2, 4, 8, 8),) * 3, graph=_static()) is None
    assert "has static dimensions that don't match kMIN dimensions in profile index 0" in bench.of("ERROR")


def test_a_profile_that_falls_is_not_added(bench: _Bench) -> None:
    profile = bench.builder.create_optimization_profile()
    profile.set_shape("input", (2, 4, 8, 8), (1, 4, 8, 8), (1, 4, 8, 8))

    assert not profile
    assert bench.config.add_optimization_profile(profile) == -1
    assert "MIN<=OPT<=MAX" in bench.of("ERROR")


def test_a_dynamic_network_needs_a_profile_of_its_input_and_channels(bench: _Bench) -> None:
    network, parser = bench.parser()
    assert parser.parse(_GRAPH)
    assert bench.builder.build_serialized_network(network, bench.config) is None
    assert "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Network has dynamic or" in bench.of(
        "ERROR"
    )
    assert bench.plan(*((1, 3, 8, 8),) * 3) is None
    assert "At dimension axis 1, profile has min=3, opt=3, max=3 but tensor has 4." in bench.of("ERROR")


def test_no_workspace_fails_the_build(bench: _Bench) -> None:
    bench.config.set_memory_pool_limit(bench.trt.MemoryPoolType.WORKSPACE, 0)

    assert bench.plan() is None
    assert "increase the workspace" in bench.of("ERROR")


def test_a_plan_is_bytes_without_length_slices_or_iteration(bench: _Bench) -> None:
    plan = bench.plan()

    assert len(bytes(plan)) == plan.nbytes
    assert np.frombuffer(plan, np.uint8).nbytes == plan.nbytes
    for wrong in (len, iter, lambda one: one[:4]):
        with pytest.raises(TypeError):
            wrong(plan)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_there_is_no_timing_cache_where_none_was_set(bench: _Bench) -> None:
    assert bench.plan() is not None
    assert bench.config.get_timing_cache() is None


def test_a_second_logger_is_warned_of(trt: Any) -> None:
    first, second = _Bench(trt), _Bench(trt)

    assert "differs from one already registered" in first.of("WARNING") + second.of("WARNING")


def test_a_logger_that_raises_spoils_nothing(trt: Any) -> None:
    bench = _Bench(trt, raises=True)
    bench.config.builder_optimization_level = -1

    assert bench.plan() is not None


def _monitor(trt: Any, *, stops_at: int = 0) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # of a class known at run time only
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.started: list[tuple[str, str | None, int]] = []
            self.finished: list[str] = []
            self.told: list[tuple[str, int]] = []

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.started.append((phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.told.append((phase_name, step))
            return len(self.told) != stops_at

        def phase_finish(self, phase_name: str) -> None:
            self.finished.append(phase_name)

    return Monitor()


def test_phases_are_nested_and_the_last_step_of_the_outermost_is_not_told(bench: _Bench) -> None:
    monitor = bench.config.progress_monitor = _monitor(bench.trt)

    assert bench.plan() is not None
    (root, parent, steps), *others = monitor.started
    assert (root, parent) == ("Building engine", None)
    assert [step for name, step in monitor.told if name == root] == list(range(steps - 1))
    assert {parent for _, parent, _ in others} <= {root, *(name for name, _, _ in others)}
    assert len({parent for _, parent, _ in others}) > 1
    assert sorted(monitor.finished) == sorted(name for name, _, _ in monitor.started)


@pytest.mark.parametrize("stops_at", [1, 3])
def test_a_cancelled_build_is_an_error_in_the_log(bench: _Bench, stops_at: int) -> None:
    bench.config.progress_monitor = _monitor(bench.trt, stops_at=stops_at)

    assert bench.plan() is None
    assert "Error Code 7: BuildCanceled (Build canceled by user" in bench.of("ERROR")
