"""The store makes an artefact once, verifies it when it is reused, and leaves it whole or absent."""

from __future__ import annotations

import errno
import json
import os
import time
from typing import TYPE_CHECKING

import pytest
from short_cuts import making_once

from trtbench.disk import file_sha256, storing, write_atomically
from trtbench.errors import StoreError
from trtbench.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from trtbench.store import Artefact

_CONTENT = ("weights.bin",)


class _Maker:
    """Writes one content file and one log; counts its calls."""

    def __init__(self, data: bytes = b"weights") -> None:
        self.calls = 0
        self._data = data

    def __call__(self, folder: Path) -> Mapping[str, Any]:
        self.calls += 1
        (folder / "weights.bin").write_bytes(self._data)
        (folder / "log.txt").write_text(f"call {self.calls} at {time.time()}")
        return {"size": len(self._data)}


def test_an_artefact_is_made_once_and_then_found(tmp_path: Path) -> None:
    store, maker = Store(tmp_path), _Maker()

    first = store.make("dense", {"seed": 0}, maker, content=_CONTENT)
    second = store.make("dense", {"seed": 0}, maker, content=_CONTENT)

    assert (maker.calls, first.is_cached, second.is_cached) == (1, False, True)
    assert second.facts == {"size": 7}
    assert second.path("weights.bin").read_bytes() == b"weights"


def test_other_inputs_give_another_artefact(tmp_path: Path) -> None:
    store, maker = Store(tmp_path), _Maker()

    one = store.make("dense", {"seed": 0}, maker, content=_CONTENT)
    other = store.make("dense", {"seed": 1}, maker, content=_CONTENT)

    assert one.key != other.key
    assert maker.calls == 2


def test_the_sha256_covers_the_content_and_not_the_log(tmp_path: Path) -> None:
    one = Store(tmp_path / "a").make("dense", {}, _Maker(), content=_CONTENT)
    other = Store(tmp_path / "b").make("dense", {}, _Maker(), content=_CONTENT)
    different = Store(tmp_path / "c").make("dense", {}, _Maker(b"others"), content=_CONTENT)

    assert one.sha256 == other.sha256
    assert one.sha256 != different.sha256


@pytest.mark.parametrize("damage", ["truncate", "remove", "listing"])
def test_a_damaged_artefact_is_made_again_and_noted(tmp_path: Path, damage: str) -> None:
    store, maker = Store(tmp_path), _Maker()
    made = store.make("dense", {}, maker, content=_CONTENT)
    if damage == "truncate":
        made.path("weights.bin").write_bytes(b"weig")
    elif damage == "remove":
        made.path("weights.bin").unlink()
    else:
        made.path("artefact.json").write_text('{"kind": "den')

    assert store.find("dense", {}) is None
    again = store.make("dense", {}, maker, content=_CONTENT)

    assert maker.calls == 2
    assert again.path("weights.bin").read_bytes() == b"weights"
    assert [entry["event"] for entry in store.journal()] == ["made", "damaged", "made"]


