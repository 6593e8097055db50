"""What cannot be written is told with its place and cure, leaves nothing half, and nothing else is written over."""

from __future__ import annotations

import contextlib
import os
import runpy
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trtbench import disk
from trtbench.disk import locked, require_room, write_atomically
from trtbench.errors import CapabilityError, StoreError
from trtbench.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["/bin/umount", str(place)], check=True)


def test_a_full_disk_keeps_the_old_file_and_leaves_no_part_of_the_new_one(small_disk: Path) -> None:
    path = small_disk / "runs" / "report.json"
    write_atomically(path, "old")

    with pytest.raises(StoreError, match=rf"cannot write {path}: got No space left on device in {path.parent};.*prune"):
        write_atomically(path, bytes(1 << 20))

    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_read_only_is_told_with_its_path_and_cure(small_disk: Path) -> None:
    subprocess.run(["/bin/mount", "-o", "remount,ro", str(small_disk)], check=True)
    path, told = small_disk / "runs" / "report.json", "got Read-only file system; choose a folder that can be written"

    with pytest.raises(StoreError, match=f"cannot write {path}: {told}, with --out"):
        write_atomically(path, "report")
    with pytest.raises(StoreError, match=told):
        Store(small_disk).make("dense", {}, lambda _: {}, content=())


def test_a_maker_on_a_full_disk_leaves_what_it_goes_on_from_and_no_half_file(small_disk: Path) -> None:
    def maker(folder: Path) -> dict[str, Any]:
        write_atomically(folder / "epoch.pt", "epoch 3")
        with (folder / "images.npy").open("wb") as file:
            np.save(file, np.zeros(1 << 20))
        return {}

    store = Store(small_disk)

    with pytest.raises(
        StoreError,
        match=r"cannot write .*\.partial: got 1048576 requested and \d+ written in .*/images; free some space",
    ):
        store.make("images", {}, maker, content=("images.npy",))

    assert [path.name for path in small_disk.rglob("*.*") if path.is_file() and ".locks" not in path.parts] == [
        "epoch.pt"
    ]


def test_what_a_library_could_not_write_is_held_against_the_room_that_there_is(small_disk: Path) -> None:
    require_room(small_disk, 1 << 10)

    with pytest.raises(StoreError, match="No space left on device"):
        require_room(small_disk, 1 << 20)

    assert not list(small_disk.iterdir())


def test_a_limit_on_the_size_of_files_is_told_as_a_full_disk_is(
    tmp_path: Path, files_of_at_most: Callable[[int], AbstractContextManager[None]]
) -> None:
    with files_of_at_most(1000), pytest.raises(StoreError, match=r"File too large in .*trtbench store prune"):
        write_atomically(tmp_path / "report.json", bytes(2000))

    assert not list(tmp_path.iterdir())


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/null")


def _socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as bound:  # 108 bytes are the most of its path
        bound.bind(path.name)


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [_fifo, _device, _socket, _folder])
def test_what_is_no_file_is_not_written_over(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "report.md"
    make(path)
    before = path.lstat()

    with pytest.raises(StoreError, match=r"cannot write .*/report\.md: expected a file or nothing there, got a "):
        write_atomically(path, "report")

    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("has_unnamed", [True, False])
def test_a_file_has_the_rights_that_the_user_gives_new_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_unnamed: bool
) -> None:
    if not has_unnamed:

        def refuse(*_: object, **__: object) -> None:
            raise OSError("not on this file system")

        monkeypatch.setattr(os, "link", refuse)
    umask = os.umask(0o027)
    try:
        write_atomically(tmp_path / "report.json", "new")
    finally:
        os.umask(umask)

    assert (tmp_path / "report.json").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "report.json").read_text() == "new"


def test_a_lock_that_cannot_be_made_is_told_and_one_that_another_has_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(StoreError, match=r"cannot write .*/runs/\.lock"), locked(tmp_path / "runs" / ".lock"):
        pytest.fail("there is no such folder")

    with locked(tmp_path / ".lock"), pytest.raises(TimeoutError), locked(tmp_path / ".lock", blocking=False):
        pytest.fail("another has it")


def test_a_system_without_linuxs_calls_writes_whole_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS is: no files without a name, no way to ask for room."""
    for call in ("O_TMPFILE", "posix_fallocate"):
        monkeypatch.delattr(os, call)
    monkeypatch.setattr("tempfile._O_TMPFILE_WORKS", False)

    write_atomically(tmp_path / "new" / "file", "whole")
    require_room(tmp_path, 5)

    assert [one.read_text(encoding="utf-8") for one in (tmp_path / "new").iterdir()] == ["whole"]


def test_a_system_without_flock_is_told_so_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    monkeypatch.setattr(sys, "platform", "win32")

    with pytest.raises(CapabilityError, match=r"this system: expected flock\(2\), .* got win32; .* in WSL 2"):
        runpy.run_path(disk.__file__)
