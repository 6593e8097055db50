"""The calibration options of a suite reach its Q/DQ graphs, and what each brought is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from trtbench.calibrate.exclusion import judge, nearest
from trtbench.calibrate.manifest import load_manifest
from trtbench.graph.reference import run_reference
from trtbench.make.calibration import calibration_set, judges, manifest
from trtbench.make.gains import calibration_notes, calibration_record
from trtbench.make.graphs import calibrated_graph, float_graph, quantized_graph, ranges
from trtbench.make.makings import Makings
from trtbench.make.refine import _within_memory
from trtbench.running.plan import build_suite
from trtbench.suite import parse_suite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trtbench.make.calibration import CalibrationSet
    from trtbench.running import Places
    from trtbench.suite import Suite

    Make = Callable[..., Suite]


def _with(suite: Suite, **options: object) -> Suite:
    config = type(suite.calibration).model_validate(suite.calibration.model_dump() | options)
    return suite.model_copy(update={"calibration": config})


def _logits(makings: Makings, graph: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    from trtbench.data import normalise

    images = normalise(makings.dataset.validation.images, makings.dataset.preprocessing)
    return next(iter(run_reference(onnx.load(graph), {"input": images}).values()))


@pytest.mark.slow
def test_each_option_changes_the_graph_and_its_gain_stands_in_the_row(suite: Make, places: Places) -> None:
    plain = suite()
    engines = [one.model_copy(update={"precisions": ("int8",)}) for one in plain.engines]
    plain = plain.model_copy(update={"engines": tuple(engines)})
    dense = plain.variants[0]
    everything = {"weights": "mse", "equalise": True, "rounding": "gptq", "bias_correction": True}
    graphs = {"plain": quantized_graph(Makings(plain, places), dense)}
    for name, value in everything.items():
        graphs[name] = quantized_graph(Makings(_with(plain, **{name: value}), places), dense)
    graphs["all"] = quantized_graph(Makings(_with(plain, **everything), places), dense)
    assert len({graph.sha256 for graph in graphs.values()}) == 6

    reference = _logits(Makings(plain, places), str(float_graph(Makings(plain, places), dense).path("model.onnx")))
    errors = {
        name: float(np.square(_logits(Makings(plain, places), str(graph.path("model.onnx"))) - reference).mean())
        for name, graph in graphs.items()
    }
    assert max(errors.values()) < 0.1 * float(np.square(reference).mean())
    assert errors["rounding"] < errors["plain"]

    built = build_suite(_with(plain, rounding="gptq", bias_correction=True), places)
    row = next(one for one in built if one.plan.precision == "int8")
    assert row.sidecar is not None
    said = [note for note in row.sidecar.notes if note.startswith("calibration.")]
    assert [note.split(":")[0] for note in said] == ["calibration.rounding", "calibration.bias_correction"]
    assert all("of 9 validation images right" in note for note in said)


def test_no_option_has_nothing_to_say(suite: Make, places: Places) -> None:
    makings = Makings(suite(), places)
    assert calibration_notes(makings, makings.suite.variants[0], precision="int8", runtime="onnxruntime-cpu") == ()


def test_a_short_class_stops_a_build_unless_the_suite_allows_it_and_then_it_is_said(
    suite: Make, places: Places
) -> None:
    from trtbench.errors import DataError

    strict = _with(suite(), per_class=10)  # each class has 12 images, of which 3 are held out
    with pytest.raises(DataError, match="class 0 has 9 images, fewer than per_class = 10"):
        _ = manifest(Makings(strict, places))
    lax = _with(strict, allow_short=True)
    notes = calibration_notes(Makings(lax, places), lax.variants[0], precision="int8", runtime="onnxruntime-cpu")
    assert notes == ("calibration: 3 of 3 classes gave fewer than 10 images: circle 9, square 9, star 9",)
    again = Makings(lax, places)
    assert manifest(again).is_cached
    assert manifest(again).facts.images == 27


def test_qat_learns_on_the_layers_that_were_equalised(suite: Make, places: Places) -> None:
    text = _with(suite("", "[{kind: dense, name: dense}, {kind: qat, name: qat}]"), equalise=True)
    text = text.model_copy(update={"fine_tune": text.fine_tune.model_copy(update={"epochs": 0})})
    makings, (plain, qat) = Makings(text, places), text.variants

    started = _weights(float_graph(makings, qat).path("model.onnx"))  # it learnt for no epoch

    assert started == _weights(calibrated_graph(makings, plain).path("model.onnx"))
    assert started != _weights(float_graph(makings, plain).path("model.onnx"))
    assert calibrated_graph(makings, qat).sha256 == float_graph(makings, qat).sha256


def _weights(graph: Path) -> dict[str, bytes]:
    return {one.name: onnx.numpy_helper.to_array(one).tobytes() for one in onnx.load(graph).graph.initializer}


def test_statistics_beyond_the_memory_of_a_pass_wait_for_the_next(
    suite: Make, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtbench.graph.placement import plan_qdq
    from trtbench.make import refine
    from trtbench.make.refine import reconstructions

    makings = Makings(suite(), places)
    proto = onnx.load(float_graph(makings, makings.suite.variants[0]).path("model.onnx"))
    layers = list(reconstructions(proto, plan_qdq(proto)))
    assert len(list(_within_memory(layers, proto))) == 1
    monkeypatch.setattr(refine, "_GRAM_BYTES", 1)
    assert list(_within_memory(layers, proto)) == [[layer] for layer in layers]


def test_the_options_stand_in_a_suite_file() -> None:
    text = """
