from __future__ import annotations

import hashlib
import pickle
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trtbench.data import load_dataset
from trtbench.errors import CapabilityError, ConfigError, DataError
from trtbench.suite import DataConfig

if TYPE_CHECKING:
    from pathlib import Path

datasets = pytest.importorskip("torchvision.datasets")

PER_FILE = 40  # images of each batch file


class OldPixels:
    """Warns when it is unpickled, as NumPy 2.4.0 to 2.4.4 do on the published archives."""

    def __reduce__(self) -> tuple[Any, ...]:
        message = "dtype(): align should be passed as Python or NumPy boolean but got `align=0`."
        return warnings.warn, (message, np.exceptions.VisibleDeprecationWarning)


def pickled(entry: dict[str, Any]) -> bytes:
    return pickle.dumps({**entry, "age": OldPixels()}, protocol=2)


def batch(seed: int, *, labels_key: str, num_classes: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (PER_FILE, 3072), dtype=np.uint8)
    return pickled({"data": pixels, labels_key: [index % num_classes for index in range(PER_FILE)]})


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def write_archive(root: Path, dataset: Any, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the files of a small archive, and give torchvision their MD5 in place of the published ones."""
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for listing in ("train_list", "test_list"):
        names = [name for name, _ in getattr(dataset, listing)]
        monkeypatch.setattr(dataset, listing, [[name, md5(files[name])] for name in names])
    monkeypatch.setitem(dataset.meta, "md5", md5(files[dataset.meta["filename"]]))


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    files = {name: batch(seed, labels_key="labels", num_classes=10) for seed, name in enumerate(names)}
    files["batches.meta"] = pickled({"label_names": list("abcdefghij")})
    write_archive(tmp_path, datasets.CIFAR10, files, monkeypatch)
    return tmp_path


@pytest.fixture
def cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {name: batch(seed, labels_key="fine_labels", num_classes=4) for seed, name in enumerate(("train", "test"))}
    files["meta"] = pickled({"fine_label_names": ["ape", "bat", "cow", "doe"]})
    write_archive(tmp_path, datasets.CIFAR100, files, monkeypatch)
    return tmp_path


def test_cifar10_is_its_test_batch_and_the_split_of_its_training_batches(cifar10: Path) -> None:
    dataset = load_dataset(DataConfig(source=f"cifar10:{cifar10}", validation=0.1))
    assert dataset.name == "cifar10"
    assert dataset.classes == tuple("abcdefghij")
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [180, 20, 40]
    assert np.bincount(dataset.validation.labels).tolist() == [2] * 10
    pixels = np.random.default_rng(5).integers(0, 256, (PER_FILE, 3072), dtype=np.uint8)
    np.testing.assert_array_equal(dataset.test.images, pixels.reshape(-1, 3, 32, 32))
    assert dataset.test.images.flags.c_contiguous
    assert dataset.test.labels.tolist() == [index % 10 for index in range(PER_FILE)]
    assert dataset.preprocessing.mean == (0.4914, 0.4822, 0.4465)
    assert dataset.preprocessing.std == (0.2470, 0.2435, 0.2616)


def test_cifar100_has_its_own_classes_and_statistics(cifar100: Path) -> None:
    dataset = load_dataset(DataConfig(source=f"cifar100:{cifar100}"))
    assert dataset.classes == ("ape", "bat", "cow", "doe")
    assert dataset.preprocessing.mean == (0.5071, 0.4865, 0.4409)
    assert dataset.preprocessing.std == (0.2673, 0.2564, 0.2762)


def test_the_default_root_follows_xdg(cifar10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache" / "trtbench"
    cache.mkdir(parents=True)
    (cache / "data").symlink_to(cifar10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert len(load_dataset(DataConfig(source="cifar10")).test) == PER_FILE


def test_an_absent_archive_is_told_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cifar10 in .*expected torchvision's archive.*; set data\.download: true"):
        load_dataset(DataConfig(source=f"cifar10:{tmp_path}"))


def test_a_damaged_archive_is_never_unpickled(cifar10: Path) -> None:
    batches = cifar10 / datasets.CIFAR10.base_folder
    (batches / "data_batch_3").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(DataError, match="the right MD5, got Dataset not found or corrupted"):
        load_dataset(DataConfig(source=f"cifar10:{cifar10}"))


def test_a_download_that_fails_names_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.CIFAR10, "url", (tmp_path / "absent.tar.gz").as_uri())
    with pytest.raises(DataError, match=r"got .*absent\.tar\.gz.*; check the network and the free space"):
        load_dataset(DataConfig(source=f"cifar10:{tmp_path}", download=True))


def test_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.size: expected 32 for cifar10, got 64; .*folder:PATH, which resizes"):
        load_dataset(DataConfig(source=f"cifar10:{tmp_path}", size=64))


def test_without_torchvision_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(CapabilityError, match="torchvision"):
        load_dataset(DataConfig(source=f"cifar10:{tmp_path}"))
