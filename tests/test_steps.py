"""A step is a suite: what a step makes is what the suite that says the same makes, and what it says is of its file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from trtbench.bench.accuracy import score
from trtbench.errors import ConfigError
from trtbench.make.calibration import manifest
from trtbench.make.gains import calibration_record
from trtbench.make.graphs import float_graph, quantized_graph, ranges
from trtbench.make.makings import Makings, Places
from trtbench.make.networks import dense, variant_network
from trtbench.models import build_model, load_model, save_model
from trtbench.running.bench import reference_logits
from trtbench.running.plan import build_suite
from trtbench.steps import network, step, training
from trtbench.suite import adhoc_suite, parse_suite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trtbench.progress import Event
    from trtbench.suite import Suite

    Run = Callable[[str], Any]
    Say = Callable[[str], Suite]

pytestmark = pytest.mark.usefixtures("in_short")

_ONE = "--model tiny_nets:resnet8 --checkpoint {checkpoint} --data digits --size 8"
_TRAINED = "epochs: 1, batch_size: 256, augment: {crop_padding: 1}"
_BUDGET = "--epochs 1 --batch-size 256 --augment-crop-padding 1"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_model(
            path,
            build_model("tiny_nets:resnet8", num_classes=10).eval(),
            name="tiny_nets:resnet8",
            num_classes=10,
            metadata={},
        )
    return path


@pytest.fixture
def run(checkpoint: Path, answer: Run) -> Run:
    """Run a command line in a folder of its own, and return its JSON."""
    return lambda arguments: answer(arguments.format(checkpoint=checkpoint))


@pytest.fixture
def suite(checkpoint: Path) -> Say:
    """Read a suite of the same network and images, as a user would write it."""

    def say(more: str) -> Suite:
        model = "" if "model:" in more else f"model: {{name: 'tiny_nets:resnet8', checkpoint: '{checkpoint}'}}\n"
        variants = "" if "variants:" in more else "variants: [{kind: dense, name: dense}]\n"
        return parse_suite(
            f"name: same\ndata: {{source: digits, size: 8}}\n{model}{variants}{more}", origin="same.yaml"
        )

    return say


def _made(suite: Suite, tmp_path: Path) -> Makings:
    return Makings(suite, Places(runs=tmp_path / "suite", engines=tmp_path / "engines", calib=tmp_path / "calib"))


def test_a_step_equals_its_suite_when_it_trains(run: Run, suite: Say, tmp_path: Path) -> None:
    run(f"train --model tiny_nets:resnet8 --size 8 {_BUDGET} --seed 3 --output out")

    said = _made(suite(f"model: {{name: 'tiny_nets:resnet8', train: {{seed: 3, {_TRAINED}}}}}"), tmp_path)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == dense(said).path("model.safetensors").read_bytes()


def test_a_step_equals_its_suite_when_it_fine_tunes(run: Run, suite: Say, tmp_path: Path) -> None:
    found = run(f"train {_ONE} {_BUDGET} --lr 0.02 --output out")

    text = f"variants: [{{kind: dense, name: tuned, fine_tune: true}}]\nfine_tune: {{lr: 0.02, {_TRAINED}}}"
    said = _made(suite(text), tmp_path)
    made = variant_network(said, said.suite.variants[0])
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == made.path("model.safetensors").read_bytes()
    assert made.facts.fit is not None
    assert found["val_correct"] == made.facts.fit.val_correct


@pytest.mark.parametrize(
    ("arguments", "variant"),
    [
        ("prune --macs 0.6", "kind: channels, macs: 0.6, fine_tune: false"),
        ("prune --ratio 0.5 --importance taylor", "kind: channels, ratio: 0.5, importance: taylor, fine_tune: false"),
        pytest.param(
            "prune --macs 0.6 --importance taylor",
            "kind: channels, macs: 0.6, importance: taylor, fine_tune: false",
            marks=pytest.mark.slow,  # the search for the ratio takes gradients at each try: both stand above, alone
        ),
        ("sparsify --sparsity 0.6", "kind: weights, sparsity: 0.6"),
        ("sparsify --method nm --pattern 1:4", "kind: nm, pattern: '1:4'"),
        (
            f"sparsify --sparsity 0.6 --method layer {_BUDGET}",
            "kind: weights, sparsity: 0.6, scope: layer, fine_tune: true",
        ),
    ],
)
def test_a_step_equals_its_suite(run: Run, suite: Say, tmp_path: Path, arguments: str, variant: str) -> None:
    found = run(f"{arguments} {_ONE} --output made.safetensors")

    said = _made(suite(f"variants: [{{name: v, {variant}}}]\nfine_tune: {{lr: 0.01, {_TRAINED}}}"), tmp_path)
    made = variant_network(said, said.suite.variants[0])
    assert (tmp_path / "made.safetensors").read_bytes() == made.path("model.safetensors").read_bytes()
    if "prune" in arguments:
        assert (found["params"], found["macs"]) == (made.facts.params, made.facts.macs)
        assert found["widths"] == made.facts.widths
    else:
        assert found["sparsity"] == pytest.approx(made.facts.sparsity)


def test_pruning_to_half_leaves_widths_of_sixteen_as_a_suite_that_builds_int8(run: Run) -> None:
    half = run("prune --model resnet20 --ratio 0.5")

    assert half["params"] == 80_762
    assert all(width % 16 == 0 for width in half["widths"].values())
    assert run("prune --model resnet20 --ratio 0.5 --round-to 8")["params"] == 68_786
    assert run("prune --model resnet20 --ratio 0.5 --set engines.precisions=[fp16]")["params"] == 68_786


def test_a_step_equals_its_suite_when_it_quantizes(run: Run, suite: Say, tmp_path: Path) -> None:
    found = run(f"quantize --bits 3 --images 16 {_ONE} --output made.tbz")

    said = _made(suite("variants: [{name: v, kind: fixed_point, bits: 3, images: 16}]"), tmp_path)
    made = variant_network(said, said.suite.variants[0])
    of_file = load_model("tiny_nets:resnet8", num_classes=10, checkpoint=tmp_path / "made.tbz").model.state_dict()
    of_suite = load_model(
        "tiny_nets:resnet8", num_classes=10, checkpoint=made.path("model.safetensors")
    ).model.state_dict()
    assert all(torch.equal(value, of_suite[name]) for name, value in of_file.items())
    assert found["bits_per_weight"] == made.facts.method["fixed_point"]["bits_per_weight"]


def test_a_step_equals_its_suite_when_it_exports(run: Run, suite: Say, tmp_path: Path) -> None:
    found = run(f"export --exporter torchscript --opset 18 {_ONE} --output made.onnx")

    said = _made(suite("export: {exporter: torchscript, opset: 18}"), tmp_path)
    made = float_graph(said, said.suite.variants[0])
    assert (tmp_path / "made.onnx").read_bytes() == made.path("model.onnx").read_bytes()
    assert found["opset"] == 18


def test_a_step_equals_its_suite_when_it_calibrates(run: Run, suite: Say, tmp_path: Path) -> None:
    options = "--per-class 2 --seed 1 --method percentile --weights mse --set export.exporter=torchscript"
    run(f"calibrate {options} {_ONE} --output made")

    text = "export: {exporter: torchscript}\ncalibration: {per_class: 2, seed: 1, method: percentile, weights: mse}"
    said = _made(suite(text), tmp_path)
    variant = said.suite.variants[0]
    made = tmp_path / "made"
    assert (made / "ranges.json").read_bytes() == ranges(said, variant).path("ranges.json").read_bytes()
    assert (made / "model.qdq.onnx").read_bytes() == quantized_graph(said, variant).path("model.onnx").read_bytes()
    assert (made / "manifest.json").read_bytes() == manifest(said).path("manifest.json").read_bytes()


def test_a_step_equals_its_suite_when_it_trains_in_int8(run: Run, suite: Say, tmp_path: Path) -> None:
    found = run(f"qat --per-class 2 --exporter torchscript {_BUDGET} {_ONE} --output made")

    text = f"""
