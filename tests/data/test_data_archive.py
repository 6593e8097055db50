"""An archive of images is unpacked once into the cache; a damaged or hostile one is refused."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from trtbench.data import folder as room
from trtbench.data import load_dataset
from trtbench.data.decode import data_cache
from trtbench.data.folder import is_archive, stem, unpacked
from trtbench.errors import DataError
from trtbench.suite import DataConfig

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for split in ("train", "test"):
        for shade, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8), (100 * shade, number, 0)).save(root / split / name / f"{number}.png")
    return root


@pytest.mark.parametrize(("kind", "suffix"), [("gztar", ".tar.gz"), ("xztar", ".tar.xz"), ("zip", ".zip")])
def test_an_archive_gives_the_dataset_of_its_folder(folder: Path, tmp_path: Path, kind: str, suffix: str) -> None:
    packed = shutil.make_archive(str(tmp_path / "pets"), kind, root_dir=folder.parent, base_dir="pets")
    half = (0.5, 0.5, 0.5)
    config = DataConfig(source=f"folder:{packed}", size=8, validation=0.25, mean=half, std=half)

    found = load_dataset(config)
    expected = load_dataset(config.model_copy(update={"source": f"folder:{folder}"}))

    assert packed.endswith(suffix)
    assert found.sha256 == expected.sha256
    assert found.name == expected.name == "folder:pets"


def test_it_is_unpacked_once_for_each_state_of_the_file(folder: Path, tmp_path: Path) -> None:
    packed = tmp_path / "pets.tar"
    with tarfile.open(packed, "w") as tar:
        tar.add(folder, ".")  # train/ at the top
    first = unpacked(packed)
    (first / "train" / "mark").touch()

    assert (unpacked(packed) / "train" / "mark").exists()
    with tarfile.open(packed, "a") as tar:
        tar.add(folder / "train" / "cat" / "0.png", "more.png")
    assert not (unpacked(packed) / "train" / "mark").exists()


@pytest.mark.parametrize("name", ["none.tar", "cut.tar.xz", "text.zip"])
def test_what_is_no_whole_archive_is_refused_with_the_cure(folder: Path, tmp_path: Path, name: str) -> None:
    if name == "cut.tar.xz":
        packed = shutil.make_archive(str(tmp_path / "cut"), "xztar", root_dir=folder)
        with open(packed, "r+b") as file:  # noqa: PTH123  truncated in place
            file.truncate(100)
    elif name == "text.zip":
        (tmp_path / name).write_text("no archive")

    with pytest.raises(DataError, match="fetch or pack it again"):
        unpacked(tmp_path / name)
    assert not [entry for entry in data_cache().glob("*") if not entry.name.startswith(".")]


@pytest.mark.parametrize(
    ("member", "kind"),
    [("../../escaped", tarfile.REGTYPE), ("train/link", tarfile.SYMTYPE), ("train/device", tarfile.CHRTYPE)],
)
def test_a_hostile_archive_is_refused(tmp_path: Path, member: str, kind: bytes) -> None:
    packed = tmp_path / "hostile.tar"
    with tarfile.open(packed, "w") as tar:
        info = tarfile.TarInfo(member)
        info.type = kind
        info.linkname = "/etc/passwd" if kind == tarfile.SYMTYPE else ""
        tar.addfile(info, io.BytesIO())

    with pytest.raises(DataError, match="links or names that leave it"):
        unpacked(packed)
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize(("limit", "words"), [(10, "above"), (10**30, "free in")])
def test_an_archive_too_large_is_refused_before_it_is_unpacked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, words: str
) -> None:
    packed = tmp_path / "pets.zip"
    with zipfile.ZipFile(packed, "w") as zipped:
        zipped.write(folder / "train" / "cat" / "0.png", "train/cat/0.png")
    monkeypatch.setattr(room, "_LARGEST_BYTES", limit)
    if words == "free in":
        usage = shutil._ntuple_diskusage(1, 1, 0)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with pytest.raises(DataError, match=words):
        unpacked(packed)


def test_only_names_of_archives_are_archives(tmp_path: Path) -> None:
    assert is_archive(tmp_path / "a.TAR.XZ")
    assert not is_archive(tmp_path / "a.png")
    assert [stem(tmp_path / name) for name in ("a.b.tar.gz", "c.zip", "d")] == ["a.b", "c", "d"]
