"""Test images that stand in the other splits are told, with counts, and a manifest that holds one fails the build."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from trtbench.make.calibration import manifest
from trtbench.make.images import overlap_notes
from trtbench.make.makings import Makings, Places
from trtbench.running import run_suite
from trtbench.running.plan import build_suite
from trtbench.steps import step, training
from trtbench.studies.seeds import train_seeds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trtbench.suite import Suite

    Make = Callable[..., Suite]

_NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def leaky(suite: Make, images: Path, tmp_path: Path) -> Suite:
    """The tiny suite on images of which 12 of training stand in test too, 4 of them saved as JPEG."""
    root = tmp_path / "leaky"
    shutil.copytree(images, root)
    for number, source in enumerate(sorted((root / "train" / "star").iterdir())):
        copy = root / "test" / "star" / f"copy-{source.stem}"
        if number < 4:
            Image.open(source).save(copy.with_suffix(".jpg"), quality=75)
        else:
            shutil.copyfile(source, copy.with_suffix(".png"))
    text = suite("engines: [{backend: onnxruntime-cpu, precisions: [fp32, int8]}]")
    return text.model_copy(update={"data": text.data.model_copy(update={"source": f"folder:{root}"})})


def test_nothing_is_said_where_no_test_image_stands_elsewhere(suite: Make, places: Places) -> None:
    assert overlap_notes(Makings(suite(), places)) == ()


def test_the_counts_are_of_test_images_by_split_and_by_how_they_are_known(leaky: Suite, places: Places) -> None:
    makings = Makings(leaky, places)

    said = overlap_notes(makings)

    held = len(makings.dataset.validation)
    assert held == 9
    assert len(said) == 2
    counts = [[int(word) for word in note.replace("(", " ").split() if word.isdigit()] for note in said]
    assert all(total == 30 and found == exact + near for found, total, exact, near in counts)
    assert sum(found for found, *_ in counts) == 12  # every one, not only those that calibration would have drawn
    assert sum(near for *_, near in counts) == 4
    assert "in the training images too" in said[0]
    assert "in the validation images too" in said[1]


def test_the_report_and_training_tell_it(leaky: Suite, places: Places, tmp_path: Path) -> None:
    said = overlap_notes(Makings(leaky, places))
    bench = leaky.bench.model_copy(update={"baselines": (), "batch_sizes": (1,), "processes": 1})

    engines = [one.model_copy(update={"precisions": ("fp32",)}) for one in leaky.engines]
    asked = leaky.model_copy(update={"bench": bench, "engines": tuple(engines)})
    report, folder = run_suite(asked, places, argv=[], now=_NOW)

    assert set(said) <= set(report.notes)
    for name in ("report.md", "report.html"):
        assert said[0] in (folder / name).read_text()
    tuned = [one.model_copy(update={"fine_tune": True}) for one in leaky.variants]
    trained = step(leaky.model_copy(update={"variants": tuple(tuned)}), training, tmp_path / "out")
    assert set(said) <= set(trained.notes)
    assert set(said) <= set(
        train_seeds(leaky.model_copy(update={"variants": tuple(tuned)}), seeds=2, output=tmp_path).notes
    )


def test_a_committed_manifest_that_holds_a_test_image_fails_the_build(
    leaky: Suite, suite: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clean = manifest(Makings(suite(), Places(runs=tmp_path / "clean")))
    (tmp_path / "calib").mkdir()
    shutil.copyfile(clean.path("manifest.json"), tmp_path / "calib" / "tiny.json")

    built = build_suite(leaky, Places(runs=tmp_path / "runs", engines=tmp_path / "engines"))

    found = {one.plan.precision: (one.status, one.reason) for one in built if one.plan.role == "candidate"}
    assert found["fp32"] == ("ok", "")
    status, reason = found["int8"]
    assert status == "failed"
    assert "none that stands in validation or test" in reason
    assert "has the pixels of test[" in reason