variants: [{{name: v, kind: qat}}]
fine_tune: {{lr: 0.001, {_TRAINED}}}
export: {{exporter: torchscript}}
calibration: {{per_class: 2}}
"""
    said = _made(suite(text), tmp_path)
    variant = said.suite.variants[0]
    graph = quantized_graph(said, variant).path("model.onnx")
    assert (tmp_path / "made" / "model.qdq.onnx").read_bytes() == graph.read_bytes()
    assert {"correct", "total", "before"} <= found.keys()


@pytest.mark.parametrize(("kind", "verb"), [("qat", "qat"), ("fixed_point", "quantize --bits 2 --epochs 10")])
def test_a_step_trains_by_the_budget_of_a_suite_that_says_nothing(
    suite: Say, monkeypatch: pytest.MonkeyPatch, run: Run, kind: str, verb: str
) -> None:
    asked: list[Suite] = []

    def look(suite: Suite, *_: object, **__: object) -> None:
        asked.append(suite)
        raise ConfigError("seen")

    monkeypatch.setattr("trtbench.steps.step", look)
    with pytest.raises(AssertionError, match="seen"):
        run(f"{verb} {_ONE} --output made")

    assert asked[0].fine_tune == suite(f"variants: [{{name: v, kind: {kind}, fine_tune: true}}]").fine_tune
    assert asked[0].fine_tune.lr < 0.01


def test_a_step_equals_its_suite_when_it_builds(run: Run, suite: Say, tmp_path: Path) -> None:
    found = run(
        "build --precision int8 --backend onnxruntime-cpu --per-class 2 --set calibration.method=minmax"
        f" --set export.exporter=torchscript {_ONE}"
    )

    text = """
