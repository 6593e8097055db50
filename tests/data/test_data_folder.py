from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from trtbench.data import decode, load_dataset
from trtbench.data.preprocess import measure_mean_std
from trtbench.errors import DataError
from trtbench.suite import DataConfig

if TYPE_CHECKING:
    from pathlib import Path

    from trtbench.records import Dataset

CLASSES = ("ant", "bee", "cat")


def colour(label: int, index: int, *, is_test: bool = False) -> tuple[int, int, int]:
    """A colour no other image has."""
    return (40 * label, 9 * index, (200 if is_test else 100) + index)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes of 10 training and 4 test images, 8 x 8, each of one colour."""
    for part, count in (("train", 10), ("test", 4)):
        for label, name in enumerate(CLASSES):
            folder = tmp_path / "insects" / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (8, 8), colour(label, index, is_test=part == "test")).save(folder / f"{index:02}.png")
    return tmp_path / "insects"


def load(root: Path, **settings: Any) -> Dataset:
    return load_dataset(DataConfig.model_validate({"source": f"folder:{root}", "size": 8, **settings}))


def test_every_image_keeps_its_class_and_its_place(root: Path) -> None:
    dataset = load(root, validation=0.2)
    assert dataset.classes == CLASSES
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [24, 6, 12]
    pool = np.concatenate([dataset.train.images, dataset.validation.images])[:, :, 0, 0].tolist()
    labels = np.concatenate([dataset.train.labels, dataset.validation.labels]).tolist()
    expected = [(*colour(label, index), label) for label in range(3) for index in range(10)]
    assert sorted((*pixel, label) for pixel, label in zip(pool, labels, strict=True)) == sorted(expected)
    assert dataset.test.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert dataset.test.images[5, :, 3, 3].tolist() == list(colour(1, 1, is_test=True))


def test_validation_is_stratified_and_its_seed_leaves_the_test_split_alone(root: Path) -> None:
    first, other = load(root, validation=0.2), load(root, validation=0.2, seed=1)
    assert np.bincount(first.validation.labels).tolist() == np.bincount(other.validation.labels).tolist() == [2, 2, 2]
    assert first.validation.sha256 != other.validation.sha256
    assert first.test.sha256 == other.test.sha256


def test_mean_and_deviation_are_measured_on_the_training_split(root: Path) -> None:
    dataset = load(root, mean=None, std=None, seed=0)
    paint_channel(root, "train")
    varied = load(root)
    assert (varied.preprocessing.mean, varied.preprocessing.std) == measure_mean_std(varied.train.images)
    assert varied.preprocessing != dataset.preprocessing


def paint_channel(root: Path, part: str) -> None:
    for path in (root / part).glob("*/*.png"):
        noise = np.random.default_rng(len(path.read_bytes())).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)


def test_the_name_carries_no_path_of_this_machine(root: Path) -> None:
    assert load(root).name == "folder:insects"


def test_other_sizes_and_modes_become_rgb_of_the_size_asked_for(root: Path) -> None:
    folder = root / "test" / "ant"
    Image.new("L", (30, 17), 77).save(folder / "00.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 128)).save(folder / "01.png")
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([9, 8, 7, *range(1, 250)])
    palette.save(folder / "02.png", transparency=b"\x00\x80")
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(folder / "03.jpg")
    (folder / "03.png").unlink()
    images = load(root).test.images
    assert images[:4, :, 4, 4].tolist() == [[77, 77, 77], [1, 2, 3], [9, 8, 7], [0, 0, 0]]


def test_resampling_averages_over_all_pixels(root: Path) -> None:
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(root / "test" / "ant" / "00.png")
    assert np.abs(load(root).test.images[0].astype(int) - 100).max() <= 30


def test_hidden_files_and_what_desktops_leave_behind_are_passed_over(root: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (root / "train" / "ant" / name).write_bytes(b"junk")
    (root / "train" / ".cache").mkdir()
    (root / "train" / "README.md").write_text("about these images")
    assert len(load(root, validation=0.2).train) == 24


def test_every_faulty_file_is_named_in_one_message(root: Path) -> None:
    whole = (root / "train" / "bee" / "03.png").read_bytes()
    (root / "train" / "bee" / "03.png").write_bytes(whole[:-30])
    (root / "test" / "cat" / "notes.png").write_text("not an image")
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(root / "test" / "ant" / "00.png")
    with pytest.raises(DataError) as caught:
        load(root)
    message = str(caught.value)
    assert message.startswith(f"3 of 43 files in {root}: expected 8-bit images that Pillow reads, got ")
    for fault in ("train/bee/03.png (", "test/cat/notes.png (not an image)"):
        assert fault in message
    assert "test/ant/00.png (more than 8 bits a channel, mode I;16)" in message
    assert message.endswith("; mend or remove them")


def test_images_are_what_torchvision_takes_for_some(root: Path) -> None:
    from torchvision.datasets import ImageFolder

    deeper = root / "train" / "ant" / "more" / "still"
    deeper.mkdir(parents=True)
    Image.new("RGB", (8, 8), (7, 7, 7)).save(deeper / "z.PNG", format="png")
    (root / "train" / "ant" / "again").symlink_to(root / "train" / "ant")
    (root / "train" / "bee" / "list.csv").write_text("no image")
    (root / "train" / "cat" / "scan.jp2").write_bytes(b"no image that torchvision knows")

    dataset = load(root)

    theirs = {os.path.realpath(path) for path, _ in ImageFolder(str(root / "train")).samples}
    assert len(dataset.train) + len(dataset.validation) == len(theirs) == 31
    assert [7, 7, 7] in np.concatenate([dataset.train.images, dataset.validation.images])[:, :, 0, 0].tolist()
    assert dataset.notes == (
        "passed over, as torchvision does, since their names are no images': train/bee/list.csv, train/cat/scan.jp2",
    )


def test_no_more_than_ten_faulty_files_are_named(root: Path) -> None:
    for path in sorted((root / "train").glob("*/*.png"))[:13]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"^13 of 42 files .* and 3 more; mend") as caught:
        load(root)
    assert str(caught.value).count("not an image") == 10


def test_a_missing_test_folder_is_told_with_the_layout(root: Path) -> None:
    (root / "test").rename(root / "held-out")
    with pytest.raises(
        DataError, match=r"expected PATH/train/CLASS/\* and PATH/test/CLASS/\*, got .*test: No such file"
    ):
        load(root)


def test_a_class_that_training_lacks_is_named(root: Path) -> None:
    (root / "test" / "cat").rename(root / "test" / "dog")
    with pytest.raises(DataError, match=r"expected the class folders of train, got 'dog' beside them; .* data.classes"):
        load(root)


def test_a_class_without_test_images_is_said(root: Path) -> None:
    shutil.rmtree(root / "test" / "cat")
    for path in (root / "test" / "bee").iterdir():
        path.unlink()
    dataset = load(root)
    assert dataset.test.labels.tolist() == [0] * 4
    assert dataset.notes == ("no images in test/ of bee, cat: nothing is known of these classes there",)


def test_without_test_images_those_of_validation_are_scored(root: Path) -> None:
    (root / "test").rename(root / "val")
    dataset = load(root, validation=0.2)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [24, 6, 12]
    assert dataset.notes == ("there is no test/: val/ is what is scored, and validation images are held out of train/",)


def test_a_folder_of_three_splits_holds_nothing_out(root: Path) -> None:
    shutil.copytree(root / "test", root / "valid")
    dataset = load(root)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [30, 12, 12]
    assert dataset.notes == ("valid/ is the validation split: data.validation holds nothing out of train/",)


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Eleven classes called by their numbers, two images each; the number is the green level."""
    for part in ("train", "test"):
        for number in range(11):
            folder = tmp_path / "numbered" / part / str(number)
            folder.mkdir(parents=True)
            for index in range(2):
                Image.new("RGB", (4, 4), (index, number, 7 + index)).save(folder / f"{index}.png")
    return tmp_path / "numbered"


