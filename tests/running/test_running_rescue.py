"""Where INT8 may lose too much, a run offers a row that holds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import onnx
import pytest

from trtbench.graph.reference import exact_logits
from trtbench.make.graphs import float_graph, quantized_graph
from trtbench.make.makings import Makings
from trtbench.make.rescue import rescue
from trtbench.running.plan import built_engines

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtbench.precision import Runtime
    from trtbench.running import Places
    from trtbench.suite import Suite

    Make = Callable[..., Suite]

_RUNTIME: Runtime = "onnxruntime-cpu"
_LIMIT_PP = 4.0


@pytest.fixture
def clipped(suite: Make, places: Places) -> Callable[..., Makings]:
    """Return the makings of a suite whose ranges clip a third of all values; a graph has labelled the images."""

    def make(labelled_by: Literal["float", "int8"] = "float", **options: object) -> Makings:
        plain = suite()
        config = plain.calibration.model_dump() | {"method": "percentile", "percentile": 70} | options
        changes = {
            "calibration": type(plain.calibration).model_validate(config),
            "decision": plain.decision.model_copy(update={"max_drop_pp": _LIMIT_PP}),
            "bench": plain.bench.model_copy(update={"baselines": ()}),
        }
        makings = Makings(plain.model_copy(update=changes), places)
        variant, validation = plain.variants[0], makings.dataset.validation
        quantized, in_float = quantized_graph(makings, variant, runtime=_RUNTIME), float_graph(makings, variant)
        proto = onnx.load((quantized if labelled_by == "int8" else in_float).path("model.onnx"))
        logits = exact_logits(proto, validation.images, makings.dataset.preprocessing, size=4)
        makings.dataset = replace(makings.dataset, validation=replace(validation, labels=logits.argmax(axis=1)))
        return makings

    return make


def test_layers_are_kept_in_float_until_validation_loses_a_quarter_of_the_limit(
    clipped: Callable[..., Makings],
) -> None:
    makings = clipped()
    variant = makings.suite.variants[0]

    found = rescue(makings, variant, runtime="tensorrt")

    assert found is not None
    assert found.before.drop_pp > _LIMIT_PP
    assert found.after.drop_pp <= _LIMIT_PP / 4
    assert found.makings.suite.calibration.exclude
    assert f"{len(found.makings.suite.calibration.exclude)} of 14 layers in fp32" in found.note


def test_the_rescued_engine_is_a_candidate_behind_the_one_that_was_asked_for(clipped: Callable[..., Makings]) -> None:
    built = {one.plan.shown_precision: one for one in built_engines(clipped())}

    assert list(built) == ["fp32", "int8", "int8-rescued"]
    assert {one.status for one in built.values()} == {"ok"}
    assert {one.plan.role for one in built.values()} == {"candidate"}
    asked, rescued = built["int8"].sidecar, built["int8-rescued"].sidecar
    assert asked is not None
    assert rescued is not None
    assert rescued.rescued
    assert asked.engine_sha256 != rescued.engine_sha256
    assert any("`trtbench explain-int8 tiny.yaml --variant dense` tells why" in note for note in asked.notes)
    assert any(note.startswith("int8, ") and "chosen on 9 validation images" in note for note in rescued.notes)
    assert asked.calibration is not None
    assert rescued.calibration is not None
    assert rescued.calibration.method.startswith("percentile, ")


def test_a_rescue_that_gets_no_more_images_right_is_not_offered(clipped: Callable[..., Makings]) -> None:
    makings = clipped("int8")

    assert rescue(makings, makings.suite.variants[0], runtime=_RUNTIME) is None


def test_a_suite_switches_it_off(clipped: Callable[..., Makings]) -> None:
    assert [one.plan.shown_precision for one in built_engines(clipped(rescue=False))] == ["fp32", "int8"]
