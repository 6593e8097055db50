from __future__ import annotations

import argparse
import os
import pickle
import struct
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from trtbench.errors import CheckpointError
from trtbench.models.files import read_content

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WEIGHTS = {"weight": torch.arange(6.0).reshape(2, 3)}


class Hostile:
    """Unpickling it would run a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return (os.system, (f"touch {self.marker}",))


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_content(path)
    assert caught.value.exit_code == 2
    assert caught.value.cure
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("is_zip", [True, False])
def test_both_formats_of_torch_are_read(tmp_path: Path, *, is_zip: bool) -> None:
    path = tmp_path / "weights.pt"
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=is_zip)
    content = read_content(path)
    assert torch.equal(content.value["weight"], WEIGHTS["weight"])
    assert content.is_ordered


def test_safetensors_are_known_by_their_bytes_and_have_no_order(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    safetensors.torch.save_file(WEIGHTS, path, metadata={"a": "b"})
    content = read_content(path)
    assert torch.equal(content.value["weight"], WEIGHTS["weight"])
    assert content.metadata == {"a": "b"}
    assert not content.is_ordered


def test_what_training_scripts_put_beside_the_weights_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    beside = {"args": argparse.Namespace(lr=0.1), "best": np.float64(93.5), "count": np.int64(3)}
    torch.save({"state_dict": WEIGHTS, **beside}, path)
    assert read_content(path).value["best"] == 93.5


def save_zip(value: Any, path: Path) -> None:
    torch.save(value, path)


def save_pickle(value: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))


@pytest.mark.parametrize("save", [save_zip, save_pickle])
def test_code_inside_a_checkpoint_never_runs(tmp_path: Path, save: Callable[[Any, Path], None]) -> None:
    path, marker = tmp_path / "weights.pt", tmp_path / "ran"
    save({"state_dict": WEIGHTS, "extra": Hostile(marker)}, path)
    assert "state_dict" in refused(path)
    assert not marker.exists()


def test_a_pickled_network_is_refused_with_its_class_and_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    torch.save(nn.Sequential(nn.Linear(2, 2)), path)
    message = refused(path)
    assert "torch.nn.modules.container.Sequential" in message
    assert "torch.save(model.state_dict(), path)" in message


def test_a_pickle_that_torch_did_not_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps({"a": 1}, protocol=4))
    assert "torch.save did not write" in refused(path)


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; users still have its files
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    assert "a TorchScript archive" in refused(path)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tmp_path: Path, *, is_zip: bool, kept: float) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.zeros(5000)}, path, _use_new_zipfile_serialization=is_zip)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    assert "download it again" in refused(path)


@pytest.mark.parametrize("kept", [60, 3000])
def test_a_safetensors_file_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(5000)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    assert "safetensors" in refused(path)


def test_a_header_of_garbage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", 5) + b"{abcd" + b"\x00" * 40)
    assert "damaged safetensors" in refused(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (b"epoch 3, loss 0.4\n", "a text file"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x89HDF\r\n\x1a\n" + b"\x00" * 8, "an HDF5 file"),
        (b"\x01\x02\x03", "bytes of no known kind"),
        (b"\x80\x02}q\x00.", "damaged or foreign bytes"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_its_kind(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(data)
    assert words in refused(path)


def test_an_onnx_file_is_named_as_a_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x08\x12\x07pytorch")
    assert "onnx:PATH" in refused(path)


def test_a_foreign_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "damaged or foreign bytes" in refused(path)


def test_an_archive_that_asks_for_a_version_of_the_future_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(WEIGHTS, path)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 89  # "version needed" of the first entry of the central directory
    path.write_bytes(data)
    assert "cut short or damaged" in refused(path)


def test_a_folder_and_an_absent_file_are_refused(tmp_path: Path) -> None:
    assert "a folder; name the file inside it" in refused(tmp_path)
    assert "No such file" in refused(tmp_path / "absent.pt")
    below_a_file = tmp_path / "file"
    below_a_file.touch()
    assert "Not a directory" in refused(below_a_file / "weights.pt")


def test_a_file_that_vanishes_or_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pt"
    torch.save(WEIGHTS, path)

    def deny(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(torch, "load", deny)
    assert "Permission denied; check the path" in refused(path)


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with path.open("wb") as file:
        file.truncate(4 * 10**9 + 1)  # a hole: no disk is used
    message = refused(path)
    assert "at most 4 GB" in message
    assert "leave the optimizer" in message


def test_an_archive_that_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x00" * 10**6)
    assert path.stat().st_size < 10**4
    with pytest.raises(CheckpointError, match=r"got 0\.001 GB"):
        read_content(path, max_bytes=10**5)
