"""A test split remembers who looked at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trtbench.running.run import LOOKS, remember_look

if TYPE_CHECKING:
    from pathlib import Path


def test_a_look_at_a_new_engine_is_counted_and_all_engines_are(tmp_path: Path) -> None:
    assert remember_look(tmp_path, "split", {"a", "b"}) == (1, 2)
    assert remember_look(tmp_path, "split", {"b", "c"}) == (2, 3)


def test_the_same_engines_again_are_no_new_look_and_another_split_begins_anew(tmp_path: Path) -> None:
    remember_look(tmp_path, "split", {"a", "b"})
    remember_look(tmp_path, "split", {"c"})

    assert remember_look(tmp_path, "split", {"a", "c"}) == (2, 3)
    assert remember_look(tmp_path, "other", {"a"}) == (1, 1)


@pytest.mark.parametrize("text", ["no json", "[]"])
def test_a_file_that_cannot_be_read_is_begun_anew(text: str, tmp_path: Path) -> None:
    (tmp_path / LOOKS).write_text(text, encoding="utf-8")

    assert remember_look(tmp_path, "split", {"a"}) == (1, 1)
    assert remember_look(tmp_path, "split", {"b"}) == (2, 2)


def test_a_look_that_cannot_be_written_down_is_counted(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")

    assert remember_look(tmp_path / "runs", "split", {"a"}) == (1, 1)