name: all
model: {name: "onnx:a.onnx"}
variants: [{kind: dense, name: dense}]
calibration: {method: moving-average, weights: mse, equalise: true, rounding: gptq, bias_correction: true}
"""
    config = parse_suite(text, origin="all.yaml").calibration
    assert (config.method, config.weights, config.rounding) == ("moving-average", "mse", "gptq")
    assert config.equalise
    assert config.bias_correction
    assert not config.allow_short


def test_auto_takes_the_method_nearest_to_the_float_graph_on_images_that_did_not_calibrate(
    suite: Make, places: Places
) -> None:
    plain = suite()
    makings = Makings(_with(plain, method="auto", per_class=4), places)
    variant = plain.variants[0]
    images, judging = (set(load_manifest(one.manifest.path("manifest.json")).indices) for one in _sets(makings))
    found = ranges(makings, variant).facts

    assert len(judging) == 15  # nine of each class train, four calibrate
    assert not images & judging
    assert set(found.judged) == {"entropy", "mse", "percentile", "minmax"}
    assert found.method == nearest(found.judged)
    assert {one.images for one in found.judged.values()} == {15}

    same = ranges(Makings(_with(plain, method=found.method, per_class=4), places), variant)
    assert found.given_way or same.sha256 == ranges(makings, variant).sha256


def test_a_row_says_how_near_its_own_graph_comes(suite: Make, places: Places) -> None:
    makings = Makings(_with(suite(), method="minmax", per_class=9), places)
    variant = makings.suite.variants[0]
    fused = quantized_graph(makings, variant, runtime="onnxruntime-cpu").path("model.onnx")

    found = calibration_record(makings, variant, runtime="onnxruntime-cpu")

    assert (found.method, found.images) == ("minmax", 27)  # all calibrate, so all judge
    (in_int8,), (in_float,) = (judges(makings).outputs(onnx.load(one)) for one in (fused, _float(makings)))
    assert found.snr_db == judge(in_int8, in_float).snr_db


def _float(makings: Makings) -> Path:
    return float_graph(makings, makings.suite.variants[0]).path("model.onnx")


def _sets(makings: Makings) -> tuple[CalibrationSet, CalibrationSet]:
    return calibration_set(makings), judges(makings)
