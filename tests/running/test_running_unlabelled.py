"""A network that is no classifier: two outputs, images without labels, held to the float network."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from short_cuts import save_blank, worker_here

from tests.records import arrays_of
from trtbench.bench.accuracy import fidelity
from trtbench.errors import CapabilityError, ConfigError, DataError, GateError
from trtbench.make.makings import Makings
from trtbench.records import Output
from trtbench.report.document import read_report
from trtbench.report.words import file_line, recommend
from trtbench.running import Places, build_suite, outlook, run_suite
from trtbench.running.bench import reference_logits, score_of
from trtbench.shipping import load, prove, read_bundle, ship_row
from trtbench.shipping.templates import onnxruntime, predict
from trtbench.steps import accuracy
from trtbench.studies.sensitivity import layers_alone
from trtbench.suite import DecisionConfig, parse_suite

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tests.command import Answer
    from trtbench.report.document import Report
    from trtbench.suite import Suite

_SIDE = 16


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images in folders of no meaning, and a file that is none."""
    root = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for index in range(16):
        place = root / f"day-{index % 3}" / f"{index}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)).save(place)
    (root / "notes.txt").write_text("of the camera", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph that gives 64 boxes and a score for each of 5 labels, of one image at a time."""
    random = np.random.default_rng(1)
    weights = {
        "stem.w": random.normal(0, 0.3, (8, 3, 3, 3)),
        "boxes.w": random.normal(0, 0.3, (4, 8, 1, 1)),
        "scores.w": random.normal(0, 0.3, (5, 8, 1, 1)),
    }
    nodes = [
        helper.make_node("Conv", ["photo", "stem.w"], ["stem"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["stem"], ["features"]),
        helper.make_node("Conv", ["features", "boxes.w"], ["wide"]),
        helper.make_node("Reshape", ["wide", "places"], ["boxes"]),
        helper.make_node("Conv", ["features", "scores.w"], ["pooled"]),
        helper.make_node("GlobalMaxPool", ["pooled"], ["peaks"]),
        helper.make_node("Flatten", ["peaks"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("photo", TensorProto.FLOAT, [1, 3, _SIDE, _SIDE])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 4, 64]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 5]),
        ],
        [
            *(numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()),
            numpy_helper.from_array(np.array([1, 4, 64], np.int64), "places"),
        ],
    )
    path = tmp_path_factory.mktemp("detector") / "detector.onnx"
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    return path


def _suite(detector: Path, photographs: Path, more: str = "") -> Suite:
    text = f"""
name: detector
data: {{source: 'images:{photographs}', size: {_SIDE}}}
model: {{name: 'onnx:{detector}'}}
variants: [{{kind: dense, name: dense}}]
bench: {{batch_sizes: [1, 2], duration: 0.01, warm_up: 0, block_ms: 2, processes: 1}}
{more}
"""
    return parse_suite(text, origin="detector.yaml")


@pytest.fixture(scope="module")
def ran(detector: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    root = tmp_path_factory.mktemp("run")
    engines = "engines: [{backend: onnxruntime-cpu, precisions: [fp32, int8]}]\ndecision: {min_fidelity_db: 10}"
    places = Places(runs=root / "runs", engines=root / "engines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trtbench.bench.processes.WorkerProcess", worker_here)
        patch.setattr("trtbench.bench.worker._pin", list)
        patch.setattr("matplotlib.figure.Figure.savefig", save_blank)
        return run_suite(_suite(detector, photographs, engines), places, argv=(), now=datetime.now(UTC))


def test_every_output_is_held_to_the_float_network_and_decides(ran: tuple[Report, Path]) -> None:
    report, folder = ran
    fp32, int8 = (next(row for row in report.rows if row.precision == one) for one in ("fp32", "int8"))
    assert {row.status for row in report.rows} == {"ok"}
    assert fp32.accuracy is int8.accuracy is None
    assert fp32.fidelity is not None
    assert int8.fidelity is not None
    assert [one.name for one in int8.fidelity.outputs] == ["boxes", "scores"]
    boxes, scores = int8.fidelity.outputs
    assert boxes.agreement is None  # which of 256 coordinates is largest says nothing
    assert scores.agreement is not None
    assert boxes.snr_db is not None
    assert scores.snr_db is not None
    assert int8.fidelity.snr_db == min(boxes.snr_db, scores.snr_db)
    assert fp32.fidelity.snr_db is None or fp32.fidelity.snr_db > int8.fidelity.snr_db + 40
    assert int8.fidelity.images == 8
    assert report.decision.winner is not None
    assert "fidelity" in report.decision.sentence or "bit for bit" in report.decision.sentence
    assert read_report(folder).rows == report.rows
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert "Fidelity dB" in page
    assert "boxes" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_limit_that_no_engine_proves_leaves_nothing_to_ship(ran: tuple[Report, Path]) -> None:
    rows = [row for row in ran[0].rows if row.precision == "int8"]
    found = recommend(rows, DecisionConfig(min_fidelity_db=200))
    assert found.winner is None
    assert "dB of fidelity, proven (limit 200)" in found.sentence
    assert "its fidelity is" in found.reasons[0]
    assert any(text.startswith("With min_fidelity_db ") for text in found.what_if)


def test_an_engine_that_ruins_the_quiet_channels_of_an_output_is_refused_by_their_name(
    ran: tuple[Report, Path],
) -> None:
    random = np.random.default_rng(0)
    packed = random.uniform(0, 1, (8, 2, 64)) * np.array([[300], [1]])  # coordinates in pixels beside scores
    noisy = packed + random.normal(0, 0.5, packed.shape)
    flat, noisy = (one.reshape(8, -1).astype(np.float32) for one in (packed, noisy))
    measured = fidelity(noisy, flat, [Output(name="head", shape=(2, 64))])
    rows = [replace(row, fidelity=measured) for row in ran[0].rows if row.precision == "int8"]

    found = recommend(rows, DecisionConfig(min_fidelity_db=30))

    assert found.winner is None
    assert "dB (channel 1 of head)" in found.reasons[0]
    assert measured.outputs[0].snr_db is not None
    assert measured.outputs[0].snr_db > 45  # of both together


def test_the_engine_keeps_its_outputs_by_name_and_a_free_batch(ran: tuple[Report, Path]) -> None:
    int8 = next(row for row in ran[0].rows if row.precision == "int8")
    assert int8.engine_path is not None
    graph = onnx.load(int8.engine_path).graph
    shapes = {
        item.name: [dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim] for item in graph.output
    }
    assert shapes == {"boxes": ["batch", 4, 64], "scores": ["batch", 5]}
    sidecar = json.loads(Path(f"{int8.engine_path}.json").read_bytes())
    assert [one["name"] for one in sidecar["outputs"]] == ["boxes", "scores"]


@pytest.fixture(scope="module")
def bundle(ran: tuple[Report, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ship_row(ran[1], tmp_path_factory.mktemp("shipped") / "bundle", row="dense int8 onnxruntime-cpu b2").folder


def test_a_bundle_says_outputs_and_is_proven_by_their_fidelity(ran: tuple[Report, Path], bundle: Path) -> None:
    row = next(one for one in ran[0].rows if one.name == "dense int8 onnxruntime-cpu b2")
    found = read_bundle(bundle)
    assert row.fidelity is not None
    assert found.proof is not None
    assert found.proof.fidelity is not None
    assert found.classes == ()
    assert [(one.name, one.shape) for one in found.outputs] == [("boxes", (4, 64)), ("scores", (5,))]
    assert (found.proof.correct, found.proof.fidelity.images) == (None, 8)
    assert found.proof.fidelity.snr_db == pytest.approx(row.fidelity.snr_db, abs=0.05)
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert "boxes (4, 64), scores (5,)" in card
    assert "Both answer as `network`" in card
    config = (bundle / "triton" / "models" / "network" / "config.pbtxt").read_text(encoding="utf-8")
    assert 'name: "boxes" data_type: TYPE_FP32 dims: [4, 64] }' in config
    assert 'output_map { key: "scores" value: "scores" }' in config
    assert "trtbench ship" in file_line(ran[0].decision)


def test_every_way_to_ask_a_bundle_gives_its_golden_outputs(
    bundle: Path, photographs: Path, tmp_path: Path, command: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = arrays_of(bundle / "golden.npz")
    pixels = golden["images"].transpose(0, 3, 1, 2)
    monkeypatch.setitem(sys.modules, "runtime", onnxruntime)
    monkeypatch.setattr(sys, "path", [*sys.path])
    network = predict.Classifier(bundle)
    alone = network.outputs(pixels)
    with load(bundle) as predictor:
        ours = predictor.outputs(list(golden["images"]))
        with pytest.raises(ConfigError, match=r"ask for its outputs\(\)"):
            predictor.predict(list(golden["images"]))
    assert {name: values.shape for name, values in ours.items()} == {"boxes": (8, 4, 64), "scores": (8, 5)}
    for name, values in ours.items():
        np.testing.assert_allclose(values, golden[f"output {name}"], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(values, alone[name])

    written = tmp_path / "outputs.npz"
    told = command("predict", bundle, photographs, "--output", written, "--json").json["images"]
    assert len(told) == 16
    assert told[0]["outputs"]["boxes"]["shape"] == [4, 64]
    kept = arrays_of(written)
    assert {name: values.shape for name, values in kept.items()} == {"boxes": (16, 4, 64), "scores": (16, 5)}
    assert told[3]["outputs"]["scores"]["max"] == kept["scores"][3].max()
    first = min(photographs.rglob("*.png"))
    words = command("predict", bundle, first).out.strip()
    assert words.startswith(f"{first}: boxes [4, 64] ")
    assert _told_alone(network, monkeypatch, first, "--output", tmp_path / "alone.npz") == words
    assert json.loads(_told_alone(network, monkeypatch, first, "--json"))["outputs"] == told[0]["outputs"]
    np.testing.assert_array_equal(arrays_of(tmp_path / "alone.npz")["boxes"][0], kept["boxes"][0])


def _told_alone(network: predict.Classifier, patch: pytest.MonkeyPatch, *words: object) -> str:
    """Return what the program of a bundle says."""
    patch.setattr(predict, "Classifier", lambda: network)
    patch.setattr(sys, "argv", ["predict.py", *map(str, words)])
    with contextlib.redirect_stdout(io.StringIO()) as told:
        predict.main()
    return told.getvalue().strip()


def test_a_bundle_that_computes_otherwise_than_the_run_breaks_the_proof(
    ran: tuple[Report, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = prove.scored
    monkeypatch.setattr(prove, "scored", lambda *given, **more: 1.01 * honest(*given, **more))
    with pytest.raises(GateError, match="of output boxes, as the run found"):
        ship_row(ran[1], tmp_path / "bundle", row="dense fp32 onnxruntime-cpu b1")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_ruins_quiet_channels_breaks_the_proof_whichever_were_the_worst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random, outputs = np.random.default_rng(0), [Output(name="head", shape=(3, 64))]
    scales, images = np.array([[900], [30], [1]]), np.zeros((8, 3, 2, 2), np.uint8)
    reference, noise = random.uniform(0, 1, (8, 3, 64)) * scales, random.normal(0, 1e-3, (8, 3, 64))

    def flat(values: NDArray[np.float64]) -> NDArray[np.float32]:
        return values.reshape(8, -1).astype(np.float32)

    def proven(of_run: NDArray[np.float64], of_bundle: NDArray[np.float64], **changes: Any) -> None:
        run = fidelity(flat(reference + of_run), flat(reference), outputs)
        run = replace(run, outputs=tuple(replace(one, **changes) for one in run.outputs))
        monkeypatch.setattr(prove, "scored", lambda *_, **__: flat(reference + of_bundle))
        prove.prove_outputs(tmp_path, images, batch=1, reference=flat(reference), noted=run, outputs=outputs)

    proven(noise, noise)
    first = noise * np.array([[0], [30], [1]])
    with pytest.raises(GateError, match="channels 2 of head, as the run found"):
        proven(noise, 100 * noise)  # 0.0002 of all channels together
    with pytest.raises(GateError, match="channels 2 of head, as the run found"):
        proven(4 * first, first * np.array([[0], [1], [100]]))  # the worst of the run were channels 1
    with pytest.raises(GateError, match="noise of 0 of channels 2 of head"):
        proven(0 * noise, 100 * noise)
    proven(noise, 100 * noise, channels="", channels_snr_db=None)  # a run of before knew no channels


def test_what_counts_by_labels_refuses_images_without_any(detector: Path, photographs: Path, tmp_path: Path) -> None:
    from trtbench.studies.calibration_run import StudyConfig, study_calibration
    from trtbench.studies.int8_drop_run import explain_int8

    engines = "engines: [{backend: onnxruntime-cpu, precisions: [int8]}]"
    places = Places(runs=tmp_path / "runs", engines=tmp_path / "engines")
    makings = Makings(_suite(detector, photographs, engines), places)
    with pytest.raises(ConfigError, match="images with labels for what INT8 loses"):
        explain_int8(makings)
    with pytest.raises(ConfigError, match="images with labels for what a calibration set is worth"):
        study_calibration(makings, StudyConfig(per_class=(1,), seeds=1, methods=("minmax",)))


@pytest.mark.parametrize("name", ["resnet20, checkpoint: none.pth", "onnx"])
def test_evaluate_and_sensitivity_refuse_images_without_labels(
    name: str, detector: Path, photographs: Path, tmp_path: Path
) -> None:
    text = f"""
name: nets
data: {{source: 'images:{photographs}', size: {_SIDE}}}
model: {{name: {f"'onnx:{detector}'" if name == "onnx" else name}}}
variants: [{{kind: dense, name: dense}}]
"""
    places = Places(runs=tmp_path / "runs", engines=tmp_path / "engines")
    makings = Makings(parse_suite(text, origin="nets.yaml"), places)
    with pytest.raises(ConfigError, match=r"images with labels for accuracy, got none"):
        accuracy(makings, None)
    with pytest.raises(ConfigError, match=r"images with labels for what each layer is worth, got none"):
        layers_alone(makings, tmp_path / "layers.csv", ratios=(0.5,))


def test_a_runtime_of_one_output_says_so(detector: Path, photographs: Path, tmp_path: Path) -> None:
    suite = _suite(detector, photographs, "engines: [{backend: fake, precisions: [fp32]}]")
    (built,) = build_suite(suite, Places(runs=tmp_path / "runs", engines=tmp_path / "engines"))
    assert built.status == "unsupported"
    assert "onnxruntime-cpu takes any outputs" in built.reason


def test_a_network_in_pytorch_needs_labels_and_the_message_says_what_goes(photographs: Path, tmp_path: Path) -> None:
    text = f"""
name: nets
data: {{source: 'images:{photographs}', size: {_SIDE}}}
model: {{name: resnet20, train: {{epochs: 1}}}}
variants: [{{kind: dense, name: dense}}]
"""
    with pytest.raises(ConfigError, match=r"onnx:network\.onnx of python -c .*build_model..resnet20"):
        build_suite(parse_suite(text, origin="nets.yaml"), Places(runs=tmp_path / "r", engines=tmp_path / "e"))


def test_a_detector_on_labelled_images_is_told_of_images_without(detector: Path, noise: object, tmp_path: Path) -> None:
    assert callable(noise)
    source = noise(train=4, test=2)
    suite = _suite(detector, source)
    labelled = suite.model_copy(update={"data": suite.data.model_copy(update={"source": f"folder:{source}"})})
    with pytest.raises(ConfigError, match="images:PATH"):
        build_suite(labelled, Places(runs=tmp_path / "r", engines=tmp_path / "e"))


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph that scores a picture for a user: two inputs, of which one is an index, and two outputs."""
    random = np.random.default_rng(2)
    weights = {
        "table": random.normal(0, 1, (7, 8)),
        "w": random.normal(0, 0.3, (8, 3, 3, 3)),
        "head": random.normal(0, 0.3, (8, 4)),
    }
    nodes = [
        helper.make_node("Conv", ["photo", "w"], ["wide"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["wide"], ["seen"]),
        helper.make_node("GlobalAveragePool", ["seen"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gather", ["table", "user"], ["taste"]),
        helper.make_node("Mul", ["features", "taste"], ["both"]),
        helper.make_node("MatMul", ["both", "head"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "ranker",
        [
            helper.make_tensor_value_info("photo", TensorProto.FLOAT, ["n", 3, "h", "w"]),
            helper.make_tensor_value_info("user", TensorProto.INT64, ["n"]),
        ],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("seen", TensorProto.FLOAT, ["n", 8, "h", "w"]),
        ],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    path = tmp_path_factory.mktemp("ranker") / "ranker.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("samples") / "samples.npz"
    np.savez(path, user=random.integers(0, 7, 20), photo=random.normal(0, 1, (20, 3, 8, 8)))
    return path


def _of_tensors(ranker: Path, samples: Path, more: str = "") -> Suite:
    text = f"""
name: ranker
data: {{source: 'npz:{samples}'}}
model: {{name: 'onnx:{ranker}'}}
variants: [{{kind: dense, name: dense}}]
engines: [{{backend: onnxruntime-cpu, precisions: [fp32, int8]}}]
bench: {{batch_sizes: [1, 4], duration: 0.01, warm_up: 0, block_ms: 2, processes: 1, scopes: [device, host-to-host]}}
decision: {{min_fidelity_db: 10, batch_size: 4}}
{more}
"""
    return parse_suite(text, origin="ranker.yaml")


@pytest.mark.usefixtures("in_short")
def test_a_network_of_two_inputs_goes_its_way_by_tensors(
    ranker: Path, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], Any]
) -> None:
    places = Places(runs=tmp_path / "runs", engines=tmp_path / "engines")
    report, run = run_suite(_of_tensors(ranker, samples), places, argv=(), now=datetime.now(UTC))
    assert [row.status for row in report.rows] == ["ok"] * 4
    fp32, int8 = (next(row for row in report.rows if row.precision == one) for one in ("fp32", "int8"))
    assert fp32.fidelity is not None
    assert int8.fidelity is not None
    assert [one.name for one in int8.fidelity.outputs] == ["scores", "seen"]
    assert int8.fidelity.images == 10
    assert fp32.fidelity.snr_db is None or fp32.fidelity.snr_db > 100
    assert int8.fidelity.snr_db is not None
    assert 20 < int8.fidelity.snr_db < 60

    with pytest.raises(CapabilityError, match="expected classes to count by, got a network that is no classifier"):
        ship_row(run, tmp_path / "served", triton=tmp_path / "python")  # before it is made or proven
    bundle = ship_row(run, tmp_path / "bundle", row="dense int8 onnxruntime-cpu b4").folder
    found = read_bundle(bundle)
    assert found.proof is not None
    assert found.proof.fidelity is not None
    assert found.proof.fidelity.snr_db == pytest.approx(int8.fidelity.snr_db, abs=0.05)
    assert "photo float32 (3, 8, 8), user int64 ()" in (bundle / "README.md").read_text(encoding="utf-8")
    golden = arrays_of(bundle / "golden.npz")
    given = {name: golden[f"input {name}"] for name in ("user", "photo")}
    monkeypatch.setitem(sys.modules, "runtime", onnxruntime)
    network = predict.Classifier(bundle)
    alone = network.outputs(given)
    with load(bundle) as predictor:
        ours = predictor.outputs(given)
        with pytest.raises(DataError, match="expected arrays photo float32"):
            predictor.outputs({"photo": given["photo"]})
    for name, values in ours.items():
        np.testing.assert_allclose(values, golden[f"output {name}"], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(values, alone[name])
    told = answer(f"predict {bundle} {samples} --output outputs.npz")
    assert told["outputs"]["seen"]["shape"] == [20, 8, 8, 8]
    by_itself = json.loads(_told_alone(network, monkeypatch, samples, "--json", "--output", tmp_path / "alone.npz"))
    assert by_itself["outputs"] == told["outputs"]
    np.testing.assert_array_equal(arrays_of(tmp_path / "alone.npz")["seen"], arrays_of(Path("outputs.npz"))["seen"])
    assert arrays_of(Path("outputs.npz"))["scores"].shape == (20, 4)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"photo": (20, 3, 8, 8)}, "expected inputs photo, user, got arrays photo"),
        ({"photo": (20, 3, 8, 8), "user": (20,)}, "input user: expected int64"),
        ({"photo": (20, 3, 8), "user": (20,)}, "input photo: expected float32"),
        ({"photo": (20, 3, 8, 8), "user": (19,)}, "as many samples along their first axis"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    arrays: dict[str, tuple[int, ...]], told: str, ranker: Path, tmp_path: Path
) -> None:
    kinds = {"user": np.int64 if "photo" in told else np.float32}
    given: dict[str, Any] = {name: np.zeros(shape, kinds.get(name, np.float32)) for name, shape in arrays.items()}
    np.savez(tmp_path / "samples.npz", **given)
    with pytest.raises((ConfigError, DataError), match=told):
        build_suite(_of_tensors(ranker, tmp_path / "samples.npz"), Places(runs=tmp_path / "r", engines=tmp_path / "e"))


def test_what_begins_with_pictures_refuses_tensors(ranker: Path, samples: Path, tmp_path: Path) -> None:
    text = f"""
name: ranker
data: {{source: 'npz:{samples}'}}
model: {{name: 'onnx:{ranker}'}}
variants: [{{kind: dense, name: dense}}]
engines: [{{backend: fake, precisions: [fp32]}}]
"""
    suite = parse_suite(text, origin="ranker.yaml")
    (built,) = build_suite(suite, Places(runs=tmp_path / "runs", engines=tmp_path / "engines"))
    assert built.status == "unsupported"
    assert "onnxruntime-cpu takes any inputs" in built.reason
    with pytest.raises(ConfigError, match="end-to-end, which begins with the bytes of pictures"):
        parse_suite(f"{text}bench: {{scopes: [device, end-to-end]}}", origin="ranker.yaml")
    with pytest.raises(ConfigError, match=r"size, mean, std with folder:PATH alone"):
        parse_suite(text.replace("'}\nmodel", "', size: 8, mean: [0, 0, 0], std: [1, 1, 1]}\nmodel"), origin="r.yaml")


def test_a_file_that_holds_no_tensors_is_refused(ranker: Path, tmp_path: Path) -> None:
    (tmp_path / "samples.npz").write_bytes(b"PK\x03\x04 of another kind")
    with pytest.raises(DataError, match=r"expected a \.npz of numbers, an array for each input"):
        build_suite(_of_tensors(ranker, tmp_path / "samples.npz"), Places(runs=tmp_path / "r", engines=tmp_path / "e"))
    np.savez(tmp_path / "samples.npz", photo=np.full((8, 3, 8, 8), np.nan), user=np.zeros(8, np.int64))
    with pytest.raises(DataError, match="photo: expected finite numbers, got NaN or infinity"):
        build_suite(_of_tensors(ranker, tmp_path / "samples.npz"), Places(runs=tmp_path / "r", engines=tmp_path / "e"))


@pytest.fixture
def metric(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, tuple[int, ...]], list[str]]]:
    """Code of a user, `metric:share`; what it was told is kept."""
    told: list[tuple[dict[str, tuple[int, ...]], list[str]]] = []
    module: Any = ModuleType("metric")

    def share(outputs: dict[str, np.ndarray], images: list[str]) -> np.ndarray:
        told.append(({name: values.shape for name, values in outputs.items()}, list(images)))
        found: np.ndarray = -np.abs(outputs["scores"]).mean(axis=1)
        return found

    module.share = share
    module.broken = lambda outputs, _: outputs["scores"]
    monkeypatch.setitem(sys.modules, "metric", module)
    return told


@pytest.mark.usefixtures("in_short")
def test_a_score_of_the_suites_own_decides_in_place_of_fidelity(
    detector: Path, photographs: Path, tmp_path: Path, metric: list[tuple[dict[str, tuple[int, ...]], list[str]]]
) -> None:
    more = "engines: [{backend: onnxruntime-cpu, precisions: [fp32, int8]}]\nscore: metric:share"
    suite = _suite(detector, photographs, f"{more}\ndecision: {{min_fidelity_db: 900, max_score_drop: 0.5}}")
    places = Places(runs=tmp_path / "runs", engines=tmp_path / "engines")
    report, folder = run_suite(suite, places, argv=(), now=datetime.now(UTC))
    shapes, paths = metric[0]
    assert shapes == {"boxes": (8, 4, 64), "scores": (8, 5)}
    assert len(paths) == 8
    assert all(Path(one).is_relative_to(photographs) and Path(one).is_file() for one in paths)
    found = {row.precision: row.fidelity.score for row in report.rows if row.fidelity is not None}
    fp32, int8 = found["fp32"], found["int8"]
    assert fp32 is not None
    assert int8 is not None
    assert abs(fp32.drop) < 1e-5 < abs(int8.drop)
    assert int8.mean == pytest.approx(fp32.mean - int8.drop, abs=1e-4)
    assert int8.drop < int8.drop_upper(engines=1) < int8.drop_upper(engines=2) <= int8.drop_upper(engines=1000)
    assert report.decision.winner is not None
    assert "score -" in report.decision.sentence
    assert "limit 0.500)" in report.decision.sentence
    assert any("bounds of the scores' drops of all 2 engines" in reason for reason in report.decision.reasons)
    assert read_report(folder).rows == report.rows
    assert "Score drop <=" in (folder / "report.md").read_text(encoding="utf-8")

    tight = recommend(report.rows, DecisionConfig(max_score_drop=0))
    assert tight.winner is None
    assert any("its score drops by" in reason for reason in tight.reasons)


def test_a_score_that_cannot_be_is_told(
    detector: Path, photographs: Path, tmp_path: Path, metric: list[tuple[dict[str, tuple[int, ...]], list[str]]]
) -> None:
    assert metric == []
    places = Places(runs=tmp_path / "runs", engines=tmp_path / "engines")
    engines = "engines: [{backend: onnxruntime-cpu, precisions: [fp32]}]"
    makings = Makings(_suite(detector, photographs, f"{engines}\nscore: metric:broken"), places)
    score = score_of(makings)
    assert score is not None
    with pytest.raises(ConfigError, match=r"a finite number for each of 8 images, got shape \(8, 5\)"):
        score(reference_logits(makings))
    makings = Makings(_suite(detector, photographs, f"{engines}\nscore: metric:none"), places)
    with pytest.raises(ConfigError, match="a callable of 'metric'"):
        score_of(makings)
    labelled = "name: l\nmodel: {name: resnet20, train: {epochs: 1}}\nvariants: [{kind: dense, name: d}]\nscore: a.b:c"
    with pytest.raises(ConfigError, match="score with images:PATH or npz:PATH"):
        parse_suite(labelled, origin="l.yaml")


_IN_PYTORCH = """
import torch


class Ranker(torch.nn.Module):
    def __init__(self, num_classes=4):
        super().__init__()
        self.conv, self.users = torch.nn.Conv2d(3, num_classes, 3, padding=1), torch.nn.Embedding(7, num_classes)

    def forward(self, photo, user):
        seen = torch.nn.functional.silu(self.conv(photo))
        return seen.mean((2, 3)) + self.users(user), seen


class Segmenter(Ranker):
    def forward(self, photo):
        return {"out": self.conv(photo)}
"""


@pytest.fixture
def in_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module of a network of two inputs and two outputs, and of one that gives a dict."""
    (tmp_path / "ranker_in_pytorch.py").write_text(_IN_PYTORCH, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return "ranker_in_pytorch"


def _line(message: str) -> str:
    """Return the code of the line that a refusal names as its cure."""
    return re.search(r'python -c "(.*)"$', message)[1]  # type: ignore[index]  # it is there


def test_a_network_in_pytorch_that_is_no_classifier_is_refused_before_it_trains_with_the_line_that_exports_it(
    in_pytorch: str, tmp_path: Path
) -> None:
    model = f"model: {{name: '{in_pytorch}:Segmenter', train: {{epochs: 1}}}}"
    text = f"name: s\ndata: {{source: digits, size: 8}}\n{model}\nvariants: [{{kind: dense, name: dense}}]\n"
    with pytest.raises(ConfigError, match=r"expected one tensor of logits, \(1, 10\), got dict") as refused:
        outlook(parse_suite(text, origin="s.yaml"), Places(runs=tmp_path / "runs"))
    assert "m = Segmenter(num_classes=10); torch.onnx.export(m.eval(), (torch.zeros(2, 3, 8, 8),)," in _line(
        str(refused.value)
    )


@pytest.mark.slow  # the exporter takes its time
@pytest.mark.filterwarnings("ignore:.*axis name")
def test_the_line_that_a_refusal_names_exports_a_network_of_several_inputs(
    in_pytorch: str, samples: Path, tmp_path: Path
) -> None:
    places = Places(runs=tmp_path / "runs", engines=tmp_path / "engines")
    suite = _of_tensors(Path("x.onnx"), samples)
    named = suite.model.model_copy(update={"name": f"{in_pytorch}:Ranker"})
    with pytest.raises(ConfigError, match="with labels for a network in PyTorch") as refused:
        build_suite(suite.model_copy(update={"model": named}), places)
    exec(_line(str(refused.value)), {})  # noqa: S102  what a user would paste
    built = build_suite(_of_tensors(tmp_path / "network.onnx", samples), places)
    assert [one.status for one in built] == ["ok", "ok"]
    assert built[1].sidecar is not None
    assert built[1].sidecar.achieved == "int8 in 1 of 1 convolutions"
