from __future__ import annotations

import dataclasses
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from trtbench.calibrate.leaks import Disjointness, Leak, check_leak, find_leaks, leaking_indices
from trtbench.calibrate.manifest import (
    CalibrationManifest,
    load_manifest,
    make_manifest,
    save_manifest,
    short_notes,
    verify_manifest,
)
from trtbench.data import load_dataset, pixel_sha256
from trtbench.errors import CalibrationError, ConfigError, DataError, LeakError, StoreError
from trtbench.jsonable import sha256_of
from trtbench.records import Dataset, Split
from trtbench.suite import DataConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from trtbench.calibrate.leaks import SplitName


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset(DataConfig())


@pytest.fixture(scope="module")
def manifest(dataset: Dataset) -> CalibrationManifest:
    return make_manifest(dataset, per_class=5, seed=0)


def with_copy(
    dataset: Dataset, index: int, *, split: SplitName, at: int, alter: Callable[..., Any] | None = None
) -> Dataset:
    """Put training image `index`, altered or not, into `split` at `at`."""
    old = dataset.test if split == "test" else dataset.validation
    images = old.images.copy()
    images[at] = dataset.train.images[index] if alter is None else alter(dataset.train.images[index])
    new = Split(images=images, labels=old.labels)
    return dataclasses.replace(dataset, test=new) if split == "test" else dataclasses.replace(dataset, validation=new)


def jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "JPEG", quality=40)
    return np.asarray(Image.open(buffer)).transpose(2, 0, 1)


def test_a_manifest_describes_what_it_sampled(dataset: Dataset, manifest: CalibrationManifest) -> None:
    indices = list(manifest.indices)
    assert len(set(indices)) == 50
    assert manifest.histogram == (5,) * 10
    assert manifest.histogram == tuple(np.bincount(dataset.train.labels[indices]).tolist())
    assert [image.label for image in manifest.images] == dataset.train.labels[indices].tolist()
    assert tuple(image.pixel_sha256 for image in manifest.images) == pixel_sha256(dataset.train.images[indices])
    assert (manifest.dataset, manifest.classes, manifest.seed) == ("digits", tuple("0123456789"), 0)
    assert manifest.preprocessing == dataset.preprocessing.fingerprint
    assert manifest.train_sha256 == dataset.train.sha256
    assert manifest.validation_sha256 == dataset.validation.sha256
    assert manifest.test_sha256 == dataset.test.sha256
    assert manifest.disjointness == Disjointness(images=50, validation=180, test=900)
    assert manifest.excluded == ()


def test_total_and_seed_reach_the_sampler(dataset: Dataset, manifest: CalibrationManifest) -> None:
    other = make_manifest(dataset, total=23, seed=1)
    assert sorted(other.histogram) == [2] * 7 + [3] * 3
    assert make_manifest(dataset, per_class=5, seed=0) == manifest != make_manifest(dataset, per_class=5, seed=1)


def test_classes_taken_short_are_named_with_their_counts(dataset: Dataset, manifest: CalibrationManifest) -> None:
    rare = np.flatnonzero(dataset.train.labels == 3)[2:]
    kept = np.setdiff1d(np.arange(len(dataset.train)), rare)
    train = Split(images=dataset.train.images[kept], labels=dataset.train.labels[kept])
    long_tailed = dataclasses.replace(dataset, train=train)
    with pytest.raises(DataError, match="class 3 has 2 images, fewer than per_class = 5"):
        make_manifest(long_tailed, per_class=5, seed=0)
    short = make_manifest(long_tailed, per_class=5, seed=0, allow_short=True)
    assert short.histogram == (5, 5, 5, 2, 5, 5, 5, 5, 5, 5)
    note = "calibration: 1 of 10 classes gave fewer than {} images: 3 2"
    assert short_notes(short, per_class=5) == (note.format(5),)
    assert short_notes(short) == (note.format(4),)
    assert short_notes(manifest, per_class=5) == short_notes(manifest) == ()


def test_only_the_first_short_classes_are_named(manifest: CalibrationManifest) -> None:
    many = dataclasses.replace(manifest, classes=tuple(map(str, range(13))), histogram=(9,) + (1,) * 12)
    assert short_notes(many)[0].endswith("8 1, 9 1, 10 1 and 2 more")


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(("alter", "kind"), [(None, "exact"), (jpeg, "near")])
def test_an_overlap_fails_and_is_named(
    split: SplitName, alter: Any, kind: str, dataset: Dataset, manifest: CalibrationManifest
) -> None:
    index = manifest.indices[7]
    leaky = with_copy(dataset, index, split=split, at=33, alter=alter)
    relation = "has the pixels of" if kind == "exact" else "shows the same photo as"
    with pytest.raises(LeakError, match=rf"got train\[{index}\] {relation} {split}\[33\]; sample them again"):
        check_leak(leaky, manifest.indices)
    assert leaking_indices(leaky, manifest.indices).tolist() == [index]


