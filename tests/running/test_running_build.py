"""A build makes each artefact and engine once, says what it reuses and why it makes something again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from trtbench.disk import file_sha256, write_atomically
from trtbench.engines.sidecar import read_sidecar, sidecar_path
from trtbench.errors import CalibrationError, ConfigError, LeakError, StoreError, UnsupportedError
from trtbench.make.calibration import manifest
from trtbench.make.engines import build_engine, engine_path
from trtbench.make.graphs import float_graph, quantized_graph
from trtbench.make.makings import Makings
from trtbench.make.networks import dense, variant_network
from trtbench.running import Event, Places, build_suite, outlook, plan_engines, run_suite
from trtbench.running.again import find_engines
from trtbench.running.run import training_curves, write_origin
from trtbench.store import Store
from trtbench.suite import StrippedVariant, load_suite

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from trtbench.suite import Suite

    Make = Callable[..., Suite]

_BOTH = "[{kind: dense, name: dense}, {kind: channels, name: half, ratio: 0.5, round_to: 8, fine_tune: false}]"


def _states(told: list[Event], stage: str) -> list[str]:
    return [event.state for event in told if event.stage == stage and event.state in {"done", "cached", "failed"}]


def test_every_engine_of_the_plan_is_built_with_a_sidecar(suite: Make, places: Places) -> None:
    built = build_suite(suite(variants=_BOTH), places)

    assert [one.plan.name for one in built] == [
        "dense fp32 onnxruntime-cpu",
        "dense int8 onnxruntime-cpu",
        "dense fp32 eager",
        "half fp32 onnxruntime-cpu",
        "half int8 onnxruntime-cpu",
        "half fp32 eager",
    ]
    assert [one.reason for one in built] == [""] * 6
    for one in built:
        assert one.path is not None
        sidecar = read_sidecar(one.path)
        assert sidecar == one.sidecar
        assert sidecar.engine_sha256 == file_sha256(one.path)
        assert sidecar.engine_bytes == one.path.stat().st_size
        assert (sidecar.calibration_sha256 is None) == (sidecar.precision == "fp32")
    dense, half = built[0].sidecar, built[3].sidecar
    assert dense is not None
    assert half is not None
    assert dense.params is not None
    assert half.params is not None
    assert half.params < dense.params
    assert half.engine_bytes < dense.engine_bytes


def test_a_second_build_makes_nothing_again(suite: Make, places: Places) -> None:
    first = build_suite(suite(), places)
    told: list[Event] = []

    second = build_suite(suite(), places, tell=told.append)

    assert second == first
    assert not [event for event in told if event.state == "started" and event.stage != "data"]
    assert _states(told, "engine") == ["cached"] * len(first)


def test_another_method_makes_the_ranges_again_and_says_so(suite: Make, places: Places) -> None:
    build_suite(suite(), places)
    told: list[Event] = []
    text = suite()
    other = text.model_copy(update={"calibration": text.calibration.model_copy(update={"method": "percentile"})})

    build_suite(other, places, tell=told.append)

    notes = [event.detail for event in told if event.stage == "ranges" and event.state == "note"]
    assert notes == ["made again: method, percentile changed"]
    assert _states(told, "dense") == ["cached"]


def test_an_engine_that_was_damaged_is_built_again(suite: Make, places: Places) -> None:
    built = build_suite(suite(), places)
    path = built[0].path
    assert path is not None
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])

    again = build_suite(suite(), places)

    assert path.read_bytes() == whole
    assert again[0].sidecar is not None
    assert again[0].sidecar.engine_sha256 == file_sha256(path)


def test_a_full_disk_is_named_whatever_met_it_and_a_build_goes_on_afterwards(
    suite: Make, places: Places, files_of_at_most: Callable[[int], AbstractContextManager[None]]
) -> None:
    build_suite(suite(), places)
    whole = read_sidecar(engine_path(places, "tiny", plan_engines(suite())[0]))
    shutil.rmtree(places.engines)
    with (
        files_of_at_most(whole.engine_bytes // 2),
        pytest.raises(StoreError, match="File too large in "),
    ):
        build_suite(suite(), places)  # ONNX Runtime says INVALID_PROTOBUF
    shutil.rmtree(places.runs)
    with files_of_at_most(3000), pytest.raises(StoreError, match=r"File too large in|written in "):
        build_suite(suite(), places)

    assert not [path for place in (places.runs, places.engines) for path in place.rglob("*.partial") if path.is_file()]
    again = read_sidecar(engine_path(places, "tiny", build_suite(suite(), places)[0].plan))
    assert again.engine_sha256 == whole.engine_sha256


def test_two_builds_at_once_make_each_artefact_once_and_come_to_the_same(suite: Make, places: Places) -> None:
    if (other := os.fork()) == 0:
        built = build_suite(suite(), places)
        os._exit(0 if {one.status for one in built} == {"ok"} else 1)
    built = build_suite(suite(), places)
    assert os.waitpid(other, 0)[1] == 0

    made = [(entry["kind"], entry["key"]) for entry in Store(places.store).journal() if entry["event"] == "made"]
    assert len(made) == len(set(made)) > 0
    assert [one.sidecar for one in built] == [one.sidecar for one in build_suite(suite(), places)]


def test_an_engine_that_another_run_measures_is_not_replaced(suite: Make, places: Places) -> None:
    plan = plan_engines(suite())[0]
    other = suite().model_copy(update={"export": suite().export.model_copy(update={"opset": 19})})
    with Makings(suite(), places) as measuring:
        path, sidecar = build_engine(measuring, plan)

        with pytest.raises(StoreError, match=r"expected no other run that measures it.*give this suite another name"):
            build_engine(Makings(other, places), plan)
        assert file_sha256(path) == sidecar.engine_sha256
        assert build_engine(Makings(suite(), places), plan) == (path, sidecar)  # the same one is shared

    assert build_engine(Makings(other, places), plan)[1].key != sidecar.key


def test_an_engine_that_a_report_names_is_found_after_it_was_replaced(suite: Make, places: Places) -> None:
    plan = plan_engines(suite())[0]
    _, first = build_engine(Makings(suite(), places), plan)
    write_atomically(places.runs / "earlier" / "report.json", json.dumps({"engine_sha256": first.engine_sha256}))

    for opset in (19, 18):
        export = suite().export.model_copy(update={"opset": opset})
        build_engine(Makings(suite().model_copy(update={"export": export}), places), plan)

    kept = find_engines([places.engines])
    assert file_sha256(kept[first.engine_sha256]) == first.engine_sha256
    assert len(kept) == 2  # the one that is built now, and the one that is reported: nobody has seen the one between


def test_an_engine_that_cannot_be_built_does_not_stop_the_others(
    suite: Make, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trtbench.engines.pytorch import TorchBackend

    def refuse(*_: object) -> None:
        raise UnsupportedError("this device", cure="use another")

    monkeypatch.setattr(TorchBackend, "build", refuse)
    told: list[Event] = []

    built = build_suite(suite(), places, tell=told.append)

    assert [(one.plan.backend, one.status) for one in built] == [
        ("onnxruntime-cpu", "ok"),
        ("onnxruntime-cpu", "ok"),
        ("eager", "unsupported"),
    ]
    assert built[2].reason == "this device; use another"
    assert "failed" in _states(told, "engine")


def test_the_manifest_is_written_for_committing_and_then_verified(suite: Make, places: Places) -> None:
    build_suite(suite(), places)
    path = places.manifests / "tiny.json"
    before = path.read_bytes()
    told: list[Event] = []

    again = manifest(Makings(suite(), places, tell=told.append))

    assert path.read_bytes() == before == again.path("manifest.json").read_bytes()
    assert again.facts.images == 12


def test_no_manifest_is_written_where_the_user_names_no_folder(
    suite: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "calib").mkdir()
    monkeypatch.chdir(tmp_path)

    made = manifest(Makings(suite(), Places()))

    assert not list((tmp_path / "calib").iterdir())
    (tmp_path / "calib" / "tiny.json").write_bytes(made.path("manifest.json").read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(ConfigError, match="edited"):  # a committed one is read all the same
        _ = manifest(Makings(suite(), Places(runs=tmp_path / "other")))


def test_a_committed_manifest_of_another_size_is_sampled_again_and_said(suite: Make, places: Places) -> None:
    build_suite(suite(), places)
    told: list[Event] = []
    text = suite()
    other = text.model_copy(update={"calibration": text.calibration.model_copy(update={"per_class": 5})})

    makings = Makings(other, places, tell=told.append)
    made, _again = manifest(makings), manifest(makings)

    assert made.facts.images == 15
    assert sum("sampled again" in event.detail for event in told) == 1
    assert json.loads((places.manifests / "tiny.json").read_text())["histogram"] == [5, 5, 5]


def test_a_manifest_given_by_the_user_is_never_replaced(suite: Make, places: Places, tmp_path: Path) -> None:
    from trtbench.calibrate.manifest import load_manifest, save_manifest

    build_suite(suite(), places)
    given = tmp_path / "mine.json"
    found = load_manifest(places.manifests / "tiny.json")
    save_manifest(given, replace(found, classes=("a", "b", "c")))
    text = suite()
    other = text.model_copy(update={"calibration": text.calibration.model_copy(update={"manifest": given})})

    with pytest.raises(CalibrationError, match="classes"):
        _ = manifest(Makings(other, places))


def test_a_manifest_whose_images_stand_in_the_test_set_fails_the_build(
    suite: Make, places: Places, images: Path, tmp_path: Path
) -> None:
    import shutil

    leaky = tmp_path / "leaky"
    shutil.copytree(images, leaky)
    build_suite(suite(), places)
    for source in (leaky / "train" / "star").iterdir():
        shutil.copyfile(source, leaky / "test" / "star" / f"copy-{source.name}")
    text = suite()
    data = text.data.model_copy(update={"source": f"folder:{leaky}"})
    given = text.calibration.model_copy(update={"manifest": places.manifests / "tiny.json"})
    other = text.model_copy(update={"data": data, "calibration": given})

    with pytest.raises(LeakError):
        _ = manifest(Makings(other, places))


def test_fine_tuning_changes_the_weights_and_keeps_its_log(suite: Make, places: Places) -> None:
    makings = Makings(suite(variants="[{kind: dense, name: tuned, fine_tune: true}]"), places)

    tuned = variant_network(makings, makings.suite.variants[0])

    assert tuned.sha256 != dense(makings).sha256
    assert tuned.facts.fit is not None
    assert tuned.facts.fit.epochs == 1
    assert tuned.path("train.log").exists()
    assert training_curves(places.runs) == {}
    write_origin(places.runs, makings.suite, places, artefacts=makings.book.store.held)
    (epoch,) = training_curves(places.runs)["tuned"]
    assert (epoch.epoch, epoch.val_correct) == (1, tuned.facts.fit.val_correct)


def test_taylor_importance_gets_training_images(suite: Make, places: Places) -> None:
    variants = "[{kind: channels, name: t, ratio: 0.5, importance: taylor, round_to: 8, fine_tune: false}]"
    makings = Makings(suite(variants=variants), places)

    pruned = variant_network(makings, makings.suite.variants[0])

    assert pruned.facts.params < dense(makings).facts.params


def test_training_from_scratch_starts_from_the_seed(suite: Make, places: Places) -> None:
    text = suite()
    model = text.model.model_copy(update={"checkpoint": None, "train": text.fine_tune})
    makings = Makings(text.model_copy(update={"model": model}), places)

    made = dense(makings)

    assert made.facts.fit is not None
    assert made.facts.fit.epochs == 1
    assert made.path("model.safetensors").exists()


def test_a_missing_checkpoint_is_a_configuration_error(suite: Make, places: Places, tmp_path: Path) -> None:
    text = suite()
    model = text.model.model_copy(update={"checkpoint": tmp_path / "none.pt"})

    with pytest.raises(ConfigError, match=r"none\.pt"):
        build_suite(text.model_copy(update={"model": model}), places)


def test_a_network_given_as_onnx_is_built_without_its_source(suite: Make, places: Places) -> None:
    text = suite()
    graph = float_graph(Makings(text, places), text.variants[0]).path("model.onnx")
    model = text.model.model_copy(update={"name": f"onnx:{graph}", "checkpoint": None})
    given = text.model_copy(update={"model": model, "name": "given"})

    built = build_suite(given, places)

    assert [(one.plan.precision, one.status) for one in built] == [("fp32", "ok"), ("int8", "ok")]


def test_a_graph_that_came_quantized_is_built_as_it_is_and_never_called_fp32(suite: Make, places: Places) -> None:
    text = suite()
    graph = quantized_graph(Makings(text, places), text.variants[0]).path("model.onnx")
    model = text.model.model_copy(update={"name": f"onnx:{graph}", "checkpoint": None})

    variants = (*text.variants, StrippedVariant(kind="stripped", name="float"))
    given = text.model_copy(update={"model": model, "name": "given", "variants": variants})

    whole, ours, floats, again = build_suite(given, places)

    assert whole.sidecar is not None
    assert floats.sidecar is not None
    assert again.sidecar is not None
    assert floats.sidecar.achieved == "fp32"
    assert again.sidecar.achieved.startswith("int8 in ")
    assert any("Q/DQ pairs of others taken out" in note for note in again.sidecar.notes)
    assert whole.sidecar.achieved == "int8 (own Q/DQ)"
    assert "it has Q/DQ pairs of its own, which are built as they are" in whole.sidecar.notes
    assert ours.status == "unsupported"
    assert "with Q/DQ pairs of its own, with which fp32 builds it; add the variant {kind: stripped" in ours.reason


def test_a_network_given_as_onnx_cannot_be_pruned(suite: Make, places: Places) -> None:
    text = suite(variants=_BOTH)
    graph = float_graph(Makings(text, places), text.variants[0]).path("model.onnx")
    model = text.model.model_copy(update={"name": f"onnx:{graph}", "checkpoint": None})

    built = build_suite(text.model_copy(update={"model": model, "name": "given"}), places)

    statuses = {one.plan.variant.name: one.status for one in built}
    assert statuses == {"dense": "ok", "half": "unsupported"}


def test_a_missing_onnx_file_is_a_configuration_error(suite: Make, places: Places) -> None:
    text = suite()
    model = text.model.model_copy(update={"name": "onnx:/none.onnx", "checkpoint": None})

    with pytest.raises(ConfigError, match="an ONNX file"):
        build_suite(text.model_copy(update={"model": model}), places)


def test_the_outlook_names_what_is_still_to_make(suite: Make, places: Places) -> None:
    both, sizes = suite(batch_sizes=(1, 2)), (1, 2)
    before, by_auto = outlook(both, places), outlook(suite("calibration: {per_class: 4}", batch_sizes=sizes), places)
    assert not (places.store / "dense").exists()
    build_suite(both, places)
    after = outlook(both, places)

    assert len(before.rows) == len(after.rows) == 2 * len(plan_engines(both))
    assert before.rows[2].missing == ("dense", "graph", "manifest", "ranges", "qdq", "engine")
    assert by_auto.rows[2].missing == before.rows[2].missing  # with one more manifest, of what judges
    assert before.seconds is None
    assert before.disk_bytes > 0
    assert {row.missing for row in after.rows} == {()}
    assert after.seconds is None  # nothing was measured here yet
    assert after.disk_bytes == 0
    assert not [path for path in places.manifests.parent.rglob("*") if path.name.endswith(".partial")]


def test_the_time_ahead_is_what_making_and_measuring_took_here_before(suite: Make, places: Places) -> None:
    text = suite()
    build_suite(text, places)
    for name, other, rows, took in (("1", "tiny", 4, 8.0), ("2", "tiny", 2, 20.0), ("3", "another", 2, 900.0)):
        report = {"suite": {"name": other, "bench": {"duration": 1.0}}, "rows": [{}] * rows}
        (places.runs / name).mkdir()
        stages = {"score": took / 2, "time": took / 2, "dense": 500.0}
        (places.runs / name / "report.json").write_text(json.dumps({**report, "stages": stages}))
    (places.runs / "4").mkdir()
    (places.runs / "4" / "report.json").write_text("[")
    rows, duration = len(outlook(text, places).rows), text.bench.duration

    assert outlook(text, places).seconds == pytest.approx(rows * ((20.0 - 2 * 1.0) / 2 + duration))

    kinds = [entry["kind"] for entry in Store(places.store).journal() if entry["event"] == "made"]
    assert kinds.count("engine") == len(list(plan_engines(text)))


def test_a_plan_finds_that_the_network_does_not_take_the_images(suite: Make, places: Places) -> None:
    text = suite()
    data = text.data.model_copy(update={"size": 2})
    model = text.model.model_copy(update={"name": "torchvision:alexnet", "checkpoint": None, "train": text.fine_tune})
    small = text.model_copy(update={"data": data, "model": model})

    for ask in (outlook, build_suite):
        with pytest.raises(ConfigError, match=r"AlexNet with images of 3 x 2 x 2: expected a forward pass"):
            ask(small, places)


def test_where_all_is_kept_a_plan_imports_no_torch(images: Path, checkpoint: Path, tmp_path: Path) -> None:
    written = (
        f"name: tiny\ndata: {{source: 'folder:{images}', size: 16}}\n"
        f"model: {{name: 'tiny_nets:resnet8', checkpoint: '{checkpoint}'}}\nexport: {{exporter: torchscript}}\n"
        "variants: [{kind: dense, name: dense}, {kind: channels, name: half, ratio: 0.5, fine_tune: false}]\n"
        "calibration: {per_class: 2}\nengines: [{backend: onnxruntime-cpu}]\n"
    )
    (tmp_path / "tiny.yaml").write_text(written)
    text, places = load_suite(str(tmp_path / "tiny.yaml")), Places(runs=tmp_path / "runs", engines=tmp_path / "engines")
    outlook(text, places)
    build_suite(text, places)
    asked = (
        "import sys\nfrom trtbench.running import Places, outlook\nfrom trtbench.suite import load_suite\n"
        "print({row.missing for row in outlook(load_suite('tiny.yaml'), Places()).rows}, 'torch' in sys.modules)\n"
    )
    path = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))

    answer = subprocess.run(
        [sys.executable, "-c", asked],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )

    assert answer.stdout.strip() == "{()} False"


def test_the_outlook_of_a_graph_knows_its_size_and_passes_over_what_cannot_be_made(suite: Make, places: Places) -> None:
    text = suite(variants=_BOTH)
    graph = float_graph(Makings(text, places), text.variants[0]).path("model.onnx")
    model = text.model.model_copy(update={"name": f"onnx:{graph}", "checkpoint": None})

    ahead = outlook(text.model_copy(update={"model": model, "name": "given"}), places)

    missing = {row.name: row.missing for row in ahead.rows}
    assert missing["dense fp32 onnxruntime-cpu b1"] == ("graph", "engine")
    assert missing["half fp32 onnxruntime-cpu b1"] == ()
    assert ahead.disk_bytes % graph.stat().st_size == 0


def test_an_outlook_writes_nothing(suite: Make, places: Places) -> None:
    build_suite(suite(), places)
    (places.manifests / "tiny.json").unlink()

    outlook(suite(), places)

    assert not (places.manifests / "tiny.json").exists()


def test_a_network_that_cannot_be_made_is_tried_once_and_fails_every_engine_of_it(suite: Make, places: Places) -> None:
    told: list[Event] = []
    text = suite(variants="[{kind: dense, name: dense}, {kind: dense, name: wild, fine_tune: true}]")
    wild = text.fine_tune.model_copy(update={"lr": 1e30, "schedule": "constant"})

    built = build_suite(text.model_copy(update={"fine_tune": wild}), places, tell=told.append)

    statuses = {(one.plan.variant.name, one.status) for one in built}
    assert statuses == {("dense", "ok"), ("wild", "failed")}
    assert [event.item for event in told if event.stage == "variant" and event.state == "started"] == ["wild"]
    assert all("diverged" in one.reason for one in built if one.status == "failed")


def test_the_sidecar_is_written_after_its_engine(suite: Make, places: Places) -> None:
    built = build_suite(suite(), places)
    path = built[0].path
    assert path is not None
    sidecar_path(path).unlink()

    again = build_suite(suite(), places)

    assert again[0].status == "ok"
    assert sidecar_path(path).exists()


@pytest.mark.slow
@pytest.mark.whole
def test_a_plan_tells_within_a_factor_of_one_and_a_half_what_a_run_takes(suite: Make, places: Places) -> None:
    bench = "bench: {batch_sizes: [1, 2], duration: 2.0, warm_up: 0, processes: 2, budget_s: 1}"
    variants = _BOTH.replace(", fine_tune: false", "")
    budgets = (f"fine_tune: {{epochs: 20, batch_size: 9, seed: {seed}}}" for seed in (0, 1))
    first, second = (suite(f"{bench}\n{budget}", variants=variants) for budget in budgets)
    now = datetime(2026, 1, 2, tzinfo=UTC)
    run_suite(first, places, argv=[], now=now)

    told = outlook(second, places).seconds

    begun = time.monotonic()
    run_suite(second, places, argv=[], now=now)
    assert told is not None
    assert 1 / 1.5 < told / (time.monotonic() - begun) < 1.5