export: {exporter: torchscript}
calibration: {per_class: 2, method: minmax}
engines: [{backend: onnxruntime-cpu, precisions: [int8]}]
bench: {baselines: []}
"""
    said = suite(text)
    built = build_suite(said, _made(said, tmp_path).places)
    assert [one["sha256"] for one in found["engines"]] == [one.sidecar.engine_sha256 for one in built if one.sidecar]
    assert [one["achieved"] for one in found["engines"]] == [one.sidecar.achieved for one in built if one.sidecar]


def test_a_step_equals_its_suite_when_it_evaluates(run: Run, suite: Say, tmp_path: Path) -> None:
    found = run(f"evaluate {_ONE}")

    said = _made(suite(""), tmp_path)
    counted = score(reference_logits(said), said.dataset.test.labels)
    assert (found["correct"], found["total"]) == (counted.correct, counted.total)


def test_a_step_calibrates_by_the_method_that_auto_takes_and_says_how_near_fp32_it_comes(
    run: Run, suite: Say, tmp_path: Path
) -> None:
    found = run(f"calibrate --per-class 1 --set export.exporter=torchscript {_ONE} --output made")

    said = suite("export: {exporter: torchscript}\ncalibration: {per_class: 1}")
    assert said.calibration.method == "auto"
    made = calibration_record(_made(said, tmp_path), said.variants[0], runtime="tensorrt")
    assert (found["method"], found["snr_db"], found["agreement"]) == (made.method, made.snr_db, made.agreement)


def test_training_again_takes_what_is_there_and_an_interrupted_one_goes_on(tmp_path: Path) -> None:
    suite = adhoc_suite(
        model={"name": "resnet20", "train": {"epochs": 2, "batch_size": 512, "augment": {"crop_padding": 1}}},
        data={"size": 8},
    )
    out = tmp_path / "out"

    def stop(event: Event) -> None:
        if event.share == 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        step(suite, training, out, stop, store=out)
    found = step(suite, training, out, store=out)
    told: list[Event] = []
    again = step(suite, training, out, told.append, store=out)

    assert (found.resumed_from, found.epochs, len(found.history)) == (1, 2, 2)
    assert again == found
    assert not [event for event in told if event.stage == "train"]
    assert {"config.json", "curves.png", "history.json", "model.safetensors", "train.log"} <= {
        path.name for path in out.iterdir()
    }


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ({"kind": "channels", "ratio": 0.5, "importance": "taylor", "fine_tune": False}, "images to look at"),
        ({"kind": "channels", "ratio": 0.5, "fine_tune": True}, "images to learn from"),
    ],
)
def test_without_images_nothing_that_needs_them_is_done(variant: dict[str, Any], words: str) -> None:
    suite = adhoc_suite(model={"name": "resnet20", "train": {"epochs": 0}}, variants=variant)

    with pytest.raises(ConfigError, match=words):
        step(suite, network, None, classes=7)


def test_without_images_the_structure_is_of_so_many_classes() -> None:
    variant = {"kind": "channels", "ratio": 0.5, "fine_tune": False}
    suite = adhoc_suite(model={"name": "resnet20", "train": {"epochs": 0}}, variants=variant)

    found = {classes: step(suite, network, None, classes=classes) for classes in (7, 100)}

    assert found[100].params - found[7].params == 93 * 33  # 32 weights and a bias for each class more
    assert (found[7].correct, found[7].total) == (None, None)


def test_a_pruned_file_is_scored_as_it_is_read_again(run: Run) -> None:
    found = run(f"prune --ratio 0.25 {_ONE} --output made.safetensors")

    again = run("evaluate --model tiny_nets:resnet8 --checkpoint made.safetensors --size 8")
    assert (found["correct"], found["total"]) == (again["correct"], again["total"]) == (again["correct"], 900)
    assert np.isclose(found["top1"], again["correct"] / 900)