def test_an_almost_flat_image_still_leaks_by_its_hash(dataset: Dataset) -> None:
    flat = np.zeros_like(dataset.train.images[:1])
    train = Split(images=np.concatenate([flat, dataset.train.images]), labels=np.append(0, dataset.train.labels))
    leaky = with_copy(dataclasses.replace(dataset, train=train), 0, split="test", at=2)
    assert find_leaks(leaky, [0, 1]) == (Leak(index=0, split="test", other=2, kind="exact"),)


def test_only_the_first_leaks_are_named(dataset: Dataset, manifest: CalibrationManifest) -> None:
    images = dataset.test.images.copy()
    images[:7] = dataset.train.images[list(manifest.indices[:7])]
    leaky = dataclasses.replace(dataset, test=Split(images=images, labels=dataset.test.labels))
    with pytest.raises(LeakError, match=r"got (train\[\d+\] has the pixels of test\[\d\](; )?){5} and 2 more;"):
        check_leak(leaky, manifest.indices)


def test_a_clean_set_returns_what_was_compared(dataset: Dataset, manifest: CalibrationManifest) -> None:
    assert check_leak(dataset, manifest.indices) == Disjointness(images=50, validation=180, test=900)


@pytest.mark.parametrize("stranger", [-1, 717])
def test_an_index_outside_the_training_split_is_refused(stranger: int, dataset: Dataset) -> None:
    with pytest.raises(DataError, match=rf"expected 0 to 716, of the training split, got {stranger};"):
        check_leak(dataset, [0, stranger])


@pytest.mark.parametrize("alter", [None, jpeg])
def test_sampling_passes_over_images_that_would_leak(
    alter: Any, dataset: Dataset, manifest: CalibrationManifest
) -> None:
    index = manifest.indices[7]
    leaky = with_copy(dataset, index, split="test", at=33, alter=alter)
    made = make_manifest(leaky, per_class=5, seed=0)
    assert set(manifest.indices) - set(made.indices) == {index}
    assert made.histogram == manifest.histogram
    assert made.excluded == (Leak(index=index, split="test", other=33, kind="near" if alter else "exact"),)
    check_leak(leaky, made.indices)


def test_a_substitute_is_checked_too(dataset: Dataset, manifest: CalibrationManifest) -> None:
    index = manifest.indices[7]
    leaky = with_copy(dataset, index, split="test", at=33)
    substitute = (set(make_manifest(leaky, per_class=5, seed=0).indices) - set(manifest.indices)).pop()
    leaky = with_copy(leaky, substitute, split="validation", at=1)
    made = make_manifest(leaky, per_class=5, seed=0)
    assert [leak.index for leak in made.excluded] == sorted([index, substitute])
    check_leak(leaky, made.indices)


def test_a_manifest_comes_back_from_disk_as_it_was(manifest: CalibrationManifest, tmp_path: Path) -> None:
    path = tmp_path / "new" / "digits.json"
    save_manifest(path, manifest)
    assert load_manifest(path) == manifest
    assert load_manifest(path).sha256 == manifest.sha256
    assert [entry.name for entry in path.parent.iterdir()] == ["digits.json"]


def test_a_manifest_with_excluded_images_comes_back_too(
    dataset: Dataset, manifest: CalibrationManifest, tmp_path: Path
) -> None:
    made = make_manifest(with_copy(dataset, manifest.indices[0], split="test", at=0), per_class=5, seed=0)
    save_manifest(tmp_path / "m.json", made)
    assert load_manifest(tmp_path / "m.json") == made