def test_an_interrupted_maker_finds_what_it_left_behind(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def interrupted(folder: Path) -> Mapping[str, Any]:
        (folder / "epoch.pt").write_bytes(b"epoch 3")
        raise KeyboardInterrupt

    def resumed(folder: Path) -> Mapping[str, Any]:
        (folder / "weights.bin").write_bytes(b"after " + (folder / "epoch.pt").read_bytes())
        return {}

    with pytest.raises(KeyboardInterrupt):
        store.make("dense", {}, interrupted, content=_CONTENT)
    assert store.find("dense", {}) is None
    made = store.make("dense", {}, resumed, content=_CONTENT)

    assert made.path("weights.bin").read_bytes() == b"after epoch 3"


def test_what_changed_since_the_newest_artefact_of_a_label_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.make("ranges", {"graph": "a", "method": "entropy"}, _Maker(), content=_CONTENT, label="s/dense")

    changed = store.changed_inputs("ranges", {"graph": "b", "method": "entropy", "seed": 1}, label="s/dense")

    assert changed == ("graph", "seed")
    assert store.changed_inputs("ranges", {"graph": "b"}, label="s/other") == ()


def test_the_journal_passes_over_a_line_cut_short(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.make("dense", {}, _Maker(), content=_CONTENT)
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"event": "ma')

    assert [entry["event"] for entry in store.journal()] == ["made"]


def test_expected_seconds_are_the_median_of_what_was_made_before(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lines = [{"event": "made", "kind": "graph", "seconds": seconds} for seconds in (9.0, 1.0, 2.0)]
    lines += [{"event": "made", "kind": "graph", "seconds": 1.5, "label": "mine/dense"}]
    write_atomically(tmp_path / "journal.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

    assert store.expected_seconds("graph") == 2.0
    assert store.expected_seconds("graph", label="mine/dense") == 1.5
    assert store.expected_seconds("graph", label="mine/other") == 2.0
    assert store.expected_seconds("dense") is None


def test_prune_removes_what_was_last_used_long_ago_and_tells_the_bytes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old = store.make("dense", {"seed": 0}, _Maker(), content=_CONTENT)
    new = store.make("dense", {"seed": 1}, _Maker(), content=_CONTENT)
    size = old.size_bytes
    week_ago = time.time() - 7 * 86400
    os.utime(old.folder, (week_ago, week_ago))

    freed = store.prune(older_than_days=6)

    assert freed == size
    assert [found.key for found in store.artefacts()] == [new.key]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "report.json"

    write_atomically(path, "old")
    write_atomically(path, b"new")

    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_the_sha256_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")

    # FIPS 180-2, appendix B.1
    assert file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("code", "cure"), [(errno.ENOSPC, "trtbench store prune"), (errno.EACCES, "choose a folder that can be written")]
)
def test_a_refusal_to_write_becomes_an_error_with_the_cure(tmp_path: Path, code: int, cure: str) -> None:
    with pytest.raises(StoreError, match=cure), storing(tmp_path):
        raise OSError(code, os.strerror(code))


def test_a_file_where_a_folder_should_be_is_an_error_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")

    with pytest.raises(StoreError, match="cannot write"):
        Store(tmp_path / "runs").make("dense", {}, _Maker(), content=_CONTENT)


def test_listing_is_no_use_and_a_refused_touch_is_no_damage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = store.make("dense", {}, _Maker(), content=_CONTENT)
    os.utime(made.folder, (0, 0))

    assert len(list(store.artefacts())) == 1
    assert store.find("dense", {}) is not None
    size = made.size_bytes
    assert store.prune(older_than_days=1) == size
    assert not list(store.artefacts())


def test_prune_leaves_what_another_run_is_making(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def make_while_pruned(folder: Path) -> Mapping[str, Any]:
        (folder / "weights.bin").write_bytes(b"weights")
        Store(tmp_path).prune()
        assert (folder / "weights.bin").exists()
        return {}

    assert store.make("dense", {}, make_while_pruned, content=_CONTENT).path("weights.bin").exists()


def test_what_a_killed_write_left_is_not_published(tmp_path: Path) -> None:
    def maker(folder: Path) -> Mapping[str, Any]:
        (folder / ".epoch.pt.999.partial").write_bytes(b"half")
        return _Maker()(folder)

    made = Store(tmp_path).make("dense", {}, maker, content=_CONTENT)

    assert sorted(path.name for path in made.folder.iterdir()) == ["artefact.json", "log.txt", "weights.bin"]


def test_an_error_of_the_maker_is_its_own(tmp_path: Path) -> None:
    def maker(_: Path) -> Mapping[str, Any]:
        raise ConnectionError("no network")

    with pytest.raises(ConnectionError):
        Store(tmp_path).make("dense", {}, maker, content=_CONTENT)


def _held(root: Path, user: str, seed: int) -> tuple[Store, Artefact[Mapping[str, Any]]]:
    """Use an artefact as a run of a suite does, while the store it returns is there."""
    store = Store(root, user=user)
    store.hold("dense", store.key("dense", {"seed": seed}))
    return store, store.make("dense", {"seed": seed}, _Maker(), content=_CONTENT)


def test_prune_leaves_what_a_run_uses_even_where_everything_is_to_go(tmp_path: Path) -> None:
    running, made = _held(tmp_path, "tiny", 0)

    Store(tmp_path).prune(keep_last=False)
    assert made.path("weights.bin").exists()

    del running  # as when its process has ended
    Store(tmp_path).prune(keep_last=False)
    assert not made.folder.exists()


def test_prune_leaves_what_the_last_run_of_each_suite_used_and_what_is_to_be_kept(tmp_path: Path) -> None:
    before, other, reported, last = (
        _held(tmp_path, *run)[1] for run in (("tiny", 0), ("other", 1), ("tiny", 2), ("tiny", 3))
    )

    Store(tmp_path).prune(keep={f"dense/{reported.key}"})

    assert [one.folder.exists() for one in (before, other, reported, last)] == [False, True, True, True]


def test_prune_leaves_what_a_run_that_was_killed_had_made_so_far(tmp_path: Path) -> None:
    store = Store(tmp_path, user="tiny")
    key = store.key("dense", {})
    store.hold("dense", key)
    epoch = tmp_path / "dense" / f"{key}.partial" / "epoch.pt"
    write_atomically(epoch, "epoch 3")
    del store

    Store(tmp_path).prune()

    assert epoch.read_text() == "epoch 3"


def test_a_link_in_the_store_is_not_followed(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "store"
    write_atomically(outside / "kept" / "photo.jpg", "mine")
    store = Store(root)
    key = store.key("dense", {})
    root.mkdir()
    (root / "graph").symlink_to(outside)
    (root / "dense").mkdir()
    (root / "dense" / "other").symlink_to(outside)

    with pytest.raises(StoreError, match="expected a folder of the store"):
        store.make("graph", {}, _Maker(), content=_CONTENT)
    (root / "dense" / f"{key}.partial").symlink_to(outside)
    store.make("dense", {}, _Maker(), content=_CONTENT)
    store.prune()

    assert [path.name for path in outside.rglob("*")] == ["kept", "photo.jpg"]
    assert not list((root / "dense").iterdir())


def test_a_link_that_an_artefact_holds_is_neither_read_nor_written_through(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    partial = tmp_path / "store" / "dense" / f"{store.key('dense', {})}.partial"
    partial.mkdir(parents=True)
    (partial / "weights.bin").symlink_to(mine)

    made = store.make("dense", {}, _Maker(), content=_CONTENT)
    assert mine.read_bytes() == b"mine"

    made.path("weights.bin").rename(tmp_path / "elsewhere")
    made.path("weights.bin").symlink_to(tmp_path / "elsewhere")
    assert store.find("dense", {}) is None


def test_a_journal_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "journal.jsonl")
    reader = os.open(tmp_path / "journal.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(StoreError, match="a device, pipe or socket"):
            Store(tmp_path).note_made("graph", "key", seconds=1.0)
    finally:
        os.close(reader)


def test_the_short_cut_of_tests_makes_once_and_tells_each_store_that_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "make", making_once(tmp_path / "kept"))
    makers = []

    def maker(folder: Path) -> dict[str, int]:
        makers.append(folder)
        (folder / "data").write_bytes(b"12")
        return {"size": 2}

    first, second = (
        Store(tmp_path / name).make("toy", {"of": 1}, maker, content=("data",)) for name in ("first", "second")
    )
    first.path("data").write_bytes(b"damaged")
    again = Store(tmp_path / "first").make("toy", {"of": 1}, maker, content=("data",))
    Store(tmp_path / "first").make("toy", {"of": 2}, maker, content=("data",))

    assert len(makers) == 2
    for made in (first, second, again):
        assert (made.is_cached, made.facts, made.sha256) == (False, {"size": 2}, first.sha256)
    assert again.path("data").read_bytes() == second.path("data").read_bytes() == b"12"
