"""What adding a kind of variant takes: its class, and the module that its class names."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import onnx
import pytest
import torch
import yaml
from pydantic import Field

from trtbench.make.graphs import GRAPH, float_graph, notes_of
from trtbench.make.makings import Makings, Places
from trtbench.make.networks import load_network, variant_network
from trtbench.models import build_model, save_model
from trtbench.running.plan import plan_engines
from trtbench.suite import KINDS, Suite, VariantPart, one_of
from trtbench.suite.base import validated

if TYPE_CHECKING:
    from pathlib import Path


class ToyVariant(VariantPart):
    """Every weight times a factor."""

    place: ClassVar[str] = "toy_method:scale"

    kind: Literal["toy"]
    factor: float = 0.5


class ToyGraphVariant(VariantPart):
    """The graph, said to be a toy."""

    makes: ClassVar[Literal["network", "graph"]] = "graph"
    place: ClassVar[str] = "toy_method:mark"

    kind: Literal["toy_graph"]


_TOY_KINDS = (*KINDS, ToyVariant, ToyGraphVariant)


class SuiteWithToy(Suite):
    """A suite that knows one kind more."""

    variants: Annotated[tuple[one_of(_TOY_KINDS), ...], Field(min_length=1)]  # type: ignore[valid-type]


_MODULE = """
import torch

from trtbench.compress.method import Compressed, CompressedGraph


def mark(proto, config, context):
    marked = type(proto)()
    marked.CopyFrom(proto)
    marked.doc_string = config.kind
    return CompressedGraph(proto=marked, facts={"is_marked": True}, notes=("marked",))


def scale(network, config, context):
    with torch.no_grad():
        for value in network.parameters():
            value.mul_(config.factor)
    return Compressed(model=network, facts={"factor": config.factor}, notes=("scaled",))
"""
_SUITE = """
name: tiny
data: {source: digits, size: 16}
model: {name: resnet20}
variants:
  - {kind: dense, name: dense}
  - {kind: toy, name: halved}
  - {kind: toy, name: quartered, after: halved}
  - {kind: toy_graph, name: marked, after: halved}
export: {exporter: torchscript, opset: 17}
engines: [{backend: onnxruntime-cpu, precisions: [fp32]}]
"""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_names_a_function_that_exists(kind: type[VariantPart]) -> None:
    module, _, name = kind.place.partition(":")

    assert callable(getattr(importlib.import_module(module), name))


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Makings:
    """The makings of a suite with toys, and nothing made yet."""
    (tmp_path / "toy_method.py").write_text(_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model("resnet20", num_classes=10).eval()
    save_model(tmp_path / "net.safetensors", network, name="resnet20", num_classes=10, metadata={})
    raw: dict[str, Any] = yaml.safe_load(_SUITE)
    raw["model"]["checkpoint"] = str(tmp_path / "net.safetensors")
    suite = validated(SuiteWithToy, raw, origin="tiny.yaml")
    return Makings(suite, Places(runs=tmp_path / "runs", calib=tmp_path / "calib"))


def test_a_toy_method_needs_one_file_and_one_class(toy: Makings) -> None:
    made = [variant_network(toy, variant) for variant in toy.suite.variants if variant.makes == "network"]

    assert "toy" in SuiteWithToy.model_json_schema()["$defs"]["ToyVariant"]["properties"]["kind"]["const"]
    assert {plan.variant.name for plan in plan_engines(toy.suite)} == {"dense", "halved", "quartered", "marked"}
    assert [one.facts.method.get("factor") for one in made] == [None, 0.5, 0.5]
    assert made[1].facts.notes == ("scaled",)
    weights = [load_network(toy, one).conv1.weight for one in made]
    torch.testing.assert_close(weights[1], weights[0] / 2)
    torch.testing.assert_close(weights[2], weights[0] / 4)


def test_a_toy_method_of_graphs_needs_one_file_and_one_class(toy: Makings) -> None:
    variant = toy.suite.variants[-1]

    made = float_graph(toy, variant)

    assert onnx.load(made.path(GRAPH)).doc_string == "toy_graph"
    assert made.facts.method == {"is_marked": True}
    assert notes_of(toy, variant) == ("scaled", "marked")
    assert [plan.backend for plan in plan_engines(toy.suite) if plan.variant is variant] == ["onnxruntime-cpu"]
