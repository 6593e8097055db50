"""Every graph that trtbench makes of its own networks is taken by NVIDIA's real parser, and built as it was planned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.rtx.compiler import Options, compiled, parsed
from tests.rtx.mutations import subjects
from tests.rtx.networks import fp8_graphs, network
from tests.rtx.networks import graphs as graphs_of
from trtbench.engines.tensorrt.inspector import report_layers
from trtbench.engines.tensorrt_rtx.build import inspector_json
from trtbench.graph.lint import lint
from trtbench.models import model_names
from trtbench.precision import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx

    from trtbench.graph.placement import QdqPlan

pytestmark = pytest.mark.rtx

_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8+fp16")
_BOTH = ("SM89", "SM120")
_ALL = tuple((precision, (target,)) for precision in _PRECISIONS for target in _BOTH)
# What of the small networks is built in every test run, for two GPUs in one engine; the rest among the slow tests
_BUILT = {"resnet20": _PRECISIONS, "resnet20_a": ("int8",), "mobilenet_v2_cifar": ("int8",)}
_BUILT_IN_FP8 = {"resnet20": ("fp8", "fp8+fp16")}
# Those of 18 layers and of 53 take seconds each; the deeper ones of CIFAR repeat the blocks of resnet20 and resnet20_a
_LARGE = ("resnet18", "resnet18_imagenet", "resnet18_3x3", "mobilenet_v2")
_DEEPER = tuple(f"resnet{depth}{kind}" for depth in (32, 44, 56, 110) for kind in ("", "_a"))
_SIZES = {"mobilenet_v2": 64, "resnet18_imagenet": 64}


def _require_as_planned(
    graphs: Mapping[str, onnx.ModelProto], plan: QdqPlan, *, builds: Sequence[tuple[str, tuple[str, ...]]]
) -> None:
    planned = [layer.node for layer in plan.layers if layer.is_quantized]
    for precision, targets in builds:
        found = compiled(graphs[precision].SerializeToString(), Options(targets=targets))
        assert (found.exit_code, found.faults) == (0, ())
        assert found.plan_bytes, found.log
        report = report_layers(inspector_json(found.layers), convolutions=planned)
        if codes := PRECISIONS[precision].codes:
            assert dict.fromkeys(planned, codes) == report.convolutions
        else:
            assert not {"int8", "fp8"} & set(report.by_precision)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*_BUILT, "mobilenet_v2", "resnet32", "resnet56_a", "resnet18_3x3"])
def test_a_network_is_built_as_planned_in_every_precision_for_two_gpus(name: str, tmp_path: Path) -> None:
    size = _SIZES.get(name, 32)
    graphs, plan = graphs_of(network(name, size=size), tmp_path, size=size)

    _require_as_planned(graphs, plan, builds=_ALL)
    eights, plan = fp8_graphs(graphs["fp32"])
    _require_as_planned(eights, plan, builds=[(name, (target,)) for name in eights for target in _BOTH])


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in (*_LARGE, *_DEEPER) else name for name in model_names()],
)
def test_every_precision_of_a_shipped_network_is_parsed(name: str, tmp_path: Path) -> None:
    size = _SIZES.get(name, 32)
    graphs, plan = graphs_of(network(name, size=size), tmp_path, size=size)

    eights, fp8_plan = fp8_graphs(graphs["fp32"])
    made = [*graphs.values(), *eights.values()]

    assert [found for graph in made for found in lint(graph)] == []
    found = parsed([graph.SerializeToString() for graph in made])
    assert [(one.is_parsed, one.faults) for one in found] == [(True, ())] * len(made)
    _require_as_planned(graphs, plan, builds=[(each, _BOTH) for each in _BUILT.get(name, ())])
    _require_as_planned(eights, fp8_plan, builds=[(each, _BOTH) for each in _BUILT_IN_FP8.get(name, ())])


def test_fp8_for_a_gpu_without_it_is_refused_by_the_builder_in_these_words(tmp_path: Path) -> None:
    eights, _ = fp8_graphs(graphs_of(network("resnet20", size=32), tmp_path, size=32)[0]["fp32"])

    found = compiled(eights["fp8"].SerializeToString(), Options(targets=("SM86", "SM89")))

    assert (found.is_parsed, found.plan_bytes) == (True, 0)
    assert any("Cannot compile for target(s) sm86, because the model contains" in line for line in found.log)


def test_the_recorded_layers_are_those_that_the_builder_lists() -> None:
    recorded = (Path(__file__).parents[1] / "engines" / "layers-tensorrt-rtx-1.7.txt").read_text(encoding="utf-8")

    found = compiled(subjects()[0].SerializeToString()).layers

    assert report_layers(inspector_json(found)) == report_layers(inspector_json(recorded))