def test_numbers_are_in_their_own_order_which_is_said(numbered: Path) -> None:
    dataset = load(numbered, size=4)
    assert dataset.classes == tuple(map(str, range(11)))
    assert dataset.test.labels.tolist() == dataset.test.images[:, 1, 0, 0].tolist()
    assert "the classes are numbers, in their order (0, 1, 2, ...): torchvision's ImageFolder has" in dataset.notes[0]
    assert "them as text (0, 1, 10, ...)" in dataset.notes[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "dog\nbee\n\nant\ncat\n"),
        ("classes.txt", "dog Canis\nbee Apis\nant, a worker\nant Formica\ncat Felis\n"),
        ("classes.json", '["dog", "bee", "ant", "cat"]'),
        ("classes.json", '{"dog": 0, "cat": 3, "bee": 1, "ant": 2}'),
        ("classes.json", '{"0": "dog", "3": "cat", "1": "bee", "2": "ant"}'),
        ("classes.json", '{"0": ["dog", "Canis"], "1": ["bee", "Apis"], "2": ["ant", ""], "3": ["cat", "Felis"]}'),
    ],
)
def test_a_file_names_all_classes_in_the_order_of_the_logits(root: Path, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    dataset = load(root, classes=tmp_path / name)
    assert [one.split()[0] for one in dataset.classes if one != "ant, a worker"] == ["dog", "bee", "ant", "cat"]
    words = dict(enumerate(one.split()[0] for one in dataset.classes))
    levels = dict(zip(CLASSES, (0, 40, 80), strict=True))
    for image, label in zip(dataset.test.images, dataset.test.labels.tolist(), strict=True):
        assert image[0, 0, 0] == levels[words[label]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "ant\nbee\nant\n", "'ant' twice"),
        ("a.txt", "", "0 names"),
        ("a.json", "{", "Expecting property name"),
        ("a.json", '{"0": "ant", "2": "bee"}', "got 1"),
        ("a.json", "7", "is not iterable"),
        ("a.json", "[" * 100_000, "60 deep"),
    ],
)
def test_a_file_of_classes_that_says_nothing_is_refused(
    root: Path, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"data.classes .*{name}: expected a name a line, or JSON.*{message}.*; list"):
        load(root, classes=tmp_path / name)