def test_equal_manifests_are_equal_bytes_with_one_image_a_line(manifest: CalibrationManifest, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_manifest(tmp_path / name, dataclasses.replace(manifest))
    text = (tmp_path / "a").read_text()
    assert text == (tmp_path / "b").read_text()
    assert sum('"pixel_sha256"' in line for line in text.splitlines()) == 50
    assert json.loads(text)["sha256"] == manifest.sha256


def test_any_other_field_gives_another_sha256(manifest: CalibrationManifest) -> None:
    others = [
        dataclasses.replace(manifest, seed=1),
        dataclasses.replace(manifest, images=manifest.images[::-1]),
        dataclasses.replace(manifest, test_sha256="0" * 64),
    ]
    assert len({manifest.sha256, *(other.sha256 for other in others)}) == 4


def test_a_place_that_cannot_be_written_is_named(manifest: CalibrationManifest, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*m\.json: got .*; choose a folder that can be written"):
        save_manifest(tmp_path / "file" / "m.json", manifest)


def resealed(fields: dict[str, Any]) -> str:
    """Write fields with the sha256 that fits them, as someone who knows how would."""
    return json.dumps({**fields, "sha256": sha256_of(fields)})


EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "version": (lambda fields: fields.update(schema_version=2), "schema_version: Input should be 1"),
    "string for a seed": (lambda fields: fields.update(seed="0"), "seed: Input should be a valid integer"),
    "float index": (lambda fields: fields["images"][0].update(index=1.0), "images.0.index: Input should be a valid"),
    "negative index": (lambda fields: fields["images"][0].update(index=-1), "images.0.index: Input should be greater"),
    "no hash": (lambda fields: fields["images"][0].update(pixel_sha256="beef"), "images.0.pixel_sha256: String should"),
    "missing key": (lambda fields: fields.pop("classes"), "classes: "),
    "unknown key": (lambda fields: fields.update(colour=1), "colour: Unexpected"),
    "unknown inner key": (lambda fields: fields["images"][0].update(colour=1), "images.0.colour: Unexpected"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_manifest_of_another_form_is_refused_by_field(
    edit: str, manifest: CalibrationManifest, tmp_path: Path
) -> None:
    path = tmp_path / "m.json"
    save_manifest(path, manifest)
    fields = json.loads(path.read_text())
    del fields["sha256"]
    change, message = EDITS[edit]
    change(fields)
    path.write_text(resealed(fields))
    with pytest.raises(ConfigError, match=rf"got {message}.*; make it again with `trtbench calibrate`"):
        load_manifest(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "no complete JSON"),
        (b"\xff\xfe", "no complete JSON"),
        (b"[]", "the whole file: "),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"manifest .*m\.json: expected a calibration manifest.*got {message}"):
        load_manifest(path)


def test_a_truncated_manifest_is_refused_at_every_length(manifest: CalibrationManifest, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    save_manifest(path, manifest)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 2, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ConfigError):
            load_manifest(path)


def test_an_edit_by_hand_is_noticed(manifest: CalibrationManifest, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    save_manifest(path, manifest)
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ConfigError, match="the file was edited; make it again"):
        load_manifest(path)


def test_a_manifest_fits_the_data_it_was_made_of(dataset: Dataset, manifest: CalibrationManifest) -> None:
    verify_manifest(manifest, dataset)


def test_changed_pixels_are_noticed(dataset: Dataset, manifest: CalibrationManifest) -> None:
    images = dataset.train.images.copy()
    images[manifest.indices[3], 0, 0, 0] ^= 1
    changed = dataclasses.replace(dataset, train=Split(images=images, labels=dataset.train.labels))
    with pytest.raises(
        CalibrationError, match=rf"expected train\[{manifest.indices[3]}\].*; use the data, size and seed"
    ):
        verify_manifest(manifest, changed)


def test_changed_labels_are_noticed(dataset: Dataset, manifest: CalibrationManifest) -> None:
    labels = (dataset.train.labels + 1) % 10
    changed = dataclasses.replace(dataset, train=Split(images=dataset.train.images, labels=labels))
    with pytest.raises(CalibrationError, match=r"of class \d with pixels .*, got class \d, pixels"):
        verify_manifest(manifest, changed)


def test_another_preprocessing_is_noticed(dataset: Dataset, manifest: CalibrationManifest) -> None:
    other = dataclasses.replace(dataset.preprocessing, std=(0.5, 0.5, 0.5))
    with pytest.raises(CalibrationError, match=r"preprocessing .*data\.mean, std or size differ"):
        verify_manifest(manifest, dataclasses.replace(dataset, preprocessing=other))


def test_other_classes_are_noticed(dataset: Dataset, manifest: CalibrationManifest) -> None:
    with pytest.raises(CalibrationError, match="expected classes "):
        verify_manifest(manifest, dataclasses.replace(dataset, classes=tuple("abcdefghij")))


def test_a_training_split_that_became_smaller_is_noticed(dataset: Dataset, manifest: CalibrationManifest) -> None:
    small = Split(images=dataset.train.images[:20], labels=dataset.train.labels[:20])
    with pytest.raises(CalibrationError, match=r"expected image train\[\d+\], got 20 training images"):
        verify_manifest(manifest, dataclasses.replace(dataset, train=small))


@pytest.mark.shared
def test_real_photos_that_cifar10_repeats_are_passed_over(cifar10_lossless: Path) -> None:
    photos = load_dataset(DataConfig(source=f"folder:{cifar10_lossless}"))
    made = make_manifest(photos, per_class=400, seed=0)
    assert 0 < len(made.excluded) <= 10
    assert made.histogram == (400,) * 10
    assert check_leak(photos, made.indices).images == 4000
    with pytest.raises(LeakError, match="shows the same photo as test"):
        check_leak(photos, [leak.index for leak in made.excluded])
