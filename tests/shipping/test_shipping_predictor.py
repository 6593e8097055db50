"""A predictor answers as the engine was scored, for whatever holds an image."""

from __future__ import annotations

import io
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import trtbench
from tests.records import arrays_of
from trtbench.data.decode import decode
from trtbench.data.preprocess import normalise
from trtbench.engines.sidecar import read_sidecar, write_sidecar
from trtbench.environment.host import cpu_flags
from trtbench.errors import ConfigError, DataError, SidecarError
from trtbench.jsonable import to_jsonable
from trtbench.records import Preprocessing
from trtbench.report.disk import read_predictions
from trtbench.report.document import read_report
from trtbench.shipping import load, read_bundle
from trtbench.shipping.bundle import Proof
from trtbench.shipping.templates import onnxruntime as runtime_of_bundles
from trtbench.shipping.templates import predict as predict_of_bundles
from trtbench.shipping.templates import triton_preprocess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.command import Answer
    from trtbench.shipping import Predictor

ROW = "dense int8 onnxruntime-cpu b2"


@pytest.fixture
def predictor(shipped: Path) -> Iterator[Predictor]:
    with load(shipped) as found:
        yield found


def _tests(images: Path) -> list[Path]:
    return sorted((images / "test").rglob("*.png"))


def test_a_bundle_answers_as_its_row_was_scored(predictor: Predictor, images: Path, small_run: Path) -> None:
    noted = read_predictions(small_run, next(row for row in read_report(small_run).rows if row.name == ROW))

    found = predictor.predict(_tests(images), top=3)

    assert [one.label for one in found] == [predictor.classes[one] for one in noted]
    assert [one.top[0] for one in found] == [(one.label, one.probability) for one in found]
    assert all(sum(share for _, share in one.top) == pytest.approx(1) for one in found)
    assert all(one.probability == max(share for _, share in one.top) for one in found)


def test_paths_pillow_images_and_arrays_are_the_same_images(predictor: Predictor, images: Path) -> None:
    paths = _tests(images)[:3]
    arrays = np.stack([np.asarray(Image.open(path)) for path in paths])

    wanted = predictor.logits(paths)

    for given in (map(str, paths), [Image.open(path) for path in paths], arrays, [paths[0], arrays[1], arrays[2]]):
        np.testing.assert_array_equal(predictor.logits(given), wanted)
    np.testing.assert_array_equal(predictor.logits(paths[0]), wanted[:1])
    np.testing.assert_array_equal(predictor.logits(arrays[0]), wanted[:1])
    assert predictor.logits([]).shape == (0, 3)