def test_a_folder_that_the_file_of_classes_lacks_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ant\nbee\n")
    with pytest.raises(
        DataError, match=r"the class folders of a.txt, got 'cat' beside them; .*add them to data.classes"
    ):
        load(root, classes=tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"gone.txt: .*, got No such file"):
        load(root, classes=tmp_path / "gone.txt")


def test_the_camera_s_rotation_is_said_and_done_where_it_is_asked_for(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    halves = np.zeros((8, 8, 3), np.uint8)
    halves[:4] = 200
    Image.fromarray(halves).save(root / "test" / "ant" / "00.png", exif=exif)
    plain, rotated = load(root), load(root, exif_rotation=True)
    assert plain.test.images[0, 0].tolist() == halves[:, :, 0].tolist()
    assert rotated.test.images[0, 0].tolist() == np.rot90(halves, -1)[:, :, 0].tolist()
    assert plain.notes[0].startswith("1 of 42 images ask by EXIF to be rotated, and are not")
    assert rotated.notes == ("1 of 42 images ask by EXIF to be rotated, and are",)


def test_a_rectangle_is_height_and_width(root: Path) -> None:
    dataset = load(root, size=[6, 10])
    assert dataset.train.images.shape[1:] == dataset.preprocessing.input_shape == (3, 6, 10)
    assert load(root, size=[8, 8]).preprocessing.fingerprint == load(root, size=8).preprocessing.fingerprint


def test_images_without_class_folders_are_told_the_layout(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / part / "0.png")
    with pytest.raises(DataError, match=r"class folders of .*train: expected at least 2, .* got 0; put the images"):
        load(tmp_path)


def test_an_empty_class_folder_is_named(root: Path) -> None:
    for path in (root / "train" / "bee").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"class folder .*bee: expected images, got none; add images"):
        load(root)


@pytest.fixture
def cached_root(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same images, where a set of this size is already cached."""
    monkeypatch.setattr(decode, "CACHE_FROM", 42)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return root


def copies(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "trtbench" / "data").iterdir())


def test_a_small_set_leaves_no_copy(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load(root)
    assert not (tmp_path / "cache").exists()


def test_a_large_set_is_decoded_once(cached_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(cached_root)
    assert len(copies(tmp_path)) == 1
    monkeypatch.delattr(decode, "_read_into")
    again = load(cached_root)
    assert again.sha256 == first.sha256


@pytest.mark.parametrize("change", ["content", "name", "size", "time"])
def test_a_changed_set_is_decoded_again(change: str, cached_root: Path, tmp_path: Path) -> None:
    first = load(cached_root)
    path = cached_root / "test" / "ant" / "00.png"
    if change == "content":
        Image.new("RGB", (8, 8), (200, 200, 200)).save(path)
    elif change == "name":
        path.rename(path.with_name("99.png"))
    elif change == "time":  # new content of the same length shows in nothing else
        os.utime(path, ns=(1, 1))
    second = load(cached_root, size=16 if change == "size" else 8)
    assert len(copies(tmp_path)) == 2
    assert (second.test.sha256 == first.test.sha256) == (change == "time")


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00", "other shape"])
def test_a_damaged_copy_is_made_again(damage: bytes | str, cached_root: Path, tmp_path: Path) -> None:
    first = load(cached_root)
    (copy,) = copies(tmp_path)
    if isinstance(damage, bytes):
        copy.write_bytes(damage)
    else:
        np.save(copy, np.zeros((42, 3, 8, 7), np.uint8))
    assert load(cached_root).sha256 == first.sha256
    assert np.load(copy).shape == (42, 3, 8, 8)


def test_a_cache_that_cannot_be_written_costs_time_only(cached_root: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(load(cached_root).test) == 12


@pytest.mark.shared
@pytest.mark.slow  # folders of a few files stand above
def test_6187_files_are_decoded_and_split(cifar10_lossless: Path) -> None:
    dataset = load_dataset(DataConfig(source=f"folder:{cifar10_lossless}"))
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [4653, 517, 1017]
    assert dataset.preprocessing.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.01)
    assert dataset.preprocessing.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.01)
