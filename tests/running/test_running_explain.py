"""An INT8 drop explained on a suite small enough to run for real, and resumed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import onnx
import pytest
import yaml

from trtbench.errors import ConfigError, EngineError, GraphError, WorkerError
from trtbench.graph.placement import plan_qdq
from trtbench.make.graphs import float_graph, quantized_graph
from trtbench.make.makings import Makings
from trtbench.make.networks import dense
from trtbench.progress import Countdown
from trtbench.running import Places
from trtbench.studies.int8_drop_page import exclude_yaml, explanation_json
from trtbench.studies.int8_drop_run import explain_int8
from trtbench.studies.kernels import KernelConfig
from trtbench.suite import CalibrationConfig, options, parse_suite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trtbench.running import Event
    from trtbench.studies.int8_drop import Explanation
    from trtbench.suite import Suite

_CAN_BE_EMULATED = pytest.mark.skipif(sys.platform == "win32", reason="`env` stands for an emulator")


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory, images: Path, checkpoint: Path) -> tuple[Explanation, Makings]:
    """The explanation of the tiny suite with every way to run its kernels; `env` stands for an emulator."""
    root = tmp_path_factory.mktemp("explain")
    suite = parse_suite(
        f"""
name: tiny
data: {{source: 'folder:{images}', size: 16, validation: 0.25}}
model: {{name: 'tiny_nets:resnet8', checkpoint: '{checkpoint}'}}
variants: [{{kind: dense, name: dense}}]
export: {{exporter: torchscript}}
calibration: {{per_class: 4, method: minmax}}
decision: {{max_drop_pp: 40}}
""",
        origin="tiny.yaml",
    )
    places = Places(runs=root / "runs", engines=root / "engines", calib=root / "calib")
    makings = Makings(suite, places)
    kernels = KernelConfig(under=("env",), simulate=True, images=5)
    return explain_int8(makings, kernels=kernels), makings


@_CAN_BE_EMULATED
def test_every_engine_has_its_parts_and_its_kernels(explained: tuple[Explanation, Makings]) -> None:
    found, _ = explained

    assert [split.placement for split in found.splits] == ["tensorrt", "onnxruntime-cpu"]
    for split in found.splits:
        assert split.both.total == found.test_images == 18
        parts = split.weights_images + split.activations_images + split.together_images
        assert parts == split.float_correct - split.both.correct
    forecast, built = found.splits
    assert (forecast.achieved, forecast.kernels) == ("not built here", ())
    hows = [kernel.how for kernel in built.kernels]
    assert hows[0] == "onnxruntime-cpu, as built here"
    assert hows[1:3] == ["env, x64quantprecision on", "env, x64quantprecision off"]
    assert [kernel.effect.total for kernel in built.kernels[:3]] == [18, 5, 5]
    assert built.kernels[-1].effect.total == 5
    assert built.kernels[-1].saturated_pairs is not None


@_CAN_BE_EMULATED
def test_one_layer_alone_is_less_noisy_than_all_together(explained: tuple[Explanation, Makings]) -> None:
    found, makings = explained

    assert {layer.op_type for layer in found.layers} == {"Conv", "Add", "GlobalAveragePool", "Gemm"}
    assert sum(layer.op_type == "Conv" for layer in found.layers) == 9
    assert all(0 < layer.only.noise < found.all_quantized.noise for layer in found.layers)
    first = found.layers[0]
    assert first.own_snr_db == pytest.approx(first.accumulated_snr_db, abs=0.01)  # before it nothing is quantized
    assert sum(layer.macs for layer in found.layers) == dense(makings).facts.macs


@_CAN_BE_EMULATED
def test_what_was_run_is_kept_and_a_second_call_runs_nothing(explained: tuple[Explanation, Makings]) -> None:
    found, makings = explained
    before = len(makings.book.store.journal())
    told: list[Event] = []
    again = Makings(makings.suite, makings.places, tell=told.append)

    second = explain_int8(again, kernels=KernelConfig(under=("env",), simulate=True, images=5))

    assert explanation_json(second) == explanation_json(found)
    assert len(makings.book.store.journal()) == before
    layers = next(event for event in told if (event.stage, event.state) == ("explain layers", "done"))
    assert layers.detail == f"{2 * len(found.layers)} of {2 * len(found.layers)} kept from an earlier run"


@_CAN_BE_EMULATED
def test_a_limit_of_no_drop_at_all_is_reached_and_written_as_the_suite_takes_it(
    explained: tuple[Explanation, Makings],
) -> None:
    _, makings = explained
    found = explain_int8(makings, placement="tensorrt", max_drop_pp=0)

    assert found.placement == "tensorrt"
    assert found.exclusion.effect.drop_pp <= 0
    written = yaml.safe_load(exclude_yaml(found))["calibration"]["exclude"]
    config = options(CalibrationConfig, exclude=written)
    assert config.exclude == found.exclude == found.exclusion.nodes


def test_an_exclude_list_with_an_unknown_node_names_the_nearest(suite: Callable[..., Suite], places: Places) -> None:
    asked = suite()
    config = asked.calibration.model_copy(update={"exclude": ("conv1x",)})
    makings = Makings(asked.model_copy(update={"calibration": config}), places)

    with pytest.raises(GraphError, match="nearest names: conv1"):
        quantized_graph(makings, asked.variants[0])


def test_excluding_gives_up_int8_for_the_layers_named_and_no_others(
    suite: Callable[..., Suite], places: Places
) -> None:
    makings = Makings(suite(), places)
    variant = makings.suite.variants[0]
    proto = onnx.load(float_graph(makings, variant).path("model.onnx"))
    names = [layer.node for layer in plan_qdq(proto).layers]

    left = makings.excluding(tuple(names[:2]))

    assert left.suite.calibration.exclude == tuple(names[:2])
    assert quantized_graph(left, variant).facts.placement == "7 of 9 convolutions, 1 of 1 linear layers"
    assert quantized_graph(makings, variant).facts.placement == "9 of 9 convolutions, 1 of 1 linear layers"


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"variant": "sparse"}, "variant 'sparse': expected dense")],
)
def test_a_variant_or_precision_the_suite_has_not_is_refused(
    asked: dict[str, str], words: str, suite: Callable[..., Suite], places: Places
) -> None:
    with pytest.raises(ConfigError, match=words):
        explain_int8(Makings(suite(), places), **asked)  # type: ignore[arg-type]  # the strings fit


def test_a_suite_without_int8_has_nothing_to_explain(suite: Callable[..., Suite], places: Places) -> None:
    only_float = suite("engines: [{precisions: [fp32]}]")

    with pytest.raises(ConfigError, match=r"add int8 to engines\.precisions"):
        explain_int8(Makings(only_float, places))


@_CAN_BE_EMULATED
@pytest.mark.parametrize(
    ("under", "error", "words"),
    [
        ("no-such-emulator", EngineError, "emulator 'no-such-emulator'.*qemu-user-static"),
        ("false", WorkerError, "exit code 1"),
    ],
)
def test_an_emulator_that_does_not_work_says_so(
    explained: tuple[Explanation, Makings], under: str, error: type[Exception], words: str
) -> None:
    _, makings = explained

    with pytest.raises(error, match=words):
        explain_int8(makings, kernels=KernelConfig(under=(under,), images=2))


def test_time_left_counts_only_steps_that_were_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.0, 100.0, 200.0, 300.0, 300.0])
    monkeypatch.setattr("trtbench.progress.time.monotonic", lambda: next(clock))
    told: list[Event] = []
    countdown = Countdown(told.append, stage="work", total=4)

    countdown.step("a", is_kept=True)
    countdown.step("b")
    countdown.step("c")
    countdown.step("d")
    countdown.end("all")

    assert [event.detail for event in told] == [
        "a, 1 of 4",
        "b, 2 of 4, about 3 min left",
        "c, 3 of 4, about 100 s left",
        "d, 4 of 4",
        "1 of 4 kept from an earlier run",
    ]
    assert told[-1].seconds == 300