@pytest.fixture
def alone(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> predict_of_bundles.Classifier:
    """The classifier of a bundle, with the bundle's own modules."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "runtime", runtime_of_bundles)
    monkeypatch.delitem(sys.modules, "pixels", raising=False)
    return predict_of_bundles.Classifier(shipped)


def test_golden_images_give_golden_logits_in_both_readers(
    predictor: Predictor, alone: predict_of_bundles.Classifier, shipped: Path
) -> None:
    golden = arrays_of(shipped / "golden.npz")
    pixels = golden["images"].transpose(0, 3, 1, 2)

    np.testing.assert_array_equal(predictor.logits(golden["images"]), golden["logits"])
    np.testing.assert_array_equal(normalise(pixels, predictor.preprocessing), golden["inputs"])
    np.testing.assert_array_equal(alone.inputs(pixels), golden["inputs"])
    np.testing.assert_array_equal(alone.logits(pixels), golden["logits"])


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_both_readers_decode_alike(
    predictor: Predictor, alone: predict_of_bundles.Classifier, tmp_path: Path, mode: str
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    path = tmp_path / "image.png"
    Image.fromarray(noise).convert(mode).save(path)

    np.testing.assert_array_equal(alone.decode(path), predictor.pixels(path)[0])


@pytest.mark.parametrize(
    "framing",
    [
        {"size": (12, 20), "crop_ratio": 0.8, "interpolation": "bicubic"},
        {"size": 16, "antialias": False},
        {"size": 9, "crop_ratio": 0.75, "exif_rotation": True},
    ],
)
def test_a_bundle_frames_pictures_as_training_and_scoring_do(
    predictor: Predictor, alone: predict_of_bundles.Classifier, tmp_path: Path, framing: dict[str, Any]
) -> None:
    fit = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3, **framing)
    path = tmp_path / "image.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    noise = np.random.default_rng(0).integers(0, 256, (40, 31, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, exif=exif)
    trained, _ = decode([path], root=tmp_path, framing=fit)
    predictor.preprocessing = fit
    alone.bundle["preprocessing"] = to_jsonable(fit)
    step = triton_preprocess.TritonPythonModel()
    step._fit, step._pixels = alone.bundle["preprocessing"], alone._pixels

    assert trained[0].shape == fit.input_shape
    np.testing.assert_array_equal(predictor.pixels(path), trained)
    np.testing.assert_array_equal(alone.decode(path), trained[0])
    np.testing.assert_array_equal(step.framed(path.read_bytes()).transpose(2, 0, 1), trained[0])


def test_both_readers_refuse_deep_images(
    predictor: Predictor, alone: predict_of_bundles.Classifier, tmp_path: Path
) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.zeros((16, 16), np.uint16)).save(path)

    with pytest.raises(DataError, match="more than 8 bits a channel"):
        predictor.predict(path)
    with Image.open(path) as deep, pytest.raises(DataError, match="more than 8 bits a channel"):
        predictor.predict(deep)
    with pytest.raises(SystemExit, match="8 bits a channel"):
        alone.decode(path)


def test_what_is_no_image_is_told(predictor: Predictor) -> None:
    with pytest.raises(DataError, match=r"got float32 \(16, 16, 3\)"):
        predictor.predict(np.zeros((16, 16, 3), np.float32))
    with pytest.raises(DataError, match=r"got uint8 \(3, 16, 16\)"):
        predictor.predict(np.zeros((3, 16, 16), np.uint8))


def test_calls_from_several_threads_take_turns(predictor: Predictor, images: Path) -> None:
    paths = _tests(images)
    wanted = predictor.predict(paths)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(predictor.predict, [paths] * 8))

    assert found == [wanted] * 8


def test_a_closed_predictor_says_so(shipped: Path, images: Path) -> None:
    predictor = load(shipped)
    predictor.close()
    predictor.close()

    with pytest.raises(ConfigError, match="expected an open one, got a closed one"):
        predictor.predict(_tests(images))


def test_an_engine_file_is_loaded_with_the_classes_of_its_sidecar(small_run: Path, images: Path) -> None:
    row = next(row for row in read_report(small_run).rows if row.name == ROW)
    assert row.engine_path is not None

    with trtbench.load(row.engine_path, batch=3) as predictor:
        assert (predictor.classes, predictor.batch) == (("circle", "square", "star"), 3)
        assert len(predictor.predict(_tests(images))) == 18
    with pytest.raises(ConfigError, match="a bundle or an engine file"):
        load("none such")


def test_a_bundle_for_another_machine_is_refused(bundle: Path) -> None:
    from dataclasses import replace

    from trtbench.jsonable import to_jsonable
    from trtbench.shipping.bundle import seal

    engine = bundle / "engine.onnx"
    write_sidecar(engine, replace(read_sidecar(engine), machine="another"))
    seal(bundle, to_jsonable(read_bundle_fields(bundle)))

    with pytest.raises(SidecarError, match=r"machine: expected .*, got another"):
        load(bundle)


def read_bundle_fields(folder: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((folder / "bundle.json").read_bytes())
    del fields["sha256"]
    return fields


def test_a_dynamic_engine_takes_the_batches_of_its_profile_only(shipped: Path) -> None:
    from dataclasses import replace

    found = read_bundle(shipped)

    assert [found.takes(size) for size in (1, 2, 3)] == [True, True, False]
    assert [replace(found, profile=(2, 4, 8)).takes(size) for size in (1, 2, 8, 9)] == [False, True, True, False]


@pytest.mark.parametrize(
    "line",
    ["flags : fpu avx2", "flags : fpu avx2 avx_vnni", "flags\t: avx512_vnni", "flags : amx_int8", "Features : asimddp"],
)
def test_a_bundle_knows_the_processors_that_trtbench_knows(tmp_path: Path, line: str) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor : 0\n{line}\n")
    ours = {"avx512_vnni", "avx_vnni", "amx_int8", "dotprod"} & set(cpu_flags(path.read_text()))

    assert runtime_of_bundles.has_int8_dot(path) == bool(ours)
    assert not runtime_of_bundles.has_int8_dot(tmp_path / "none")


def test_the_verb_names_what_is_on_a_folder_and_counts_what_is_right(
    shipped: Path, images: Path, command: Callable[..., Answer]
) -> None:
    told = command("predict", shipped, images / "test", "--json", "--top", 2)

    assert not told.code
    assert (told.json["correct"], told.json["total"]) == (read_bundle(shipped).correct, 18)
    assert [Path(one["image"]) for one in told.json["images"]] == _tests(images)
    assert all(len(one["top"]) == 2 for one in told.json["images"])
    assert told.json["images_per_s"] > 0
    one = command("predict", shipped, _tests(images)[0]).err
    assert re.search(r"^1 image in \d[\d.]* s, [01] right$", one, re.MULTILINE)


def test_the_verb_takes_patterns_and_lists_and_refuses_what_is_not_there(
    shipped: Path, images: Path, command: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(str, _tests(images)[:2]))))
    told = command("predict", shipped, images / "test" / "*" / "0.png", "-", "--quiet")
    assert len(told.out.splitlines()) == 5
    assert not told.err

    refused = command("predict", shipped, "none*such")
    assert refused.code == 2
    assert "images 'none*such'" in refused.err
    refused = command("predict", shipped, images / "test", "--output", "x.npz")
    assert "--output: expected a network that is no classifier" in refused.err


def test_the_verb_ship_writes_a_bundle_and_says_where(
    small_run: Path, tmp_path: Path, command: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = command("ship", small_run, "--row", ROW, "--output", tmp_path / "b", "--zip", "--json").json
    assert found["bundle"]["row"] == ROW
    assert Path(found["zip"]).is_file()

    bundle = read_bundle(tmp_path / "b")
    for proof, words in (
        (bundle.proof, f"proven: {bundle.correct} of 18 right, as the run counted"),
        (_UNPROVEN, "no GPU"),
    ):
        made = SimpleNamespace(folder=tmp_path / "b", zip=None, bundle=replace(bundle, proof=proof))
        monkeypatch.setattr("trtbench.shipping.ship_row", lambda *_, made=made, **__: made)
        told = command("ship", small_run, "--output", tmp_path / "b")
        assert told.out == f"{ROW}: {tmp_path / 'b'}, {words}\n"
        assert f"Run it: python {tmp_path / 'b' / 'predict.py'} IMAGE" in told.err


_UNPROVEN = Proof(why_not="no GPU")


def test_a_bundles_own_program_says_what_is_on_images(
    shipped: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "runtime", runtime_of_bundles)
    monkeypatch.setattr(sys, "path", [*sys.path])
    alone = predict_of_bundles.Classifier(shipped)
    monkeypatch.setattr(predict_of_bundles, "Classifier", lambda: alone)
    golden, star = arrays_of(shipped / "golden.npz"), str(images / "test" / "star" / "0.png")
    np.save(tmp_path / "pixels.npy", golden["images"].transpose(0, 3, 1, 2))

    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, words)])
        predict_of_bundles.main()
        return capsys.readouterr().out

    assert re.fullmatch(rf"{star}: star 0\.\d{{3}}, \w+ 0\.\d{{3}}\n", run(star, "--top", 2))
    told = json.loads(run(star, "--json"))
    assert (told["image"], told["top"][0]["class"]) == (star, "star")
    assert not run("--pixels", tmp_path / "pixels.npy", "--logits", tmp_path / "logits.npy", "--batch-size", 3)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), golden["logits"], rtol=1e-5, atol=1e-5)
